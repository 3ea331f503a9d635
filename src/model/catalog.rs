//! What a store holds, made of listings, object metadata and generation records: per topic the generations, per
//! generation the partitions, per partition the objects in the order of their numbers.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::chain::GenerationRecord;
use super::key::{self, ObjectKey};
use super::object::{Metadata, ObjectMeta};
use super::verify::Expiry;
use super::verify::aging::Aging;

/// What is known of the backup of some topics.
#[derive(Debug, Default, Clone)]
pub struct Catalog {
    /// By topic.
    pub topics: BTreeMap<String, TopicBackup>,
}

/// The backup of one topic.
#[derive(Debug, Default, Clone)]
pub struct TopicBackup {
    /// The generation records by number.
    pub records: BTreeMap<u32, GenerationRecord>,
    /// The objects, by branch and partition, in the order of [`sort`].
    pub branches: BTreeMap<Branch, BTreeMap<i32, Vec<StoredObject>>>,
    /// How far the lists of generations must reach, by generation and partition, where something outside of them says so.
    pub reaches: BTreeMap<(u32, i32), Known>,
    /// What is known of the age at which its objects go.
    pub aging: Aging,
}

/// What is known of the end of a list from outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Known {
    /// Where it ended, at least (exclusive).
    pub until: i64,
    /// When its last object was written, in milliseconds since 1970-01-01 UTC, where that is known.
    pub written_ms: Option<i64>,
}

/// A line of development of a topic's backup.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Branch {
    /// A generation of a normal topic.
    Generation(u32),
    /// An instance of a compacted topic.
    Instance(String),
}

impl Branch {
    /// The branch of a path component between topic and partition.
    pub fn of(folder: Option<&str>) -> Self {
        match (key::generation_of(folder), folder) {
            (Some(n), _) => Self::Generation(n),
            (None, folder) => Self::Instance(folder.unwrap_or_default().to_owned()),
        }
    }

    /// The folder of the branch of `topic`, with its final slash.
    pub fn folder(&self, topic: &str) -> String {
        match self {
            Self::Generation(1) => format!("{topic}/"),
            Self::Generation(n) => format!("{topic}/gen-{n}/"),
            Self::Instance(name) => format!("{topic}/{name}/"),
        }
    }
}

/// One object of records, or a gap link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Its key.
    pub key: String,
    /// Where its range starts, as its name says.
    pub offset: i64,
    /// Bytes.
    pub size: u64,
    /// Entity tag; empty when not known.
    pub etag: String,
    /// When it was written, in milliseconds since 1970-01-01 UTC.
    pub modified_ms: i64,
    /// What it says of itself, checked against its name.
    pub facts: Facts,
}

/// What an object says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Facts {
    /// An object of ours.
    Ours(OurFacts),
    /// The older layout: it says nothing of itself, its records must be read to know where it ends.
    Older,
    /// It does not belong under its name, or cannot be understood: why.
    Bad(String),
}

/// The part of [`ObjectMeta`] that matters for reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OurFacts {
    /// Where the range ends (exclusive).
    pub next_offset: i64,
    /// Number of records; 0 for a gap link.
    pub records: u64,
    /// Smallest and largest record timestamp, in milliseconds.
    pub timestamps: Option<(i64, i64)>,
    /// Key, value and headers of the largest record, in bytes; 0 when not known.
    pub max_record_bytes: u64,
    /// Records without a key, where it says so.
    pub null_keys: Option<u64>,
    /// Hash of the whole object in hex; empty when not known.
    pub sha256: String,
    /// Why the records of a gap link are missing; empty for an object with records.
    pub gap: String,
}

