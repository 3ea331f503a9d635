use rstest::rstest;

use super::*;
use crate::model::compacted::Name;
use crate::model::compacted::look_tests::run as run_of;
use crate::model::compacted::record::{COMPACTED_FORMAT_VERSION, TermPartition};

fn listed(offset: i64, next_offset: i64) -> TermObject {
    TermObject { offset, next_offset, size: 7, etag: format!("e{offset}").into() }
}

fn there(offset: i64) -> SeenObject {
    SeenObject { partition: 0, offset, size: 7, etag: format!("e{offset}").into(), facts: None }
}

/// Of run "INSTANCE1", with the objects [5, 8) and [8, 9); void without them.
fn term(number: u64, instance: &str, void: bool) -> TermRecord {
    let partition = TermPartition { from: 5, to: 9, objects: vec![listed(5, 8), listed(8, 9)] };
    TermRecord {
        format_version: COMPACTED_FORMAT_VERSION,
        term: number,
        topic: "t".to_owned(),
        instance: instance.into(),
        run: format!("{instance}1").into(),
        void,
        created_ms: 1,
        scan_started_ms: 1,
        scan_ended_ms: 1,
        partitions: if void { BTreeMap::new() } else { [(0, partition)].into() },
        objects: 2,
        bytes: 14,
    }
}

fn run(instance: &str) -> RunRecord {
    RunRecord { origins: [(0, 5)].into(), ..run_of(instance, 1) }
}

/// TERM 1 of `a`, whose objects were deleted by right, and TERM 2 of `b`, which is whole.
fn sound() -> (Seen, Runs) {
    let terms = [(1, Some(term(1, "a", false))), (2, Some(term(2, "b", false)))].into();
    let seen = Seen { terms, objects: [("b".into(), vec![there(5), there(8)])].into(), ..Seen::default() };
    let runs = ["a", "b"].map(|instance| (record::run_key("t", instance, 1), Ok(run(instance))));
    (seen, runs.into())
}

fn of_b(seen: &mut Seen) -> &mut Vec<SeenObject> {
    seen.objects.get_mut(&Name::from("b")).unwrap()
}

const TERM_1: &str = "_kafka_backup/compacted/t/TERM-1.json";
const TERM_2: &str = "_kafka_backup/compacted/t/TERM-2.json";
const TERM_3: &str = "_kafka_backup/compacted/t/TERM-3.json";
const RUN_A: &str = "_kafka_backup/compacted/t/RUN-a-1.json";
const RUN_B: &str = "_kafka_backup/compacted/t/RUN-b-1.json";
const FIVE: &str = "t/b/0/t-0-00000000000000000005.avro";
const EIGHT: &str = "t/b/0/t-0-00000000000000000008.avro";

