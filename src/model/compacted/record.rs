//! The records of a compacted topic in the bucket. All but pins are created once (`If-None-Match: *`) and never changed
//! or deleted.
//!
//! ```text
//! _kafka_backup/compacted/TOPIC/TERM-N.json             who owns the snapshot since turn N, or that N is void
//! _kafka_backup/compacted/TOPIC/TERM-N.tainted.json     the owner of turn N was further behind than tombstones are kept
//! _kafka_backup/compacted/TOPIC/RUN-INSTANCE-N.json     the N-th run of an instance
//! _kafka_backup/pins/ID.json                            a restore reads these objects (renewed, expires)
//! ```

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::settings::Name;
use super::view::Offsets;
use crate::model::chain::RecordedIsolation;
use crate::model::key::SYSTEM;

/// The version of these records that is written.
pub const COMPACTED_FORMAT_VERSION: u32 = 1;

/// Turn N.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TermRecord {
    /// The layout of this record.
    pub format_version: u32,
    /// N, from 1.
    pub term: u64,
    /// The topic.
    pub topic: String,
    /// The instance that wrote it.
    pub instance: Name,
    /// The run of it that this is about.
    pub run: Name,
    /// The number is used up: nobody owns anything by it, and the run never gets a TERM.
    #[serde(default)]
    pub void: bool,
    /// When it was made, in milliseconds since 1970-01-01 UTC.
    pub created_ms: i64,
    /// When the scan began, in the same unit; 0 when void.
    pub scan_started_ms: i64,
    /// When it was found complete, in the same unit; 0 when void.
    pub scan_ended_ms: i64,
    /// What was complete, by partition: every partition the topic had. Empty when void.
    pub partitions: BTreeMap<i32, TermPartition>,
    /// Number of objects.
    pub objects: u64,
    /// Their size.
    pub bytes: u64,
}

/// What is complete of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TermPartition {
    /// Where the list of objects begins.
    pub from: i64,
    /// Where the partition ended when its end was seen: everything below is in the objects.
    pub to: i64,
    /// The objects, in the order of their offsets. None where the partition is empty.
    pub objects: Vec<TermObject>,
}

/// One object of a TERM, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TermObject {
    /// Where its range starts: its name.
    pub offset: i64,
    /// Where its range ends (exclusive): the name of the next one.
    pub next_offset: i64,
    /// Bytes.
    pub size: u64,
    /// Entity tag.
    pub etag: Name,
}

/// The N-th run of an instance: one scan, and what follows it. The root of the lists of its objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The layout of this record.
    pub format_version: u32,
    /// N, from 1.
    pub number: u64,
    /// Its id: every object of the run carries it (as run, and as generation).
    pub run: Name,
    /// The topic.
    pub topic: String,
    /// The instance.
    pub instance: Name,
    /// The job.
    pub job: String,
    /// The cluster the topic is on.
    pub cluster_id: String,
    /// Kafka's topic id, empty when the broker does not tell.
    pub topic_id: String,
    /// What is read of transactions; fixed for the run.
    pub isolation: RecordedIsolation,
    /// When the scan began, in milliseconds since 1970-01-01 UTC; nothing was read before.
    pub started_ms: i64,
    /// The last TERM there was.
    pub after_term: u64,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Where the list of each partition begins. Partitions added later begin at 0.
    pub origins: Offsets,
}

/// The owner of a TERM says that its snapshot is tainted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaintMark {
    /// The layout of this record.
    pub format_version: u32,
    /// Which TERM.
    pub term: u64,
    /// The topic.
    pub topic: String,
    /// Since when, in milliseconds since 1970-01-01 UTC.
    pub marked_ms: i64,
}

/// A restore reads the objects of an instance: they are not deleted before this expires (C6).
///
/// Whoever writes one reads the highest valid TERM again afterwards: only when that is still the one it wants to read
/// is it certain that every deletion from now on sees the pin.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pin {
    /// The layout of this record.
    pub format_version: u32,
    /// Its id.
    pub id: String,
    /// The topic.
    pub topic: String,
    /// The instance whose objects are read.
    pub instance: Name,
    /// The run whose objects are read.
    pub run: Name,
    /// When it was last renewed, in milliseconds since 1970-01-01 UTC.
    pub renewed_ms: i64,
    /// When it expires, in the same unit.
    pub expires_ms: i64,
}

/// A record that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {key}: {why}")]
pub struct RecordError {
    /// Its key in the store.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

/// A record with a key of its own.
pub trait Record: Serialize + DeserializeOwned {
    /// The layout it was written in.
    fn version(&self) -> u32;

    /// Under which key it belongs.
    fn key(&self) -> String;

