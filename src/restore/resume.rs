//! Goes on with a restore that was interrupted, exactly where the target ends.
//!
//! A run that is killed may have sent records that the broker has received and not yet appended. They must not land
//! between ours: nothing is decided before the target's ends have stood still for [`QUIET`]. Should some land later all
//! the same, the offsets of the delivery reports show it (base + n) and the partition stops.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::target::{KafkaTarget, failed};
use crate::config::KafkaConfig;
use crate::error::{Error, Exit, Result};
use crate::kafka::TopicPartition;
use crate::kafka::reader::read_at;
use crate::model::batch::Record;
use crate::model::restore::saved::{Change, SavedPlan, Standing, standings};
use crate::model::restore::{Refusal, Target};

/// How long the ends of the target must stand still.
const QUIET: Duration = Duration::from_secs(2);

/// How often that is tried before it counts as somebody writing.
const TRIES: u32 = 15;

/// A hash of all that a record is, but for its offset.
pub type Fingerprint = [u8; 32];

/// What earlier runs have produced in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resumed {
    /// Records.
    pub done: u64,
    /// The last of them, as it stands on the target.
    pub last: Option<Fingerprint>,
}

/// Names the content of a record: timestamp, key, value and headers.
pub fn fingerprint(record: &Record<'_>) -> Fingerprint {
    let mut hash = Sha256::new();
    let mut add = |bytes: Option<&[u8]>| {
        // Null is not empty, and no two different lists of fields give the same bytes.
        hash.update(bytes.map_or(-1, |bytes| bytes.len() as i64).to_le_bytes());
        hash.update(bytes.unwrap_or_default());
    };
    add(Some(&record.timestamp.to_le_bytes()));
    add(record.key);
    add(record.value);
    for header in record.headers.iter() {
        add(Some(header.name));
        add(header.value);
    }
    hash.finalize().into()
}

/// Where the target stands, by target topic and partition, with what is known of the target.
///
/// # Errors
/// The target is not as the plan left it.
pub async fn look(
    target: &KafkaTarget,
    kafka: &Arc<KafkaConfig>,
    saved: &SavedPlan,
) -> Result<(BTreeMap<(String, i32), Resumed>, Target)> {
    let facts = settled(target, saved).await?;
    let standings = standings(&saved.plan, &facts).map_err(super::refused)?;
    let lasts = lasts(kafka, &standings).await?;
    let mut resumed = BTreeMap::new();
    let mut refusals = Vec::new();
    for Standing { topic, partition, done, last } in standings {
        let found = lasts.get(&TopicPartition::new(topic.as_str(), partition)).copied();
        if let (Some(offset), None) = (last, found) {
            let change = Change::Emptied { partition, offset };
            refusals.push(Refusal::TargetChanged { topic: topic.clone(), change });
        }
        resumed.insert((topic, partition), Resumed { done, last: found });
    }
    if refusals.is_empty() { Ok((resumed, facts)) } else { Err(super::refused(refusals)) }
}

/// What is known of the target once the ends of the planned partitions stand still.
async fn settled(target: &KafkaTarget, saved: &SavedPlan) -> Result<Target> {
    let topics: BTreeSet<String> = saved.plan.topics.iter().map(|topic| topic.target.clone()).collect();
    let mut facts = target.facts(&topics).await?;
    for _ in 0..TRIES {
        tokio::time::sleep(QUIET).await;
        let later = target.facts(&topics).await?;
        if ends(saved, &facts) == ends(saved, &later) {
            return Ok(later);
        }
        facts = later;
    }
    Err(Error::new(Exit::Locked, "somebody writes to the target topics of this unfinished restore")
        .hint("find out who; a restore goes on only where nobody else writes"))
}

fn ends(saved: &SavedPlan, target: &Target) -> Vec<Option<i64>> {
    let end = |topic: &str, partition: i32| Some(target.topics.get(topic)?.offsets.get(partition as usize)?.1);
    let topics = saved.plan.topics.iter();
    topics.flat_map(|topic| topic.partitions.iter().map(|p| end(&topic.target, p.partition))).collect()
}

/// Fingerprints of the last records.
async fn lasts(kafka: &Arc<KafkaConfig>, standings: &[Standing]) -> Result<BTreeMap<TopicPartition, Fingerprint>> {
    let position = |s: &Standing| Some((TopicPartition::new(s.topic.as_str(), s.partition), s.last?));
    let positions: Vec<_> = standings.iter().filter_map(position).collect();
    let kafka = kafka.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut found = BTreeMap::new();
        read_at(&kafka, &positions, |at, record| _ = found.insert(at.clone(), fingerprint(record)))?;
        Ok(found)
    });
    read.await.map_err(|error| Error::new(Exit::Failed, "reading back").because(error))?.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::batch::{Header, RecordBatch, TimestampType};

    type Fields = (i64, Option<&'static [u8]>, Option<&'static [u8]>, &'static [Header<'static>]);

    #[test]
    fn different_records_have_different_fingerprints() {
        const NONE: Option<&[u8]> = None;
        let records: [Fields; 9] = [
            (1, NONE, NONE, &[]),
            (2, NONE, NONE, &[]),
            (1, Some(b""), NONE, &[]),
            (1, NONE, Some(b""), &[]),
            (1, Some(b"ab"), Some(b"c"), &[]),
            (1, Some(b"a"), Some(b"bc"), &[]),
            (1, NONE, NONE, &[Header { name: b"", value: None }]),
            (1, NONE, NONE, &[Header { name: b"a", value: Some(b"") }]),
            (1, NONE, NONE, &[Header { name: b"a", value: None }]),
        ];
        let prints: BTreeSet<Fingerprint> = records
            .iter()
            .map(|(ms, key, value, headers)| {
                let mut batch = RecordBatch::default();
                batch.push(0, (*ms, TimestampType::CreateTime), *key, *value, headers.iter().copied());
                fingerprint(&batch.first().unwrap())
            })
            .collect();
        assert_eq!(prints.len(), records.len());
    }
}
