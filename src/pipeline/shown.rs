//! What `/-/status` shows of a job besides its partitions.

use serde::{Deserialize, Serialize};

/// What is known of the retention of one job, for its status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRetention {
    /// When it was last looked at, in milliseconds since 1970-01-01 UTC.
    pub checked_ms: i64,
    /// Topics that are not as they should be.
    pub drift: usize,
    /// In which way, by topic.
    pub differences: Vec<String>,
    /// What else should be known.
    pub warnings: Vec<String>,
}

/// One instance of a compacted topic, as `/-/status` shows it. Times are milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TurnStatus {
    /// The instance.
    pub instance: String,
    /// `ACTIVATE`, `PASSIVATE` or `CATCHING_UP`.
    pub status: String,
    /// What it is doing, in a word.
    pub phase: String,
    /// Since when.
    pub since_ms: i64,
    /// Its run, empty without one.
    pub run: String,
    /// The highest valid TERM, 0 without one.
    pub term: u64,
    /// Whose that is; empty without one.
    pub owner: String,
    /// What is durable of what the topic holds, from 0 to 1; none without lanes.
    pub progress: Option<f64>,
    /// When a scan will be complete if it goes on as it did.
    pub expected_end_ms: Option<i64>,
    /// Offsets it announced last, over all partitions.
    pub announced_offsets: i64,
    /// Offsets that its objects reach, over all partitions.
    pub reached_offsets: i64,
    /// How long a turn is meant to be, in milliseconds.
    pub length_ms: i64,
    /// When the owner last changed.
    pub last_swap_ms: Option<i64>,
    /// Nothing was heard of the partner for `partner_timeout`.
    pub partner_silent: bool,
    /// When the partner was last heard of.
    pub partner_heard_ms: Option<i64>,
    /// Deletions that were not allowed, since the start.
    pub refused_deletions: u64,
    /// Deleted keys may have survived in its snapshot.
    pub tainted: bool,
    /// How long the last scan took, in seconds.
    pub last_scan_seconds: Option<f64>,
}
