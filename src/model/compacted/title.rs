//! The TERM record of a complete scan, made of what lies in the bucket now.

use std::collections::BTreeMap;

use super::look::{SeenObject, chain};
use super::record::{COMPACTED_FORMAT_VERSION, RunRecord, TermObject, TermPartition, TermRecord};
use super::view::Offsets;

/// When a scan began and when it was found complete, in milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy)]
pub struct Scan {
    /// When it began.
    pub started_ms: i64,
    /// When it was found complete.
    pub ended_ms: i64,
}

/// TERM `number` for `run`, complete below `ends`. `stored` is where the lanes know the acknowledged objects to end,
/// `objects` what was listed just now.
///
/// `None` when the unbroken list of the run's objects below the end of a partition does not reach as far as it must: to
/// that end, or as far as the lanes have stored anything where nothing but transaction markers lies behind it. What ends
/// beyond is not listed: a restore finds it as what the owner has added since.
pub fn title(
    run: &RunRecord,
    number: u64,
    scan: Scan,
    ends: &Offsets,
    stored: &Offsets,
    objects: &[SeenObject],
) -> Option<TermRecord> {
    let mut partitions = BTreeMap::new();
    for (partition, to) in ends {
        let from = run.origin(*partition);
        let list = list(run, *partition, from, *to, objects);
        let reaches = list.last().map_or(from, |last| last.next_offset);
        if reaches < *stored.get(partition)?.min(to) {
            return None;
        }
        partitions.insert(*partition, TermPartition { from, to: from.max(*to), objects: list });
    }
    let all = || partitions.values().flat_map(|partition| &partition.objects);
    let (objects, bytes) = (all().count() as u64, all().map(|object| object.size).sum());
    let (scan_started_ms, scan_ended_ms) = (scan.started_ms, scan.ended_ms);
    let record = void(run, number, scan.ended_ms);
    Some(TermRecord { void: false, scan_started_ms, scan_ended_ms, objects, bytes, partitions, ..record })
}

/// TERM `number`, used up, so that none can name `run` any more.
pub fn void(run: &RunRecord, number: u64, created_ms: i64) -> TermRecord {
    TermRecord {
        format_version: COMPACTED_FORMAT_VERSION,
        term: number,
        topic: run.topic.clone(),
        instance: run.instance.clone(),
        run: run.run.clone(),
        void: true,
        created_ms,
        scan_started_ms: 0,
        scan_ended_ms: 0,
        objects: 0,
        bytes: 0,
        partitions: BTreeMap::new(),
    }
}

