//! The head record of a quiet partition, `_kafka_backup/heads/TOPIC/PARTITION`: where its list ends.
//!
//! When all objects of a list have expired, nothing in the bucket says any more where it goes on. So before that can
//! happen, once the last object has passed half of its retention, the end of the list is written down beside it.

use serde::{Deserialize, Serialize};

/// The version of the record that is written.
pub const HEAD_FORMAT_VERSION: u32 = 1;

/// An object that waited longer than this before it was sent looks whether the one before it is still there.
const SLEEPER_MAX_MS: i64 = 3_600_000;

/// Where a list ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadRecord {
    /// The layout of this record, [`HEAD_FORMAT_VERSION`].
    pub format_version: u32,
    /// The uuid of the generation. A record of another one says nothing.
    pub generation: String,
    /// Where the range of the last object ended.
    pub next_offset: i64,
    /// Leader epoch of its last record, -1 when unknown.
    pub leader_epoch: i32,
    /// When it was written, in milliseconds since 1970-01-01 UTC.
    pub written_ms: i64,
}

impl HeadRecord {
    /// Reads a record; `None` where it is of no use. It is only a hint, and is overwritten in time.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(json).ok()?;
        (record.format_version <= HEAD_FORMAT_VERSION && record.next_offset >= 0).then_some(record)
    }

    /// Whether this one is to be written where `there` is: never one that says less.
    pub fn replaces(&self, there: Option<&Self>) -> bool {
        there.is_none_or(|there| there.generation != self.generation || there.next_offset < self.next_offset)
    }
}

/// Whether the last object of a list, written at `written_ms`, has passed half of a retention of `days`.
pub fn is_due(written_ms: i64, now_ms: i64, days: u32, day_ms: i64) -> bool {
    now_ms - written_ms >= i64::from(days).saturating_mul(day_ms) / 2
}

/// After how many milliseconds without being sent an object looks at the tail again: its machine may have slept, and
/// the names in front of it may have expired meanwhile. A quarter of the retention, an hour at most.
pub fn sleeper_ms(days: Option<u32>, day_ms: i64) -> i64 {
    days.map_or(SLEEPER_MAX_MS, |days| (i64::from(days).saturating_mul(day_ms) / 4).min(SLEEPER_MAX_MS))
}
