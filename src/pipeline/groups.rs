//! Saves what consumer groups have committed for the topics of a job, so that a restore can give it back.
//!
//! Groups are asked through a client of their own, one a cluster, and once for all jobs on it: a coordinator that does not
//! answer keeps nobody waiting but this. What is written is bookkeeping; nothing in the lanes depends on it.
//!
//! **Who writes.** Of several daemons with the same job the one that owns partition 0 of a topic saves the groups of
//! that topic. For a moment after a rebalance there can be two, and the slower one (or one that slept in the middle of a
//! round) may put an older answer over a newer one. That does no harm for long: both say what Kafka said; the document is
//! read again before every write and every [`READ_EVERY`], and what is older than Kafka's next answer is replaced then.
//! What nobody can ask again, the offsets of a group that is gone, both have read from the same document and keep.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::clusters::{GroupAnswer, SharedCluster};
use crate::clock::now_ms;
use crate::config::Job;
use crate::kafka::admin::TIMEOUT;
use crate::kafka::groups::{GroupOffsets, OffsetsOfGroup};
use crate::kafka::{KafkaError, Kind, TopicPartition};
use crate::model::chain::GenerationRecord;
use crate::model::groups::snapshot::{Committed, Decision, Identity, Observation, Snapshot, decide};
use crate::model::key;
use crate::storage::retry::{PATIENCE, retry};
use crate::storage::{Body, Metadata, Store};

/// How long the saved document is believed to be what was read or written last.
const READ_EVERY: Duration = Duration::from_secs(600);

/// Saves the groups of one job.
pub struct GroupKeeper {
    job: Arc<Job>,
    store: Arc<dyn Store>,
    cluster: Arc<SharedCluster>,
    /// By topic: the generation, and since when it is known to be in it.
    seen: Mutex<HashMap<String, (u32, Instant)>>,
    /// By topic.
    known: Mutex<HashMap<String, Known>>,
}

/// What is saved of one topic.
#[derive(Clone)]
struct Known {
    generation: u32,
    /// When it was read or written.
    since: Instant,
    saved: Option<Snapshot>,
}

/// What came of one round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Round {
    /// When Kafka was asked, in milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
    /// Groups that have committed something for the topics.
    pub groups: usize,
    /// What did not work; nothing that was saved is lost by it.
    pub problems: Vec<String>,
}

impl GroupKeeper {
    /// Of a job; nothing is asked yet.
    pub fn new(job: Arc<Job>, store: Arc<dyn Store>, cluster: Arc<SharedCluster>) -> Arc<Self> {
        Arc::new(Self { job, store, cluster, seen: Mutex::default(), known: Mutex::default() })
    }

    /// Asks Kafka and saves what has changed, for topics in these generations.
    /// The answer may be `age` old, so that jobs on one cluster need not all ask.
    pub async fn save(&self, topics: Vec<Arc<GenerationRecord>>, age: Duration) -> Round {
        let mut round = Round { at_ms: now_ms(), ..Round::default() };
        if topics.is_empty() {
            return round;
        }
        match self.ask(&topics, age, &mut round.problems).await {
            Err(error) => round.problems.push(error.to_string()),
            Ok(seen) => {
                let mut groups = std::collections::BTreeSet::new();
                for observation in seen {
                    let found = observation
                        .groups
                        .iter()
                        .filter(|(_, offsets)| offsets.as_ref().is_some_and(|offsets| !offsets.is_empty()));
                    groups.extend(found.map(|(name, _)| name.clone()));
                    if let Err(why) = self.keep(&observation, round.at_ms).await {
                        round.problems.push(why);
                    }
                }
                round.groups = groups.len();
            }
        }
        round
    }

