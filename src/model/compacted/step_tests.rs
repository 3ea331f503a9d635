use std::sync::Arc;

use rstest::rstest;

use super::event::{Claim, Effect, Event, Notice, Progress, Reached, TermAnswer, WhyScan};
use super::message::{Message, Status};
use super::settings::{Initial, Now, Rules, Settings};
use super::state::{Phase, State};
use super::step;
use super::view::{Offsets, Own, OwnRun, Owner, View};

fn settings() -> Settings {
    Settings {
        instance: "a".into(),
        initial: Initial::Activate,
        length_ms: 10_000,
        interval_offsets: 100,
        partner_timeout_ms: 5_000,
        takeover: true,
        delete_lifetime_ms: 50,
        batch_ms: 30,
        look_every_ms: 0,
        publish_every_ms: i64::MAX,
        rules: Rules::default(),
    }
}

fn at(ms: i64) -> Now {
    Now { wall_ms: ms, boot_ms: ms }
}

fn owner(number: u64, instance: &str, reached: i64) -> Option<Owner> {
    let (run, reached) = (format!("{instance}1").into(), [(0, reached)].into());
    Some(Owner { number, instance: instance.into(), run, created_ms: 0, tainted: false, gap: false, reached })
}

fn run(titled: Option<u64>, voided: bool, objects: bool, stored: i64) -> Option<OwnRun> {
    let stored: Offsets = [(0, stored)].into();
    let (number, run, started_ms, after_term) = (1, "a1".into(), 0, 0);
    let (intact, restorable, seen_end_ms) = (titled.is_some(), stored.clone(), Some(0));
    Some(OwnRun {
        number,
        run,
        started_ms,
        after_term,
        titled,
        voided,
        objects,
        intact,
        stored,
        gap: false,
        restorable,
        seen_end_ms,
    })
}

fn view(last_number: u64, owner: Option<Owner>, run: Option<OwnRun>) -> View {
    let own = Own { run, strays: false };
    View { last_number, ever_titled: last_number > 0, owner, own, pinned_until_ms: None }
}

fn said(status: Status, term: u64, wants_successor: bool) -> Message {
    let (run, next) = ("b1".into(), Offsets::new());
    let (complete, tainted, initial) = (false, false, Initial::Passivate);
    Message { run, term, status, next, complete, wants_successor, tainted, initial, seen_end_ms: None }
}

/// A machine that has started and seen this; and what it wanted.
fn started(view: View) -> (State, Vec<Effect>) {
    let (state, effects) = step(State::new(Arc::new(settings()), at(0)), Event::Started { own: None }, at(0));
    assert!(effects.contains(&Effect::Look { fresh: true }), "{effects:?}");
    step(state, Event::Bucket(view), at(0))
}

fn progress(stored: i64, restorable: Option<i64>, at_ms: i64) -> Event {
    let reached = Reached { stored, restorable, seen_end_ms: restorable.map(|_| at_ms) };
    let (run, partitions) = ("a1".into(), [(0, reached)].into());
    Event::Progress(Progress { run, partitions, delete_retention_ms: Some(2_000), lost: false })
}

/// The same, and records were gone before they were read.
fn with_loss(progress: Event) -> Event {
    match progress {
        Event::Progress(progress) => Event::Progress(Progress { lost: true, ..progress }),
        other => other,
    }
}

fn phase(state: &State) -> &'static str {
    state.phase().name()
}

#[rstest]
#[case::nothing_anywhere(view(0, None, None), "preparing")]
#[case::the_other_owns(view(1, owner(1, "b", 5), None), "resting")]
#[case::it_owns(view(1, owner(1, "a", 5), run(Some(1), false, true, 5)), "owning")]
#[case::it_owned(view(2, owner(2, "b", 5), run(Some(1), false, true, 5)), "handing over")]
#[case::it_owned_and_has_cleared(view(2, owner(2, "b", 5), run(Some(1), false, false, 0)), "resting")]
#[case::its_objects_are_damaged(view(1, None, run(Some(1), false, true, 5)), "owning")]
#[case::it_was_scanning(view(1, owner(1, "b", 5), run(None, false, true, 2)), "clearing")]
#[case::it_was_scanning_first(view(0, None, run(None, false, true, 2)), "scanning")]
#[case::it_was_throwing_a_scan_away(view(2, owner(1, "b", 5), run(None, true, true, 2)), "clearing")]
fn what_it_is_after_a_start(#[case] view: View, #[case] expected: &str) {
    assert_eq!(phase(&started(view).0), expected);
}

