//! What is decided in each phase.
//!
//! | phase | says | leaves it when | to |
//! |---|---|---|---|
//! | Starting | nothing | the coordination topic and the bucket have been read | see [`classify`] |
//! | Resting | PASSIVATE | there is a reason to scan (see [`why_scan`]) | Preparing |
//! | | | something lies in its folder, and C1 allows to delete it | Clearing |
//! | Preparing | CATCHING_UP | its folder is empty and no DELETE is alive: creates the run | Scanning |
//! | | | something lies in its folder | Clearing |
//! | Scanning | CATCHING_UP | it is complete: creates the next TERM | Owning |
//! | | | it was too slow, records were gone before it read them, its run was voided, or the other took a TERM meanwhile | Clearing |
//! | Owning | ACTIVATE | another instance owns the highest valid TERM | HandingOver |
//! | HandingOver | PASSIVATE | the successor's objects reach all that it has (F) | Clearing |
//! | | | the successor's TERM is not valid any more and its own is again | Owning |
//! | | | the successor is too slow, and its own snapshot is whole | Reclaiming |
//! | Reclaiming | CATCHING_UP | it is at the end of every partition again: creates the next TERM | Owning |
//! | | | the successor has caught up after all | HandingOver |
//! | Clearing | PASSIVATE | its folder is empty | Resting |
//!
//! Every way to a deletion leads through [`clear`], and so through C1 ([`may_delete`]).

use super::complete::{AtEnd, complete};
use super::deletion::{Refused, may_delete};
use super::event::{Claim, Effect, Notice, WhyScan};
use super::message::Status;
use super::settings::{Initial, Name, Rule};
use super::state::{Asked, Phase, State};
use super::turn::Turn;
use super::view::{Offsets, OwnRun, Owner, View};

/// Decides what to do in the present phase. Nothing is asked at the moment.
pub(super) fn decide(turn: &mut Turn) {
    watch_partner(turn);
    match turn.state.phase.clone() {
        Phase::Starting { topic_read: false } => {}
        Phase::Starting { topic_read: true } => {
            if let Some(view) = turn.proof() {
                classify(turn, &view);
            }
        }
        Phase::Resting => rest(turn),
        Phase::Preparing { .. } => prepare(turn),
        Phase::Scanning { run, after_term, .. } => scan(turn, &run, after_term),
        Phase::Owning { term, run, created_ms } => own(turn, term, &run, created_ms),
        Phase::HandingOver { run, successor, until, since } => hand_over(turn, &run, successor, until, since),
        Phase::Reclaiming { run, .. } => reclaim(turn, &run),
        Phase::Clearing { void } => clear(turn, void),
    }
}

/// C5: whether nothing was heard of a partner that owns or scans for `partner_timeout`, by the time of receipt here.
fn is_partner_silent(turn: &Turn) -> bool {
    turn.now.boot_ms - turn.state.active_partner_at >= turn.state.settings.partner_timeout_ms
}

/// An instance that does nothing itself says so when its partner is silent.
fn watch_partner(turn: &mut Turn) {
    if is_partner_silent(turn) && turn.state.status() == Status::Passivate {
        turn.tell(Notice::PartnerSilent);
    }
}

