//! Head records: where quiet lists end, written once before their last objects expire.

use std::collections::HashMap;
use std::sync::Arc;

use super::expiry::day_ms;
use super::lane::Progress;
use crate::clock::now_ms;
use crate::kafka::TopicPartition;
use crate::model::key;
use crate::model::lifecycle::head::{HEAD_FORMAT_VERSION, HeadRecord, is_due};
use crate::model::object::Metadata;
use crate::storage::retry::{PATIENCE, retry};
use crate::storage::{Body, Store, StoreError};

/// The head records that are known to be in the store.
#[derive(Debug, Default)]
pub struct Heads(HashMap<(String, TopicPartition), (String, i64)>);

impl Heads {
    /// Writes the head record of `partition` if its last object has passed half of `days` and it is not there yet.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn write(
        &mut self,
        store: &Arc<dyn Store>,
        partition: &TopicPartition,
        progress: &Progress,
        days: u32,
    ) -> Result<bool, StoreError> {
        let Some(tail) = progress.tail() else { return Ok(false) };
        if !is_due(tail.written_ms, now_ms(), days, day_ms()) {
            return Ok(false);
        }
        let known = (store.url().to_owned(), partition.clone());
        let end = (progress.generation().to_owned(), tail.next_offset);
        if self.0.get(&known) == Some(&end) {
            return Ok(false);
        }
        let head = HeadRecord {
            format_version: HEAD_FORMAT_VERSION,
            generation: end.0.clone(),
            next_offset: tail.next_offset,
            leader_epoch: tail.leader_epoch,
            written_ms: now_ms(),
        };
        let name = key::head_record(&partition.topic, partition.partition);
        let there = retry(PATIENCE, || store.get(&name)).await?.and_then(|json| HeadRecord::from_json(&json));
        let writes = head.replaces(there.as_ref());
        if writes {
            let body = Body::from(serde_json::to_vec_pretty(&head).unwrap_or_default()); // plain data
            let none = Metadata::new();
            retry(PATIENCE, || store.put(&name, &body, &none)).await?;
            tracing::info!(partition = %partition, next_offset = head.next_offset, "end of a quiet list written down");
        }
        self.0.insert(known, end);
        Ok(writes)
    }
}

/// The head record of `partition`, where it speaks of this generation.
///
/// # Errors
/// The store does not answer.
pub async fn read(
    store: &Arc<dyn Store>,
    partition: &TopicPartition,
    generation: &str,
) -> Result<Option<HeadRecord>, StoreError> {
    let name = key::head_record(&partition.topic, partition.partition);
    let found = retry(PATIENCE, || store.get(&name)).await?;
    Ok(found.and_then(|json| HeadRecord::from_json(&json)).filter(|head| head.generation == generation))
}
