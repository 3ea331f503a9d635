//! What an instance does next: first what happened is taken note of, then, when no request is open, one place per phase
//! decides by all that is known.

use super::complete::{note_ends, too_late};
use super::event::{Claim, Effect, Event, Notice, Progress, TermAnswer};
use super::message::{Message, Status};
use super::phase;
use super::settings::Now;
use super::state::{Asked, Phase, State};
use super::view::{Offsets, View};

/// Takes in what happened at `now`: the instance's new state, and what it wants done, in this order.
///
/// At most one of the effects is a request ([`Effect::is_request`]), and none while another one is not answered.
pub fn step(state: State, event: Event, now: Now) -> (State, Vec<Effect>) {
    let mut turn = Turn { state, now, effects: Vec::new(), is_proof: false };
    if turn.take_in(event) && turn.state.asked.is_none() {
        phase::decide(&mut turn);
    }
    turn.announce();
    (turn.state, turn.effects)
}

/// One step on its way.
pub(super) struct Turn {
    pub(super) state: State,
    pub(super) now: Now,
    pub(super) effects: Vec<Effect>,
    /// The view was taken in answer to the request before, and nothing has happened since.
    pub(super) is_proof: bool,
}

impl Turn {
    /// Takes note of what happened; says whether there may be something to decide now. After a failure there is not:
    /// the next tick tries again.
    fn take_in(&mut self, event: Event) -> bool {
        let state = &mut self.state;
        match event {
            Event::Started { own } => {
                if let Phase::Starting { topic_read } = &mut state.phase {
                    *topic_read = true;
                    state.before = own;
                }
            }
            Event::Tick => {}
            Event::Heard(message) => self.hear(message),
            Event::Progress(progress) => self.progress(progress),
            Event::Blocked => state.blocked = state.follows.is_some(),
            Event::Swap => state.swap = true,
            Event::Bucket(view) => {
                state.asked = None;
                state.view = Some(view);
                state.looked_at = self.now.boot_ms;
                self.is_proof = true;
            }
            Event::RunCreated { run, started_ms } => {
                if let (Some(Asked::Run { after_term }), Phase::Preparing { why }) =
                    (state.asked.take(), state.phase.clone())
                {
                    phase::begin_scan(self, why, run, started_ms, after_term);
                }
            }
            Event::Term(answer) => self.term_answered(answer),
            Event::Stopped { stored } => {
                state.asked = None;
                state.follows = None;
                state.blocked = false;
                self.stopped(stored);
            }
            Event::Deleted { all_answered } => {
                state.asked = None;
                state.view = None;
                if !all_answered {
                    self.deletes_may_come();
                }
            }
            Event::Failed => {
                state.asked = None;
                return false;
            }
        }
        true
    }

    fn hear(&mut self, message: Message) {
        if message.status != Status::Passivate {
            self.state.active_partner_at = self.now.boot_ms;
            self.untell(|notice| *notice == Notice::PartnerSilent);
        }
        if message.initial == self.state.settings.initial {
            self.tell(Notice::SameInitialStatus);
        } else {
            self.untell(|notice| *notice == Notice::SameInitialStatus);
        }
        self.state.heard = Some((message, self.now.boot_ms));
    }

    fn progress(&mut self, progress: Progress) {
        if self.state.followed() != Some(&progress.run) {
            return;
        }
        let state = &mut self.state;
        if state.too_late.is_none() {
            state.too_late = too_late(&state.at_ends, state.began_ms(), &progress, self.now.wall_ms);
        }
        state.lost |= progress.lost;
        note_ends(&mut state.at_ends, &progress);
        state.progress = Some(progress);
    }