impl Facts {
    /// Judges an object by its own word. `uuid` is that of its generation's record, where there is one.
    pub fn judge(name: &ObjectKey, meta: ObjectMeta, uuid: Option<&str>) -> Self {
        if meta.topic != name.path.topic || meta.partition != name.path.partition {
            return Self::Bad(format!("it says it belongs to {}/{}", meta.topic, meta.partition));
        }
        if meta.range_start != name.offset {
            return Self::Bad(format!("it says it begins at offset {}", meta.range_start));
        }
        if uuid.is_some_and(|uuid| uuid != meta.generation) {
            return Self::Bad(format!("it belongs to another generation ({})", meta.generation));
        }
        Self::Ours(OurFacts {
            next_offset: meta.next_offset,
            records: meta.records,
            timestamps: meta.timestamps,
            max_record_bytes: meta.max_record_bytes,
            null_keys: meta.null_keys,
            sha256: meta.sha256,
            gap: if meta.records == 0 && meta.gap.is_empty() { "not said".to_owned() } else { meta.gap },
        })
    }

    /// The same from stored metadata; `None` when the metadata is not ours and the Avro header must be asked.
    pub fn from_metadata(name: &ObjectKey, metadata: &Metadata, uuid: Option<&str>) -> Option<Self> {
        metadata.contains_key("format-version").then(|| match ObjectMeta::from_metadata(metadata) {
            Ok(meta) => Self::judge(name, meta, uuid),
            Err(error) => Self::Bad(error.to_string()),
        })
    }
}

impl TopicBackup {
    /// Number of the newest generation, by record or by objects; `None` when there is none.
    pub fn newest(&self) -> Option<u32> {
        let by_objects = self.branches.keys().filter_map(|branch| match branch {
            Branch::Generation(n) => Some(*n),
            Branch::Instance(_) => None,
        });
        by_objects.chain(self.records.keys().copied()).max()
    }

    /// Whether generation `n` is there.
    pub fn has(&self, n: u32) -> bool {
        self.records.contains_key(&n) || self.branches.contains_key(&Branch::Generation(n))
    }

    /// The generations that `n` is read from: `n` itself first, then its parents. Ends where a record is missing, and
    /// at a parent that is not older, which no writer creates.
    pub fn lineage(&self, n: u32) -> Vec<u32> {
        let mut line = vec![n];
        let mut at = n;
        while let Some(parent) = self.records.get(&at).and_then(|record| record.parent).filter(|p| *p < at) {
            line.push(parent);
            at = parent;
        }
        line
    }

    /// Partitions of the topic as generation `n` knows it: those of its record, and those added later that have
    /// objects.
    pub fn partitions(&self, n: u32) -> u32 {
        let recorded = self.records.get(&n).map_or(0, |record| record.partitions);
        let seen = self.lineage(n).into_iter().filter_map(|g| self.branches.get(&Branch::Generation(g)));
        let seen = seen.filter_map(|partitions| partitions.keys().next_back()).map(|p| *p as u32 + 1).max();
        recorded.max(seen.unwrap_or(0))
    }

    /// Whether the oldest objects of generation `n` may be gone by right: none is older than the generation's record. The
    /// same is asked when its lists are verified.
    pub fn head_expiry(&self, n: u32) -> Expiry {
        self.records
            .get(&n)
            .filter(|record| !record.is_adopted())
            .map_or(Expiry::Possible, |record| self.aging.expiry(Some(record.created_ms)))
    }

    /// What `partition` of generation `n` is read from, oldest part first, each below the next one's fork.
    pub fn segments(&self, n: u32, partition: i32) -> Vec<Segment<'_>> {
        let (mut segments, mut until) = (Vec::new(), i64::MAX);
        for generation in self.lineage(n) {
            let record = self.records.get(&generation);
            let fork = record.and_then(|record| record.fork(partition));
            let objects = self.branches.get(&Branch::Generation(generation)).and_then(|b| b.get(&partition));
            let objects = objects.map_or(&[][..], Vec::as_slice);
            let origin = fork.or_else(|| record.map(|r| r.origin(partition))).or(objects.first().map(|o| o.offset));
            if let Some(from) = origin.filter(|from| *from < until) {
                let reach = self.reaches.get(&(generation, partition)).copied();
                segments.push(Segment { generation, range: from..until, objects, reach });
            }
            match fork {
                Some(fork) => until = until.min(fork),
                None => break,
            }
        }
        segments.reverse();
        segments
    }
}