/// What an instance is that has just started, by what the bucket says alone.
///
/// | its latest run | the highest valid TERM | it is |
/// |---|---|---|
/// | none | | Resting |
/// | any | names that run | Owning |
/// | had a TERM, has objects | names another instance | HandingOver: F is made of its own objects again |
/// | had a TERM, has objects | there is none | Owning, damaged: it asks for a successor |
/// | had a TERM, has no objects | names another instance, or none | Resting |
/// | its next TERM was used up | | Clearing |
/// | never had a TERM | | Scanning: the run is resumed |
fn classify(turn: &mut Turn, view: &View) {
    let Some(run) = &view.own.run else {
        return enter(turn, Phase::Resting);
    };
    let owner = view.owner.as_ref();
    if let Some(mine) = owner.filter(|owner| is_mine(turn, owner, &run.run)) {
        return own_again(turn, run, mine.number, mine.created_ms, mine.tainted);
    }
    if view.last_number > 0 && turn.state.settings.rules.keep(Rule::Quarantine) {
        // A TERM was created, so a process before this one may have begun to delete.
        turn.deletes_may_come();
    }
    match (run.titled, owner) {
        (Some(_), _) if !run.objects => enter(turn, Phase::Resting),
        (Some(_), Some(owner)) => {
            let rebuilt = turn.state.settings.rules.keep(Rule::RebuildReach);
            let until = if rebuilt { run.stored.clone() } else { Offsets::new() };
            begin_handing_over(turn, &run.run, owner.number, Some(until));
        }
        (Some(term), None) => {
            turn.tell(Notice::SnapshotDamaged { term });
            own_again(turn, run, term, run.started_ms, true);
        }
        (None, _) if run.voided => enter(turn, Phase::Clearing { void: false }),
        (None, _) => {
            turn.state.term_may_come = true;
            turn.tell(Notice::ScanBegan { run: run.run.clone(), why: WhyScan::Resumed });
            let (started_ms, after_term) = (run.started_ms, run.after_term);
            enter(turn, Phase::Scanning { run: run.run.clone(), started_ms, after_term });
        }
    }
}

fn is_mine(turn: &Turn, owner: &Owner, run: &Name) -> bool {
    owner.instance == turn.state.settings.instance && owner.run == *run
}

/// Goes over to another phase and decides again: what was seen is as good a proof there.
fn enter(turn: &mut Turn, phase: Phase) {
    turn.state.phase = phase;
    decide(turn);
}

/// A scan begins.
pub(super) fn begin_scan(turn: &mut Turn, why: WhyScan, run: Name, started_ms: i64, after_term: u64) {
    let state = &mut turn.state;
    state.at_ends.clear();
    state.progress = None;
    state.too_late = None;
    state.lost = false;
    state.tainted = false;
    state.term_may_come = false;
    state.blocked = false;
    state.swap = false;
    state.phase = Phase::Scanning { run: run.clone(), started_ms, after_term };
    turn.untell(|notice| !matches!(notice, Notice::SameInitialStatus));
    turn.effects.push(Effect::Say(Notice::ScanBegan { run, why }));
}

/// It owns a TERM that it has just created.
pub(super) fn take_over(turn: &mut Turn, term: u64, created_ms: i64) {
    let Some(run) = turn.state.followed().cloned() else {
        return;
    };
    turn.state.swap = false;
    turn.untell(|notice| !matches!(notice, Notice::SameInitialStatus));
    turn.tell(Notice::TookOver { term });
    turn.state.phase = Phase::Owning { term, run, created_ms };
    if turn.state.tainted {
        turn.effects.push(Effect::MarkTainted { number: term });
    }
}

/// It owns a TERM that was created before this process began, or that a late answer had left open.
fn own_again(turn: &mut Turn, run: &OwnRun, term: u64, created_ms: i64, tainted: bool) {
    let state = &mut turn.state;
    let said = state.before.take().filter(|before| before.run == run.run);
    state.swap |= said.as_ref().is_some_and(|before| before.wants_successor && before.term == term);
    state.tainted |= tainted;
    state.lost |= run.gap;
    if state.progress.as_ref().is_none_or(|progress| progress.run != run.run) {
        // What its objects and its own last word tell of when it was at the ends.
        let known = run.seen_end_ms.max(said.and_then(|before| before.seen_end_ms));
        let at_ms = known.unwrap_or(run.started_ms);
        state.at_ends = run.restorable.iter().map(|(p, end)| (*p, AtEnd { end: *end, at_ms })).collect();
        state.too_late = None;
    }
    turn.tell(Notice::TookOver { term });
    enter(turn, Phase::Owning { term, run: run.run.clone(), created_ms });
}

