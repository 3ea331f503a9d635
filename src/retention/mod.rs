//! Keeps what the stores remove in step with the jobs.
//!
//! In a bucket the server removes old objects by its lifecycle rules, and this room sees to it that each topic has the
//! right one ([`rules`]); in a folder it removes them itself ([`folder`]). [`survey`] finds out what is wanted, [`keeper`]
//! does it all at the start and every hour, and [`crate::pipeline::heads`] writes down where quiet lists end before all of them is gone.
//! What is decided is decided in [`crate::model::lifecycle`].
//!
//! Several daemons may share a bucket. Each changes the rules of its own topics only, and none shortens a retention by
//! itself, so that two that want different things for one topic end at the longer one. Nothing keeps two of them from
//! replacing the document at the same moment, one losing its change: who changed it looks again at once, again some
//! seconds later, and every hour.
//!
//! Crash consistency: the retention record is written before a rule takes effect that removes more than before, so
//! what expired is always accounted for; whatever is interrupted is done by the next round.

pub mod folder;
pub mod keeper;
pub mod report;
pub mod rules;
pub mod survey;

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::storage::StoreError;

/// How a store is brought into step.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Objects may be kept for a shorter time than now.
    pub allow_decrease: bool,
    /// Only look.
    pub dry_run: bool,
    /// How long after a change the document is looked at again.
    pub settle: Duration,
}

impl Default for How {
    fn default() -> Self {
        Self { allow_decrease: false, dry_run: false, settle: Duration::from_secs(5) }
    }
}

/// What keeps a store from being brought into step.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// A request failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bucket's lifecycle document is not understood, and so not touched.
    #[error("the lifecycle document of {url} is {why}; it is left as it is")]
    Document {
        /// Which store.
        url: String,
        /// Why.
        why: String,
    },
}
