//! Calls to a store that are repeated for a while.

use std::future::Future;
use std::time::{Duration, Instant};

use super::{Kind, StoreError};
use crate::backoff::Backoff;

/// How long one request is repeated by what comes round again: a partition, a round, a look or a start is put off then.
/// What nobody repeats for its caller (a restore, an inspection) has a longer patience of its own.
pub const PATIENCE: Duration = Duration::from_secs(20);

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
