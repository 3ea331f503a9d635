//! Calls to the brokers that are repeated for a while.

use std::future::Future;
use std::time::{Duration, Instant};

use super::{KafkaError, Kind};
use crate::backoff::Backoff;

/// For how long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Repeats a call to the brokers for a while, as long as that may help.
///
/// # Errors
/// The last failure.
pub async fn patiently<T, Fut>(mut call: impl FnMut() -> Fut) -> Result<T, KafkaError>
where
    Fut: Future<Output = Result<T, KafkaError>>,
{
    let (began, mut backoff) = (Instant::now(), Backoff::default());
    loop {
        match call().await {
            Ok(value) => return Ok(value),
            Err(error) => {
                let transient = matches!(error.kind, Kind::Timeout | Kind::Unavailable | Kind::Other);
                if !transient || began.elapsed() > PATIENCE {
                    return Err(error);
                }
                tokio::time::sleep(backoff.wait()).await;
            }
        }
    }
}
