use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::model::lifecycle::record::RetentionRecord;

/// `start..next` with records, `start..next!` a gap link, `start` alone the older layout.
fn object(text: &str) -> StoredObject {
    let (start, rest) = text.split_once("..").map_or((text, None), |(start, rest)| (start, Some(rest)));
    let ours = |next: &str, records, gap: &str| {
        Facts::Ours(OurFacts {
            next_offset: next.parse().unwrap(),
            records,
            timestamps: None,
            max_record_bytes: 0,
            null_keys: None,
            sha256: String::new(),
            gap: gap.to_owned(),
        })
    };
    let facts = match rest {
        None => Facts::Older,
        Some(next) if next.ends_with('!') => ours(next.trim_end_matches('!'), 0, "retention"),
        Some(next) => ours(next, 1, ""),
    };
    StoredObject {
        key: text.to_owned(),
        offset: start.parse().unwrap(),
        size: 1,
        etag: String::new(),
        modified_ms: 0,
        facts,
    }
}

fn hole(from: i64, until: i64, why: &str) -> Hole {
    let why = match why {
        "front" => HoleReason::ExpiredOrLost,
        "missing" => HoleReason::ObjectMissing,
        "expired" => HoleReason::Expired,
        gap => HoleReason::Gap(gap.to_owned()),
    };
    Hole { from, until, why }
}

#[rstest]
#[case::as_far_as_it_must("0..10", 10, &[])]
#[case::further("0..10", 7, &[])]
#[case::not_as_far("0..10", 15, &[hole(10, 15, "missing")])]
#[case::behind_a_gap("0..10 10..15!", 20, &[hole(10, 15, "retention"), hole(15, 20, "missing")])]
#[case::nothing_left("", 9, &[hole(0, 9, "front")])]
#[case::older("0", 20, &[])]
fn a_list_that_must_go_further(#[case] objects: &str, #[case] reach: i64, #[case] holes: &[Hole]) {
    let mut walk = Walk::new(0, &Aging::default(), Expiry::Possible);
    objects.split_whitespace().map(object).for_each(|object| _ = walk.add(&object));
    assert_eq!(walk.finish(Some(Known { until: reach, written_ms: None })).holes, holes);
}

/// A day is ten milliseconds, it is the 100th, and objects go after three days. Where each object was written, in order.
#[rstest]
#[case::old_in_front("0..10 20..30", &[70, 90], &[hole(10, 20, "expired")])]
#[case::old_on_both_sides("0..10 20..30", &[60, 70], &[hole(10, 20, "expired")])]
#[case::young_in_front("0..10 20..30", &[71, 90], &[hole(10, 20, "missing")])]
#[case::one_of_each("0..10 20..30 40..50", &[70, 80, 90], &[hole(10, 20, "expired"), hole(30, 40, "missing")])]
#[case::the_end("0..10", &[70], &[hole(10, 60, "expired")])]
#[case::a_young_end("0..10", &[80], &[hole(10, 60, "missing")])]
#[case::a_gap_link_is_its_own_reason("0..10 10..20! 20..30", &[70, 80, 90], &[hole(10, 20, "retention")])]
#[case::in_front_of_all("20..30", &[90], &[hole(0, 20, "front")])]
fn holes_are_judged_by_age(#[case] objects: &str, #[case] written_ms: &[i64], #[case] holes: &[Hole]) {
    let mut record = RetentionRecord::new("t");
    record.begin(Some(3), 0, "j");
    let aging = Aging::Recorded { record, now_ms: 100, day_ms: 10 };
    let mut walk = Walk::new(0, &aging, aging.expiry(Some(60)));
    let objects = objects.split_whitespace().map(object).zip(written_ms);
    objects.for_each(|(object, ms)| _ = walk.add(&StoredObject { modified_ms: *ms, ..object }));
    let reach = holes.iter().map(|hole| Known { until: hole.until, written_ms: None }).max();
    assert_eq!(walk.finish(reach).holes, holes);
    assert!(holes.iter().all(|hole| hole.is_damage() == (hole.why == HoleReason::ObjectMissing)));
}

