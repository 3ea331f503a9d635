use proptest::prelude::*;
use rstest::rstest;

use super::window::Verdict;
use super::*;
use crate::model::batch::TimestampType;
use crate::model::catalog::{Branch, OurFacts, StoredObject, sort};
use crate::model::chain::{GenerationRecord, RecordedIsolation};
use crate::model::key::PartitionPath;

const NOW_MS: i64 = 1_800_000_000_000;
const DAY_MS: i64 = 86_400_000;

fn request(topics: &[(&str, &str)]) -> Request {
    let mapping = |(s, t): &(&str, &str)| Mapping { source: (*s).to_owned(), target: (*t).to_owned() };
    Request {
        topics: topics.iter().map(mapping).collect(),
        generation: None,
        partitions: None,
        times: Times::default(),
        offsets: BTreeMap::new(),
        create_topics: true,
        replication_factor: None,
        append: false,
        in_place: false,
        apply_topic_config: false,
        now_ms: NOW_MS,
    }
}

fn ours(start: i64, next: i64, records: u64) -> StoredObject {
    let facts = OurFacts {
        next_offset: next,
        records,
        timestamps: (records > 0).then_some((NOW_MS - 10 * DAY_MS, NOW_MS - DAY_MS)),
        max_record_bytes: 1000,
        null_keys: None,
        sha256: "ab".to_owned(),
        gap: String::new(),
    };
    StoredObject {
        key: format!("t/{start}"),
        offset: start,
        size: 100,
        etag: "e".to_owned(),
        modified_ms: 0,
        facts: Facts::Ours(facts),
    }
}

/// The same under its full name.
fn named(start: i64, next: i64) -> StoredObject {
    StoredObject { key: PartitionPath::normal("t", 1, 0).object(start), ..ours(start, next, 8) }
}

fn older(start: i64) -> StoredObject {
    StoredObject {
        key: format!("t/{start}"),
        offset: start,
        size: 100,
        etag: "e".to_owned(),
        modified_ms: 0,
        facts: Facts::Older,
    }
}

fn record(partitions: u32) -> GenerationRecord {
    GenerationRecord {
        format_version: 1,
        generation: 1,
        uuid: "uuid".to_owned(),
        cluster_id: "source-cluster".to_owned(),
        topic: "t".to_owned(),
        topic_id: String::new(),
        job: "job".to_owned(),
        isolation: RecordedIsolation::ReadCommitted,
        created_ms: 0,
        partitions,
        origins: BTreeMap::new(),
        parent: None,
        forks: BTreeMap::new(),
        topic_config: BTreeMap::new(),
    }
}

fn catalog(partitions: u32, objects: Vec<(i32, Vec<StoredObject>)>) -> Catalog {
    let mut backup = TopicBackup::default();
    backup.records.insert(1, record(partitions));
    backup.branches.insert(Branch::Generation(1), objects.into_iter().collect());
    Catalog { topics: BTreeMap::from([("t".to_owned(), backup)]) }
}

fn target(offsets: &[(i64, i64)], config: &[(&str, &str)]) -> Target {
    let config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let topic = TargetTopic { id: None, offsets: offsets.to_vec(), config, denied: Denied::default() };
    Target { cluster_id: "target-cluster".to_owned(), topics: BTreeMap::from([("t".to_owned(), topic)]) }
}

fn one_object() -> Catalog {
    catalog(1, vec![(0, vec![ours(0, 10, 8)])])
}

#[test]
fn a_missing_target_is_created_so_that_old_records_stay() {
    let plan = plan(&request(&[("t", "copy")]), &one_object(), &Target::default()).unwrap();
    let create = plan.topics[0].create.as_ref().unwrap();
    assert_eq!(create.partitions, 1);
    for (key, value) in [
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("cleanup.policy", "delete"),
        ("message.timestamp.type", "CreateTime"),
        ("max.message.bytes", "1048588"),
    ] {
        assert_eq!(create.config.get(key).map(String::as_str), Some(value), "{key}");
    }
    let expected = Totals {
        topics: 1,
        partitions: 1,
        objects: 1,
        bytes: 100,
        records: 8,
        records_at_most: Some(8),
        ..Totals::default()
    };
    assert_eq!(plan.totals(), expected);
}

