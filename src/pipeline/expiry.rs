//! What may have expired in a bucket: the retention record of a topic, and how long a day is.

use std::sync::Arc;

use crate::model::key;
use crate::model::lifecycle::DAY_MS;
use crate::model::lifecycle::record::{RecordError, RetentionRecord};
use crate::model::object::Metadata;
use crate::storage::retry::{PATIENCE, retry};
use crate::storage::{Body, Store, StoreError};

/// How long a day of retention is, in milliseconds. Only tests have other days.
pub fn day_ms() -> i64 {
    #[cfg(debug_assertions)]
    if let Some(ms) = crate::failpoint::day_ms() {
        return ms;
    }
    DAY_MS
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

/// Writes the retention record of a topic.
///
/// # Errors
/// The store does not answer.
pub async fn write_record(store: &Arc<dyn Store>, record: &RetentionRecord) -> Result<(), StoreError> {
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
