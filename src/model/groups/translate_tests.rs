use proptest::prelude::*;
use rstest::rstest;

use super::super::super::batch::TimestampType::CreateTime;
use super::Position::{At, Before, Between, End, Nothing, PastEnd};
use super::*;

const BASE: i64 = 100;

/// A planned object with its records: `(source offset, timestamp)`.
type Object = (Take, Vec<(i64, i64)>);

fn object(from: i64, until: i64, counted: bool, offsets: &[i64]) -> Object {
    let records = counted.then_some(offsets.len() as u64);
    let [key, etag, sha256] = [const { String::new() }; 3];
    let take = Take { key, size: 1, etag, sha256, from, until, object_records: records, records };
    (take, offsets.iter().map(|offset| (*offset, *offset)).collect())
}

fn partition(objects: &[Object], times: Times) -> PartitionPlan {
    PartitionPlan {
        partition: 0,
        base_offset: BASE,
        objects: objects.iter().map(|(take, _)| take.clone()).collect(),
        holes: Vec::new(),
        missing: Vec::new(),
        overlaps: 0,
        times,
        records: 0,
        records_at_most: None,
        uncounted_objects: 0,
        skipped_objects: 0,
        bytes: 0,
        timestamps: None,
    }
}

/// The translations, and the numbers of the objects that were read for them.
fn translate(objects: &[Object], times: Times, committed: &[i64]) -> (BTreeMap<i64, Translation>, Vec<usize>) {
    let committed: BTreeSet<i64> = committed.iter().copied().collect();
    let plan = partition(objects, times);
    let (mut translator, mut read) = (Translator::new(&plan, &committed), Vec::new());
    for (n, (take, records)) in objects.iter().enumerate() {
        if must_be_read(take, &committed) {
            read.push(n);
            records.iter().for_each(|(offset, ms)| translator.offer(take, *offset, *ms, CreateTime));
            translator.end(take);
        } else {
            translator.pass(take);
        }
    }
    (translator.finish(), read)
}

/// The target offset and position of one committed offset.
fn one(objects: &[Object], times: Times, committed: i64) -> (i64, Position) {
    let translation = translate(objects, times, &[committed]).0[&committed];
    assert_eq!(translation.source_offset, committed);
    (translation.target_offset, translation.position)
}

/// The table of [`Translator`], with one object and with two: it does not matter where objects are cut.
#[rstest]
#[case::in_front_of_the_first_object(0, 100, Before)]
#[case::in_front_of_the_first_record(9, 100, Before)]
#[case::the_first_record(10, 100, At)]
#[case::a_record(11, 101, At)]
#[case::compacted_away(12, 102, Between)]
#[case::the_last_one_compacted_away(13, 102, Between)]
#[case::behind_the_hole(14, 102, At)]
#[case::a_transaction_marker(15, 103, Between)]
#[case::the_last_one_of_an_aborted_transaction(19, 103, Between)]
#[case::the_last_record(20, 103, At)]
#[case::behind_the_last_record(21, 104, End)]
#[case::the_end(22, 104, End)]
#[case::past_the_end(23, 104, PastEnd)]
#[case::far_past_the_end(i64::MAX, 104, PastEnd)]
fn the_table(#[case] committed: i64, #[case] target: i64, #[case] position: Position) {
    for counted in [true, false] {
        let whole = [object(8, 22, counted, &[10, 11, 14, 20])];
        assert_eq!(one(&whole, Times::default(), committed), (target, position));
        let cut = [object(8, 13, counted, &[10, 11]), object(13, 22, counted, &[14, 20])];
        // Where an object begins it is not read: whether a record stands right there is not known, nor does it matter.
        let position = if committed == 13 { At } else { position };
        assert_eq!(one(&cut, Times::default(), committed), (target, position));
    }
}

#[rstest]
#[case(0)]
#[case(50)]
fn nothing_is_restored(#[case] committed: i64) {
    assert_eq!(one(&[], Times::default(), committed), (100, Nothing));
    let outside = Times { from_ms: Some(1000), until_ms: None };
    assert_eq!(one(&[object(0, 40, false, &[1, 2, 3])], outside, 50), (100, Nothing));
}

/// Objects that were deleted, or records that Kafka lost before they were read: what is restored moves together.
#[rstest]
#[case::in_the_hole(7, 102, Between)]
#[case::where_the_hole_begins(5, 102, Between)]
#[case::where_the_hole_ends(10, 102, At)]
#[case::behind_the_hole(11, 103, At)]
fn a_gap(#[case] committed: i64, #[case] target: i64, #[case] position: Position) {
    let objects = [object(0, 5, true, &[1, 2]), object(10, 15, true, &[10, 11])];
    assert_eq!(one(&objects, Times::default(), committed), (target, position));
}

/// Timestamps are the offsets here: only records 12 to 16 are restored.
#[rstest]
#[case::in_front(3, 100, Before)]
#[case::read_but_left_out(11, 100, Before)]
#[case::the_first(12, 100, At)]
#[case::inside(15, 103, At)]
#[case::left_out_behind(18, 105, End)]
#[case::the_end(20, 105, End)]
#[case::past_the_end(21, 105, PastEnd)]
fn a_window_of_time(#[case] committed: i64, #[case] target: i64, #[case] position: Position) {
    let all: Vec<i64> = (10..20).collect();
    let times = Times { from_ms: Some(12), until_ms: Some(17) };
    assert_eq!(one(&[object(10, 20, false, &all)], times, committed), (target, position));
}