#[test]
fn empty_partitions_count_for_the_target() {
    let plan = plan(&request(&[("t", "t")]), &catalog(5, vec![(1, vec![ours(0, 10, 8)])]), &Target::default()).unwrap();
    assert_eq!(plan.topics[0].create.as_ref().unwrap().partitions, 5);
    assert_eq!(plan.topics[0].partitions.len(), 5);
    assert_eq!(plan.totals().partitions, 1);
}

#[test]
fn holes_are_warned_of() {
    let plan =
        plan(&request(&[("t", "t")]), &catalog(1, vec![(0, vec![named(0, 10), named(20, 30)])]), &Target::default());
    let plan = plan.unwrap();
    let key = PartitionPath::normal("t", 1, 0).object(10);
    assert_eq!(plan.missing().collect::<Vec<_>>(), [&key]);
    let missing = format!("{key} is missing; put a copy back, or go on without its records");
    assert_eq!(plan.warnings, ["t/0: gap: offsets 10 to 19 are in no object: one was deleted", &missing]);
}

#[test]
fn an_existing_target_gives_the_base_offset() {
    let mut request = request(&[("t", "t")]);
    request.append = true;
    let plan = plan(&request, &one_object(), &target(&[(3, 17)], &[])).unwrap();
    assert_eq!(plan.topics[0].create, None);
    assert_eq!(plan.topics[0].partitions[0].base_offset, 17);
}

#[test]
fn an_emptied_target_is_empty() {
    let plan = plan(&request(&[("t", "t")]), &one_object(), &target(&[(17, 17)], &[])).unwrap();
    assert_eq!(plan.topics[0].partitions[0].base_offset, 17);
}

#[rstest]
#[case::not_empty(target(&[(0, 1)], &[]), "is not empty (partitions [0])")]
#[case::too_few(Target { topics: target(&[], &[]).topics, ..Target::default() }, "has 0 partitions, 1 are needed")]
#[case::small(target(&[(0, 0)], &[("max.message.bytes", "1000")]), "the largest record has 1000")]
#[case::old(target(&[(0, 0)], &[("message.timestamp.before.max.ms", "86400000")]), "refuses timestamps older than")]
#[case::new(target(&[(0, 0)], &[("message.timestamp.after.max.ms", "-86400001")]), "ahead of now")]
#[case::log_append(target(&[(0, 0)], &[("message.timestamp.type", "LogAppendTime")]), "would replace every timestamp")]
#[case::itself(Target { cluster_id: "source-cluster".to_owned(), ..target(&[(0, 0)], &[]) }, "is the one that was backed up")]
fn refuses(#[case] target: Target, #[case] expected: &str) {
    let refusals = plan(&request(&[("t", "t")]), &one_object(), &target).unwrap_err();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert!(refusals[0].to_string().contains(expected), "{}", refusals[0]);
}

#[rstest]
#[case::retention(&[("retention.ms", "86400000")], "deletes records older than")]
#[case::compacted(&[("cleanup.policy", "compact,delete")], "is compacted")]
#[case::bytes(&[("retention.bytes", "5")], "keeps only 5 bytes")]
fn warns(#[case] config: &[(&str, &str)], #[case] expected: &str) {
    let plan = plan(&request(&[("t", "t")]), &one_object(), &target(&[(0, 0)], config)).unwrap();
    assert!(plan.warnings.iter().any(|w| w.contains(expected)), "{:?}", plan.warnings);
}