    /// What Kafka says of each topic. A topic that is not what its generation says is left out: its lanes will find that
    /// out, and begin a generation.
    async fn ask(
        &self,
        topics: &[Arc<GenerationRecord>],
        age: Duration,
        problems: &mut Vec<String>,
    ) -> Result<Vec<Observation>, KafkaError> {
        let seen = self.seen(topics);
        let wanted = |name: &str| name != self.job.group_id && self.job.groups.takes(name);
        let GroupAnswer { asked: at, names, failures, offsets } = self.cluster.committed(wanted, age).await?;
        let is_complete = failures.is_empty();
        problems.extend(failures.iter().map(ToString::to_string));
        problems.extend(refused(&names, &offsets));
        // Asked last: a topic that has its id now had it when the offsets were asked for. Kafka deletes those of a
        // topic with it, so that they are not of another topic of the name.
        let asked: Vec<String> = topics.iter().map(|record| record.topic.clone()).collect();
        let mut states = self.cluster.cluster.describe(&asked, TIMEOUT).await?;
        let mut observations = Vec::new();
        // An answer that is older than our knowledge of the generation may be of the topic before it.
        for record in topics.iter().filter(|record| seen.get(&record.topic).is_some_and(|since| *since <= at)) {
            match states.remove(&record.topic) {
                Some(Ok(state)) if state.id.as_ref().is_none_or(|id| *id == record.topic_id) => {}
                Some(Err(error)) if error.kind != Kind::UnknownTopic => {
                    problems.push(error.to_string());
                    continue;
                }
                _ => continue,
            }
            let of_topic = |name: &String| (name.clone(), committed(&record.topic, offsets.get(name)));
            let groups = names.iter().map(of_topic).collect();
            observations.push(Observation { of: identity(record), is_complete, groups });
        }
        Ok(observations)
    }

    /// Since when each topic is known to be in its generation.
    fn seen(&self, topics: &[Arc<GenerationRecord>]) -> HashMap<String, Instant> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        for record in topics {
            let since = seen.entry(record.topic.clone()).or_insert((record.generation, now));
            if since.0 != record.generation {
                *since = (record.generation, now);
            }
        }
        seen.iter().map(|(topic, (_, since))| (topic.clone(), *since)).collect()
    }

    /// Writes what was seen of one topic, where that is called for.
    async fn keep(&self, seen: &Observation, now_ms: i64) -> Result<(), String> {
        let topic = &seen.of.topic;
        let known = self.known().get(topic).cloned();
        if let Some(known) = known
            && known.generation == seen.of.generation
            && known.since.elapsed() < READ_EVERY
            && decide(known.saved.as_ref(), seen, now_ms) == Decision::Keep
        {
            return Ok(());
        }
        let name = key::groups_record(topic, seen.of.generation);
        let saved = retry(PATIENCE, || self.store.get(&name)).await.map_err(|error| error.to_string())?;
        // What cannot be read is not written over: it may be all that there is.
        let saved = saved.map(|bytes| Snapshot::parse(&name, &bytes)).transpose();
        let saved = saved.map_err(|error| format!("{error}; move it out of the way to begin a new one"))?;
        let is = match decide(saved.as_ref(), seen, now_ms) {
            Decision::Keep => saved,
            Decision::Write(snapshot) => {
                let (body, metadata) = (Body::from(snapshot.bytes()), Metadata::new());
                let written = retry(PATIENCE, || self.store.put(&name, &body, &metadata)).await;
                written.map_err(|error| error.to_string())?;
                tracing::debug!(job = %self.job.id, topic, groups = snapshot.groups.len(), "positions of groups saved");
                Some(snapshot)
            }
        };
        let known = Known { generation: seen.of.generation, since: Instant::now(), saved: is };
        self.known().insert(topic.clone(), known);
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn identity(record: &GenerationRecord) -> Identity {
    let GenerationRecord { cluster_id, topic, topic_id, generation, .. } = record;
    let [cluster_id, topic, topic_id] = [cluster_id, topic, topic_id].map(String::clone);
    Identity { cluster_id, topic, topic_id, generation: *generation }
}

/// What a group has committed for `topic`; `None` where the group could not be asked.
fn committed(topic: &str, answer: Option<&Result<OffsetsOfGroup, KafkaError>>) -> Option<BTreeMap<i32, Committed>> {
    let all = answer?.as_ref().ok()?.iter().filter(|(at, _)| *at.topic == *topic);
    let one = |(at, (offset, metadata)): (&TopicPartition, &(i64, String))| {
        (at.partition, Committed { offset: *offset, metadata: metadata.clone() })
    };
    Some(all.map(one).collect())
}

/// One sentence on all groups that could not be asked, with the first of them.
fn refused(names: &[String], offsets: &GroupOffsets) -> Option<String> {
    let failed = names.iter().filter(|name| !offsets.get(*name).is_some_and(Result::is_ok));
    let failed: Vec<&String> = failed.collect();
    let first = failed.first()?;
    let why = match offsets.get(*first) {
        Some(Err(error)) => error.to_string(),
        _ => format!("group {first} was not answered for"),
    };
    let hint = match offsets.get(*first) {
        Some(Err(error)) if error.kind == Kind::Auth => {
            "; grant DESCRIBE on the groups and topics, or leave the groups out (groups_exclude_regex)"
        }
        _ => "",
    };
    Some(format!("{} of {} groups could not be asked: {why}{hint}", failed.len(), names.len()))
}