/// Only offsets 12 to 16 were asked for; the object says how many records it has, not how many of them are taken.
#[rstest]
#[case::in_front(3, 100, Before)]
#[case::cut_off_in_front(11, 100, Before)]
#[case::inside(15, 103, At)]
#[case::the_end(17, 105, End)]
#[case::cut_off_behind(18, 105, PastEnd)]
fn a_window_of_offsets(#[case] committed: i64, #[case] target: i64, #[case] position: Position) {
    let all: Vec<i64> = (10..20).collect();
    let (mut take, records) = object(12, 17, false, &all);
    take.object_records = Some(10);
    assert_eq!(one(&[(take, records)], Times::default(), committed), (target, position));
}

/// Objects of the older layout do not say where they end, and may repeat each other.
#[rstest]
#[case::in_the_first(2, 102, At)]
#[case::in_what_is_repeated(4, 104, At)]
#[case::in_the_second(6, 106, At)]
#[case::the_end(8, 108, End)]
#[case::past_the_end(9, 108, PastEnd)]
fn the_older_layout(#[case] committed: i64, #[case] target: i64, #[case] position: Position) {
    let objects = [object(0, i64::MAX, false, &[0, 1, 2, 3, 4, 5]), object(3, i64::MAX, false, &[3, 4, 5, 6, 7])];
    assert_eq!(one(&objects, Times::default(), committed), (target, position));
}

#[rstest]
#[case::in_front(&[-1, 0], &[])]
#[case::where_objects_begin_and_end(&[0, 10, 20, 30], &[])]
#[case::inside(&[15, 16], &[1])]
#[case::the_last_offset_of_one(&[9], &[0])]
#[case::past_the_end(&[99], &[])]
#[case::several(&[5, 25], &[0, 2])]
#[case::none(&[], &[])]
fn only_objects_with_an_offset_inside_are_read(#[case] committed: &[i64], #[case] expected: &[usize]) {
    let objects = [object(0, 10, true, &[0, 5]), object(10, 20, true, &[10, 15]), object(20, 30, true, &[29])];
    assert_eq!(translate(&objects, Times::default(), committed).1, expected);
}

#[test]
fn what_does_not_say_how_much_it_holds_is_read_up_to_the_offset() {
    let objects = [object(0, 10, false, &[0, 5]), object(10, 20, false, &[10, 15]), object(20, 30, false, &[29])];
    assert_eq!(translate(&objects, Times::default(), &[12]).1, [0, 1]);
    assert_eq!(translate(&objects, Times::default(), &[10]).1, [0]);
    assert_eq!(translate(&objects, Times::default(), &[99]).1, [0, 1, 2]);
}

/// Objects in a row: holes between and inside of them, counted or not.
fn objects() -> impl Strategy<Value = Vec<Object>> {
    let object_of = (0..3i64, prop::collection::vec(prop::bool::weighted(0.6), 1..8), any::<bool>());
    prop::collection::vec(object_of, 0..5).prop_map(|parts| {
        let (mut at, mut objects) = (0, Vec::new());
        for (gap, present, counted) in parts {
            let from = at + gap;
            at = from + present.len() as i64;
            let offsets: Vec<i64> = (from..at).zip(&present).filter(|(_, here)| **here).map(|(o, _)| o).collect();
            objects.push(object(from, at, counted, &offsets));
        }
        objects
    })
}

proptest! {
    /// What a group reads on the target from its translated offset on is exactly what is restored of the records that
    /// it had not read on the source.
    #[test]
    fn a_group_reads_exactly_what_it_had_not_read(
        mut objects in objects(),
        committed in prop::collection::btree_set(0..50i64, 0..8),
        limit in prop::option::of((0..40i64, 0..40i64)),
    ) {
        let mut times = Times::default();
        if let Some((from, until)) = limit {
            times = Times { from_ms: Some(from), until_ms: Some(until) };
            // With a window of time only objects that lie within it say how many of their records are restored.
            for (take, records) in &mut objects {
                let all = records.iter().all(|(_, ms)| times.judge(*ms, CreateTime) != Verdict::Outside);
                take.records = take.records.filter(|_| all);
            }
        }
        let restored: Vec<i64> = objects.iter().flat_map(|(_, records)| records)
            .filter(|(_, ms)| times.judge(*ms, CreateTime) != Verdict::Outside)
            .map(|(offset, _)| *offset).collect();
        let asked: Vec<i64> = committed.iter().copied().collect();
        let (translated, _) = translate(&objects, times, &asked);
        prop_assert_eq!(translated.keys().copied().collect::<BTreeSet<_>>(), committed);
        let end = objects.last().map_or(i64::MIN, |(take, _)| take.until);
        for Translation { source_offset, target_offset, position } in translated.into_values() {
            let reads = &restored[(target_offset - BASE) as usize..];
            let unread: Vec<i64> = restored.iter().copied().filter(|offset| *offset >= source_offset).collect();
            prop_assert_eq!(reads, unread.as_slice());
            let begins = objects.iter().any(|(take, _)| take.from == source_offset);
            match position {
                At => prop_assert!(begins || restored.contains(&source_offset)),
                Before => prop_assert_eq!(target_offset, BASE),
                Between => prop_assert!(!restored.contains(&source_offset)),
                End => prop_assert!(reads.is_empty() && source_offset <= end),
                PastEnd => prop_assert!(reads.is_empty() && source_offset > end),
                Nothing => prop_assert!(restored.is_empty()),
            }
        }
    }
}