/// What is missing in front of the first object is damage where it cannot have expired, and so is all of a list.
#[rstest]
#[case::nobody_knows("10..20", Expiry::Possible, None, &[hole(0, 10, "front")])]
#[case::nothing_expires("10..20", Expiry::Never, None, &[hole(0, 10, "missing")])]
#[case::nothing_expires_and_the_end_is_missing("0..10", Expiry::Never, Some((20, None)), &[hole(10, 20, "missing")])]
#[case::all_of_it("", Expiry::Never, Some((20, None)), &[hole(0, 20, "missing")])]
#[case::all_of_it_perhaps_by_right("", Expiry::Possible, Some((20, None)), &[hole(0, 20, "front")])]
#[case::all_of_it_and_the_last_is_old("", Expiry::Possible, Some((20, Some(70))), &[hole(0, 20, "front")])]
#[case::all_of_it_and_the_last_is_young("", Expiry::Possible, Some((20, Some(71))), &[hole(0, 20, "missing")])]
#[case::a_gap_link_is_its_own_reason("0..10! 10..20", Expiry::Never, None, &[hole(0, 10, "retention")])]
fn heads_are_judged_as_verify_does(
    #[case] objects: &str,
    #[case] head: Expiry,
    #[case] reach: Option<(i64, Option<i64>)>,
    #[case] holes: &[Hole],
) {
    let mut record = RetentionRecord::new("t");
    record.begin(Some(3), 0, "j");
    let mut walk = Walk::new(0, &Aging::Recorded { record, now_ms: 100, day_ms: 10 }, head);
    let young = |object| StoredObject { modified_ms: 90, ..object };
    objects.split_whitespace().map(object).for_each(|object| _ = walk.add(&young(object)));
    assert_eq!(walk.finish(reach.map(|(until, written_ms)| Known { until, written_ms })).holes, holes);
}

#[rstest]
#[case::contiguous(0, "0..10 10..20", &["0..10", "10..20"], &[])]
#[case::overlap(0, "0..15 10..20", &["0..15", "15..20"], &[])]
#[case::contained(0, "0..20 10..15 20..30", &["0..20", "20..30"], &[])]
#[case::same_name(0, "0..10 0..20", &["0..20"], &[])]
#[case::hole_between(0, "0..10 15..20", &["0..10", "15..20"], &[hole(10, 15, "missing")])]
#[case::hole_in_front(3, "5..10", &["5..10"], &[hole(3, 5, "front")])]
#[case::gap_link(0, "0..10 10..15! 15..20", &["0..10", "15..20"], &[hole(10, 15, "retention")])]
#[case::gap_at_the_end(0, "0..10 10..15!", &["0..10"], &[hole(10, 15, "retention")])]
#[case::only_a_gap(0, "0..15!", &[], &[hole(0, 15, "retention")])]
#[case::gap_filled_by_another(0, "0..10 10..20! 12..25", &["0..10", "12..25"], &[hole(10, 12, "retention")])]
#[case::gap_and_loss(0, "0..10 12..15! 18..20", &["0..10", "18..20"],
    &[hole(10, 12, "missing"), hole(12, 15, "retention"), hole(15, 18, "missing")])]
#[case::older(0, "0 10", &["0..", "10.."], &[])]
#[case::older_then_ours(0, "0 10..20 30..40", &["0..", "10..20", "30..40"], &[hole(20, 30, "missing")])]
#[case::nothing(7, "", &[], &[])]
fn walks(#[case] from: i64, #[case] objects: &str, #[case] taken: &[&str], #[case] holes: &[Hole]) {
    let mut objects: Vec<_> = objects.split_whitespace().map(object).collect();
    sort(&mut objects);
    let mut walk = Walk::new(from, &Aging::default(), Expiry::Possible);
    let ranges: Vec<_> = objects.iter().filter_map(|o| walk.add(o)).collect();
    let shown =
        |r: &Range<i64>| if r.end == i64::MAX { format!("{}..", r.start) } else { format!("{}..{}", r.start, r.end) };
    assert_eq!(ranges.iter().map(shown).collect::<Vec<_>>(), taken);
    assert_eq!(walk.finish(None).holes, holes);
}

#[test]
fn numeric_order_and_not_the_order_of_names() {
    let mut objects: Vec<_> = ["100", "9", "20"].map(object).into();
    sort(&mut objects);
    assert_eq!(objects.iter().map(|o| o.offset).collect::<Vec<_>>(), [9, 20, 100]);
}

fn record(generation: u32, parent: Option<u32>, origins: &[(&str, i64)], forks: &[(&str, i64)]) -> GenerationRecord {
    let map = |pairs: &[(&str, i64)]| pairs.iter().map(|(p, o)| ((*p).to_owned(), *o)).collect();
    GenerationRecord {
        format_version: 1,
        generation,
        uuid: format!("uuid-{generation}"),
        cluster_id: "cluster".to_owned(),
        topic: "t".to_owned(),
        topic_id: String::new(),
        job: "job".to_owned(),
        isolation: crate::model::chain::RecordedIsolation::ReadCommitted,
        created_ms: 0,
        partitions: 2,
        origins: map(origins),
        parent,
        forks: map(forks),
        topic_config: BTreeMap::new(),
    }
}

