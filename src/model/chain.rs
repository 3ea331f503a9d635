//! The list of a partition: one generation record as its root, objects that each begin where the one before ended.
//!
//! An object is appended by creating the name of the tail's `next_offset`. Who finds the name taken decides by
//! [`taken`]: the object there is this very attempt (the acknowledgement was lost), another writer of the same list
//! (adopt it), or foreign (never touched).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::object::ObjectMeta;

/// The version of the generation record that is written.
pub const GENERATION_FORMAT_VERSION: u32 = 1;

/// The root of all lists of one generation of a topic, stored under `_kafka_backup/topics/TOPIC/N.json`. It is created
/// once, before anything is read from Kafka, and never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationRecord {
    /// The layout of this record, [`GENERATION_FORMAT_VERSION`].
    pub format_version: u32,
    /// The number of the generation, from 1.
    pub generation: u32,
    /// Names the generation; every object of it carries the same.
    pub uuid: String,
    /// The cluster the topic is on.
    pub cluster_id: String,
    /// The topic.
    pub topic: String,
    /// Kafka's topic id, empty when the broker does not tell.
    pub topic_id: String,
    /// The job that created it.
    pub job: String,
    /// What is read of transactions; fixed for the generation.
    pub isolation: RecordedIsolation,
    /// When it was created, in milliseconds since 1970-01-01 UTC.
    pub created_ms: i64,
    /// Partitions of the topic when the record was created; partitions added later begin at 0.
    pub partitions: u32,
    /// Where the list of each partition begins (by partition number).
    pub origins: BTreeMap<String, i64>,
    /// The generation whose objects are still valid below the forks.
    pub parent: Option<u32>,
    /// Per partition the offset below which the parent is read. A partition without a fork has nothing in the parent.
    pub forks: BTreeMap<String, i64>,
    /// The topic's settings that differed from the broker's defaults.
    pub topic_config: BTreeMap<String, String>,
}

/// Kafka's isolation level as a generation record spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordedIsolation {
    /// Committed records only.
    ReadCommitted,
    /// Everything.
    ReadUncommitted,
}

/// A generation record that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("generation record {key}: {why}")]
pub struct GenerationError {
    /// Its key in the store.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

impl GenerationRecord {
    /// Reads a record as stored under `key`.
    pub fn from_json(key: &str, json: &[u8]) -> Result<Self, GenerationError> {
        let wrong = |why: String| GenerationError { key: key.to_owned(), why };
        let record: Self = serde_json::from_slice(json).map_err(|e| wrong(e.to_string()))?;
        if record.format_version > GENERATION_FORMAT_VERSION {
            let why = format!("version {} is newer than this program understands", record.format_version);
            return Err(wrong(why));
        }
        if super::key::generation_record(&record.topic, record.generation) != key {
            let why = format!("it says it is generation {} of topic {}", record.generation, record.topic);
            return Err(wrong(why));
        }
        Ok(record)
    }

    /// Whether this stands for objects that were there before us: they are only read, and the next generation is ours.
    pub fn is_adopted(&self) -> bool {
        self.generation == 1 && self.partitions > 0 && self.origins.is_empty()
    }

    /// Where the list of `partition` begins in this generation: 0 for partitions that were added later.
    pub fn origin(&self, partition: i32) -> i64 {
        self.origins.get(&partition.to_string()).copied().unwrap_or(0)
    }

    /// The offset below which the parent is read; `None` when the parent has nothing for this partition.
    pub fn fork(&self, partition: i32) -> Option<i64> {
        self.parent.and_then(|_| self.forks.get(&partition.to_string()).copied())
    }
}

/// What a writer claims with the object it wants to append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The uuid of its generation.
    pub generation: &'a str,
    /// The run of its compacted instance, empty otherwise.
    pub run: &'a str,
    /// The nonce of this attempt.
    pub nonce: &'a str,
    /// Where the object's range starts.
    pub range_start: i64,
}

/// What an object found under the claimed name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// This very attempt; the acknowledgement was lost.
    Mine,
    /// Another writer of the same list was first: its range ends here, go on from there.
    Adopt {
        /// Where the winner's range ends.
        next_offset: i64,
    },
    /// Something that does not belong to this list. Never adopted, never overwritten.
    Foreign {
        /// In which way it does not belong.
        why: String,
    },
}

/// Decides what the object under a claimed name is.
///
/// | metadata | answer |
/// |---|---|
/// | same generation and run, same nonce | [`Taken::Mine`] |
/// | same generation and run, other nonce | [`Taken::Adopt`] |
/// | range does not start at the name | [`Taken::Foreign`] |
/// | other generation or run, or unreadable | [`Taken::Foreign`] |
pub fn taken(claim: &Claim<'_>, found: &Result<ObjectMeta, super::object::MetaError>) -> Taken {
    let meta = match found {
        Ok(meta) => meta,
        Err(error) => return Taken::Foreign { why: error.to_string() },
    };
    if meta.range_start != claim.range_start {
        return Taken::Foreign { why: format!("its range starts at {}, not at its name", meta.range_start) };
    }
    if meta.generation != claim.generation {
        return Taken::Foreign { why: format!("it belongs to generation {}", meta.generation) };
    }
    if meta.run != claim.run {
        return Taken::Foreign { why: format!("it belongs to run {:?}", meta.run) };
    }
    if meta.nonce == claim.nonce {
        return Taken::Mine;
    }
    Taken::Adopt { next_offset: meta.next_offset }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn meta(generation: &str, run: &str, nonce: &str, start: i64) -> ObjectMeta {
        ObjectMeta {
            generation: generation.into(),
            job: "j".into(),
            topic: "t".into(),
            topic_id: String::new(),
            partition: 0,
            range_start: start,
            next_offset: start + 10,
            offsets: Some((start, start + 9)),
            records: 10,
            timestamps: None,
            max_record_bytes: 1,
            null_keys: None,
            leader_epoch: 0,
            sha256: String::new(),
            nonce: nonce.into(),
            at_eof: false,
            run: run.into(),
            gap: String::new(),
        }
    }

    #[rstest]
    #[case::lost_acknowledgement(meta("g", "", "n", 5), Taken::Mine)]
    #[case::another_writer(meta("g", "", "other", 5), Taken::Adopt { next_offset: 15 })]
    fn a_writer_of_the_list(#[case] found: ObjectMeta, #[case] expected: Taken) {
        let claim = Claim { generation: "g", run: "", nonce: "n", range_start: 5 };
        assert_eq!(taken(&claim, &Ok(found)), expected);
    }

    #[rstest]
    #[case::other_generation(meta("h", "", "n", 5))]
    #[case::other_run(meta("g", "r2", "n", 5))]
    #[case::misnamed(meta("g", "", "n", 6))]
    fn foreign(#[case] found: ObjectMeta) {
        let claim = Claim { generation: "g", run: "", nonce: "n", range_start: 5 };
        assert!(matches!(taken(&claim, &Ok(found)), Taken::Foreign { .. }));
    }
}