/// The unbroken list of the run's objects in a partition from `from` on, of those that end at `to` or below.
fn list(run: &RunRecord, partition: i32, from: i64, to: i64, objects: &[SeenObject]) -> Vec<TermObject> {
    let all = chain(objects, &run.run, partition, from).into_iter();
    let below = all.take_while(|(_, facts)| facts.next_offset <= to);
    let listed = below.map(|(object, facts)| TermObject {
        offset: object.offset,
        next_offset: facts.next_offset,
        size: object.size,
        etag: object.etag.clone(),
    });
    listed.collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::model::compacted::look_tests::{object, run};

    fn titled(of: &RunRecord, ends: &Offsets, stored: &Offsets, objects: &[SeenObject]) -> Option<TermRecord> {
        title(of, 3, Scan { started_ms: 10, ended_ms: 20 }, ends, stored, objects)
    }

    fn spans(objects: &[(&str, i64, i64)]) -> Vec<SeenObject> {
        objects.iter().map(|(run, from, to)| object(run, *from, *to, false)).collect()
    }

    /// The run is `a1`, from 0 on; what is listed is told by where the objects end.
    #[rstest]
    #[case::up_to_the_end(&[("a1", 0, 4), ("a1", 4, 6)], 6, 6, Some(&[4, 6][..]))]
    #[case::an_empty_partition(&[], 0, 0, Some(&[][..]))]
    #[case::nothing_but_markers(&[], 3, 0, Some(&[][..]))]
    #[case::markers_lie_behind(&[("a1", 0, 4)], 6, 4, Some(&[4][..]))]
    #[case::it_has_gone_on(&[("a1", 0, 4), ("a1", 4, 6)], 4, 6, Some(&[4][..]))]
    #[case::in_any_order(&[("a1", 4, 6), ("a1", 0, 4)], 6, 6, Some(&[4, 6][..]))]
    #[case::the_lanes_know_less_as_yet(&[("a1", 0, 4), ("a1", 4, 6)], 6, 4, Some(&[4, 6][..]))]
    #[case::strays_of_another_run(&[("a0", 2, 9), ("a1", 0, 4), ("a0", 4, 5)], 4, 4, Some(&[4][..]))]
    #[case::the_last_is_not_there(&[("a1", 0, 4)], 6, 6, None)]
    #[case::one_in_the_middle_is_not_there(&[("a1", 0, 2), ("a1", 4, 6)], 6, 6, None)]
    #[case::one_is_of_another_run(&[("a1", 0, 4), ("a0", 4, 6)], 6, 6, None)]
    #[case::nothing_is_there(&[], 6, 6, None)]
    #[case::one_reaches_over_the_end(&[("a1", 0, 4), ("a1", 4, 8)], 6, 8, None)]
    #[case::one_behind_markers_reaches_over_the_end(&[("a1", 0, 4), ("a1", 4, 8)], 6, 4, Some(&[4][..]))]
    fn what_a_term_lists(
        #[case] objects: &[(&str, i64, i64)],
        #[case] to: i64,
        #[case] stored: i64,
        #[case] ends: Option<&[i64]>,
    ) {
        let found = titled(&run("a", 1), &[(0, to)].into(), &[(0, stored)].into(), &spans(objects));
        let listed = found.as_ref().map(|term| term.partitions[&0].objects.iter().map(|o| o.next_offset).collect());
        assert_eq!(listed, ends.map(<[i64]>::to_vec));
        assert_eq!(found.map(|term| (term.partitions[&0].from, term.partitions[&0].to)), ends.map(|_| (0, to)));
    }

    #[test]
    fn every_partition_must_be_whole_and_known() {
        let mut all = spans(&[("a1", 0, 4), ("a1", 0, 7)]);
        all[1].partition = 1;
        let (ends, stored) = (Offsets::from([(0, 4), (1, 7)]), Offsets::from([(0, 4), (1, 7)]));
        let term = titled(&run("a", 1), &ends, &stored, &all).expect("both are whole");
        assert_eq!((term.term, term.void, term.objects, term.bytes), (3, false, 2, 14));
        assert_eq!((term.created_ms, term.scan_started_ms, term.scan_ended_ms), (20, 10, 20));
        assert_eq!(titled(&run("a", 1), &ends, &stored, &all[..1]), None, "one lacks its objects");
        assert_eq!(titled(&run("a", 1), &ends, &[(0, 4)].into(), &all), None, "of one the lanes know nothing");
    }

    #[test]
    fn a_run_begins_where_kafka_began() {
        let of = RunRecord { origins: [(0, 5)].into(), ..run("a", 1) };
        let all = spans(&[("a1", 0, 5), ("a1", 5, 9)]);
        let term = titled(&of, &[(0, 9)].into(), &[(0, 9)].into(), &all).expect("it is whole");
        let partition = &term.partitions[&0];
        assert_eq!((partition.from, partition.to, partition.objects.len()), (5, 9, 1));
    }

    #[test]
    fn a_void_term_lists_nothing() {
        let term = void(&run("a", 1), 7, 30);
        assert_eq!((term.term, term.void, term.run, term.created_ms), (7, true, "a1".into(), 30));
        assert!(term.partitions.is_empty());
    }
}
