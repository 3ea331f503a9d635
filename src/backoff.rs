//! How long to wait before a failed call is tried again.

use std::time::Duration;

/// How to wait between attempts: doubling from `first` to at most `max`, each wait between half and the whole of it.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(20))
    }
}

impl Backoff {
    /// Waits from `first` to `max`.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, max }
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.max);
        whole.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}