#[rstest]
#[case::write(Denied { write: true, ..Denied::default() }, false, &["no WRITE permission"], 0)]
#[case::settings(Denied { alter_configs: true, ..Denied::default() }, true, &["no ALTER_CONFIGS permission"], 0)]
#[case::settings_are_left_alone(Denied { alter_configs: true, ..Denied::default() }, false, &[], 0)]
#[case::read(Denied { read: true, ..Denied::default() }, false, &[], 1)]
fn permissions_are_part_of_the_target(
    #[case] denied: Denied,
    #[case] apply_topic_config: bool,
    #[case] refused: &[&str],
    #[case] warnings: usize,
) {
    let mut target = target(&[(0, 0)], &[]);
    target.topics.values_mut().for_each(|topic| topic.denied = denied);
    let request = Request { apply_topic_config, ..request(&[("t", "t")]) };
    match plan(&request, &one_object(), &target) {
        Ok(plan) => assert_eq!((refused.len(), plan.warnings.len()), (0, warnings), "{:?}", plan.warnings),
        Err(refusals) => {
            let said: Vec<String> = refusals.iter().map(ToString::to_string).collect();
            assert_eq!(said.len(), refused.len(), "{said:?}");
            assert!(said.iter().zip(refused).all(|(said, word)| said.contains(word)), "{said:?}");
            assert!(refusals.iter().all(|refusal| refusal.exit() == crate::error::Exit::Auth));
        }
    }
}

#[test]
fn what_overlaps_is_counted() {
    let catalog = catalog(1, vec![(0, vec![ours(0, 10, 10), ours(5, 20, 15)])]);
    let plan = plan(&request(&[("t", "copy")]), &catalog, &Target::default()).unwrap();
    let partition = &plan.topics[0].partitions[0];
    assert_eq!((partition.overlaps, partition.offsets()), (1, Some((0, Some(20)))));
}

#[test]
fn all_refusals_come_at_once() {
    let mut request = request(&[("t", "t"), ("nowhere", "x"), ("t", "a b")]);
    request.create_topics = false;
    let target = target(&[(0, 5)], &[("max.message.bytes", "10")]);
    let refusals = plan(&request, &one_object(), &target).unwrap_err();
    let found = |expected: fn(&Refusal) -> bool| refusals.iter().any(expected);
    assert!(found(|r| matches!(r, Refusal::NotEmpty { .. })));
    assert!(found(|r| matches!(r, Refusal::RecordTooLarge { .. })));
    assert!(found(|r| matches!(r, Refusal::NoSuchTopic { .. })));
    assert!(found(|r| matches!(r, Refusal::BadTopicName { .. })));
    assert!(found(|r| matches!(r, Refusal::TargetMissing { .. })));
}

#[test]
fn nothing_to_restore_is_refused() {
    let empty = catalog(3, vec![]);
    assert_eq!(plan(&request(&[("t", "t")]), &empty, &Target::default()), Err(vec![Refusal::NothingMatched]));
}

#[test]
fn bad_objects_are_named_before_anything_is_done() {
    let mut bad = ours(10, 20, 5);
    bad.facts = Facts::Bad("it says it begins at offset 3".to_owned());
    let refusals = plan(&request(&[("t", "t")]), &catalog(1, vec![(0, vec![ours(0, 10, 5), bad])]), &Target::default());
    assert!(matches!(&refusals.unwrap_err()[..], [Refusal::BadObject { .. }]));
}

#[test]
fn partitions_can_be_chosen() {
    let mut request = request(&[("t", "t")]);
    request.partitions = Some(BTreeSet::from([("t".to_owned(), 1)]));
    let both = catalog(2, vec![(0, vec![ours(0, 10, 8)]), (1, vec![ours(0, 5, 3)])]);
    // A record in a partition that is not restored is none of our business.
    let plan = super::plan(&request, &both, &target(&[(0, 1), (0, 0)], &[])).unwrap();
    assert_eq!(plan.topics[0].partitions.iter().map(|p| p.partition).collect::<Vec<_>>(), [1]);
    assert_eq!(plan.totals().records, 3);

    request.partitions = Some(BTreeSet::from([("t".to_owned(), 2)]));
    assert!(matches!(
        super::plan(&request, &both, &Target::default()).unwrap_err()[0],
        Refusal::NoSuchPartition { .. }
    ));
}

#[test]
fn records_of_the_older_layout_are_counted_while_reading() {
    let plan =
        plan(&request(&[("t", "t")]), &catalog(1, vec![(0, vec![older(0), older(10)])]), &Target::default()).unwrap();
    let totals = plan.totals();
    assert_eq!((totals.records, totals.uncounted_objects), (0, 2));
    assert_eq!(plan.topics[0].create.as_ref().unwrap().config["max.message.bytes"], "104857600");
}

