use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::model::lifecycle::record::RetentionRecord;

const UUID: &str = "5f3d";

fn path() -> PartitionPath {
    PartitionPath::normal("t", 1, 0)
}

fn root() -> Root {
    let aging = Aging::Unrecorded(Expiry::Never);
    Root { uuid: Some(UUID.to_owned()), origin: Some(0), expiry: Expiry::Never, aging, whole_runs: BTreeMap::new() }
}

fn meta(start: i64, next: i64, run: &str) -> ObjectMeta {
    ObjectMeta {
        generation: UUID.to_owned(),
        job: "j".to_owned(),
        topic: "t".to_owned(),
        topic_id: String::new(),
        partition: 0,
        range_start: start,
        next_offset: next,
        offsets: Some((start, next - 1)),
        records: 1,
        timestamps: Some((0, 0)),
        max_record_bytes: 1,
        null_keys: None,
        leader_epoch: 0,
        sha256: String::new(),
        nonce: "n".to_owned(),
        at_eof: false,
        run: run.to_owned(),
        gap: String::new(),
    }
}

fn of_run(start: i64, next: i64, run: &str) -> Seen {
    let told = Told::Ours(Box::new(meta(start, next, run)));
    Seen { key: path().object(start), offset: start, size: 1, modified_ms: start, told }
}

fn ours(start: i64, next: i64) -> Seen {
    of_run(start, next, "")
}

fn bad(start: i64) -> Seen {
    Seen { told: Told::Bad(Reason::Metadata, "odd".to_owned()), ..ours(start, start + 1) }
}

fn empty(start: i64) -> Seen {
    Seen { size: 0, ..ours(start, start + 1) }
}

fn named(start: i64) -> Seen {
    Seen { told: Told::Unasked, ..ours(start, start + 1) }
}

fn older(start: i64) -> Seen {
    Seen { told: Told::Older, ..ours(start, start + 1) }
}

fn judge(root: Root, seen: &[Seen], reaches: &[Reach]) -> (Vec<Finding>, Extent) {
    let (mut chain, mut findings) = (Chain::new(path(), root), Vec::new());
    seen.iter().for_each(|seen| chain.next(seen, &mut findings));
    let extent = chain.end(reaches, &mut findings);
    (findings, extent)
}

fn reach(until: i64) -> Reach {
    Reach { until, witness: "somebody".to_owned(), written_ms: None }
}

/// What was found, short: severity, reason, first and end of the affected offsets (-1: not known).
fn short(findings: &[Finding]) -> Vec<(Severity, Reason, i64, i64)> {
    let one = |f: &Finding| {
        let affected = f.affected.unwrap();
        (f.severity, f.reason, affected.from, affected.until.unwrap_or(-1))
    };
    findings.iter().map(one).collect()
}

use Severity::{Damage, Note};

#[rstest]
#[case::sound(&[ours(0, 5), ours(5, 9)], &[])]
#[case::nothing(&[], &[])]
#[case::middle(&[ours(0, 5), ours(9, 12)], &[(Damage, Reason::Missing, 5, 9)])]
#[case::head(&[ours(5, 9)], &[(Damage, Reason::Missing, 0, 5)])]
#[case::overlap(&[ours(0, 5), ours(3, 9)], &[(Damage, Reason::Gap, 3, 5)])]
#[case::inside(&[ours(0, 9), ours(3, 5), ours(9, 10)], &[(Damage, Reason::Gap, 3, 5)])]
#[case::bad(&[ours(0, 5), bad(5), ours(8, 9)], &[(Damage, Reason::Metadata, 5, 8)])]
#[case::bad_at_the_end(&[ours(0, 5), bad(5)], &[(Damage, Reason::Metadata, 5, -1)])]
#[case::bad_behind_a_hole(&[ours(0, 5), bad(7)], &[(Damage, Reason::Missing, 5, 7), (Damage, Reason::Metadata, 7, -1)])]
#[case::bad_within_another(&[ours(0, 5), bad(3), ours(9, 10)], &[(Damage, Reason::Metadata, 3, 9), (Damage, Reason::Missing, 5, 9)])]
#[case::bad_and_the_head(&[bad(5)], &[(Damage, Reason::Missing, 0, 5), (Damage, Reason::Metadata, 5, -1)])]
#[case::empty(&[empty(0), ours(5, 9)], &[(Damage, Reason::Size, 0, 5)])]
#[case::names_alone(&[named(0), named(5), named(7)], &[])]
#[case::names_alone_without_a_head(&[named(5), named(7)], &[(Damage, Reason::Missing, 0, 5)])]
#[case::older(&[older(5), older(9)], &[])]
fn lists(#[case] seen: &[Seen], #[case] expected: &[(Severity, Reason, i64, i64)]) {
    assert_eq!(short(&judge(root(), seen, &[]).0), expected);
}