/// A stretch of offsets of one partition that one generation holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The generation.
    pub generation: u32,
    /// The offsets for which this generation is asked.
    pub range: Range<i64>,
    /// Its objects, in order.
    pub objects: &'a [StoredObject],
    /// How far they must reach, where that is known.
    pub reach: Option<Known>,
}

/// Puts objects into the order in which they are read: by number, of equal numbers the one that reaches further first.
pub fn sort(objects: &mut [StoredObject]) {
    let reach = |object: &StoredObject| match &object.facts {
        Facts::Ours(facts) => facts.next_offset,
        Facts::Older | Facts::Bad(_) => 0,
    };
    objects.sort_by(|a, b| a.offset.cmp(&b.offset).then(reach(b).cmp(&reach(a))).then_with(|| a.key.cmp(&b.key)));
}

/// Offsets that nobody has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// The first missing offset.
    pub from: i64,
    /// Where it ends (exclusive).
    pub until: i64,
    /// Why.
    pub why: HoleReason,
}

/// Why offsets are missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoleReason {
    /// Kafka had deleted the records before they were read; the reason as the gap link gives it.
    Gap(String),
    /// In front of the first object: expired by the retention, or lost, and nobody can tell.
    ExpiredOrLost,
    /// Behind an object that has expired and is still to be removed: stores remove in any order.
    Expired,
    /// An object was deleted: between two others, or the oldest one where nothing can have expired.
    ObjectMissing,
}

impl Hole {
    /// Whether the offsets are gone because they were old, as far as anybody can know.
    pub fn is_expired(&self) -> bool {
        matches!(self.why, HoleReason::ExpiredOrLost | HoleReason::Expired)
    }

    /// Whether somebody deleted what nothing else explains.
    pub fn is_damage(&self) -> bool {
        self.why == HoleReason::ObjectMissing
    }
}

impl std::fmt::Display for Hole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "gap: offsets {} to {} ", self.from, self.until - 1)?;
        match &self.why {
            HoleReason::Gap(why) => write!(f, "were never read from Kafka ({why})"),
            HoleReason::ExpiredOrLost => write!(f, "in front of the first object are expired or lost"),
            HoleReason::Expired => {
                write!(f, "have expired, as has what is in front of them, which is still to be removed")
            }
            HoleReason::ObjectMissing => write!(f, "are in no object: one was deleted"),
        }
    }
}

/// Walks the objects of a partition in order and says of each what it adds to those before it.
///
/// | the object | says it ends at | adds |
/// |---|---|---|
/// | begins at the cursor | e | all of it |
/// | begins in front of the cursor | e > cursor | `[cursor, e)` (overlap) |
/// | begins in front of the cursor | e <= cursor | nothing (overlap) |
/// | begins behind the cursor | e | all of it, and a hole in front of it |
/// | is a gap link | e | nothing; it is the reason of a hole that nobody else fills |
/// | older layout | not known | everything from the cursor on; what it repeats is left out while reading |
///
/// A hole is judged by the age of the object in front of it ([`Aging::may_be_gone_behind`]), one at the beginning of a list
/// by that of the list ([`TopicBackup::head_expiry`]), as when it is verified.
#[derive(Debug, Clone)]
pub struct Walk {
    cursor: i64,
    /// Something was there before.
    begun: bool,
    /// No object of this list was seen yet, and what is missing may be gone by right, or not.
    head: Option<Expiry>,
    /// The end of what was seen is known; not so behind an object of the older layout.
    certain: bool,
    gaps: Vec<(Range<i64>, String)>,
    aging: Aging,
    /// When the last object was written.
    last_modified_ms: Option<i64>,
    /// Holes found so far, in order.
    pub holes: Vec<Hole>,
    /// Objects that begin in front of their predecessor's end.
    pub overlaps: u64,
}

