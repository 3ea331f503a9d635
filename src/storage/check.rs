//! Whether a store keeps its word: a create must fail where something is.
//!
//! Everything rests on that, and not every store does it: buckets with versioning on Ceph answer "created" twice,
//! Google Cloud Storage ignores the condition. So each job tries it in its own place before it writes anything.

use super::{Body, Create, Kind, Metadata, Store, StoreError};
use crate::model::key::SYSTEM;

/// What the check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreCheck {
    /// Creates are conditional.
    Conditional,
    /// The store creates what is there already: two writers would overwrite each other.
    Ignored {
        /// What was seen, for people.
        why: String,
    },
}

/// Creates an object twice under `_kafka_backup/check/JOB/NONCE` and removes it. `nonce` must be new for every check.
///
/// Permission to delete is not needed: without it the object (2 bytes) stays.
pub async fn store_check(store: &dyn Store, job: &str, nonce: &str) -> Result<StoreCheck, StoreError> {
    let (key, body, metadata) = (format!("{SYSTEM}/check/{job}/{nonce}"), Body::from("{}"), Metadata::new());
    // "Exists" here is an earlier attempt whose answer was lost; what counts is the second.
    store.create(&key, &body, &metadata).await?;
    let second = store.create(&key, &body, &metadata).await?;
    match store.delete(&key).await {
        Err(error) if error.kind != Kind::Auth => return Err(error),
        Err(error) => tracing::debug!(error = %error, "object of the store check stays"),
        Ok(()) => {}
    }
    Ok(match second {
        Create::Exists => StoreCheck::Conditional,
        Create::Created => StoreCheck::Ignored {
            why: format!(
                "{} created the same object twice: it has no conditional writes, or the bucket's versioning disables \
                 them",
                store.url()
            ),
        },
    })
}