type Change = fn(&mut Seen, &mut Runs);
type Expected<'a> = &'a [(Severity, Reason, &'a str)];

use Severity::{Damage, Note};

#[rstest]
#[case::sound(|_: &mut Seen, _: &mut Runs| {}, &[])]
#[case::an_object_is_gone(|seen: &mut Seen, _: &mut Runs| drop(of_b(seen).remove(1)), &[(Damage, Reason::Missing, EIGHT)])]
#[case::all_are_gone(
    |seen: &mut Seen, _: &mut Runs| seen.objects.clear(),
    &[(Damage, Reason::Missing, FIVE), (Damage, Reason::Missing, EIGHT)]
)]
#[case::one_is_another(|seen: &mut Seen, _: &mut Runs| of_b(seen)[0].etag = "x".into(), &[(Damage, Reason::Checksum, FIVE)])]
#[case::one_has_another_size(|seen: &mut Seen, _: &mut Runs| of_b(seen)[0].size = 8, &[(Damage, Reason::Size, FIVE)])]
#[case::more_than_is_listed(|seen: &mut Seen, _: &mut Runs| of_b(seen).push(there(9)), &[])]
#[case::a_void_one_above(|seen: &mut Seen, _: &mut Runs| drop(seen.terms.insert(3, Some(term(3, "a", true)))), &[])]
#[case::an_unreadable_one_above(|seen: &mut Seen, _: &mut Runs| drop(seen.terms.insert(3, None)), &[(Damage, Reason::Decode, TERM_3)])]
#[case::an_unreadable_one_above_and_an_object_is_gone(
    |seen: &mut Seen, _: &mut Runs| { seen.terms.insert(3, None); of_b(seen).remove(0); },
    &[(Damage, Reason::Decode, TERM_3), (Note, Reason::Missing, FIVE)]
)]
#[case::an_unreadable_one_below(|seen: &mut Seen, _: &mut Runs| drop(seen.terms.insert(1, None)), &[(Note, Reason::Decode, TERM_1)])]
#[case::a_missing_one_below(|seen: &mut Seen, _: &mut Runs| drop(seen.terms.remove(&1)), &[(Note, Reason::Missing, TERM_1)])]
#[case::a_missing_one_above(
    |seen: &mut Seen, _: &mut Runs| drop(seen.terms.insert(4, Some(term(4, "a", true)))),
    &[(Damage, Reason::Missing, TERM_3)]
)]
#[case::none_can_be_read(
    |seen: &mut Seen, _: &mut Runs| seen.terms.values_mut().for_each(|term| *term = None),
    &[(Damage, Reason::Decode, TERM_1), (Damage, Reason::Decode, TERM_2)]
)]
#[case::an_unreadable_run(
    |_: &mut Seen, runs: &mut Runs| drop(runs.insert(RUN_B.to_owned(), Err(RecordError { key: RUN_B.to_owned(), why: "odd".to_owned() }))),
    &[(Damage, Reason::Decode, RUN_B)]
)]
#[case::an_unreadable_run_of_the_other(
    |_: &mut Seen, runs: &mut Runs| drop(runs.insert(RUN_A.to_owned(), Err(RecordError { key: RUN_A.to_owned(), why: "odd".to_owned() }))),
    &[(Damage, Reason::Decode, RUN_A)]
)]
#[case::no_record_of_its_run(
    |_: &mut Seen, runs: &mut Runs| drop(runs.remove(RUN_B)),
    &[(Damage, Reason::Missing, "_kafka_backup/compacted/t/RUN-b-")]
)]
#[case::no_term_yet(|seen: &mut Seen, _: &mut Runs| seen.terms.clear(), &[])]
fn what_must_be_there(#[case] change: Change, #[case] expected: Expected<'_>) {
    let (mut seen, mut runs) = sound();
    change(&mut seen, &mut runs);
    let judged = judge("t", &seen, &runs);
    let found: Vec<_> = judged.iter().map(|f| (f.severity, f.reason, f.key.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_missing_object_is_named_with_its_offsets_and_the_way_out() {
    let (mut seen, runs) = sound();
    of_b(&mut seen).remove(0);
    let [finding] = &judge("t", &seen, &runs)[..] else { panic!("one") };
    assert_eq!(finding.affected, Some(Affected { from: 5, until: Some(8) }));
    assert_eq!(finding.path, Some(PartitionPath::of_instance("t", "b", 0)));
    assert!(finding.what.contains("TERM 2 of instance b") && finding.what.contains("kafka-backup swap"));
}

#[rstest]
#[case::of_the_newest(|_: &mut Seen, _: &mut Runs| {}, "b", &[("b1", Some(5))])]
#[case::of_the_other(|_: &mut Seen, _: &mut Runs| {}, "a", &[])]
#[case::a_partition_that_came_later(|_: &mut Seen, runs: &mut Runs| runs.values_mut().flatten().for_each(|run| run.origins.clear()), "b", &[("b1", Some(0))])]
#[case::without_a_record_the_term_says_it(|_: &mut Seen, runs: &mut Runs| runs.clear(), "b", &[("b1", Some(5))])]
#[case::the_highest_is_void(|seen: &mut Seen, _: &mut Runs| drop(seen.terms.insert(2, Some(term(2, "b", true)))), "a", &[("a1", Some(5))])]
#[case::no_term(|seen: &mut Seen, _: &mut Runs| seen.terms.clear(), "b", &[])]
fn runs_that_must_be_whole(#[case] change: Change, #[case] instance: &str, #[case] expected: &[(&str, Option<i64>)]) {
    let (mut seen, mut runs) = sound();
    change(&mut seen, &mut runs);
    let found = whole_runs(&seen, &runs, &PartitionPath::of_instance("t", instance, 0));
    assert_eq!(found, expected.iter().map(|(run, origin)| ((*run).to_owned(), *origin)).collect());
}

fn finding(severity: Severity, reason: Reason, key: &str, what: &str) -> Finding {
    Finding { severity, reason, key: key.to_owned(), path: None, affected: None, what: what.to_owned() }
}

/// "list" is what the list says, "term" what the TERM says.
#[rstest]
#[case::both_know_of_it(&[(Damage, Reason::Missing, "a")], &[(Damage, Reason::Missing, "a")], false, &["term a"])]
#[case::only_the_list_does(&[(Damage, Reason::Missing, "a")], &[], false, &["list a"])]
#[case::only_the_term_does(&[], &[(Damage, Reason::Missing, "a")], false, &["term a"])]
#[case::a_turn_took_place(&[(Damage, Reason::Missing, "a")], &[], true, &[])]
#[case::and_there_is_damage_behind_it(
    &[(Damage, Reason::Missing, "a")],
    &[(Damage, Reason::Missing, "b")],
    true,
    &["term b"]
)]
#[case::other_damage_stays(&[(Damage, Reason::Metadata, "a")], &[], true, &["list a"])]
#[case::the_same_is_said_once(
    &[(Damage, Reason::Size, "a")],
    &[(Damage, Reason::Size, "a"), (Damage, Reason::Checksum, "b")],
    false,
    &["list a", "term b"]
)]
fn what_is_said_in_the_end(
    #[case] held: Expected<'_>,
    #[case] judged: Expected<'_>,
    #[case] turned: bool,
    #[case] expected: &[&str],
) {
    let made = |all: Expected<'_>, who: &str| {
        all.iter().map(|(severity, reason, key)| finding(*severity, *reason, key, &format!("{who} {key}"))).collect()
    };
    let said: Vec<String> =
        settle(made(held, "list"), made(judged, "term"), turned).into_iter().map(|finding| finding.what).collect();
    assert_eq!(said, expected);
}