/// Somebody deleted the record of its run: it cannot go on with what it has, says so, and asks the other one.
#[rstest]
#[case::the_only_one(None)]
#[case::an_earlier_one_is_left(run(Some(1), false, false, 0).map(|run| OwnRun { run: "a0".into(), ..run }))]
fn an_owner_without_the_record_of_its_run_asks_for_a_successor(#[case] run: Option<OwnRun>) {
    let seen = View { own: Own { run, strays: true }, ..view(2, owner(2, "a", 5), None) };
    let (state, before) = started(seen.clone());
    let (state, effects) = feed(state, [(Event::Tick, 1), (Event::Bucket(seen), 1)]);
    let all = [before, effects].concat();
    assert_eq!(phase(&state), "resting");
    assert!(says(&all, |notice| *notice == Notice::SnapshotDamaged { term: 2 }), "{all:?}");
    let asks = |effect: &Effect| matches!(effect, Effect::Publish(said) if said.wants_successor && said.term == 2);
    assert!(all.iter().any(asks), "{all:?}");
}

#[rstest]
#[case::asked(view(1, owner(1, "b", 5), None), Some(said(Status::Activate, 1, true)), 10, Some(WhyScan::Asked))]
#[case::an_old_question(view(3, owner(3, "b", 5), None), Some(said(Status::Activate, 1, true)), 10, None)]
#[case::the_damaged_owner_asks(view(1, None, None), Some(said(Status::Activate, 1, true)), 10, Some(WhyScan::Asked))]
#[case::not_asked(view(1, owner(1, "b", 5), None), Some(said(Status::Activate, 1, false)), 10, None)]
#[case::nobody_yet(view(0, None, None), Some(said(Status::Passivate, 0, false)), 10, Some(WhyScan::First))]
#[case::the_other_has_begun(view(0, None, None), Some(said(Status::CatchingUp, 0, false)), 10, None)]
#[case::silence(view(1, owner(1, "b", 5), None), Some(said(Status::Activate, 1, false)), 5_010, Some(WhyScan::Silence))]
#[case::silence_from_the_start(view(1, owner(1, "b", 5), None), None, 5_000, Some(WhyScan::Silence))]
#[case::not_yet_silence(view(1, owner(1, "b", 5), None), None, 4_999, None)]
fn reasons_to_scan(
    #[case] view: View,
    #[case] heard: Option<Message>,
    #[case] now_ms: i64,
    #[case] expected: Option<WhyScan>,
) {
    let mut state = State::new(Arc::new(settings()), at(0));
    if let Some(message) = heard {
        state = step(state, Event::Heard(message), at(10)).0;
    }
    let silent = now_ms - state.active_partner_at >= settings().partner_timeout_ms;
    assert_eq!(super::phase::why_scan(&state, &view, silent), expected);
}

/// Feeds events one after the other; the last effects.
fn feed(state: State, events: impl IntoIterator<Item = (Event, i64)>) -> (State, Vec<Effect>) {
    events.into_iter().fold((state, Vec::new()), |(state, _), (event, ms)| step(state, event, at(ms)))
}

fn says(effects: &[Effect], which: impl Fn(&Notice) -> bool) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Say(notice) if which(notice)))
}

#[test]
fn a_first_scan_becomes_the_owner() {
    let (state, effects) = started(view(0, None, None));
    assert!(effects.contains(&Effect::CreateRun { number: 1, after_term: 0 }), "{effects:?}");
    let (state, effects) = step(state, Event::RunCreated { run: "a1".into(), started_ms: 1 }, at(1));
    assert!(effects.contains(&Effect::Follow { run: "a1".into() }), "{effects:?}");
    let state = feed(state, [(Event::Bucket(view(0, None, run(None, false, true, 0))), 3)]).0;
    let (state, effects) = step(state, progress(7, Some(7), 4), at(4));
    assert!(effects.contains(&Effect::Look { fresh: true }), "the bucket has to agree: {effects:?}");
    let (state, effects) = step(state, Event::Bucket(view(0, None, run(None, false, true, 7))), at(5));
    let claim = Claim::Title { run: "a1".into(), started_ms: 0, ended_ms: 5, ends: [(0, 7)].into() };
    assert!(effects.contains(&Effect::CreateTerm { number: 1, claim }), "{effects:?}");
    let (state, effects) = step(state, Event::Term(TermAnswer::Created), at(6));
    assert!(says(&effects, |notice| *notice == Notice::TookOver { term: 1 }), "{effects:?}");
    assert_eq!((phase(&state), state.message().status, state.message().term), ("owning", Status::Activate, 1));
}

