//! Retention: which rules a bucket's lifecycle document must have for our topics, and what follows from their work.
//!
//! The document belongs to everybody who uses the bucket. So it is never taken apart and put together again: [`xml`]
//! finds where each rule stands, [`rule`] says which are ours, [`plan`] replaces, adds and removes exactly those, and
//! every other byte stays where it was. [`record`] remembers what was in force when, so that an object that is missing
//! can be told from one that expired; [`head`] keeps a place in the list when all of its objects have expired.

pub mod head;
pub mod plan;
pub mod record;
pub mod rule;
pub mod sweep;
pub mod xml;

#[cfg(test)]
mod tests;

/// A day of a lifecycle rule, in milliseconds.
pub const DAY_MS: i64 = 86_400_000;

/// The most rules that S3 takes in one document.
pub const MAX_RULES: usize = 1000;

/// Milliseconds in whole days, rounded up, at least one: what is asked for is kept at least so long.
pub fn whole_days(ms: i64) -> u32 {
    let days = ms.max(1).div_euclid(DAY_MS) + i64::from(ms.max(1).rem_euclid(DAY_MS) > 0);
    u32::try_from(days).unwrap_or(u32::MAX)
}

/// A topic's `retention.ms` in whole days, rounded up; `None` where Kafka keeps everything (-1) or the value is not
/// understood.
pub fn days_of_topic(retention_ms: Option<&str>) -> Option<u32> {
    let ms: i64 = retention_ms?.trim().parse().ok()?;
    // More days than a rule can say are for ever.
    (ms >= 0).then(|| whole_days(ms)).filter(|days| *days <= MAX_DAYS)
}

/// The most days a rule can say: S3 takes a positive 32-bit number.
pub const MAX_DAYS: u32 = i32::MAX as u32;