/// Why a passive instance begins a scan.
///
/// | seen | why |
/// |---|---|
/// | the operator wants it | [`WhyScan::Swap`] |
/// | the owner of the highest valid TERM (or of none, where its objects are damaged) asks for a successor | [`WhyScan::Asked`] |
/// | there never was a TERM, `initial_status` is ACTIVATE, and no partner was heard to scan or own | [`WhyScan::First`] |
/// | a partner that owns or scans was not heard of for `partner_timeout`, and `takeover` | [`WhyScan::Silence`] |
pub fn why_scan(state: &State, view: &View, silent: bool) -> Option<WhyScan> {
    if state.swap {
        return Some(WhyScan::Swap);
    }
    let partner = state.heard.as_ref().map(|(message, _)| message);
    let asks = |owner: Option<&Owner>| {
        let is_owner = |term: u64| owner.is_none_or(|owner| owner.number == term);
        partner.is_some_and(|partner| partner.wants_successor && is_owner(partner.term))
    };
    let is_partner_active = partner.is_some_and(|partner| partner.status != Status::Passivate) && !silent;
    match &view.owner {
        owner if asks(owner.as_ref()) => Some(WhyScan::Asked),
        None if !view.ever_titled && state.settings.initial == Initial::Activate && !is_partner_active => {
            Some(WhyScan::First)
        }
        _ if silent && state.settings.takeover => Some(WhyScan::Silence),
        _ => None,
    }
}

fn rest(turn: &mut Turn) {
    let Some(view) = turn.state.view.clone() else {
        return turn.look_now_and_then();
    };
    if view.owner.as_ref().is_some_and(|owner| owner.instance == turn.state.settings.instance) {
        return match turn.proof() {
            Some(view) if view.own.run.as_ref().is_some_and(|run| is_titled(turn, &view, run)) => classify(turn, &view),
            _ => {
                if let Some(term) = turn.state.lost_its_run() {
                    turn.tell(Notice::SnapshotDamaged { term });
                }
            }
        };
    }
    if let Some(why) = why_scan(&turn.state, &view, is_partner_silent(turn)) {
        return enter(turn, Phase::Preparing { why });
    }
    if !view.own.is_empty()
        && may_delete(&turn.state.settings.instance, &view, turn.state.settings.rules, turn.now).is_ok()
    {
        let void = turn.state.term_may_come;
        return enter(turn, Phase::Clearing { void });
    }
    turn.look_now_and_then();
}

fn is_titled(turn: &Turn, view: &View, run: &OwnRun) -> bool {
    view.owner.as_ref().is_some_and(|owner| is_mine(turn, owner, &run.run))
}

fn prepare(turn: &mut Turn) {
    if !turn.is_proof && turn.now.boot_ms < turn.state.deletes_die_at {
        return;
    }
    let Some(view) = turn.proof() else { return };
    if !view.own.is_empty() {
        return begin_clearing(turn);
    }
    if turn.now.boot_ms < turn.state.deletes_die_at {
        return;
    }
    let (number, after_term) = (view.own.last_number() + 1, view.last_number);
    turn.ask(Asked::Run { after_term }, Effect::CreateRun { number, after_term });
}

fn scan(turn: &mut Turn, run: &Name, after_term: u64) {
    if let Some(view) = turn.state.view.clone() {
        match (&view.owner, &view.own.run) {
            (Some(owner), Some(own)) if is_mine(turn, owner, run) => {
                let (number, created_ms) = (owner.number, owner.created_ms);
                turn.state.term_may_come = false;
                return own_again(turn, &own.clone(), number, created_ms, false);
            }
            (_, Some(own)) if own.run == *run && own.voided => {
                return enter(turn, Phase::Clearing { void: false });
            }
            (Some(owner), _) if owner.number > after_term && owner.instance != turn.state.settings.instance => {
                turn.tell(Notice::ScanAbandoned { term: owner.number });
                return begin_clearing(turn);
            }
            _ => {}
        }
    }
    if has_lost_records(turn, run) || is_too_slow(turn) {
        return begin_clearing(turn);
    }
    if turn.now.boot_ms < turn.state.deletes_die_at {
        return turn.look_now_and_then();
    }
    if turn.state.blocked {
        return unblock(turn, run);
    }
    follow(turn, run);
    claim_when_complete(turn, |_, _| true);
}

