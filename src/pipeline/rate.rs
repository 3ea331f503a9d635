//! A limit on bytes per second read from Kafka, shared by all lanes of a job.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What may be spent at once after a pause: one second's worth.
const BURST_SECONDS: f64 = 1.0;

/// Who waits looks again so often: the limit may be another one by then.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Bytes per second; a batch is paid for after it was read, so the limit holds on average.
#[derive(Debug)]
pub struct RateLimit(Mutex<Account>);

#[derive(Debug)]
struct Account {
    /// `None` is no limit.
    per_second: Option<f64>,
    balance: f64,
    settled: Instant,
}

impl RateLimit {
    /// At most `bytes` per second (at least 1); `None` is no limit.
    pub fn new(bytes: Option<u64>) -> Self {
        let per_second = bytes.map(|bytes| bytes.max(1) as f64);
        let balance = per_second.unwrap_or_default() * BURST_SECONDS;
        Self(Mutex::new(Account { per_second, balance, settled: Instant::now() }))
    }

    /// Another limit from now on.
    pub fn set(&self, bytes: Option<u64>) {
        let fresh = Self::new(bytes).0.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// How long to wait before reading on, or before asking again; `None` when nothing is owed.
    pub fn wait(&self) -> Option<Duration> {
        let (balance, per_second) = self.settle(0.0)?;
        (balance < 0.0).then(|| Duration::from_secs_f64((-balance / per_second).min(LOOK_AGAIN.as_secs_f64())))
    }

    /// `bytes` were read.
    pub fn spend(&self, bytes: u64) {
        self.settle(bytes as f64);
    }

    /// Balance and limit; `None` where there is no limit.
    fn settle(&self, spent: f64) -> Option<(f64, f64)> {
        let mut account = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let per_second = account.per_second?;
        let now = Instant::now();
        let earned = now.duration_since(account.settled).as_secs_f64() * per_second;
        account.balance = (account.balance + earned).min(per_second * BURST_SECONDS) - spent;
        account.settled = now;
        Some((account.balance, per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_must_be_earned() {
        let rate = RateLimit::new(Some(1000));
        assert_eq!(rate.wait(), None);
        rate.spend(1500);
        let wait = rate.wait().unwrap();
        assert!(wait > Duration::from_millis(400) && wait <= Duration::from_millis(500), "{wait:?}");
    }

    #[test]
    fn another_limit_holds_at_once() {
        let rate = RateLimit::new(None);
        rate.spend(1 << 40);
        assert_eq!(rate.wait(), None, "no limit, no debt");
        rate.set(Some(1000));
        rate.spend(3000);
        assert!(rate.wait().is_some());
        rate.set(None);
        assert_eq!(rate.wait(), None);
    }

    #[test]
    fn who_waits_looks_soon_whether_the_limit_is_another_one() {
        let rate = RateLimit::new(Some(1));
        rate.spend(1 << 30);
        assert!(rate.wait().unwrap() <= LOOK_AGAIN);
    }
}
