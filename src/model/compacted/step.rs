//! What an instance does next: first what happened is taken note of, then, when no request is open, one place per phase
//! decides by all that is known.

use super::complete::{note_ends, too_late};
use super::event::{Effect, Event, Notice, Progress, TermAnswer};
use super::message::{Message, Status};
use super::partner::heard_ago_ms;
use super::phase;
use super::settings::Now;
use super::state::{Asked, Phase, State};
use super::turn::Turn;
use super::view::Offsets;

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
            Event::Heard(message) => self.hear(message, 0),
            Event::Recalled { message, age_ms } => {
                let ago_ms = heard_ago_ms(age_ms, &self.state.settings);
                self.hear(message, ago_ms);
            }
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
                state.refused = false;
                if let (Some(Asked::Run { after_term }), Phase::Preparing { why }) =
                    (state.asked.take(), state.phase.clone())
                {
                    phase::begin_scan(self, why, run, started_ms, after_term);
                }
            }
            Event::Term(answer) => self.term_answered(answer),
            Event::Stopped { stored } => {
                state.asked = None;
                state.refused = false;
                state.follows = None;
                state.blocked = false;
                self.stopped(stored);
            }
            Event::Deleted { all_answered } => {
                state.asked = None;
                state.refused = !all_answered;
                state.view = None;
                if !all_answered {
                    self.deletes_may_come();
                }
            }
            Event::Failed => {
                state.refused |= state.asked.take() != Some(Asked::Look);
                return false;
            }
        }
        true
    }

    fn hear(&mut self, message: Message, ago_ms: i64) {
        let at = self.now.boot_ms - ago_ms;
        if message.status != Status::Passivate {
            self.state.active_partner_at = at;
            self.untell(|notice| *notice == Notice::PartnerSilent);
        }
        if message.initial == self.state.settings.initial {
            self.tell(Notice::SameInitialStatus);
        } else {
            self.untell(|notice| *notice == Notice::SameInitialStatus);
        }
        self.state.heard = Some((message, at));
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
        state.refused = answer == TermAnswer::Unknown;
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
