//! What time it is for the two instances of a topic.

use crate::clock::{boot_time, now_ms};
use crate::model::compacted::Now;

/// Now, by both clocks.
pub(super) fn now() -> Now {
    Now { wall_ms: now_ms(), boot_ms: i64::try_from(boot_time().as_millis()).unwrap_or(i64::MAX) }
}
