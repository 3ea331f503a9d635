//! How far the lists of a topic reached when they were last verified, kept in the bucket. A list does not say where it
//! ends: without this, a missing last object could not be told from one that was never written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::chain::Reach;
use crate::model::key::{self, PartitionPath};

/// The layout of the record.
const FORMAT_VERSION: u32 = 1;

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
    /// When its last object was written, in milliseconds since 1970-01-01 UTC; records of older versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written_ms: Option<i64>,
}

/// A record that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} cannot be understood: {why}")]
pub struct TailsError {
    /// Its key in the store.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

impl Tails {
    /// Nothing seen yet.
    pub fn new(topic: &str) -> Self {
        Self { format_version: FORMAT_VERSION, topic: topic.to_owned(), lists: BTreeMap::new() }
    }

    /// Reads the record of `topic`.
    ///
    /// # Errors
    /// It is damaged, of a newer version, or of another topic.
    pub fn from_json(topic: &str, json: &[u8]) -> Result<Self, TailsError> {
        let wrong = |why| TailsError { key: key::tails_record(topic), why };
        let tails: Self = serde_json::from_slice(json).map_err(|error| wrong(error.to_string()))?;
        match tails.format_version == FORMAT_VERSION && tails.topic == topic {
            true => Ok(tails),
            false => Err(wrong(format!("version {} of topic {}", tails.format_version, tails.topic))),
        }
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// A list was seen to reach up to `next_offset`, by an object that was written at `written_ms`.
    pub fn remember(&mut self, path: &PartitionPath, generation: String, next_offset: i64, written_ms: Option<i64>) {
        self.lists.insert(folder(path), Tail { generation, next_offset, written_ms });
    }

    /// Keeps what was known before and reached further, or was not seen now: what is missing stays missed.
    pub fn merge(&mut self, before: &Self) {
        for (folder, tail) in &before.lists {
            let now = self.lists.entry(folder.clone()).or_insert_with(|| tail.clone());
            if now.generation == tail.generation && now.next_offset < tail.next_offset {
                now.clone_from(tail);
            }
        }
    }

    /// How far a list of this generation reached.
    pub fn reach(&self, path: &PartitionPath, generation: &str) -> Option<Reach> {
        let tail = self.lists.get(&folder(path)).filter(|tail| tail.generation == generation)?;
        let witness = "an earlier verification".to_owned();
        Some(Reach { until: tail.next_offset, witness, written_ms: tail.written_ms })
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
        before.remember(&first, "g".to_owned(), 50, Some(7));
        before.remember(&second, "h".to_owned(), 5, None);
        let mut now = Tails::new("t");
        now.remember(&first, "g".to_owned(), 40, Some(6));
        now.merge(&before);
        let reach = |path, generation| now.reach(path, generation).map(|reach| (reach.until, reach.written_ms));
        assert_eq!(reach(&first, "g"), Some((50, Some(7))));
        assert_eq!(reach(&second, "h"), Some((5, None)));
        assert_eq!(reach(&second, "other"), None, "another generation is another list");
        assert_eq!(now.paths().collect::<Vec<_>>(), [first, second]);
    }

    #[test]
    fn as_it_is_written() {
        let mut tails = Tails::new("t");
        tails.remember(&PartitionPath::normal("t", 1, 0), "g".to_owned(), 50, Some(7));
        let json = serde_json::to_vec(&tails).unwrap();
        assert_eq!(Tails::from_json("t", &json), Ok(tails));
        assert!(Tails::from_json("u", &json).is_err());
        let older = br#"{"format_version":1,"topic":"t","lists":{"0/":{"generation":"g","next_offset":50}}}"#;
        let reach = Tails::from_json("t", older).unwrap().reach(&PartitionPath::normal("t", 1, 0), "g").unwrap();
        assert_eq!((reach.until, reach.written_ms), (50, None));
        let newer = br#"{"format_version":2,"topic":"t","lists":{}}"#;
        assert!(Tails::from_json("t", newer).is_err_and(|error| error.to_string().contains("version 2")));
    }
}
