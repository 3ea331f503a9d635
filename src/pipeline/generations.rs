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

/// Notices generations that another process began: appending to the one before would be in vain.
#[derive(Debug, Default)]
pub struct Forks(std::sync::Mutex<HashMap<String, (u32, Instant)>>);

impl Forks {
    fn seen(&self) -> std::sync::MutexGuard<'_, HashMap<String, (u32, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a generation of `topic` behind `number` has begun. One request at most every 30 s for each topic, so the
    /// answer may be that old.
    pub async fn superseded(&self, store: &dyn Store, topic: &str, number: u32) -> Result<bool, StoreError> {
        let now = Instant::now();
        let fresh = self.seen().get(topic).is_some_and(|(n, at)| *n == number && now - *at < FORKS_EVERY);
        if fresh || store.head(&key::generation_record(topic, number + 1)).await?.is_some() {
            return Ok(!fresh);
        }
        self.seen().insert(topic.to_owned(), (number, now));
        Ok(false)
    }

    /// A generation of `topic` has just begun here.
    pub(super) fn forget(&self, topic: &str) {
        self.seen().remove(topic);
    }
}