/// A scan that lacks records behind others that it has read may hold what is gone: it is discarded and begins again.
fn has_lost_records(turn: &mut Turn, run: &Name) -> bool {
    let own = turn.state.view.as_ref().and_then(|view| view.own.run.as_ref());
    let lost = turn.state.lost || own.is_some_and(|own| own.run == *run && own.gap);
    let lost = lost && turn.state.settings.rules.keep(Rule::Gaps);
    if lost {
        turn.tell(Notice::RecordsLost { discarded: true });
    }
    lost
}

/// The tombstone rule, for a scan: it is discarded and begins again, and the operator is told what would help.
fn is_too_slow(turn: &mut Turn) -> bool {
    match turn.state.too_late {
        Some(late) if turn.state.settings.rules.keep(Rule::Tombstones) => {
            turn.tell(Notice::ScanTooSlow { took_ms: late.took_ms, limit_ms: late.limit_ms });
            true
        }
        _ => false,
    }
}

/// The tombstone rule, for an owner, and what it says of records that were gone before they were read: its snapshot is
/// tainted, and it asks for a successor.
fn taint(turn: &mut Turn, term: Option<u64>) {
    let rules = turn.state.settings.rules;
    let late = turn.state.too_late.take().filter(|_| rules.keep(Rule::Tombstones));
    let lost = std::mem::take(&mut turn.state.lost) && rules.keep(Rule::Gaps);
    if turn.state.tainted {
        return;
    }
    let notice = match late {
        _ if lost => Notice::RecordsLost { discarded: false },
        Some(late) => Notice::Tainted { behind_ms: late.took_ms, limit_ms: late.limit_ms },
        None => return,
    };
    turn.state.tainted = true;
    turn.tell(notice);
    if let Some(number) = term {
        turn.effects.push(Effect::MarkTainted { number });
    }
}

/// C2: takes the next TERM when the run is complete, as the lanes and the bucket agree, and `also` holds.
fn claim_when_complete(turn: &mut Turn, also: impl Fn(&View, &Offsets) -> bool) {
    let rules = turn.state.settings.rules;
    let announced = |turn: &Turn| turn.state.heard.as_ref().map(|(message, _)| message.clone());
    let ends = |turn: &Turn, view: &View| {
        let (progress, own) = (turn.state.progress.as_ref()?, view.own.run.as_ref()?);
        // Without it nobody knows how slow is too slow.
        progress.delete_retention_ms?;
        complete(progress, own, announced(turn).as_ref(), rules).map(|ends| (ends, own.clone()))
    };
    if !turn.state.seems_complete() {
        return turn.look_now_and_then();
    }
    if turn.state.not_yet && !turn.is_proof && turn.state.view.is_some() && !is_look_due(turn) {
        return;
    }
    let Some(view) = turn.proof() else { return };
    let found = ends(turn, &view).filter(|(ends, _)| also(&view, ends));
    turn.state.not_yet = found.is_none();
    let Some((ends, own)) = found else { return };
    let (started_ms, ended_ms) = (own.started_ms, turn.now.wall_ms);
    let claim = Claim::Title { run: own.run, started_ms, ended_ms, ends };
    turn.state.term_may_come = true;
    turn.claim(Asked::Title, &view, claim);
}

/// Runs the lanes.
fn follow(turn: &mut Turn, run: &Name) {
    if turn.state.follows.as_ref() != Some(run) {
        turn.state.follows = Some(run.clone());
        turn.effects.push(Effect::Follow { run: run.clone() });
    }
}

/// An object of another run of its own lies in the way: it goes, under C1, and the lanes go on.
fn unblock(turn: &mut Turn, run: &Name) {
    let Some(view) = turn.proof() else { return };
    if view.own.strays && view.owner.is_none() && !view.ever_titled {
        // Nothing proves anything yet: the way on is to throw this run away as well.
        return begin_clearing(turn);
    }
    if view.own.strays {
        return delete(turn, &view, Some(run.clone()));
    }
    turn.state.blocked = false;
    turn.effects.push(Effect::Follow { run: run.clone() });
}

