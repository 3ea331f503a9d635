//! When an open object is closed.

use std::time::Duration;

/// The limits of an object; whichever comes first closes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Records (`flush_size`).
    pub records: u64,
    /// Encoded bytes (`flush_bytes`).
    pub bytes: u64,
    /// Time since the first record (`rotate_interval`), before jitter.
    pub interval: Duration,
}

/// Why an object was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It holds `flush_size` records.
    Records,
    /// It holds `flush_bytes` bytes.
    Bytes,
    /// Its first record was read `rotate_interval` ago.
    Age,
    /// Everything read is to be made durable now: stop, flush on demand, caught up.
    Drain,
    /// Memory and spool are full.
    Pressure,
    /// The end of the partition was seen, and somebody wants an object that ends there.
    End,
}

impl Rotation {
    /// Whether an object with that many records and encoded bytes is full. An empty object never is.
    pub fn full(&self, records: u64, bytes: u64) -> Option<Reason> {
        if records == 0 {
            None
        } else if records >= self.records {
            Some(Reason::Records)
        } else if bytes >= self.bytes {
            Some(Reason::Bytes)
        } else {
            None
        }
    }

    /// Whether an object of a compacted topic is to be closed at the end of the partition: what is restored of such a
    /// topic ends at such an object. At once when somebody waits for it; otherwise when the last one is half an interval
    /// old, so that there is one in each interval in which the end is within reach.
    pub fn wants_end(&self, somebody_waits: bool, since_last: Duration) -> bool {
        somebody_waits || since_last >= self.interval / 2
    }

    /// How long an object may stay open: the interval, up to 10 % more or less, so that many partitions that began
    /// together do not all upload together. `spread` is a random number in 0..1.
    pub fn lifetime(&self, spread: f64) -> Duration {
        self.interval.mul_f64(0.9 + 0.2 * spread.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const LIMITS: Rotation = Rotation { records: 10, bytes: 1000, interval: Duration::from_secs(100) };

    #[rstest]
    #[case::empty(0, 5000, None)]
    #[case::below(9, 999, None)]
    #[case::records(10, 1, Some(Reason::Records))]
    #[case::bytes(1, 1000, Some(Reason::Bytes))]
    #[case::both(10, 1000, Some(Reason::Records))]
    fn full(#[case] records: u64, #[case] bytes: u64, #[case] expected: Option<Reason>) {
        assert_eq!(LIMITS.full(records, bytes), expected);
    }

    #[rstest]
    #[case::somebody_waits(true, 0, true)]
    #[case::just_closed(false, 49, false)]
    #[case::half_an_interval_ago(false, 50, true)]
    fn at_the_end(#[case] waits: bool, #[case] seconds: u64, #[case] expected: bool) {
        assert_eq!(LIMITS.wants_end(waits, Duration::from_secs(seconds)), expected);
    }

    #[rstest]
    #[case(0.0, 90)]
    #[case(0.5, 100)]
    #[case(1.0, 110)]
    #[case(7.0, 110)]
    fn lifetime(#[case] spread: f64, #[case] seconds: u64) {
        assert_eq!(LIMITS.lifetime(spread).as_secs_f64().round() as u64, seconds);
    }
}
