//! What time it is, and how it is written: the one place that the program reads its clocks from where a moment is written
//! down or compared with one that was. The model is told.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970-01-01 UTC.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// Time since boot, sleep included.
pub fn boot_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
}

/// A span in milliseconds, as moments are; the longest ones are all the same.
pub fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// The next moment at which everybody in the process does what is to be done so often: what jobs ask is asked in one call,
/// what they write down is written in one go, and the machine sleeps in between.
pub fn with_others(every: Duration) -> actix_rt::time::Instant {
    static BEGAN: LazyLock<actix_rt::time::Instant> = LazyLock::new(actix_rt::time::Instant::now);
    let turns = BEGAN.elapsed().as_millis() / every.as_millis().max(1);
    *BEGAN + every.saturating_mul(u32::try_from(turns + 1).unwrap_or(u32::MAX))
}

/// A date and time with its offset from UTC, in milliseconds since 1970-01-01 UTC.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    // Years of four digits, so the milliseconds fit.
    Some((time.unix_timestamp_nanos() / 1_000_000) as i64)
}

/// A time of Kafka's for a person and for JSON: RFC 3339, UTC, milliseconds.
pub fn rfc3339(ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok();
    // Producers may set anything, also what no calendar has.
    time.and_then(|t| t.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{ms} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_the_same_moments() {
        let every = Duration::from_millis(20);
        let (before, first) = (actix_rt::time::Instant::now(), with_others(every));
        std::thread::sleep(Duration::from_millis(33));
        let later = with_others(every);
        assert!(before < first && later > first);
        assert_eq!((later - first).as_nanos() % every.as_nanos(), 0);
    }
}
