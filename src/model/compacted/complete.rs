//! When a scan is complete, and when it, or an owner, was too slow to be right.

use std::collections::BTreeMap;

use super::event::Progress;
use super::message::Message;
use super::settings::{Rule, Rules};
use super::view::{Offsets, OwnRun};

/// When and where each partition was last known to be read to its end.
pub type AtEnds = BTreeMap<i32, AtEnd>;

/// When and where a partition was last known to be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AtEnd {
    /// Where the log ended.
    pub end: i64,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
}

/// Further from the end of a partition than tombstones are certain to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TooLate {
    /// How long the partition was not read to its end, in milliseconds.
    pub took_ms: i64,
    /// Half of the smallest `delete.retention.ms`.
    pub limit_ms: i64,
}

/// Decides whether a scan is complete, and up to where in each partition.
///
/// Complete means: of every partition of the topic the end was seen, at P, after the scan began, and everything below P
/// is durable. Reaching the offsets that the owner had announced is not enough: a key that is superseded and cleaned
/// while the scan is on its way is in neither snapshot.
///
/// `proved` is what the bucket itself shows of the run: less than what the lanes say means that objects are missing.
pub fn complete(progress: &Progress, proved: &OwnRun, announced: Option<&Message>, rules: Rules) -> Option<Offsets> {
    if progress.partitions.is_empty() || progress.run != proved.run {
        return None;
    }
    let mut ends = Offsets::new();
    for (number, reached) in &progress.partitions {
        let end = if rules.keep(Rule::Eof) {
            reached.restorable?
        } else {
            let announced = announced.and_then(|message| message.next.get(number)).copied().unwrap_or(0);
            reached.restorable.or(Some(reached.stored).filter(|stored| *stored >= announced))?
        };
        if proved.stored.get(number).copied().unwrap_or(0) < reached.stored {
            return None;
        }
        ends.insert(*number, end);
    }
    Some(ends)
}

/// Decides whether deleted keys may have survived: whether a partition was away from its end for longer than half of the
/// smallest `delete.retention.ms`, so that a tombstone may have come and gone unseen. A scan counts as away from its
/// beginning on.
///
/// | the partition, since it was last at its end (or the scan began) | then |
/// |---|---|
/// | is at its end now, and nothing was appended | never too late |
/// | is at its end now, and something was appended | too late when that took longer than the limit |
/// | is not, and is being read | too late as soon as the limit has passed |
/// | is not, and nothing was read of it | not known yet; for a scan too late as soon as the limit has passed |
pub fn too_late(last: &AtEnds, began_ms: i64, progress: &Progress, now_ms: i64) -> Option<TooLate> {
    let limit_ms = progress.delete_retention_ms? / 2;
    let away = progress.partitions.iter().filter_map(|(number, reached)| {
        let before = last.get(number);
        let since = before.map_or(began_ms, |at| at.at_ms);
        match (reached.seen_end_ms.filter(|seen| *seen > since), before) {
            (Some(_), Some(before)) if reached.restorable.is_some_and(|end| end <= before.end) => None,
            (Some(seen), _) => Some(seen - since),
            (None, Some(before)) if reached.stored <= before.end => None,
            (None, _) => Some(now_ms - since),
        }
    });
    let took_ms = away.max()?;
    (took_ms > limit_ms).then_some(TooLate { took_ms, limit_ms })
}

/// Notes which partitions are at their end.
pub fn note_ends(last: &mut AtEnds, progress: &Progress) {
    for (number, reached) in &progress.partitions {
        if let (Some(end), Some(at_ms)) = (reached.restorable, reached.seen_end_ms) {
            let noted = last.entry(*number).or_insert(AtEnd { end, at_ms });
            *noted = AtEnd { end: end.max(noted.end), at_ms: at_ms.max(noted.at_ms) };
        }
    }
}
