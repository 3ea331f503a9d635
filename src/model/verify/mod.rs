//! Judging a backup: what a store shows is compared with what it must hold.
//!
//! Three questions, each dearer than the one before. *list*: is every name one of ours, where it belongs, and not
//! empty? *manifest*: does each object say what its name says, and does each begin where the one before ended? *data*:
//! do the bytes hash, decompress and decode to the records that the object says it has?

pub mod aging;
pub mod chain;
pub mod content;
pub mod coverage;
pub mod proof;
pub mod subset;
pub mod tails;
pub mod terms;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::key::PartitionPath;

/// How deep a verification looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Names and sizes, from the listing alone.
    List,
    /// And what each object says of itself.
    Manifest,
    /// And every byte.
    Data,
}

impl Mode {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Manifest => "manifest",
            Self::Data => "data",
        }
    }
}

/// In which way something is wrong; the label of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// An object or a record of a generation is not there.
    Missing,
    /// An object is empty, or its size is not the one it was listed with.
    Size,
    /// The bytes are not those that were written.
    Checksum,
    /// The list of a partition does not connect: two objects hold the same offsets.
    Gap,
    /// The bytes cannot be decoded, or decode to other records than the object says it has.
    Decode,
    /// The object says that it belongs elsewhere, or nothing that can be understood.
    Metadata,
    /// Something of another generation, or not of this program at all, lies among the objects.
    Foreign,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Missing, Self::Size, Self::Checksum, Self::Gap, Self::Decode, Self::Metadata, Self::Foreign];

    /// As it is spelled in metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Size => "size",
            Self::Checksum => "checksum",
            Self::Gap => "gap",
            Self::Decode => "decode",
            Self::Metadata => "metadata",
            Self::Foreign => "foreign",
        }
    }
}

/// Whether somebody must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The backup is not what it must be.
    Damage,
    /// Worth knowing, and as it may be.
    Note,
}

/// Offsets that something is wrong with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Affected {
    /// The first.
    pub from: i64,
    /// Where they end (exclusive); `None` where nobody knows.
    pub until: Option<i64>,
}

impl fmt::Display for Affected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.until {
            Some(until) if until == self.from + 1 => write!(f, "offset {}", self.from),
            Some(until) => write!(f, "offsets {} to {}", self.from, until - 1),
            None => write!(f, "offsets from {} on", self.from),
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether somebody must act.
    pub severity: Severity,
    /// In which way it is wrong.
    pub reason: Reason,
    /// The object's key; that of the first missing one where objects are missing.
    pub key: String,
    /// Where it belongs, where that is known.
    pub path: Option<PartitionPath>,
    /// Which offsets are affected, where that is known.
    pub affected: Option<Affected>,
    /// What is wrong: short, lower case, no full stop.
    pub what: String,
}

impl Finding {
    /// What to do next.
    pub fn advice(&self) -> &'static str {
        match (self.severity, self.reason) {
            (Severity::Note, Reason::Missing) => "nothing, if retention removed them; a restore begins behind them",
            (Severity::Note, _) => "nothing",
            (_, Reason::Missing) => {
                "look for a copy or an older version of it (versioning, replication) and put it back under this very \
                 name with its metadata; else restore what is left, and if Kafka still has these offsets, back the \
                 topic up anew under another prefix; find out who deletes objects"
            }
            (_, Reason::Size | Reason::Checksum | Reason::Decode) => {
                "put an intact copy or an older version of the object back under this very name with its metadata; if \
                 Kafka still has these offsets, back the topic up anew under another prefix; a restore of the offsets \
                 around it works with --until-offset and --from-offset"
            }
            (_, Reason::Gap) => {
                "two programs wrote this list: make sure that one job only writes here; a restore takes each offset once"
            }
            (_, Reason::Metadata) => {
                "it was copied or renamed: put the object that belongs here back, with its metadata; a restore refuses \
                 the partition until then"
            }
            (_, Reason::Foreign) => {
                "find out who writes here, and move it out of the backup's folders: retention would delete it, and a \
                 restore refuses what is not of the generation"
            }
        }
    }
}

/// Whether the oldest objects of a list may be gone without anybody having done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// Objects are kept for ever: a missing head is damage.
    Never,
    /// The retention may have removed them, or nobody here knows whether there is one.
    Possible,
}

/// The same for each topic.
pub type ExpiryOf = std::sync::Arc<dyn Fn(&str) -> Expiry + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_says_what_to_do() {
        for reason in Reason::ALL {
            for severity in [Severity::Damage, Severity::Note] {
                let (key, what) = (String::new(), String::new());
                let finding = Finding { severity, reason, key, path: None, affected: None, what };
                assert!(!finding.advice().is_empty());
            }
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.name());
        }
    }

    #[test]
    fn offsets_for_people() {
        let text = |from, until| Affected { from, until }.to_string();
        assert_eq!(text(3, Some(4)), "offset 3");
        assert_eq!(text(3, Some(6)), "offsets 3 to 5");
        assert_eq!(text(3, None), "offsets from 3 on");
    }
}
