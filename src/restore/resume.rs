//! Goes on with a restore that was interrupted, exactly where the target ends.
//!
//! A run that is killed may have sent records that the broker has received and not yet appended. They must not land
//! between ours: nothing is decided before the target's ends have stood still for [`QUIET`]. Should some land later all
//! the same, the offsets of the delivery reports show it (base + n) and the partition stops.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::fingerprint::{Fingerprint, Resumed, fingerprint};
use super::target::{KafkaTarget, failed};
use crate::config::KafkaConfig;
use crate::error::{Error, Exit, Result};
use crate::kafka::TopicPartition;
use crate::kafka::reader::read_at;
use crate::model::restore::change::Change;
use crate::model::restore::saved::{SavedPlan, Standing, standings};
use crate::model::restore::{Refusal, Target, refused};

/// How long the ends of the target must stand still.
const QUIET: Duration = Duration::from_secs(2);

/// How often that is tried before it counts as somebody writing.
const TRIES: u32 = 15;

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
    if refusals.is_empty() { Ok((resumed, facts)) } else { Err(refused(refusals)) }
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