fn own(turn: &mut Turn, term: u64, run: &Name, created_ms: i64) {
    if let Some(view) = turn.state.view.clone() {
        match &view.owner {
            Some(owner) if owner.instance != turn.state.settings.instance => {
                return begin_handing_over(turn, run, owner.number, None);
            }
            Some(_) => {}
            None => {
                turn.tell(Notice::SnapshotDamaged { term });
                turn.state.tainted = true;
            }
        }
    }
    if let Some(successor) = successor_by_its_word(&turn.state, term) {
        return begin_handing_over(turn, run, successor, None);
    }
    taint(turn, Some(term));
    follow(turn, run);
    if turn.state.blocked || turn.now.wall_ms - created_ms >= turn.state.settings.length_ms {
        turn.state.swap = true;
    }
    if turn.state.wants_successor() {
        turn.tell(Notice::WantsSuccessor);
    }
    turn.look_now_and_then();
}

/// Without C1: the partner says that it is complete, and is believed.
fn successor_by_its_word(state: &State, term: u64) -> Option<u64> {
    let partner = state.heard.as_ref().map(|(message, _)| message)?;
    (!state.settings.rules.keep(Rule::Proof) && partner.complete && partner.term >= term).then_some(term + 1)
}

/// C4: stops, and waits for the successor to reach F: all that this instance has.
fn begin_handing_over(turn: &mut Turn, run: &Name, successor: u64, until: Option<Offsets>) {
    turn.tell(Notice::HandingOver { term: successor });
    let since = turn.now.boot_ms;
    // The turn that was wanted has been taken; what is ordered from now on is another one.
    turn.state.swap = false;
    turn.state.phase = Phase::HandingOver { run: run.clone(), successor, until: None, since };
    let stored = turn.state.view.as_ref().and_then(|view| view.own.run.as_ref()).map(|own| own.stored.clone());
    if let Phase::HandingOver { until: reach, .. } = &mut turn.state.phase {
        *reach = Some(until.or(stored).unwrap_or_default());
    }
    // The lanes stop, also those of which this process knows nothing.
    turn.ask(Asked::Stop, Effect::Stop);
}

fn hand_over(turn: &mut Turn, run: &Name, successor: u64, until: Option<Offsets>, since: i64) {
    let Some(until) = until.filter(|_| turn.state.follows.is_none()) else {
        return turn.ask(Asked::Stop, Effect::Stop);
    };
    let rules = turn.state.settings.rules;
    if !rules.keep(Rule::Proof) {
        return begin_clearing(turn);
    }
    if turn.state.view.is_some() && !turn.is_proof && !is_look_due(turn) {
        return;
    }
    let Some(view) = turn.proof() else { return };
    let Some(own) = view.own.run.clone() else {
        return enter(turn, Phase::Resting);
    };
    match &view.owner {
        Some(owner) if is_mine(turn, owner, run) => {
            return own_again(turn, &own, owner.number, owner.created_ms, owner.tainted);
        }
        Some(owner) if owner.instance != turn.state.settings.instance => {
            // Also what arrived late of what was sent before it stopped.
            let arrived = !rules.keep(Rule::RebuildReach) || has_reached(owner, &own.stored);
            if has_reached(owner, &until) && arrived || !rules.keep(Rule::Reach) {
                return begin_clearing(turn);
            }
        }
        _ => {}
    }
    if turn.now.boot_ms - since >= patience_ms(&turn.state) && own.intact {
        turn.tell(Notice::SuccessorTooSlow { term: successor });
        enter(turn, Phase::Reclaiming { run: run.clone(), started_ms: own.started_ms });
    }
}

/// Whether what can be restored of the owner's snapshot is at least `until`, in every partition.
fn has_reached(owner: &Owner, until: &Offsets) -> bool {
    until.iter().all(|(partition, end)| owner.reached.get(partition).is_some_and(|reached| reached >= end) || *end == 0)
}