#[test]
fn the_missing_object_is_named() {
    let (findings, _) = judge(root(), &[ours(0, 5), ours(9, 12)], &[]);
    assert_eq!(findings[0].key, "t/0/t-0-00000000000000000005.avro");
}

#[test]
fn a_head_that_may_have_expired_is_no_damage() {
    let root = Root { expiry: Expiry::Possible, ..root() };
    assert_eq!(short(&judge(root.clone(), &[ours(5, 9)], &[]).0), [(Note, Reason::Missing, 0, 5)]);
    let hole = judge(root, &[ours(0, 5), ours(7, 9)], &[]).0;
    assert_eq!(short(&hole), [(Damage, Reason::Missing, 5, 7)], "what expires is a head, not a hole");
}

#[test]
fn an_object_in_front_of_the_origin_is_foreign() {
    let root = Root { origin: Some(7), ..root() };
    let (findings, _) = judge(root, &[ours(5, 7), ours(7, 9)], &[]);
    assert_eq!(short(&findings), [(Damage, Reason::Foreign, 5, 7)]);
}

#[rstest]
#[case::as_far_as_said(&[ours(0, 5)], 5, &[])]
#[case::further(&[ours(0, 9)], 5, &[])]
#[case::not_as_far(&[ours(0, 5)], 7, &[(Damage, Reason::Missing, 5, 7)])]
#[case::nothing_left(&[], 7, &[(Damage, Reason::Missing, 0, 7)])]
#[case::never_anything(&[], 0, &[])]
#[case::end_not_known(&[ours(0, 5), bad(5)], 9, &[(Damage, Reason::Metadata, 5, -1)])]
fn how_far_a_list_must_reach(
    #[case] seen: &[Seen],
    #[case] until: i64,
    #[case] expected: &[(Severity, Reason, i64, i64)],
) {
    assert_eq!(short(&judge(root(), seen, &[reach(until), reach(0)]).0), expected);
}

#[test]
fn a_list_that_has_expired_as_a_whole_is_no_damage() {
    let root = Root { expiry: Expiry::Possible, ..root() };
    assert_eq!(short(&judge(root, &[], &[reach(7)]).0), [(Note, Reason::Missing, 0, 7)]);
}

/// A day is one millisecond, objects are written at the millisecond of their offset, and it is 20.
fn expiring(terms: &[(Option<u32>, i64)]) -> Root {
    let mut record = RetentionRecord::new("t");
    terms.iter().for_each(|(days, from_ms)| _ = record.begin(*days, *from_ms, "j"));
    let aging = Aging::Recorded { record, now_ms: 20, day_ms: 1 };
    Root { expiry: aging.expiry(Some(0)), aging, ..root() }
}