#[test]
fn an_owner_asks_for_a_successor_when_its_time_is_over() {
    let (state, _) = started(view(1, owner(1, "a", 5), run(Some(1), false, true, 5)));
    assert!(!state.message().wants_successor);
    let (state, effects) = feed(state, [(Event::Failed, 9_000), (Event::Tick, 10_000)]);
    assert!(state.message().wants_successor);
    assert!(says(&effects, |notice| *notice == Notice::WantsSuccessor), "{effects:?}");
}

#[test]
fn an_owner_that_was_too_far_behind_is_tainted() {
    let (state, _) = started(view(1, owner(1, "a", 5), run(Some(1), false, true, 5)));
    let (state, effects) = feed(state, [(Event::Failed, 1), (progress(6, Some(6), 1_001), 1_001)]);
    assert!(effects.contains(&Effect::MarkTainted { number: 1 }), "{effects:?}");
    let told = says(&effects, |notice| *notice == Notice::Tainted { behind_ms: 1_001, limit_ms: 1_000 });
    assert!(told && state.is_tainted() && state.message().wants_successor, "{effects:?}");
}

/// Seen by the lanes; or, after a restart, in the bucket, when the process before died before it could mark the TERM.
#[rstest]
#[case::by_the_lanes(false, true)]
#[case::in_the_bucket(true, false)]
fn an_owner_that_lost_records_is_tainted(#[case] gap: bool, #[case] lost: bool) {
    let run = run(Some(1), false, true, 5).map(|run| OwnRun { gap, ..run });
    let (state, effects) = started(view(1, owner(1, "a", 5), run));
    let now = progress(6, Some(6), 10);
    let (state, later) = feed(state, [(Event::Failed, 1), (if lost { with_loss(now) } else { now }, 10)]);
    let effects = [effects, later].concat();
    assert!(effects.contains(&Effect::MarkTainted { number: 1 }), "{effects:?}");
    assert!(says(&effects, |notice| *notice == Notice::RecordsLost { discarded: false }), "{effects:?}");
    assert!(state.is_tainted() && state.message().wants_successor);
    let (_, again) = step(state, with_loss(progress(7, Some(7), 20)), at(20));
    assert!(!says(&again, |_| true) && !again.contains(&Effect::MarkTainted { number: 1 }), "once: {again:?}");
}

#[rstest]
#[case::by_the_lanes(false, true)]
#[case::in_the_bucket(true, false)]
fn a_scan_that_lost_records_is_thrown_away(#[case] gap: bool, #[case] lost: bool) {
    let run = run(None, false, true, 2).map(|run| OwnRun { gap, ..run });
    let (state, first) = started(view(0, None, run));
    let now = progress(3, Some(3), 10);
    let (state, later) = feed(state, [(Event::Failed, 1), (if lost { with_loss(now) } else { now }, 10)]);
    let effects = [first, later].concat();
    assert!(says(&effects, |notice| *notice == Notice::RecordsLost { discarded: true }), "{effects:?}");
    let titles = |effect: &Effect| matches!(effect, Effect::CreateTerm { claim: Claim::Title { .. }, .. });
    assert!(phase(&state) == "clearing" && !effects.iter().any(titles), "{effects:?}");
}

