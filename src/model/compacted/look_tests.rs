use std::collections::BTreeMap;

use proptest::prelude::*;
use rstest::rstest;

use super::look::{ObjectFacts, Seen, SeenObject, look, newest};
use super::record::{COMPACTED_FORMAT_VERSION, Pin, RunRecord, TermRecord};
use super::settings::Name;
use super::title::{self, Scan, title};
use super::view::Offsets;
use crate::model::chain::RecordedIsolation;

pub(super) fn object(run: &str, offset: i64, next_offset: i64, at_eof: bool) -> SeenObject {
    let facts = ObjectFacts { run: run.into(), next_offset, at_eof, gap: false, written_ms: next_offset * 10 };
    let etag = format!("{run}-{offset}-{next_offset}").into();
    SeenObject { partition: 0, offset, size: 7, etag, facts: Some(facts) }
}

/// The record of run number `number` of an instance, which has one partition from offset 0 on.
pub(in crate::model) fn run(instance: &str, number: u64) -> RunRecord {
    RunRecord {
        format_version: COMPACTED_FORMAT_VERSION,
        number,
        run: format!("{instance}{number}").into(),
        topic: "t".to_owned(),
        instance: instance.into(),
        job: "j".to_owned(),
        cluster_id: "c".to_owned(),
        topic_id: String::new(),
        isolation: RecordedIsolation::ReadCommitted,
        started_ms: 1,
        after_term: 0,
        partitions: 1,
        origins: [(0, 0)].into(),
    }
}

/// A TERM of the run that is complete up to `to`, made of those of these objects that end there or below.
fn term(number: u64, of: &RunRecord, objects: &[SeenObject], to: i64) -> TermRecord {
    let ends = objects.iter().filter_map(|object| object.facts.as_ref()).map(|facts| facts.next_offset);
    let stored = ends.filter(|end| *end <= to).max().unwrap_or(0);
    let scan = Scan { started_ms: 1, ended_ms: 40 };
    title(of, number, scan, &[(0, to)].into(), &[(0, stored)].into(), objects).expect("it is whole")
}

fn void(number: u64, of: &RunRecord) -> TermRecord {
    title::void(of, number, 40)
}

/// TERM 1 of `a` and TERM 2 of `b`, both whole; `b` has gone on.
fn two() -> Seen {
    let a = vec![object("a1", 0, 4, false), object("a1", 4, 6, true)];
    let b = vec![object("b1", 0, 5, true), object("b1", 5, 8, true), object("b1", 8, 9, false)];
    let terms = [term(1, &run("a", 1), &a, 6), term(2, &run("b", 1), &b, 5)];
    Seen {
        terms: terms.into_iter().map(|term| (term.term, Some(term))).collect(),
        runs: [(1, run("a", 1))].into(),
        objects: [("a".into(), a), ("b".into(), b)].into(),
        ..Seen::default()
    }
}

fn of<'a>(seen: &'a mut Seen, instance: &str) -> &'a mut Vec<SeenObject> {
    seen.objects.entry(instance.into()).or_default()
}

#[rstest]
#[case::whole(|_: &mut Seen| {}, Some((2, 8)))]
#[case::more_than_it_lists_is_gone(|seen: &mut Seen| drop(of(seen, "b").remove(1)), Some((2, 5)))]
#[case::one_it_lists_is_gone(|seen: &mut Seen| drop(of(seen, "b").remove(0)), Some((1, 6)))]
#[case::one_it_lists_is_another(|seen: &mut Seen| of(seen, "b")[0].etag = "x".into(), Some((1, 6)))]
#[case::one_it_lists_has_another_size(|seen: &mut Seen| of(seen, "b")[0].size = 8, Some((1, 6)))]
#[case::one_behind_is_of_another_run(|seen: &mut Seen| of(seen, "b")[1] = object("b2", 5, 8, true), Some((2, 5)))]
#[case::one_behind_cannot_be_read(|seen: &mut Seen| of(seen, "b")[1].facts = None, Some((2, 5)))]
#[case::what_it_lists_need_not_be_asked_again(|seen: &mut Seen| of(seen, "b")[0].facts = None, Some((2, 8)))]
#[case::the_highest_cannot_be_read(|seen: &mut Seen| drop(seen.terms.insert(2, None)), Some((1, 6)))]
#[case::the_highest_is_void(|seen: &mut Seen| drop(seen.terms.insert(2, Some(void(2, &run("b", 1))))), Some((1, 6)))]
#[case::nobodys(|seen: &mut Seen| seen.objects.clear(), None)]
fn the_highest_valid_term(#[case] change: impl Fn(&mut Seen), #[case] expected: Option<(u64, i64)>) {
    let mut seen = two();
    change(&mut seen);
    let found = newest(&seen).map(|owner| (owner.number, owner.reached[&0]));
    assert_eq!(found, expected);
}

