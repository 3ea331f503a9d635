//! The TERM record of a complete scan, made of what lies in the bucket now.

use crate::model::compacted::Offsets;
use crate::model::compacted::look::SeenObject;
use crate::model::compacted::record::{COMPACTED_FORMAT_VERSION, RunRecord, TermObject, TermPartition, TermRecord};

/// When a scan began and when it was found complete, in milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy)]
pub struct Scan {
    /// When it began.
    pub started_ms: i64,
    /// When it was found complete.
    pub ended_ms: i64,
}

/// TERM `number` for `run`, complete below `ends`. `stored` is where the lanes know the acknowledged objects to end.
///
/// `None` when the unbroken list of the run's objects does not reach as far as it must: up to the end of the partition,
/// or as far as there are objects where nothing but transaction markers lies behind them.
pub fn title(
    run: &RunRecord,
    number: u64,
    scan: Scan,
    ends: &Offsets,
    stored: &Offsets,
    objects: &[SeenObject],
) -> Option<TermRecord> {
    let mut partitions = std::collections::BTreeMap::new();
    for (partition, to) in ends {
        let from = run.origin(*partition);
        let list = list(run, *partition, objects);
        let reaches = list.last().map_or(from, |last| last.next_offset);
        if reaches < *stored.get(partition)?.min(to)
            || reaches > *to && list.last().is_some_and(|last| last.offset >= *to)
        {
            return None;
        }
        partitions.insert(*partition, TermPartition { from, to: *to, objects: list });
    }
    let all = || partitions.values().flat_map(|partition| &partition.objects);
    Some(TermRecord {
        format_version: COMPACTED_FORMAT_VERSION,
        term: number,
        topic: run.topic.clone(),
        instance: run.instance.clone(),
        run: run.run.clone(),
        void: false,
        created_ms: scan.ended_ms,
        scan_started_ms: scan.started_ms,
        scan_ended_ms: scan.ended_ms,
        objects: all().count() as u64,
        bytes: all().map(|object| object.size).sum(),
        partitions,
    })
}

/// The unbroken list of the run's objects in a partition, from its origin on.
fn list(run: &RunRecord, partition: i32, objects: &[SeenObject]) -> Vec<TermObject> {
    let of_run = objects.iter().filter(|object| object.partition == partition).filter_map(|object| {
        let facts = object.facts.as_ref().filter(|facts| facts.run == run.run)?;
        Some(TermObject {
            offset: object.offset,
            next_offset: facts.next_offset,
            size: object.size,
            etag: object.etag.clone(),
        })
    });
    let mut candidates: Vec<_> = of_run.collect();
    candidates.sort_by_key(|object| object.offset);
    let mut next = run.origin(partition);
    candidates.retain(|object| {
        let is_next = object.offset == next;
        if is_next {
            next = object.next_offset;
        }
        is_next
    });
    candidates
}
