//! What the records need of a topic, and what a topic's settings say to that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::window::Times;
use crate::model::catalog::{Facts, OurFacts, StoredObject};
use crate::model::chain::GenerationRecord;

/// Kafka's default of `max.message.bytes`.
const DEFAULT_MAX_MESSAGE_BYTES: u64 = 1_048_588;

/// The least a batch of one record is larger than its key, value and headers: 61 bytes of batch header (KIP-98) and 7
/// of record framing. With more framing a record may still be a few bytes too large; the broker says so then.
const BATCH_OVERHEAD_BYTES: u64 = 61 + 7;

/// Room left above the largest record where we set the limit ourselves: framing of headers and of large lengths.
const CREATED_HEADROOM_BYTES: u64 = 64 * 1024;

/// `max.message.bytes` of a created topic when nobody knows how large the records are: the default of the broker's
/// `socket.request.max.bytes`, above which nothing gets through anyway.
const UNKNOWN_MAX_MESSAGE_BYTES: u64 = 104_857_600;

/// Brokers from 3.6 on refuse timestamps further ahead than this by default (`message.timestamp.after.max.ms`).
const DEFAULT_AHEAD_MS: i64 = 3_600_000;

/// What the records of a topic need.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Needs {
    /// Key, value and headers of the largest record, of the objects that say so.
    pub max_record_bytes: u64,
    /// Some objects do not say how large their records are or when they were made.
    pub unknown: bool,
    /// Smallest and largest timestamp, of the objects that say so.
    pub timestamps: Option<(i64, i64)>,
    /// Records without a key, of the objects that say so and are taken whole.
    #[serde(default)]
    pub null_keys: u64,
    /// Some of what is taken may have no key: of objects that do not say, or that are taken in part.
    #[serde(default)]
    pub null_keys_unknown: bool,
}

impl Needs {
    /// Adds what one object says, as far as it is of the time that is restored. `whole`: all of its records are taken.
    pub fn add(&mut self, object: &StoredObject, times: &Times, whole: bool) {
        match &object.facts {
            Facts::Ours(OurFacts { null_keys: Some(count), .. }) if whole || *count == 0 => self.null_keys += count,
            _ => self.null_keys_unknown = true,
        }
        match &object.facts {
            Facts::Ours(facts) => {
                self.max_record_bytes = self.max_record_bytes.max(facts.max_record_bytes);
                self.unknown |= facts.max_record_bytes == 0 && facts.records > 0;
                let timestamps = facts.timestamps.and_then(|timestamps| times.clip(timestamps));
                self.timestamps = union(self.timestamps, timestamps);
            }
            Facts::Older | Facts::Bad(_) => self.unknown = true,
        }
    }

    /// The size of a batch that holds the largest record alone.
    pub fn batch_bytes(&self) -> u64 {
        self.max_record_bytes + BATCH_OVERHEAD_BYTES
    }
}

/// The range that covers both.
pub fn union(a: Option<(i64, i64)>, b: Option<(i64, i64)>) -> Option<(i64, i64)> {
    match (a, b) {
        (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
        (a, b) => a.or(b),
    }
}

/// Settings of a created target: old records must not vanish at once, and nothing of them may be replaced.
pub fn created_config(needs: &Needs, source: Option<&GenerationRecord>, now_ms: i64) -> BTreeMap<String, String> {
    let sources = source.and_then(|record| record.topic_config.get("max.message.bytes")?.parse().ok());
    let unknown = if needs.unknown { UNKNOWN_MAX_MESSAGE_BYTES } else { 0 };
    let largest = needs.max_record_bytes + CREATED_HEADROOM_BYTES;
    let max = DEFAULT_MAX_MESSAGE_BYTES.max(largest).max(sources.unwrap_or(0)).max(unknown);
    let mut config = BTreeMap::from([
        ("cleanup.policy".to_owned(), "delete".to_owned()),
        ("max.message.bytes".to_owned(), max.min(i32::MAX as u64).to_string()),
        ("message.timestamp.type".to_owned(), "CreateTime".to_owned()),
        ("retention.bytes".to_owned(), "-1".to_owned()),
        ("retention.ms".to_owned(), "-1".to_owned()),
    ]);
    // Only where it is needed: brokers before 3.6 do not know the setting.
    if needs.timestamps.is_some_and(|(_, newest)| newest.saturating_sub(now_ms) > DEFAULT_AHEAD_MS) {
        config.insert("message.timestamp.after.max.ms".to_owned(), i64::MAX.to_string());
    }
    config
}

/// What the settings of a target, defaults included, have against the records.
pub fn check(
    topic: &str,
    needs: &Needs,
    config: &BTreeMap<String, String>,
    now_ms: i64,
    refusals: &mut Vec<Refusal>,
    warnings: &mut Vec<String>,
) {
    let text = |key: &str| config.get(key).map(String::as_str).unwrap_or_default();
    let number = |key: &str| text(key).parse::<i64>().ok();
    let topic = topic.to_owned();
    if let Some(limit) = number("max.message.bytes").map(|n| n.max(0) as u64).filter(|n| *n < needs.batch_bytes()) {
        let (largest, needed) = (needs.max_record_bytes, needs.batch_bytes() + CREATED_HEADROOM_BYTES);
        refusals.push(Refusal::RecordTooLarge { topic: topic.clone(), limit, largest, needed });
    }
    if text("message.timestamp.type") == "LogAppendTime" {
        refusals.push(Refusal::TimestampsReplaced { topic: topic.clone() });
    }
    if text("cleanup.policy").contains("compact") {
        let unknown = if needs.null_keys > 0 {
            refusals.push(Refusal::NoKeys { topic: topic.clone(), records: needs.null_keys });
            ""
        } else if needs.null_keys_unknown {
            ", and a record without a key stops the restore (whether there are any is not known before reading)"
        } else {
            ""
        };
        warnings.push(format!("{topic} is compacted: records with the same key will be thinned out{unknown}"));
    }
    if needs.unknown {
        warnings.push(format!("{topic}: some objects do not say how large or how old their records are"));
    }
    let Some((oldest, newest)) = needs.timestamps else { return };
    let (age_ms, ahead_ms) = (now_ms.saturating_sub(oldest), newest.saturating_sub(now_ms));
    if let Some(limit_ms) = number("message.timestamp.before.max.ms").filter(|limit| age_ms > *limit) {
        refusals.push(Refusal::TimestampTooOld { topic: topic.clone(), limit_ms, age_ms });
    }
    if let Some(limit_ms) = number("message.timestamp.after.max.ms").filter(|limit| ahead_ms > *limit) {
        refusals.push(Refusal::TimestampTooNew { topic: topic.clone(), limit_ms, ahead_ms });
    }
    if let Some(retention) = number("retention.ms").filter(|ms| *ms >= 0 && age_ms > *ms) {
        warnings.push(format!(
            "{topic} deletes records older than {retention} ms (retention.ms); the oldest restored record is {age_ms} \
             ms old and will vanish at the broker's next clean-up"
        ));
    }
    if number("retention.bytes").is_some_and(|bytes| bytes >= 0) {
        warnings.push(format!("{topic} keeps only {} bytes per partition (retention.bytes)", text("retention.bytes")));
    }
}
