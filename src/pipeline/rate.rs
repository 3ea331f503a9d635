//! A limit on bytes per second read from Kafka, shared by all lanes of a job.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What may be spent at once after a pause: one second's worth.
const BURST_SECONDS: f64 = 1.0;

/// Bytes per second; a batch is paid for after it was read, so the limit holds on average.
#[derive(Debug)]
pub struct RateLimit {
    per_second: f64,
    account: Mutex<(f64, Instant)>,
}

impl RateLimit {
    /// At most `bytes` per second (at least 1).
    pub fn new(bytes: u64) -> Self {
        let per_second = bytes.max(1) as f64;
        Self { per_second, account: Mutex::new((per_second * BURST_SECONDS, Instant::now())) }
    }

    /// How long to wait before reading on; `None` when nothing is owed.
    pub fn wait(&self) -> Option<Duration> {
        let balance = self.settle(0.0);
        (balance < 0.0).then(|| Duration::from_secs_f64((-balance / self.per_second).min(3600.0)))
    }

    /// `bytes` were read.
    pub fn spend(&self, bytes: u64) {
        self.settle(bytes as f64);
    }

    fn settle(&self, spent: f64) -> f64 {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let earned = now.duration_since(account.1).as_secs_f64() * self.per_second;
        account.0 = (account.0 + earned).min(self.per_second * BURST_SECONDS) - spent;
        account.1 = now;
        account.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_must_be_earned() {
        let rate = RateLimit::new(1000);
        assert_eq!(rate.wait(), None);
        rate.spend(3000);
        let wait = rate.wait().unwrap();
        assert!(wait > Duration::from_millis(1900) && wait <= Duration::from_secs(2), "{wait:?}");
    }
}