/// How long a successor is waited for: `partner_timeout`, and not so long that the own snapshot is tainted by it.
fn patience_ms(state: &State) -> i64 {
    let retention = state.progress.as_ref().and_then(|progress| progress.delete_retention_ms);
    let timeout = state.settings.partner_timeout_ms;
    retention.map_or(timeout, |retention| timeout.min(retention / 4))
}

fn reclaim(turn: &mut Turn, run: &Name) {
    if let Some(view) = turn.state.view.clone() {
        match (&view.owner, &view.own.run) {
            (Some(owner), Some(own)) if is_mine(turn, owner, run) => {
                return own_again(turn, own, owner.number, owner.created_ms, owner.tainted);
            }
            (Some(owner), Some(own)) if has_reached(owner, &own.stored) => {
                return begin_handing_over(turn, run, owner.number, None);
            }
            _ => {}
        }
    }
    taint(turn, None);
    if turn.now.boot_ms < turn.state.deletes_die_at {
        return turn.look_now_and_then();
    }
    follow(turn, run);
    claim_when_complete(turn, |view, ends| {
        let is_intact = view.own.run.as_ref().is_some_and(|own| own.intact);
        // A restore takes the highest TERM: it must not go back in time by this one.
        let beyond = |owner: &Owner| {
            owner.reached.iter().all(|(partition, end)| ends.get(partition).is_some_and(|mine| mine >= end))
        };
        is_intact && view.owner.as_ref().is_none_or(beyond)
    });
}

/// The objects of the run are to go.
fn begin_clearing(turn: &mut Turn) {
    // Where there is no owner, the void TERM is what C1 rests on.
    let void = turn.state.term_may_come || turn.state.view.as_ref().is_none_or(|view| view.owner.is_none());
    enter(turn, Phase::Clearing { void });
}

fn clear(turn: &mut Turn, void: bool) {
    if turn.state.follows.is_some() {
        return turn.ask(Asked::Stop, Effect::Stop);
    }
    if is_refused(&turn.state) && !turn.is_proof && !is_look_due(turn) {
        return;
    }
    let Some(view) = turn.proof() else { return };
    let rules = turn.state.settings.rules;
    let run = view.own.run.clone();
    if rules.keep(Rule::Proof)
        && let Some(run) = &run
        && is_titled(turn, &view, run)
    {
        return classify(turn, &view);
    }
    if let Some(run) = run.filter(|run| void && !run.voided && rules.keep(Rule::Void) && rules.keep(Rule::Proof)) {
        return turn.claim(Asked::Void, &view, Claim::Void { run: run.run });
    }
    if view.own.is_empty() {
        turn.untell(|notice| matches!(notice, Notice::DeletionRefused(_) | Notice::HandingOver { .. }));
        turn.effects.push(Effect::Say(Notice::Cleared));
        turn.state.phase = Phase::Resting;
        turn.state.progress = None;
        return;
    }
    delete(turn, &view, None);
}

/// C3: one batch, under C1 as `view` proves it, good for half a minute.
fn delete(turn: &mut Turn, view: &View, keep: Option<Name>) {
    let settings = &turn.state.settings;
    match may_delete(&settings.instance, view, settings.rules, turn.now) {
        Ok(()) => {
            turn.untell(|notice| matches!(notice, Notice::DeletionRefused(_)));
            let good_until_boot_ms = turn.now.boot_ms + turn.state.settings.batch_ms;
            turn.ask(Asked::Delete, Effect::Delete { keep, good_until_boot_ms });
        }
        Err(refused) => refuse(turn, refused),
    }
}

/// Whether the last look refused a deletion.
fn is_refused(state: &State) -> bool {
    state.view.is_some() && state.told.iter().any(|notice| matches!(notice, Notice::DeletionRefused(_)))
}

/// Whether the last look is `look_every` old.
fn is_look_due(turn: &Turn) -> bool {
    turn.now.boot_ms - turn.state.looked_at >= turn.state.settings.look_every_ms
}

/// Says so; the next look may show something else.
fn refuse(turn: &mut Turn, refused: Refused) {
    turn.tell(Notice::DeletionRefused(refused));
}