    /// What cannot be true of it.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Reads the record stored under `key`.
    ///
    /// # Errors
    /// It is not one, of a newer layout, contradicts itself, or belongs under another key.
    fn from_json(key: &str, json: &[u8]) -> Result<Self, RecordError> {
        let wrong = |why: String| RecordError { key: key.to_owned(), why };
        // The version first: a newer layout may lack fields that this one needs.
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let Version { format_version } = serde_json::from_slice(json).map_err(|e| wrong(e.to_string()))?;
        if format_version > COMPACTED_FORMAT_VERSION {
            return Err(wrong(format!("version {format_version} is newer than this program understands")));
        }
        let record: Self = serde_json::from_slice(json).map_err(|e| wrong(e.to_string()))?;
        if record.key() != key {
            return Err(wrong(format!("what it says belongs under {}", record.key())));
        }
        record.check().map_err(wrong)?;
        Ok(record)
    }

    /// The bytes to store.
    fn to_json(&self) -> Vec<u8> {
        // Cannot fail: strings and numbers only, and numbers as keys are written as strings.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }
}

impl Record for TermRecord {
    fn version(&self) -> u32 {
        self.format_version
    }

    fn key(&self) -> String {
        term_key(&self.topic, self.term)
    }

    fn check(&self) -> Result<(), String> {
        if self.term == 0 {
            return Err("there is no TERM 0".to_owned());
        }
        if self.void != self.partitions.is_empty() {
            return Err("a TERM has partitions if and only if it is not void".to_owned());
        }
        for (number, partition) in &self.partitions {
            let mut end = partition.from;
            let chained = partition.objects.iter().all(|object| {
                let fits = object.offset == end && object.next_offset > end;
                end = object.next_offset;
                fits
            });
            if *number < 0 || partition.from < 0 || !chained || partition.to < end {
                return Err(format!(
                    "partition {number}: its objects are no list from {} to {}",
                    partition.from, partition.to
                ));
            }
        }
        Ok(())
    }
}

impl Record for RunRecord {
    fn version(&self) -> u32 {
        self.format_version
    }

    fn key(&self) -> String {
        run_key(&self.topic, &self.instance, self.number)
    }
}

impl Record for TaintMark {
    fn version(&self) -> u32 {
        self.format_version
    }

    fn key(&self) -> String {
        taint_key(&self.topic, self.term)
    }
}

impl Record for Pin {
    fn version(&self) -> u32 {
        self.format_version
    }

    fn key(&self) -> String {
        pin_key(&self.id)
    }
}

impl RunRecord {
    /// Where the list of `partition` begins.
    pub fn origin(&self, partition: i32) -> i64 {
        self.origins.get(&partition).copied().unwrap_or(0)
    }
}

/// The folder of the records of `topic`, with its final slash.
pub fn folder(topic: &str) -> String {
    format!("{SYSTEM}/compacted/{topic}/")
}

/// The key of TERM `n`.
pub fn term_key(topic: &str, n: u64) -> String {
    format!("{}TERM-{n}.json", folder(topic))
}

/// The key of the mark that says that TERM `n` is tainted.
pub fn taint_key(topic: &str, n: u64) -> String {
    format!("{}TERM-{n}.tainted.json", folder(topic))
}

/// The key of the record of run `n` of `instance`.
pub fn run_key(topic: &str, instance: &str, n: u64) -> String {
    format!("{}RUN-{instance}-{n}.json", folder(topic))
}

/// The folder of all pins, with its final slash.
pub fn pin_folder() -> String {
    format!("{SYSTEM}/pins/")
}

/// The key of the pin `id`.
pub fn pin_key(id: &str) -> String {
    format!("{}{id}.json", pin_folder())
}

/// What a key in the folder of the records of a topic names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordName {
    /// TERM N.
    Term(u64),
    /// The mark that says that TERM N is tainted.
    Taint(u64),
    /// A run of an instance.
    Run {
        /// Whose.
        instance: String,
        /// The number.
        number: u64,
    },
}

/// Reads a key in the folder of the records of `topic`; `None` for anything that is written otherwise.
pub fn parse(topic: &str, key: &str) -> Option<RecordName> {
    let name = key.strip_prefix(&folder(topic))?.strip_suffix(".json")?;
    let number = |text: &str| text.parse::<u64>().ok().filter(|n| *n > 0);
    let parsed = match (name.strip_prefix("TERM-"), name.strip_prefix("RUN-")) {
        (Some(rest), _) => match rest.strip_suffix(".tainted") {
            Some(n) => RecordName::Taint(number(n)?),
            None => RecordName::Term(number(rest)?),
        },
        (None, Some(rest)) => {
            let (instance, n) = rest.rsplit_once('-')?;
            RecordName::Run { instance: instance.to_owned(), number: number(n)? }
        }
        (None, None) => return None,
    };
    let written = match &parsed {
        RecordName::Term(n) => term_key(topic, *n),
        RecordName::Taint(n) => taint_key(topic, *n),
        RecordName::Run { instance, number } => run_key(topic, instance, *number),
    };
    (written == key).then_some(parsed)
}