impl Walk {
    /// Begins at `from`, in a list whose objects go as `aging` says, and its oldest as `head` says.
    pub fn new(from: i64, aging: &Aging, head: Expiry) -> Self {
        Self {
            cursor: from,
            begun: false,
            head: Some(head),
            certain: true,
            gaps: Vec::new(),
            aging: aging.clone(),
            last_modified_ms: None,
            holes: Vec::new(),
            overlaps: 0,
        }
    }

    /// Where what was seen so far ends, as far as known.
    pub fn cursor(&self) -> i64 {
        self.cursor
    }

    /// Goes on in the next generation, whose oldest objects go as `head` says: what was seen before does not reach beyond
    /// `fork`.
    pub fn fork(&mut self, fork: i64, head: Expiry) {
        if self.certain {
            self.missing_up_to(fork);
        }
        self.gaps.clear();
        self.head = Some(head);
        (self.cursor, self.certain) = (fork, true);
    }

    /// What `object` adds, as a range of offsets; `None` when that is nothing. Bad objects add nothing.
    pub fn add(&mut self, object: &StoredObject) -> Option<Range<i64>> {
        let (start, end) = match &object.facts {
            Facts::Bad(_) => return None,
            Facts::Ours(facts) if facts.records == 0 => {
                self.gaps.push((object.offset..facts.next_offset, facts.gap.clone()));
                return None;
            }
            Facts::Ours(facts) => (object.offset, Some(facts.next_offset)),
            Facts::Older => (object.offset, None),
        };
        if self.certain {
            self.missing_up_to(start);
            self.overlaps += u64::from(self.begun && start < self.cursor);
        }
        (self.begun, self.head) = (true, None);
        self.last_modified_ms = Some(object.modified_ms);
        self.gaps.retain(|(range, _)| range.end > self.cursor);
        let from = start.max(self.cursor);
        match end {
            Some(end) if end <= from => None,
            Some(end) => {
                (self.cursor, self.certain) = (end, true);
                Some(from..end)
            }
            None => {
                (self.cursor, self.certain) = (from, false);
                Some(from..i64::MAX)
            }
        }
    }

    /// Ends the walk: gap links behind the last object become holes too, and so does what is missing of a list that must
    /// go as far as `reach`.
    pub fn finish(mut self, reach: Option<Known>) -> Self {
        if let (Some(head), Some(Known { written_ms: Some(_), .. })) = (&mut self.head, reach) {
            // Nothing is left, and the last object was the youngest.
            *head = self.aging.expiry(reach.and_then(|reach| reach.written_ms));
        }
        let reach = reach.map(|reach| reach.until);
        let end = self.gaps.iter().map(|(range, _)| range.end).chain(reach).max();
        if let Some(end) = end.filter(|_| self.certain) {
            self.missing_up_to(end);
        }
        self
    }

    fn missing_up_to(&mut self, until: i64) {
        let default = match self.head {
            Some(Expiry::Possible) => HoleReason::ExpiredOrLost,
            None if self.aging.may_be_gone_behind(self.last_modified_ms) => HoleReason::Expired,
            Some(Expiry::Never) | None => HoleReason::ObjectMissing,
        };
        while self.cursor < until {
            let at = self.cursor;
            let here = self.gaps.iter().find(|(range, _)| range.contains(&at));
            let (end, why) = match here {
                Some((range, why)) => (range.end.min(until), HoleReason::Gap(why.clone())),
                None => {
                    let next = self.gaps.iter().map(|(range, _)| range.start).filter(|start| *start > at).min();
                    (next.unwrap_or(until).min(until), default.clone())
                }
            };
            self.holes.push(Hole { from: at, until: end, why });
            self.cursor = end;
        }
    }
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
