//! Where a committed offset of the source is on the target: behind as many restored records as there are below it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::super::batch::TimestampType;
use super::super::restore::window::{Times, Verdict};
use super::super::restore::{PartitionPlan, Take};

/// A committed offset of the source and what it is on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translation {
    /// What the group had committed.
    pub source_offset: i64,
    /// What it means on the target.
    pub target_offset: i64,
    /// How the offset lies to what is restored.
    pub position: Position,
}

/// How a committed offset lies to the records that are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// In front of the first restored record: the group begins with that one. What the source had between is not
    /// restored.
    Before,
    /// At a restored record, or where an object begins, which nobody has to read to know what is below.
    At,
    /// Between two restored records: the group goes on with the later one.
    Between,
    /// Behind the last restored record, within what the objects cover: the group has read everything.
    End,
    /// Behind what the objects cover: the group has read records that are not restored, and goes on at the end.
    PastEnd,
    /// Nothing of the partition is restored: the group goes on where it ends.
    Nothing,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before the first restored record",
            Self::At => "at a restored record",
            Self::Between => "between two restored records",
            Self::End => "behind the last restored record",
            Self::PastEnd => "past the end of what is restored",
            Self::Nothing => "nothing is restored",
        })
    }
}

/// Translates the committed offsets of one partition. It is led through the planned objects in their order: those that
/// [`must_be_read`] are read, each of their records is [offered](Translator::offer), and then they are
/// [ended](Translator::end); the others are [passed](Translator::pass). It holds one number for each committed offset,
/// whatever the number of records.
///
/// `target = base + number of restored records below the source offset`. With the restored source offsets 10, 11, 14 and
/// 20 (12 and 13 were compacted away, 15 to 19 and 21 belong to transactions or were not asked for), from objects that
/// cover 8 up to 22 (exclusive), and the base offset 100:
///
/// | committed | below it | on the target | position |
/// |---|---|---|---|
/// | 0: in front of the first object | 0 | 100 | [`Before`](Position::Before) |
/// | 9: in front of the first record | 0 | 100 | [`Before`](Position::Before) |
/// | 10: the first record | 0 | 100 | [`At`](Position::At) |
/// | 11: a record | 1 | 101 | [`At`](Position::At) |
/// | 12, 13: compacted away | 2 | 102 | [`Between`](Position::Between) |
/// | 14: the record behind the hole | 2 | 102 | [`At`](Position::At) |
/// | 15, 19: aborted, or not asked for | 3 | 103 | [`Between`](Position::Between) |
/// | 20: the last record | 3 | 103 | [`At`](Position::At) |
/// | 21, 22: behind the last record | 4 | 104 | [`End`](Position::End) |
/// | 23 and more: past the end | 4 | 104 | [`PastEnd`](Position::PastEnd) |
/// | anything, when nothing is restored | 0 | 100 | [`Nothing`](Position::Nothing) |
///
/// Where an object of the older layout is the last one, what the objects cover ends behind the last record.
#[derive(Debug, Clone)]
pub struct Translator {
    base: i64,
    times: Times,
    /// Committed offsets that no record has reached yet; the smallest is the last one.
    waiting: Vec<i64>,
    translated: BTreeMap<i64, Translation>,
    /// Restored records so far.
    records: u64,
    /// One more than the largest source offset so far: what overlapping objects repeat is not restored again.
    next: i64,
    /// Where what is covered so far ends.
    end: i64,
}

impl Translator {
    /// Of a partition, in front of its first object.
    pub fn new(plan: &PartitionPlan, committed: &BTreeSet<i64>) -> Self {
        Self {
            base: plan.base_offset,
            times: plan.times,
            waiting: committed.iter().rev().copied().collect(),
            translated: BTreeMap::new(),
            records: 0,
            next: i64::MIN,
            end: i64::MIN,
        }
    }

    /// Whether every offset is translated: what follows changes nothing and need not be read.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next record of the object that is read: its source offset, and its timestamp in milliseconds.
    pub fn offer(&mut self, take: &Take, offset: i64, timestamp: i64, kind: TimestampType) {
        if !take.takes(offset, self.next) {
            return;
        }
        self.next = offset + 1;
        if self.times.judge(timestamp, kind) == Verdict::Outside {
            return;
        }
        self.settle_up_to(offset);
        self.records += 1;
        self.end = self.end.max(self.next);
    }

    /// The object that was read ends.
    pub fn end(&mut self, take: &Take) {
        // Objects of the older layout do not say where they end.
        if take.until < i64::MAX {
            self.end = self.end.max(take.until);
        }
    }

    /// The next object is not read.
    pub fn pass(&mut self, take: &Take) {
        if take.records != Some(0) {
            self.settle_up_to(take.from);
        }
        self.records += take.records.unwrap_or(0);
        if take.until < i64::MAX {
            self.next = self.next.max(take.until);
        }
        self.end(take);
    }

    /// All translations, by committed offset.
    pub fn finish(mut self) -> BTreeMap<i64, Translation> {
        while let Some(committed) = self.waiting.pop() {
            let position = match self.records {
                0 => Position::Nothing,
                _ if committed <= self.end => Position::End,
                _ => Position::PastEnd,
            };
            self.settle(committed, position);
        }
        self.translated
    }

    /// The next restored record stands at `offset` or behind, and what was committed up to there is in front of it.
    fn settle_up_to(&mut self, offset: i64) {
        while let Some(committed) = self.waiting.pop_if(|committed| *committed <= offset) {
            let position = match self.records {
                _ if committed == offset => Position::At,
                0 => Position::Before,
                _ => Position::Between,
            };
            self.settle(committed, position);
        }
    }

    fn settle(&mut self, source_offset: i64, position: Position) {
        let target_offset = self.base.saturating_add_unsigned(self.records);
        self.translated.insert(source_offset, Translation { source_offset, target_offset, position });
    }
}

/// Whether the records of an object must be read to translate the offsets: one of them is inside; or one is behind its
/// beginning, and the object does not say how many of its records are restored.
pub fn must_be_read(take: &Take, committed: &BTreeSet<i64>) -> bool {
    // At the first offset of an object nothing of it is below.
    let Some(behind) = take.from.checked_add(1) else { return false };
    match take.records {
        Some(_) => behind < take.until && committed.range(behind..take.until).next().is_some(),
        None => committed.range(behind..).next().is_some(),
    }
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
