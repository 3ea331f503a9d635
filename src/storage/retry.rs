//! Jittered exponential backoff for calls to a store.

use std::future::Future;
use std::time::{Duration, Instant};

use super::{Kind, StoreError};

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

/// Repeats `call` while its failure is transient (credentials count as such for one more attempt: they may just have
/// been renewed) and `patience` has not run out; returns the last failure then.
pub async fn retry<T, F, Fut>(patience: Duration, mut call: F) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    let (began, mut backoff, mut refused) = (Instant::now(), Backoff::default(), false);
    loop {
        let error = match call().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let once_more = error.kind == Kind::Auth && !std::mem::replace(&mut refused, true);
        let wait = backoff.wait();
        if !(error.is_transient() || once_more) || began.elapsed() + wait > patience {
            return Err(error);
        }
        tracing::debug!(error = %error, wait_ms = wait.as_millis() as u64, "store call failed, trying again");
        tokio::time::sleep(wait).await;
    }
}