#[test]
fn a_slow_first_scan_is_thrown_away_behind_a_void_term() {
    let (state, _) = started(view(0, None, run(None, false, true, 2)));
    let (state, effects) = feed(state, [(Event::Failed, 1), (progress(3, None, 0), 1_001)]);
    assert!(says(&effects, |notice| *notice == Notice::ScanTooSlow { took_ms: 1_001, limit_ms: 1_000 }), "{effects:?}");
    assert!(effects.contains(&Effect::Stop), "{effects:?}");
    let stopped = Event::Stopped { stored: [(0, 3)].into() };
    let (state, effects) =
        feed(state, [(stopped, 1_002), (Event::Bucket(view(0, None, run(None, false, true, 3))), 1_003)]);
    let claim = Claim::Void { run: "a1".into() };
    assert!(effects.contains(&Effect::CreateTerm { number: 1, claim }), "{effects:?}");
    let (state, _) = step(state, Event::Term(TermAnswer::Created), at(1_004));
    let void = View { ever_titled: false, ..view(1, None, run(None, true, true, 3)) };
    let (state, effects) = step(state, Event::Bucket(void.clone()), at(1_005));
    assert!(effects.contains(&Effect::Delete { keep: None, good_until_boot_ms: 1_035 }), "{effects:?}");
    // One DELETE got no answer: nothing is created before it is dead.
    let (state, _) = step(state, Event::Deleted { all_answered: false }, at(1_010));
    let empty = View { own: Own { run: run(None, true, false, 0), strays: false }, ..void };
    let (state, effects) = step(state, Event::Bucket(empty.clone()), at(1_011));
    assert!(says(&effects, |notice| *notice == Notice::Cleared), "{effects:?}");
    let look = |state, ms| feed(state, [(Event::Tick, ms), (Event::Bucket(empty.clone()), ms)]);
    let (state, effects) = look(state, 1_059);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::CreateRun { .. })), "{effects:?}");
    let (_, effects) = look(state, 1_060);
    assert!(effects.contains(&Effect::CreateRun { number: 2, after_term: 1 }), "{effects:?}");
}

#[test]
fn a_hand_over_waits_for_everything_the_old_owner_has() {
    let (state, effects) = started(view(2, owner(2, "b", 4), run(Some(1), false, true, 5)));
    assert!(effects.contains(&Effect::Stop), "{effects:?}");
    let (state, effects) = step(state, Event::Stopped { stored: Offsets::new() }, at(1));
    assert!(effects.contains(&Effect::Look { fresh: true }), "{effects:?}");
    let behind = Event::Bucket(view(2, owner(2, "b", 4), run(Some(1), false, true, 5)));
    let (state, effects) = step(state, behind, at(2));
    assert_eq!((phase(&state), effects.iter().filter(|effect| effect.is_request()).count()), ("handing over", 0));
    let caught_up = Event::Bucket(view(2, owner(2, "b", 5), run(Some(1), false, true, 5)));
    let (state, effects) = feed(state, [(Event::Tick, 3), (caught_up, 3)]);
    assert_eq!(phase(&state), "clearing");
    let claim = Claim::Void { run: "a1".into() };
    assert!(effects.contains(&Effect::CreateTerm { number: 3, claim }), "after a restart a TERM may come: {effects:?}");
}

#[test]
fn an_old_owner_goes_on_when_its_successor_does_not() {
    let seen = || Event::Bucket(view(2, owner(2, "b", 4), run(Some(1), false, true, 5)));
    let (state, _) = started(view(2, owner(2, "b", 4), run(Some(1), false, true, 5)));
    let stopped = Event::Stopped { stored: Offsets::new() };
    let (state, effects) = feed(state, [(stopped, 1), (seen(), 2), (Event::Tick, 5_000), (seen(), 5_000)]);
    assert!(says(&effects, |notice| *notice == Notice::SuccessorTooSlow { term: 2 }), "{effects:?}");
    assert!(effects.contains(&Effect::Follow { run: "a1".into() }), "{effects:?}");
    assert_eq!(phase(&state), "reclaiming");
    let (state, effects) = feed(state, [(Event::Failed, 5_001), (progress(6, Some(6), 5_002), 5_002)]);
    assert!(effects.contains(&Effect::Look { fresh: true }), "{effects:?}");
    let ahead = Event::Bucket(view(2, owner(2, "b", 4), run(Some(1), false, true, 6)));
    let (_, effects) = step(state, ahead, at(5_003));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::CreateTerm { number: 3, .. })), "{effects:?}");
}

