//! What is known of the generations of topics, for a while.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::config::Isolation;
use crate::model::chain::{GenerationRecord, RecordedIsolation};
use crate::model::key;
use crate::storage::{Store, StoreError};

/// An isolation level as a generation record has it.
pub fn recorded(isolation: Isolation) -> RecordedIsolation {
    match isolation {
        Isolation::ReadCommitted => RecordedIsolation::ReadCommitted,
        Isolation::ReadUncommitted => RecordedIsolation::ReadUncommitted,
    }
}

/// The newest generation of each topic, as far as it was looked up. One look-up a topic, however many partitions.
#[derive(Debug, Default)]
pub struct Generations(Mutex<HashMap<String, Slot>>);

/// How long what was looked up is good for: many partitions that begin together share it, but another process may begin
/// a generation at any time.
pub(super) const KNOWN_FOR: Duration = Duration::from_secs(10);
/// How often a topic that is being written is looked at for a generation that another process began.
const FORKS_EVERY: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });

/// What is known of one topic, and since when; locked while it is looked up.
type Slot = Arc<Mutex<Option<(Instant, Arc<GenerationRecord>)>>>;

impl Generations {
    pub(super) async fn slot(&self, topic: &str) -> Slot {
        self.0.lock().await.entry(topic.to_owned()).or_default().clone()
    }

    /// Forgets what is known of a topic: it has changed.
    pub async fn forget(&self, topic: &str) {
        *self.slot(topic).await.lock().await = None;
    }
}

/// Looks whether a generation is still the one to write to: another process may have begun the next one, or somebody may
/// have emptied the store. To append then would be in vain, or make a list without its beginning.
#[derive(Debug, Default)]
pub struct Forks(std::sync::Mutex<HashMap<String, (String, Instant)>>);

/// How the record of a generation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is there, and the newest one.
    Newest,
    /// A later generation has begun.
    Superseded,
    /// It is gone, or that of another generation stands in its place.
    Gone,
}

impl Forks {
    fn seen(&self) -> std::sync::MutexGuard<'_, HashMap<String, (String, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the record of `generation` is. Two requests at most every 30 s for each topic, so the answer may be that old.
    pub async fn look(&self, store: &dyn Store, generation: &GenerationRecord) -> Result<Standing, StoreError> {
        let GenerationRecord { topic, uuid, generation: number, .. } = generation;
        let now = Instant::now();
        if self.seen().get(topic).is_some_and(|(seen, at)| seen == uuid && now - *at < FORKS_EVERY) {
            return Ok(Standing::Newest);
        }
        if store.head(&key::generation_record(topic, number + 1)).await?.is_some() {
            return Ok(Standing::Superseded);
        }
        let name = key::generation_record(topic, *number);
        let Some(bytes) = store.get(&name).await? else { return Ok(Standing::Gone) };
        // One that cannot be read is for whoever begins with it.
        if GenerationRecord::from_json(&name, &bytes).is_ok_and(|record| record.uuid != *uuid) {
            return Ok(Standing::Gone);
        }
        self.seen().insert(topic.clone(), (uuid.clone(), now));
        Ok(Standing::Newest)
    }

    /// What was seen of `topic` may not be true any more: a generation has begun here, or the store did not answer.
    pub fn forget(&self, topic: &str) {
        self.seen().remove(topic);
    }
}