    fn term_answered(&mut self, answer: TermAnswer) {
        let state = &mut self.state;
        let asked = state.asked.take();
        let number = state.view.take().map_or(0, |view| view.last_number) + 1;
        match (asked, answer) {
            (Some(Asked::Title), TermAnswer::Created) => {
                state.term_may_come = false;
                phase::take_over(self, number, self.now.wall_ms);
            }
            (Some(Asked::Title), TermAnswer::Unknown) => state.term_may_come = true,
            (Some(Asked::Void), TermAnswer::Created) => {
                state.term_may_come = false;
                state.phase = Phase::Clearing { void: false };
            }
            // Taken, or a void number whose fate is unknown: the next look shows.
            _ => {}
        }
    }

    fn stopped(&mut self, stored: Offsets) {
        if let Phase::HandingOver { until, .. } = &mut self.state.phase {
            let mut reach = until.take().unwrap_or_default();
            for (partition, end) in stored {
                let known = reach.entry(partition).or_insert(end);
                *known = end.max(*known);
            }
            *until = Some(reach);
        }
        self.state.view = None;
    }

    /// A DELETE may be on its way: nothing is created in the own folder before it is dead.
    pub(super) fn deletes_may_come(&mut self) {
        let state = &mut self.state;
        state.deletes_die_at = state.deletes_die_at.max(self.now.boot_ms + state.settings.delete_lifetime_ms);
    }

    /// Asks for something. The caller has seen to it that nothing else is asked for.
    pub(super) fn ask(&mut self, asked: Asked, effect: Effect) {
        debug_assert!(effect.is_request() && self.state.asked.is_none(), "one request at a time: {effect:?}");
        self.state.asked = Some(asked);
        self.effects.push(effect);
    }

    /// Asks for a look at the bucket.
    pub(super) fn look(&mut self, fresh: bool) {
        self.ask(Asked::Look, Effect::Look { fresh });
    }

    /// Asks for a look when there is no view, or when the last one is older than `look_every`.
    pub(super) fn look_now_and_then(&mut self) {
        let due = self.now.boot_ms - self.state.looked_at >= self.state.settings.look_every_ms;
        if self.state.view.is_none() || due && !self.is_proof {
            self.look(false);
        }
    }

    /// The view, when it was taken just now: what a deletion or a TERM is decided by. Otherwise asks for one.
    pub(super) fn proof(&mut self) -> Option<View> {
        let view = self.state.view.clone().filter(|_| self.is_proof);
        if view.is_none() {
            self.look(true);
        }
        view
    }

    /// Asks for a TERM by what `view` says.
    pub(super) fn claim(&mut self, asked: Asked, view: &View, claim: Claim) {
        self.ask(asked, Effect::CreateTerm { number: view.last_number + 1, claim });
    }

    /// Says something once for as long as it holds.
    pub(super) fn tell(&mut self, notice: Notice) {
        let same = |told: &Notice| std::mem::discriminant(told) == std::mem::discriminant(&notice);
        if !self.state.told.iter().any(same) {
            self.state.told.push(notice.clone());
            self.effects.push(Effect::Say(notice));
        }
    }

    /// Forgets that it was said: it does not hold any more.
    pub(super) fn untell(&mut self, which: impl Fn(&Notice) -> bool) {
        self.state.told.retain(|notice| !which(notice));
    }

    /// Announces the own state when it has changed, when the owner has gone on far enough, and now and then.
    fn announce(&mut self) {
        let state = &self.state;
        if matches!(state.phase, Phase::Starting { .. }) {
            return;
        }
        let message = state.message();
        let due = state.said.as_ref().is_none_or(|(said, at)| {
            let sum = |offsets: &Offsets| offsets.values().fold(0_i64, |sum, offset| sum.saturating_add(*offset));
            let changed =
                Message { next: message.next.clone(), seen_end_ms: message.seen_end_ms, ..said.clone() } != message;
            let gone_on = sum(&message.next) - sum(&said.next) >= state.settings.interval_offsets;
            changed || gone_on || self.now.boot_ms - at >= state.settings.publish_every_ms
        });
        if due {
            self.effects.push(Effect::Publish(message.clone()));
            self.state.said = Some((message, self.now.boot_ms));
        }
    }
}