#[test]
fn two_with_the_same_initial_status_are_told_once() {
    let (state, _) = started(view(1, owner(1, "b", 5), None));
    let same = Message { initial: Initial::Activate, ..said(Status::Activate, 1, false) };
    let (state, effects) = step(state, Event::Heard(same.clone()), at(1));
    assert!(says(&effects, |notice| *notice == Notice::SameInitialStatus), "{effects:?}");
    let (_, effects) = step(state, Event::Heard(same), at(2));
    assert!(!says(&effects, |_| true), "{effects:?}");
}

#[test]
fn a_failure_is_not_tried_again_before_the_next_tick() {
    let (state, effects) = feed(started(view(1, owner(1, "b", 5), None)).0, [(Event::Tick, 1), (Event::Failed, 1)]);
    assert!(!effects.iter().any(Effect::is_request), "{effects:?}");
    let (_, effects) = step(state, Event::Tick, at(2));
    assert_eq!(effects.iter().filter(|effect| effect.is_request()).count(), 1, "{effects:?}");
}

/// Where an instance may not do what it wants to, it does not ask without a pause: a deletion is a thousand requests.
#[rstest]
#[case::refused(Event::Failed)]
#[case::no_answer(Event::Deleted { all_answered: false })]
fn what_the_store_does_not_do_is_asked_for_again_when_a_look_is_due(#[case] answer: Event) {
    let settings = Settings { look_every_ms: 100, ..settings() };
    let cleared = || Event::Bucket(view(2, owner(2, "b", 9), run(Some(1), false, true, 5)));
    let stopped = Event::Stopped { stored: Offsets::new() };
    let begun = [(Event::Started { own: None }, 0), (cleared(), 0), (stopped, 1), (cleared(), 2)];
    let (state, _) = feed(State::new(Arc::new(settings), at(0)), begun);
    let (state, effects) = feed(state, [(Event::Term(TermAnswer::Created), 3), (cleared(), 4)]);
    assert!(matches!(&effects[..], [Effect::Delete { .. }]), "{effects:?}");
    let (state, effects) = feed(state, [(answer, 5), (Event::Tick, 103)]);
    assert!(!effects.iter().any(Effect::is_request), "{effects:?}");
    let (state, effects) = step(state, Event::Tick, at(104));
    assert!(effects.contains(&Effect::Look { fresh: true }), "{effects:?}");
    let (state, effects) = step(state, cleared(), at(105));
    assert!(matches!(&effects[..], [Effect::Delete { .. }]), "{effects:?}");
    let (_, effects) = step(state, Event::Deleted { all_answered: true }, at(106));
    assert!(effects.contains(&Effect::Look { fresh: true }), "the next batch comes at once: {effects:?}");
}

/// A listing of everything is not made again and again for an answer that will not change so soon.
#[test]
fn a_refused_deletion_is_asked_for_again_when_a_look_is_due() {
    let settings = Settings { look_every_ms: 100, ..settings() };
    let pinned = || {
        let seen = view(2, owner(2, "b", 9), run(Some(1), false, true, 5));
        Event::Bucket(View { pinned_until_ms: Some(9_000), ..seen })
    };
    let state = State::new(Arc::new(settings), at(0));
    let stopped = Event::Stopped { stored: Offsets::new() };
    let events = [(Event::Started { own: None }, 0), (pinned(), 0), (stopped, 1), (pinned(), 2)];
    let (state, _) = feed(state, events);
    let (state, effects) = feed(state, [(Event::Term(TermAnswer::Created), 3), (pinned(), 4)]);
    assert!(says(&effects, |notice| matches!(notice, Notice::DeletionRefused(_))), "{effects:?}");
    let (state, effects) = step(state, Event::Tick, at(103));
    assert!(!effects.iter().any(Effect::is_request), "{effects:?}");
    let (state, effects) = step(state, Event::Tick, at(104));
    assert!(effects.contains(&Effect::Look { fresh: true }), "{effects:?}");
    assert_eq!(phase(&state), "clearing");
}

