//! How far the lists of a topic reached when they were last verified, kept in the bucket. A list does not say where it
//! ends: without this, a missing last object could not be told from one that was never written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Exit, Result};
use crate::model::key::{self, PartitionPath};
use crate::model::verify::chain::Reach;
use crate::restore::gather::failed;
use crate::storage::retry::retry;
use crate::storage::{Body, Metadata, Store};

/// The layout of the record.
const FORMAT_VERSION: u32 = 1;

/// How long a store may be out of reach.
const PATIENCE: Duration = Duration::from_secs(60);

/// The record of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tails {
    format_version: u32,
    topic: String,
    /// By the folder under the topic, with its final slash.
    lists: BTreeMap<String, Tail>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Tail {
    /// The generation's uuid.
    generation: String,
    /// Where the list ended.
    next_offset: i64,
}

impl Tails {
    /// Nothing seen yet.
    pub fn new(topic: &str) -> Self {
        Self { format_version: FORMAT_VERSION, topic: topic.to_owned(), lists: BTreeMap::new() }
    }

    /// What was kept; nothing where nothing was.
    ///
    /// # Errors
    /// The store cannot be read, or the record is not one: it is never overwritten then.
    pub async fn load(store: &Arc<dyn Store>, topic: &str) -> Result<Self> {
        let key = key::tails_record(topic);
        let Some(bytes) = retry(PATIENCE, || store.get(&key)).await.map_err(failed)? else {
            return Ok(Self::new(topic));
        };
        let read: Result<Self, String> = serde_json::from_slice(&bytes).map_err(|error| error.to_string());
        let sound = read.and_then(|tails| match tails.format_version == FORMAT_VERSION && tails.topic == topic {
            true => Ok(tails),
            false => Err(format!("version {} of topic {}", tails.format_version, tails.topic)),
        });
        sound.map_err(|why| {
            Error::new(Exit::Failed, format!("{key} cannot be understood: {why}"))
                .hint("it says how far the lists of the topic reached; remove it to begin anew, or use a newer version")
        })
    }

    /// Writes it down; not being able to is said and no failure: credentials that only read are enough to verify.
    pub async fn store(&self, store: &Arc<dyn Store>) {
        let key = key::tails_record(&self.topic);
        let Ok(json) = serde_json::to_vec(self) else { return };
        let (body, metadata) = (Body::from(json), Metadata::new());
        if let Err(error) = retry(PATIENCE, || store.put(&key, &body, &metadata)).await {
            tracing::info!("how far the lists of {} reach is not kept: {error}", self.topic);
        }
    }

    /// A list was seen to reach up to `next_offset`.
    pub fn remember(&mut self, path: &PartitionPath, generation: String, next_offset: i64) {
        self.lists.insert(folder(path), Tail { generation, next_offset });
    }

    /// Keeps what was known before and reached further, or was not seen now: what is missing stays missed.
    pub fn merge(&mut self, before: &Self) {
        for (folder, tail) in &before.lists {
            let now = self.lists.entry(folder.clone()).or_insert_with(|| tail.clone());
            if now.generation == tail.generation {
                now.next_offset = now.next_offset.max(tail.next_offset);
            }
        }
    }

    /// How far a list of this generation reached.
    pub fn reach(&self, path: &PartitionPath, generation: &str) -> Option<Reach> {
        let tail = self.lists.get(&folder(path)).filter(|tail| tail.generation == generation)?;
        Some(Reach { until: tail.next_offset, witness: "an earlier verification".to_owned() })
    }

    /// The lists that were seen.
    pub fn paths(&self) -> impl Iterator<Item = PartitionPath> {
        self.lists.keys().filter_map(|folder| {
            let mut parts = folder.trim_end_matches('/').rsplit('/');
            let partition = parts.next()?.parse().ok()?;
            let branch = parts.next().map(str::to_owned);
            Some(PartitionPath { topic: self.topic.clone(), branch, partition })
        })
    }
}

fn folder(path: &PartitionPath) -> String {
    path.folder()[path.topic.len() + 1..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_once_is_missed_for_ever() {
        let (first, second) = (PartitionPath::normal("t", 1, 0), PartitionPath::normal("t", 2, 7));
        let mut before = Tails::new("t");
        before.remember(&first, "g".to_owned(), 50);
        before.remember(&second, "h".to_owned(), 5);
        let mut now = Tails::new("t");
        now.remember(&first, "g".to_owned(), 40);
        now.merge(&before);
        assert_eq!(now.reach(&first, "g").map(|reach| reach.until), Some(50));
        assert_eq!(now.reach(&second, "h").map(|reach| reach.until), Some(5));
        assert_eq!(now.reach(&second, "other"), None, "another generation is another list");
        assert_eq!(now.paths().collect::<Vec<_>>(), [first, second]);
    }
}