#[test]
fn a_generation_is_read_from_its_parents_below_the_forks() {
    let mut backup = TopicBackup::default();
    backup.records.insert(1, record(1, None, &[("0", 5)], &[]));
    backup.records.insert(2, record(2, Some(1), &[("0", 50), ("1", 7)], &[("0", 50), ("1", 7)]));
    backup.records.insert(3, record(3, Some(2), &[("0", 40), ("1", 9)], &[("0", 40)]));
    let ranges = |n, p| {
        let segments = backup.segments(n, p);
        segments.into_iter().map(|s| (s.generation, s.range)).collect::<Vec<_>>()
    };
    assert_eq!(ranges(1, 0), [(1, 5..i64::MAX)]);
    assert_eq!(ranges(2, 0), [(1, 5..50), (2, 50..i64::MAX)]);
    // The second fork lies below the first: nothing of generation 2 is left.
    assert_eq!(ranges(3, 0), [(1, 5..40), (3, 40..i64::MAX)]);
    assert_eq!(ranges(2, 1), [(1, 0..7), (2, 7..i64::MAX)]);
    assert_eq!(ranges(3, 1), [(3, 9..i64::MAX)], "without a fork the parent has nothing");
    assert_eq!(backup.lineage(3), [3, 2, 1]);
    assert_eq!(backup.newest(), Some(3));
}

#[rstest]
#[case::fits("t", 0, 10, "uuid-1", true)]
#[case::other_topic("u", 0, 10, "uuid-1", false)]
#[case::other_partition("t", 1, 10, "uuid-1", false)]
#[case::other_start("t", 0, 11, "uuid-1", false)]
#[case::other_generation("t", 0, 10, "uuid-2", false)]
fn objects_must_belong_under_their_names(
    #[case] topic: &str,
    #[case] partition: i32,
    #[case] range_start: i64,
    #[case] generation: &str,
    #[case] good: bool,
) {
    let name = key::parse("t/0/t-0-00000000000000000010.avro").unwrap();
    let meta = ObjectMeta {
        generation: generation.to_owned(),
        job: "job".to_owned(),
        topic: topic.to_owned(),
        topic_id: String::new(),
        partition,
        range_start,
        next_offset: 20,
        offsets: Some((12, 15)),
        records: 2,
        timestamps: None,
        max_record_bytes: 3,
        null_keys: None,
        leader_epoch: -1,
        sha256: String::new(),
        nonce: String::new(),
        at_eof: false,
        run: String::new(),
        gap: String::new(),
    };
    let facts = Facts::from_metadata(&name, &meta.to_metadata(), Some("uuid-1")).unwrap();
    assert_eq!(matches!(facts, Facts::Ours(_)), good, "{facts:?}");
    assert_eq!(Facts::from_metadata(&name, &Metadata::new(), None), None, "older objects say nothing");
}

proptest! {
    /// Whatever objects there are: the ranges taken are disjoint, rise, and with the holes cover everything between
    /// the beginning and the end of the furthest object, and no hole touches an object with records.
    #[test]
    fn takes_and_holes_tile_the_list(from in 0i64..10, spans in prop::collection::vec((0i64..60, 1i64..20, prop::bool::weighted(0.2)), 0..15)) {
        let mut objects: Vec<_> = spans.iter().map(|(start, len, gap)| {
            object(&format!("{}..{}{}", from + start, from + start + len, if *gap { "!" } else { "" }))
        }).collect();
        sort(&mut objects);
        let mut walk = Walk::new(from, &Aging::default(), Expiry::Possible);
        let taken: Vec<_> = objects.iter().filter_map(|o| walk.add(o)).collect();
        let walk = walk.finish(None);
        let holes = walk.holes.iter().map(|h| h.from..h.until);
        let mut all: Vec<_> = taken.iter().cloned().chain(holes).collect();
        all.sort_by_key(|r| r.start);
        let mut at = from;
        for range in &all {
            prop_assert_eq!(range.start, at);
            at = range.end;
        }
        let end = spans.iter().map(|(start, len, _)| from + start + len).max().unwrap_or(from);
        prop_assert_eq!(at, end);
        for hole in &walk.holes {
            for (start, len, gap) in &spans {
                let (a, b) = (from + start, from + start + len);
                prop_assert!(*gap || b <= hole.from || hole.until <= a, "{:?} has {}..{}", hole, a, b);
            }
        }
    }
}