#[rstest]
#[case::alone(Phase::Resting, None, Some("this"), "this instance scans")]
#[case::scans(Phase::Scanning { run: "a1".into(), started_ms: 0, after_term: 0 }, None, Some("this"), "already")]
#[case::clears(Phase::Clearing { void: false }, None, Some("this"), "cleared")]
#[case::never_heard(owning(), None, Some("nobody"), "since this daemon started")]
#[case::heard(owning(), Some((Status::Passivate, 60_000)), Some("partner"), "heard of 40 s ago")]
#[case::heard_at_work(owning(), Some((Status::CatchingUp, 60_000)), Some("partner"), "scans already")]
#[case::silent(owning(), Some((Status::CatchingUp, -81_000)), Some("nobody"), "for 181 s; the order is kept")]
#[case::knows_nothing(Phase::Starting { topic_read: true }, None, None, "")]
fn an_order_says_who_scans_next(
    #[case] phase: Phase,
    #[case] heard: Option<(Status, i64)>,
    #[case] who: Option<&str>,
    #[case] words: &str,
) {
    let mut state = State::new(Arc::new(settings()), at(0));
    state.phase = phase;
    state.heard = heard.map(|(status, at)| (Message { status, ..state.message() }, at));
    let next = state.next_scan(at(100_000));
    assert_eq!(next.map(super::NextScan::name), who);
    let text = next.map(|next| next.to_string()).unwrap_or_default();
    assert!(text.contains(words), "{text}");
}

fn owning() -> Phase {
    Phase::Owning { term: 1, run: "a1".into(), created_ms: 0 }
}

/// The partner is waited for for 5,000 ms, and says something every 100 ms. Its last word, which was there when this one
/// began, counts from its own time on, but it is given the time to be heard.
#[rstest]
#[case::just_said(0, 4_999, "resting")]
#[case::just_said_and_silent(0, 5_000, "preparing")]
#[case::said_a_while_ago(2_000, 2_999, "resting")]
#[case::said_a_while_ago_and_silent(2_000, 3_000, "preparing")]
#[case::said_long_ago(1_000_000, 299, "resting")]
#[case::said_long_ago_and_silent(1_000_000, 300, "preparing")]
#[case::its_clock_is_ahead(-1_000_000, 4_999, "resting")]
fn an_old_word_of_a_partner_counts_from_its_own_time(#[case] age_ms: i64, #[case] now_ms: i64, #[case] phase: &str) {
    let settings = Settings { publish_every_ms: 100, ..settings() };
    let owned = || Event::Bucket(view(1, owner(1, "b", 5), None));
    let state = State::new(Arc::new(settings), at(0));
    let message = said(Status::Activate, 1, false);
    let events = [Event::Started { own: None }, Event::Recalled { message, age_ms }, owned()];
    let state = events.into_iter().fold(state, |state, event| step(state, event, at(0)).0);
    assert_eq!(step(state, owned(), at(now_ms)).0.phase().name(), phase);
}

/// A turn that is ordered, or due, is one turn: the old owner rests afterwards. What is ordered while it hands over is
/// another one.
#[rstest]
#[case::ordered(true, false, "resting")]
#[case::due(false, false, "resting")]
#[case::and_another_one(true, true, "preparing")]
fn a_turn_is_one_turn(#[case] ordered: bool, #[case] again: bool, #[case] expected: &str) {
    let (state, _) = started(view(1, owner(1, "a", 5), run(Some(1), false, true, 5)));
    let wanted = if ordered { (Event::Swap, 1) } else { (Event::Tick, 10_000) };
    let state = feed(state, [(Event::Failed, 1), wanted]).0;
    assert!(state.message().wants_successor);
    let taken = |objects| Event::Bucket(view(2, owner(2, "b", 5), run(Some(1), false, objects, 5)));
    let heard = Event::Heard(said(Status::Activate, 2, false));
    let stopped = Event::Stopped { stored: [(0, 5)].into() };
    let state = feed(state, [(taken(true), 10_001), (stopped, 10_002), (heard, 10_003)]).0;
    assert_eq!(phase(&state), "handing over");
    let state = if again { step(state, Event::Swap, at(10_004)).0 } else { state };
    // The next number is used up, then the folder is cleared.
    let (used_up, deleted) = (Event::Term(TermAnswer::Created), Event::Deleted { all_answered: true });
    let cleared = [taken(true), used_up, taken(true), deleted, taken(false), taken(false)];
    let cleared = cleared.into_iter().zip(10_005..);
    assert_eq!(phase(&feed(state, cleared).0), expected);
}
