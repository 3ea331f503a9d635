//! One step on its way, and what every phase may do in it.

use super::event::{Claim, Effect, Notice};
use super::settings::Now;
use super::state::{Asked, State};
use super::view::View;

/// One step on its way.
pub(super) struct Turn {
    pub(super) state: State,
    pub(super) now: Now,
    pub(super) effects: Vec<Effect>,
    /// The view was taken in answer to the request before, and nothing has happened since.
    pub(super) is_proof: bool,
}

impl Turn {
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

    /// The view, when it was taken just now: what a deletion or a TERM is decided by. Otherwise asks for one; after a
    /// refusal not before a look is due.
    pub(super) fn proof(&mut self) -> Option<View> {
        let view = self.state.view.clone().filter(|_| self.is_proof);
        let due = self.now.boot_ms - self.state.looked_at >= self.state.settings.look_every_ms;
        if view.is_none() && (due || !self.state.refused) {
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
}