#[rstest]
#[case::head_of_a_list_that_is_old_enough(expiring(&[(Some(10), 0)]), &[ours(12, 20)], &[(Note, Reason::Missing, 0, 12)])]
#[case::head_of_a_list_that_is_too_young(expiring(&[(Some(21), 0)]), &[ours(12, 20)], &[(Damage, Reason::Missing, 0, 12)])]
#[case::kept_since(expiring(&[(Some(3), 0), (None, 5)]), &[ours(12, 20)], &[(Note, Reason::Missing, 0, 12)])]
#[case::removed_in_another_order(expiring(&[(Some(10), 0)]), &[ours(0, 5), ours(7, 20)], &[(Note, Reason::Missing, 5, 7)])]
#[case::behind_a_young_one(expiring(&[(Some(10), 0)]), &[ours(11, 15), ours(17, 20)], &[(Note, Reason::Missing, 0, 11), (Damage, Reason::Missing, 15, 17)])]
#[case::what_was_not_removed_then_is_kept(expiring(&[(Some(1), 0), (None, 9)]), &[ours(0, 5), ours(7, 20)], &[(Damage, Reason::Missing, 5, 7)])]
#[case::the_last_ones_first(expiring(&[(Some(10), 0)]), &[ours(0, 5)], &[(Note, Reason::Missing, 5, 20)])]
#[case::the_last_one_of_young_ones(expiring(&[(Some(10), 0)]), &[ours(0, 11), ours(11, 15)], &[(Damage, Reason::Missing, 15, 20)])]
fn what_is_gone_is_judged_by_its_age(
    #[case] root: Root,
    #[case] seen: &[Seen],
    #[case] expected: &[(Severity, Reason, i64, i64)],
) {
    assert_eq!(short(&judge(root, seen, &[reach(20)]).0), expected);
}

#[rstest]
#[case::old(10, Note)]
#[case::young(11, Damage)]
fn a_list_that_is_gone_is_judged_by_the_age_of_its_last_object(#[case] written_ms: i64, #[case] severity: Severity) {
    let reach = Reach { written_ms: Some(written_ms), ..reach(20) };
    let found = judge(expiring(&[(Some(10), 0)]), &[], &[reach]).0;
    assert_eq!(short(&found), [(severity, Reason::Missing, 0, 20)]);
}

#[test]
fn what_vanishes_meanwhile_may_have_expired() {
    let unseen = |aging: Aging| Chain::new(path(), Root { aging, ..root() });
    assert!(unseen(Aging::Unrecorded(Expiry::Possible)).may_expire(0));
    assert!(!unseen(Aging::Unrecorded(Expiry::Never)).may_expire(0));
    let mut chain = unseen(expiring(&[(Some(10), 0)]).aging);
    chain.next(&ours(0, 5), &mut Vec::new());
    assert!(chain.may_expire(10) && !chain.may_expire(11));
    let mut chain = unseen(Aging::Unrecorded(Expiry::Possible));
    chain.next(&ours(0, 5), &mut Vec::new());
    assert!(!chain.may_expire(0), "where nobody knows, only a head is taken for expired");
}

#[test]
fn two_names_of_one_offset() {
    let (findings, _) = judge(root(), &[older(0), older(0)], &[]);
    assert_eq!(short(&findings), [(Damage, Reason::Gap, 0, -1)]);
}

#[test]
fn where_a_list_begins_and_ends_and_what_is_in_it_of_gaps() {
    let gap = |start, next| {
        let meta = ObjectMeta { records: 0, offsets: None, gap: "retention".to_owned(), ..meta(start, next, "") };
        Seen { told: Told::Ours(Box::new(meta)), ..ours(start, next) }
    };
    let (findings, extent) = judge(root(), &[ours(0, 5), gap(5, 25), ours(25, 30)], &[]);
    assert!(findings.is_empty(), "a gap link is a link: {findings:?}");
    assert_eq!(extent, Extent { first: Some(0), next: Some(30), written_ms: Some(25), gap_offsets: 20 });
}

