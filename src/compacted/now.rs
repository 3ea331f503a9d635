//! What time it is for the two instances of a topic.

use crate::clock::{boot_time, millis, now_ms};
use crate::model::compacted::Now;

/// Now, by both clocks.
pub(super) fn now() -> Now {
    Now { wall_ms: now_ms(), boot_ms: millis(boot_time()) }
}
