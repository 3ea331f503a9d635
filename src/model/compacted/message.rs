//! What an instance says of itself on the coordination topic. State, not events: the last message is all there is to
//! know, so that lost, repeated and reordered ones do no harm. Nothing is ever deleted on the strength of a message.

use serde::{Deserialize, Serialize};

use super::settings::{Initial, Name};
use super::view::Offsets;

/// What an instance is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// It owns the topic's snapshot and keeps it up to date.
    Activate,
    /// It does not read the topic.
    Passivate,
    /// It scans, or takes back what its successor did not take.
    CatchingUp,
}

/// The state of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Message {
    /// Its run; empty without one.
    pub run: Name,
    /// The TERM it owns; for one that does not, the last TERM it has seen. 0 is none.
    pub term: u64,
    /// What it is doing.
    pub status: Status,
    /// Up to where its objects reach.
    pub next: Offsets,
    /// Its scan is complete.
    pub complete: bool,
    /// It owns the snapshot and asks the other to ACTIVATE.
    pub wants_successor: bool,
    /// Its snapshot is tainted.
    pub tainted: bool,
    /// Its `initial_status`: two that agree are a configuration error that only shows here.
    pub initial: Initial,
    /// When the partition that was longest not read to its end was so, in milliseconds since 1970-01-01 UTC.
    pub seen_end_ms: Option<i64>,
}