#[test]
fn offsets_of_partitions_that_are_not_restored_are_refused() {
    let mut request = request(&[("t", "t")]);
    request.offsets.insert(("t".to_owned(), 7), Offsets { from: Some(1), until: None });
    let refusals = plan(&request, &one_object(), &Target::default()).unwrap_err();
    assert!(matches!(refusals[..], [Refusal::NoSuchPartition { partition: 7, .. }]), "{refusals:?}");
    request.offsets = BTreeMap::from([(("t".to_owned(), 0), Offsets::default())]);
    request.partitions = Some(BTreeSet::from([("t".to_owned(), 1)]));
    let two = catalog(2, vec![(0, vec![ours(0, 10, 8)]), (1, vec![ours(0, 5, 3)])]);
    let refusals = plan(&request, &two, &Target::default()).unwrap_err();
    assert_eq!(refusals, [Refusal::PartitionLeftOut { topic: "t".to_owned(), partition: 0 }]);
}

#[test]
fn holes_that_nobody_asked_for_are_not_warned_of() {
    let mut request = request(&[("t", "t")]);
    let holey = catalog(1, vec![(0, vec![named(0, 10), named(20, 30), named(40, 50)])]);
    request.offsets.insert(("t".to_owned(), 0), Offsets { from: Some(15), until: Some(35) });
    let plan = plan(&request, &holey, &Target::default()).unwrap();
    let holes: Vec<_> = plan.topics[0].partitions[0].holes.iter().map(|hole| (hole.from, hole.until)).collect();
    assert_eq!(holes, [(15, 20), (30, 35)]);
    let path = PartitionPath::normal("t", 1, 0);
    assert_eq!(plan.topics[0].partitions[0].missing, [path.object(10), path.object(30)]);
}

#[test]
fn what_the_target_does_not_take_matters_only_where_it_is_asked_for() {
    let mut object = ours(0, 10, 5);
    if let Facts::Ours(facts) = &mut object.facts {
        facts.timestamps = Some((0, 7));
    }
    let catalog = catalog(1, vec![(0, vec![object])]);
    let mut request = request(&[("t", "t")]);
    let limit = (request.now_ms - 4).to_string();
    let target = target(&[(0, 0)], &[("message.timestamp.before.max.ms", &limit)]);
    request.times.from_ms = Some(4);
    assert!(plan(&request, &catalog, &target).is_ok());
    request.times = Times { from_ms: None, until_ms: Some(1) };
    let refusals = plan(&request, &catalog, &target).unwrap_err();
    assert!(matches!(refusals[..], [Refusal::TimestampTooOld { .. }]), "{refusals:?}");
}

/// A compacted target takes no record without a key, and says so only when it gets one.
#[rstest]
#[case::all_have_keys(Some(0), None, Ok(false))]
#[case::some_have_none(Some(3), None, Err(3))]
#[case::nobody_says(None, None, Ok(true))]
#[case::perhaps_in_what_is_left_out(Some(3), Some(5), Ok(true))]
#[case::none_in_a_part(Some(0), Some(5), Ok(false))]
fn null_keys_into_a_compacted_target(
    #[case] null_keys: Option<u64>,
    #[case] until: Option<i64>,
    #[case] expected: Result<bool, u64>,
) {
    let mut object = ours(0, 10, 8);
    if let Facts::Ours(facts) = &mut object.facts {
        facts.null_keys = null_keys;
    }
    let catalog = catalog(1, vec![(0, vec![object])]);
    let mut request = request(&[("t", "t")]);
    request.offsets.insert(("t".to_owned(), 0), Offsets { from: None, until });
    let planned = plan(&request, &catalog, &target(&[(0, 0)], &[("cleanup.policy", "compact,delete")]));
    match expected {
        Ok(unknown) => {
            let warnings = planned.unwrap().warnings.join("\n");
            assert!(warnings.contains("thinned out"), "{warnings}");
            assert_eq!(warnings.contains("without a key"), unknown, "{warnings}");
        }
        Err(records) => {
            assert_eq!(planned.unwrap_err(), [Refusal::NoKeys { topic: "t".to_owned(), records }]);
        }
    }
    assert!(plan(&request, &catalog, &target(&[(0, 0)], &[("cleanup.policy", "delete")])).is_ok());
}