/// TERM 2 lists [0, 5), and [5, 8) lies behind it: the owner may not have marked it as yet, or have died before.
#[rstest]
#[case::none(9, false)]
#[case::in_what_it_lists(0, false)]
#[case::behind_what_it_lists(5, true)]
fn a_snapshot_that_has_a_gap_behind_its_term_is_tainted_without_a_mark(#[case] at: i64, #[case] gap: bool) {
    let mut seen = two();
    for object in of(&mut seen, "b").iter_mut().filter(|object| object.offset == at) {
        object.facts.as_mut().expect("facts").gap = true;
    }
    let owner = newest(&seen).expect("an owner");
    assert_eq!((owner.gap, owner.tainted, owner.is_tainted()), (gap, false, gap));
}

#[test]
fn an_empty_topic_has_a_valid_term() {
    let seen = Seen { terms: [(1, Some(term(1, &run("a", 1), &[], 0)))].into(), ..Seen::default() };
    assert_eq!(newest(&seen).map(|owner| owner.reached), Some(Offsets::from([(0, 0)])));
}

#[test]
fn the_own_folder() {
    let view = look(&two(), &"a".into());
    let own = view.own.run.expect("a run");
    assert_eq!((own.titled, own.voided, own.objects, own.intact), (Some(1), false, true, true));
    assert_eq!((own.stored, own.restorable), ([(0, 6)].into(), [(0, 6)].into()));
    assert_eq!((own.seen_end_ms, view.own.strays, view.ever_titled), (Some(60), false, true));
    let other = look(&Seen { runs: BTreeMap::new(), ..two() }, &"b".into());
    assert!(other.own.run.is_none() && other.own.strays, "without a run record everything is a stranger's");
}

#[rstest]
#[case::of_an_earlier_run(object("a0", 9, 10, false))]
#[case::unreadable(SeenObject { facts: None, ..object("a1", 9, 10, false) })]
fn strays(#[case] stray: SeenObject) {
    let mut seen = two();
    of(&mut seen, "a").push(stray);
    let view = look(&seen, &"a".into());
    assert!(view.own.strays && !view.own.is_empty());
}

#[test]
fn a_broken_list_is_not_intact_and_ends_at_the_hole() {
    let mut seen = two();
    of(&mut seen, "a").remove(0);
    let own = look(&seen, &"a".into()).own.run.expect("a run");
    assert_eq!((own.intact, own.objects, own.stored), (false, true, [(0, 0)].into()));
}

/// The list is [0, 4), [4, 6): a record of what was gone is told by what lies in front of it.
#[rstest]
#[case::none(9, false)]
#[case::before_anything_was_read(0, false)]
#[case::in_the_middle(4, true)]
fn what_was_gone_before_it_was_read(#[case] at: i64, #[case] gap: bool) {
    let mut seen = two();
    for object in of(&mut seen, "a").iter_mut().filter(|object| object.offset == at) {
        object.facts.as_mut().expect("facts").gap = true;
    }
    assert_eq!(look(&seen, &"a".into()).own.run.expect("a run").gap, gap);
}

#[test]
fn void_terms_use_numbers_up_and_are_no_title() {
    let only_void =
        Seen { terms: [(1, Some(void(1, &run("a", 1))))].into(), runs: [(1, run("a", 1))].into(), ..Seen::default() };
    let view = look(&only_void, &"a".into());
    assert_eq!((view.last_number, view.ever_titled), (1, false));
    assert!(view.own.run.is_some_and(|run| run.voided && run.titled.is_none()));
    let unreadable = look(&Seen { terms: [(4, None)].into(), ..Seen::default() }, &"a".into());
    assert_eq!((unreadable.last_number, unreadable.ever_titled), (4, true), "it may have been a title");
}

#[test]
fn the_last_pin_counts() {
    let pin = |instance: &str, expires_ms: i64| {
        let [id, topic] = ["x", "t"].map(str::to_owned);
        let (instance, run) = (instance.into(), "r".into());
        Pin { format_version: COMPACTED_FORMAT_VERSION, id, topic, instance, run, renewed_ms: 0, expires_ms }
    };
    let seen = Seen { pins: vec![pin("a", 5), pin("a", 9), pin("b", 20)], ..two() };
    assert_eq!(look(&seen, &"a".into()).pinned_until_ms, Some(9));
    assert_eq!(look(&two(), &"a".into()).pinned_until_ms, None);
}

proptest! {
    /// What a TERM lists is valid in the listing it was made of, and never valid in one that lacks any of it.
    #[test]
    fn a_term_is_as_good_as_its_objects(cuts in prop::collection::btree_set(1..50_i64, 1..8), lost in 0..8_usize, to in 0..60_i64) {
        let ends: Vec<i64> = cuts.into_iter().collect();
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let all: Vec<SeenObject> = starts.zip(&ends).map(|(start, end)| object("a1", start, *end, true)).collect();
        let made = term(1, &run("a", 1), &all, to);
        let listed = made.partitions[&0].objects.len();
        prop_assert!(made.partitions[&0].objects.iter().all(|object| object.next_offset <= to));
        let instance: Name = "a".into();
        let mut seen = Seen { terms: [(1, Some(made))].into(), objects: [(instance.clone(), all)].into(), ..Seen::default() };
        prop_assert!(newest(&seen).is_some_and(|owner| owner.reached[&0] >= to));
        let all = of(&mut seen, "a");
        if lost < all.len() {
            all.remove(lost);
            prop_assert_eq!(newest(&seen).is_some(), lost >= listed);
        }
    }
}