#[test]
fn each_run_of_an_instance_is_a_list_of_its_own() {
    let whole_runs = BTreeMap::from([("b".to_owned(), Some(0))]);
    let root = Root { uuid: None, origin: None, whole_runs, ..root() };
    let seen = [of_run(0, 10, "b"), of_run(4, 7, "a"), of_run(9, 12, "a"), of_run(10, 20, "b"), of_run(25, 30, "b")];
    let (findings, _) = judge(root.clone(), &seen, &[]);
    let expected = [(Note, Reason::Missing, 7, 9), (Damage, Reason::Missing, 20, 25)];
    assert_eq!(short(&findings), expected, "what is on its way out may have holes");
    let (findings, _) = judge(root, &[of_run(5, 7, "b")], &[]);
    assert_eq!(short(&findings), [(Damage, Reason::Missing, 0, 5)]);
}

#[rstest]
#[case::sound(|_: &mut ObjectMeta| {}, None)]
#[case::misnamed(|m: &mut ObjectMeta| (m.range_start, m.next_offset, m.offsets) = (1, 9, Some((1, 8))), Some(Reason::Metadata))]
#[case::other_partition(|m: &mut ObjectMeta| m.partition = 1, Some(Reason::Metadata))]
#[case::other_topic(|m: &mut ObjectMeta| m.topic = "u".to_owned(), Some(Reason::Metadata))]
#[case::impossible(|m: &mut ObjectMeta| m.records = 0, Some(Reason::Metadata))]
#[case::other_generation(|m: &mut ObjectMeta| m.generation = "x".to_owned(), Some(Reason::Foreign))]
#[case::of_a_compacted_topic(|m: &mut ObjectMeta| m.run = "r".to_owned(), Some(Reason::Foreign))]
fn an_objects_own_word(#[case] change: fn(&mut ObjectMeta), #[case] expected: Option<Reason>) {
    let (mut said, name) = (meta(0, 5, ""), ObjectKey { path: path(), offset: 0, digits: 20 });
    change(&mut said);
    let found = match Told::judge(&name, &said.to_metadata(), &root()) {
        Told::Bad(reason, _) => Some(reason),
        Told::Ours(_) => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(found, expected);
}

#[test]
fn no_word_at_all_is_the_older_layout() {
    let name = ObjectKey { path: path(), offset: 0, digits: 10 };
    assert_eq!(Told::judge(&name, &Metadata::new(), &root()), Told::Older);
}

/// Bounds of an unbroken list of up to 30 objects, and which of them are taken away.
fn broken() -> impl Strategy<Value = (Vec<i64>, Vec<bool>)> {
    prop::collection::btree_set(0..1_000_i64, 2..30).prop_flat_map(|bounds| {
        let bounds: Vec<i64> = bounds.into_iter().collect();
        let objects = bounds.len() - 1;
        (Just(bounds), prop::collection::vec(any::<bool>(), objects))
    })
}

proptest! {
    /// Whatever objects are taken away: exactly their offsets are reported, each once.
    #[test]
    fn exactly_what_is_missing_is_reported((bounds, gone) in broken()) {
        let origin = bounds[0];
        let end = bounds[bounds.len() - 1];
        let kept: Vec<Seen> =
            bounds.windows(2).zip(&gone).filter(|(_, gone)| !**gone).map(|(b, _)| ours(b[0], b[1])).collect();
        let root = Root { origin: Some(origin), ..root() };
        let reach = [reach(end)];
        let (findings, _) = judge(root, &kept, &reach);
        let mut reported: Vec<i64> = Vec::new();
        for (severity, reason, from, until) in short(&findings) {
            prop_assert_eq!((severity, reason), (Damage, Reason::Missing));
            reported.extend(from..until);
        }
        let expected: Vec<i64> =
            bounds.windows(2).zip(&gone).filter(|(_, gone)| **gone).flat_map(|(b, _)| b[0]..b[1]).collect();
        // A list of which everything is gone is told from its origin as it is known.
        prop_assert_eq!(reported, expected);
    }
}