#[test]
fn what_the_brokers_write_themselves_is_no_target() {
    let refusals = plan(&request(&[("t", "__consumer_offsets")]), &one_object(), &Target::default()).unwrap_err();
    assert_eq!(refusals, [Refusal::KafkasOwn { topic: "__consumer_offsets".to_owned() }]);
}

/// What reading `plan` takes, when every object holds exactly the records of `log` in its span.
fn read(plan: &PartitionPlan, spans: &BTreeMap<String, (i64, i64)>, log: &BTreeMap<i64, i64>) -> Vec<i64> {
    let (mut next, mut taken) = (i64::MIN, Vec::new());
    for take in &plan.objects {
        let (start, end) = spans[&take.key];
        let before = taken.len();
        for (offset, ms) in log.range(start..end) {
            if take.takes(*offset, next) {
                next = offset + 1;
                if plan.times.judge(*ms, TimestampType::CreateTime) != Verdict::Outside {
                    taken.push(*offset);
                }
            }
        }
        if let Some(records) = take.records {
            assert_eq!(records as usize, taken.len() - before, "{take:?}");
        }
    }
    taken
}

/// A timestamp, or -1 for none; 0 cannot be sent.
fn timestamp() -> impl Strategy<Value = i64> {
    (0i64..20).prop_map(|ms| if ms == 0 { -1 } else { ms })
}

proptest! {
    /// Whatever objects overlap however, and whatever is asked for: every record that is in any of them and wanted is
    /// restored exactly once, in order, and the counts of the plan hold.
    #[test]
    fn what_is_wanted_of_the_union_is_restored_exactly_once(
        log in prop::collection::btree_map(0i64..80, timestamp(), 0..80),
        spans in prop::collection::vec((0i64..70, 1i64..25, prop::bool::ANY), 1..14),
        times in (prop::option::of(0i64..20), prop::option::of(0i64..20)),
        offsets in (prop::option::of(0i64..80), prop::option::of(0i64..80)),
    ) {
        let (mut objects, mut held, mut union) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        let times = Times { from_ms: times.0, until_ms: times.1 };
        let offsets = Offsets { from: offsets.0, until: offsets.1 };
        for (i, (start, len, is_ours)) in spans.iter().enumerate() {
            let end = start + len;
            let records: Vec<(i64, i64)> = log.range(start..&end).map(|(offset, ms)| (*offset, *ms)).collect();
            // Neither layout has objects without records; a gap link is not made of records.
            let Some((first, _)) = records.first() else { continue };
            let mut object = if *is_ours { ours(*start, end, records.len() as u64) } else { older(*first) };
            if let Facts::Ours(facts) = &mut object.facts {
                let ms = || records.iter().map(|(_, ms)| *ms);
                facts.timestamps = ms().min().zip(ms().max());
            }
            object.key = format!("{i}");
            held.insert(object.key.clone(), (*start, end));
            union.extend(records);
            objects.push(object);
        }
        let kept = |(offset, ms): &(i64, i64)| {
            offsets.range().contains(offset) && times.judge(*ms, TimestampType::CreateTime) != Verdict::Outside
        };
        let wanted: Vec<i64> = union.into_iter().filter(kept).map(|(offset, _)| offset).collect();
        sort(&mut objects);
        let mut request = request(&[("t", "t")]);
        (request.times, request.offsets) = (times, BTreeMap::from([(("t".to_owned(), 0), offsets)]));
        let plan = match plan(&request, &catalog(1, vec![(0, objects)]), &Target::default()) {
            Err(refusals) if refusals == [Refusal::NothingMatched] => {
                prop_assert!(wanted.is_empty());
                return Ok(());
            }
            plan => plan.unwrap(),
        };
        let partition = &plan.topics[0].partitions[0];
        let taken = read(partition, &held, &log);
        prop_assert!(partition.records <= taken.len() as u64);
        prop_assert!(partition.records_at_most.is_none_or(|most| taken.len() as u64 <= most));
        prop_assert_eq!(taken, wanted);
    }
}
