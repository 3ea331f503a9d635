//! The retention record of a topic, `_kafka_backup/retention/TOPIC.json`: after how many days its objects expired, and
//! since when. It is what tells an object that expired from one that somebody deleted, for whoever reads the backup, and
//! on stores without rules it is the rule.
//!
//! It is written before a shorter retention takes effect, so that nothing expires that it does not account for. Topics
//! that were always kept have none.

use serde::{Deserialize, Serialize};

/// The version of the record that is written.
pub const RETENTION_FORMAT_VERSION: u32 = 1;

/// What was in force for one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionRecord {
    /// The layout of this record, [`RETENTION_FORMAT_VERSION`].
    pub format_version: u32,
    /// The topic.
    pub topic: String,
    /// What was in force, in order; the last one still is.
    pub terms: Vec<Term>,
}

/// What was in force from a moment on, until the next term begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// Objects expired so many days after they were written; `None`: they did not.
    pub days: Option<u32>,
    /// Since when, in milliseconds since 1970-01-01 UTC.
    pub from_ms: i64,
    /// The job that saw to it.
    pub job: String,
}

/// A record that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("retention record of {topic}: {why}")]
pub struct RecordError {
    /// The topic.
    pub topic: String,
    /// What is wrong with it.
    pub why: String,
}

impl RetentionRecord {
    /// A record in which nothing was in force as yet.
    pub fn new(topic: &str) -> Self {
        Self { format_version: RETENTION_FORMAT_VERSION, topic: topic.to_owned(), terms: Vec::new() }
    }

    /// Reads the record of `topic`.
    ///
    /// # Errors
    /// It is damaged, of a newer version, or of another topic.
    pub fn from_json(topic: &str, json: &[u8]) -> Result<Self, RecordError> {
        let wrong = |why: String| RecordError { topic: topic.to_owned(), why };
        let record: Self = serde_json::from_slice(json).map_err(|e| wrong(e.to_string()))?;
        if record.format_version > RETENTION_FORMAT_VERSION {
            return Err(wrong(format!("version {} is newer than this program understands", record.format_version)));
        }
        if record.topic != topic {
            return Err(wrong(format!("it says it is of topic {}", record.topic)));
        }
        Ok(record)
    }

    /// What is in force now; `None` where nothing ever was.
    pub fn last(&self) -> Option<Option<u32>> {
        self.terms.last().map(|term| term.days)
    }

    /// From `now_ms` on objects expire after `days`. `false` where that is nothing new: also where they were always
    /// kept and still are.
    pub fn begin(&mut self, days: Option<u32>, now_ms: i64, job: &str) -> bool {
        if self.last().unwrap_or(None) == days {
            return false;
        }
        // A clock that went back must not make a term end before it began.
        let from_ms = self.terms.last().map_or(now_ms, |term| term.from_ms.max(now_ms));
        self.terms.push(Term { days, from_ms, job: job.to_owned() });
        true
    }

    /// The fewest days after which objects expired at any time since `written_ms` (`None`: ever); `None` where nothing
    /// expired.
    pub fn shortest_since(&self, written_ms: Option<i64>) -> Option<u32> {
        let ends = self.terms.iter().skip(1).map(|next| next.from_ms).chain([i64::MAX]);
        let in_force = self.terms.iter().zip(ends).filter(|(_, end)| written_ms.is_none_or(|written| *end > written));
        in_force.filter_map(|(term, _)| term.days).min()
    }

    /// Whether an object that was written at `written_ms` (`None`: nobody knows when) may have expired by `now_ms`.
    /// `day_ms` is how long a day of a rule is.
    ///
    /// A rule that begins removes what is old enough already, so what counts is the age at the end of each term.
    pub fn may_have_expired(&self, written_ms: Option<i64>, now_ms: i64, day_ms: i64) -> bool {
        let ends = self.terms.iter().skip(1).map(|next| next.from_ms).chain([now_ms]);
        self.terms.iter().zip(ends).any(|(term, end)| match (term.days, written_ms) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(days), Some(written)) => end.min(now_ms) - written >= i64::from(days).saturating_mul(day_ms),
        })
    }
}
