//! Keeps what the stores remove in step with the jobs.
//!
//! In a bucket the server removes old objects by its lifecycle rules, and this room sees to it that each topic has the
//! right one ([`rules`]); in a folder it removes them itself ([`folder`]). [`survey`] finds out what is wanted, [`keeper`]
//! does it all at the start and every hour, and [`heads`] writes down where quiet lists end before all of them is gone.
//! What is decided is decided in [`crate::model::lifecycle`].
//!
//! Several daemons may share a bucket. Each changes the rules of its own topics only, and none shortens a retention by
//! itself, so that two that want different things for one topic end at the longer one. Nothing keeps two of them from
//! replacing the document at the same moment, one losing its change: who changed it looks again at once, again some
//! seconds later, and every hour.
//!
//! Crash consistency: the retention record is written before a rule takes effect that removes more than before, so
//! what expired is always accounted for; whatever is interrupted is done by the next round.

pub mod folder;
pub mod heads;
pub mod keeper;
pub mod report;
pub mod rules;
pub mod survey;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::model::key;
use crate::model::lifecycle::DAY_MS;
use crate::model::lifecycle::record::{RecordError, RetentionRecord};
use crate::model::object::Metadata;
use crate::storage::retry::retry;
use crate::storage::{Body, Store, StoreError};

/// How long one request is repeated before the round is put off.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a day of retention is, in milliseconds. Only tests have other days.
pub fn day_ms() -> i64 {
    #[cfg(debug_assertions)]
    if let Some(ms) = crate::failpoint::day_ms() {
        return ms;
    }
    DAY_MS
}

/// How a store is brought into step.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Objects may be kept for a shorter time than now.
    pub allow_decrease: bool,
    /// Only look.
    pub dry_run: bool,
    /// How long after a change the document is looked at again.
    pub settle: Duration,
}

impl Default for How {
    fn default() -> Self {
        Self { allow_decrease: false, dry_run: false, settle: Duration::from_secs(5) }
    }
}

/// What keeps a store from being brought into step.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// A request failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bucket's lifecycle document is not understood, and so not touched.
    #[error("the lifecycle document of {url} is {why}; it is left as it is")]
    Document {
        /// Which store.
        url: String,
        /// Why.
        why: String,
    },
}

/// The retention record of a topic; one that nobody wrote is empty, one that cannot be read is the inner error.
///
/// # Errors
/// The store does not answer.
pub async fn record_of(
    store: &Arc<dyn Store>,
    topic: &str,
) -> Result<Result<RetentionRecord, RecordError>, StoreError> {
    let name = key::retention_record(topic);
    let found = retry(PATIENCE, || store.get(&name)).await?;
    Ok(found.map_or_else(|| Ok(RetentionRecord::new(topic)), |json| RetentionRecord::from_json(topic, &json)))
}

async fn write_record(store: &Arc<dyn Store>, record: &RetentionRecord) -> Result<(), StoreError> {
    let name = key::retention_record(&record.topic);
    let json = serde_json::to_vec_pretty(record).unwrap_or_default(); // plain data has no reason to fail
    let (body, none) = (Body::from(json), Metadata::new());
    retry(PATIENCE, || store.put(&name, &body, &none)).await
}

/// The fewest days after which objects of `topic` expired at any time since `written_ms` (`None`: ever), as its record
/// says; `None` where nothing expires.
///
/// # Errors
/// The store does not answer. A record that cannot be read counts as none.
pub async fn shortest_since(
    store: &Arc<dyn Store>,
    topic: &str,
    written_ms: Option<i64>,
) -> Result<Option<u32>, StoreError> {
    let record = record_of(store, topic).await?;
    Ok(record.ok().and_then(|record| record.shortest_since(written_ms)))
}
