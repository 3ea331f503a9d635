//! `check`: proof from the bucket that what Kafka held when asked is durable.
//!
//! The end of every partition is read, the daemon is asked to make durable what it has, and then the bucket is looked at
//! until every list reaches the end that was read, or time is up. What the daemon says of itself counts for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::config::{Isolation, Job};
use crate::error::{Error, Exit, Result};
use crate::kafka::admin::{Cluster, End};
use crate::kafka::{TopicPartition, reader};
use crate::model::chain::GenerationRecord;
use crate::model::key::PartitionPath;
use crate::model::object::ObjectMeta;
use crate::model::verify::proof::{Judgement, NextRecord, Sight, judge};
use crate::pipeline::resolver::Unresolved;
use crate::pipeline::tail::search_tail;
use crate::restore::gather;
use crate::storage::Store;
use crate::storage::retry::retry;

/// How long a broker may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long the store may be out of reach.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lists that are looked at beside each other.
const LISTS: usize = 16;

/// How long to wait between looks.
const LOOK: Duration = Duration::from_millis(500);

/// What is to be proved: the ends of a job's partitions.
pub struct Goal {
    job: Arc<Job>,
    cluster: Arc<Cluster>,
    lows: BTreeMap<TopicPartition, i64>,
    ends: BTreeMap<TopicPartition, i64>,
    began: Instant,
}

/// How it went for one job.
#[derive(Debug, Clone, Serialize)]
pub struct Proof {
    /// The job.
    pub job: String,
    /// The worst of its partitions.
    pub result: Judgement,
    /// Partitions it has.
    pub partitions: u64,
    /// Those whose end is in the bucket.
    pub durable: u64,
    /// From the moment the ends were read, in seconds.
    pub seconds: f64,
    /// The others.
    pub open: Vec<Open>,
}

/// A partition whose end is not in the bucket.
#[derive(Debug, Clone, Serialize)]
pub struct Open {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// Why it is open.
    pub result: Judgement,
    /// Where it ended when it was asked.
    pub end_offset: i64,
    /// Where its list in the bucket ends.
    pub durable_offset: Option<i64>,
    /// Where Kafka's log begins.
    pub log_start_offset: i64,
}

impl Goal {
    /// Reads the ends of everything a job takes.
    ///
    /// # Errors
    /// The brokers cannot be asked.
    pub async fn read(job: Arc<Job>) -> Result<Self> {
        let cluster = Cluster::connect(&job.kafka)?;
        let topics = cluster.topics(TIMEOUT).await?;
        let taken = topics.iter().filter(|topic| job.topics.takes(&topic.name));
        let all: Vec<TopicPartition> = taken
            .flat_map(|topic| (0..topic.partitions).map(|p| TopicPartition::new(topic.name.as_str(), p)))
            .collect();
        let there: BTreeSet<&str> = all.iter().map(|partition| &*partition.topic).collect();
        if let Some(missing) = job.topics.literal.iter().find(|name| !there.contains(name.as_str())) {
            let what = format!("job {}: topic {missing} does not exist, or this user may not see it", job.id);
            return Err(Error::new(Exit::NotFound, what).hint("create it, permit DESCRIBE on it, or take it out"));
        }
        let lows = ask_offsets(&cluster, &all, End::Earliest, job.isolation).await?;
        let ends = ask_offsets(&cluster, &all, End::Latest, job.isolation).await?;
        Ok(Self { job, cluster, lows, ends, began: Instant::now() })
    }

    /// The job.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Looks at the bucket until everything is there, something never will be, or `patience` has passed.
    ///
    /// # Errors
    /// Store or brokers cannot be asked, or something foreign stands in a list's place.
    pub async fn prove(&self, store: &Arc<dyn Store>, patience: Duration) -> Result<Proof> {
        let until = Instant::now() + patience;
        let mut open: BTreeSet<TopicPartition> = self.ends.keys().cloned().collect();
        loop {
            let seen = self.look(store, &open).await?;
            open.retain(|partition| seen.get(partition).is_none_or(|(_, judgement)| *judgement != Judgement::Durable));
            let is_over = seen.values().all(|(_, judgement)| *judgement != Judgement::Pending);
            if is_over || Instant::now() > until {
                return Ok(self.proof(&seen, &open));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn proof(&self, seen: &BTreeMap<TopicPartition, (Sight, Judgement)>, open: &BTreeSet<TopicPartition>) -> Proof {
        let left = open.iter().filter_map(|partition| Some((partition, seen.get(partition)?)));
        let left: Vec<Open> = left
            .map(|(partition, (sight, judgement))| Open {
                topic: partition.topic.to_string(),
                partition: partition.partition,
                result: *judgement,
                end_offset: sight.end,
                durable_offset: sight.stored,
                log_start_offset: sight.low,
            })
            .collect();
        let has = |judgement| left.iter().any(|open| open.result == judgement);
        let worst = [Judgement::Lost, Judgement::Ahead, Judgement::Pending].into_iter().find(|judged| has(*judged));
        Proof {
            job: self.job.id.clone(),
            result: worst.unwrap_or(Judgement::Durable),
            partitions: self.ends.len() as u64,
            durable: (self.ends.len() - left.len()) as u64,
            seconds: (self.began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
            open: left,
        }
    }

    /// Every open partition as it is now.
    async fn look(
        &self,
        store: &Arc<dyn Store>,
        open: &BTreeSet<TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, (Sight, Judgement)>> {
        let topics: BTreeSet<&str> = open.iter().map(|partition| &*partition.topic).collect();
        let mut generations = BTreeMap::new();
        for topic in topics {
            generations.insert(topic, newest(store, topic).await?);
        }
        let ends = stream::iter(open).map(|partition| {
            let generation = generations.get(&*partition.topic).cloned().flatten();
            async move {
                let end = self.ends.get(partition).copied().unwrap_or(0);
                let stored = match &generation {
                    Some(generation) => Some(end_of_list(store, partition, generation, end).await?),
                    None => None,
                };
                Result::<_, Error>::Ok((partition.clone(), stored))
            }
        });
        let stored: Vec<_> = ends.buffer_unordered(LISTS).try_collect().await?;
        self.judge_all(stored).await
    }

    async fn judge_all(
        &self,
        stored: Vec<(TopicPartition, Option<i64>)>,
    ) -> Result<BTreeMap<TopicPartition, (Sight, Judgement)>> {
        let sight = |(partition, stored): &(TopicPartition, Option<i64>)| {
            let low = self.lows.get(partition).copied().unwrap_or(0);
            let end = self.ends.get(partition).copied().unwrap_or(0);
            // As long as the list does not reach further, the end now plays no part.
            let end_now = i64::MAX;
            (partition.clone(), Sight { low, end, end_now, stored: *stored, next_record: NextRecord::Unknown })
        };
        let mut sights: BTreeMap<_, _> = stored.iter().map(sight).collect();
        let behind: Vec<_> = sights.iter().filter(|(_, s)| s.stored.is_some_and(|at| at > s.end)).collect();
        let behind: Vec<TopicPartition> = behind.into_iter().map(|(partition, _)| partition.clone()).collect();
        for (partition, end) in ask_offsets(&self.cluster, &behind, End::Latest, Isolation::ReadUncommitted).await? {
            sights.entry(partition).and_modify(|sight| sight.end_now = end);
        }
        let short = sights.iter().filter_map(|(partition, sight)| {
            Some((partition.clone(), sight.stored.filter(|stored| *stored < sight.end)?.max(sight.low)))
        });
        let short: Vec<(TopicPartition, i64)> = short.collect();
        for (partition, record) in next_records(&self.job, short).await? {
            sights.entry(partition).and_modify(|sight| sight.next_record = record);
        }
        let judged = sights.into_iter().map(|(partition, sight)| (partition, (sight, judge(&sight))));
        Ok(judged.collect())
    }
}

async fn ask_offsets(
    cluster: &Cluster,
    partitions: &[TopicPartition],
    which: End,
    isolation: Isolation,
) -> Result<BTreeMap<TopicPartition, i64>> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let offsets = cluster.offsets(partitions, which, isolation, TIMEOUT).await?;
    offsets.into_iter().map(|(partition, offset)| Ok((partition, offset?))).collect()
}

/// Which records come next at these positions, as far as the job would read them.
async fn next_records(
    job: &Arc<Job>,
    positions: Vec<(TopicPartition, i64)>,
) -> Result<BTreeMap<TopicPartition, NextRecord>> {
    let job = job.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut next: BTreeMap<_, _> =
            positions.iter().map(|(partition, _)| (partition.clone(), NextRecord::None)).collect();
        let take = |partition: &TopicPartition, offset| {
            next.insert(partition.clone(), NextRecord::At(offset));
        };
        reader::next_at(&job.kafka, job.isolation, &positions, take).map(|()| next)
    });
    let read = read.await.map_err(|error| Error::new(Exit::Failed, "the thread that reads ended").because(error))?;
    read.map_err(Error::from)
}

/// The newest generation of a topic; `None` without one.
async fn newest(store: &Arc<dyn Store>, topic: &str) -> Result<Option<GenerationRecord>> {
    let mut newest: Option<GenerationRecord> = None;
    for (_, record) in gather::each_record(store, topic).await? {
        let record = record.map_err(|error| Error::new(Exit::ProblemFound, error.to_string()))?;
        if newest.as_ref().is_none_or(|newest| newest.generation < record.generation) {
            newest = Some(record);
        }
    }
    Ok(newest)
}

/// Where the list of a partition ends: its tail's next offset, or its origin.
async fn end_of_list(
    store: &Arc<dyn Store>,
    partition: &TopicPartition,
    generation: &GenerationRecord,
    end: i64,
) -> Result<i64> {
    let path = PartitionPath::normal(&partition.topic, generation.generation, partition.partition);
    let origin = generation.origin(partition.partition);
    let tail = search_tail(store, &path, origin, end).await.map_err(unresolved)?;
    let (mut at, mut next) = (tail.unwrap_or(origin), tail);
    while let Some(start) = next.take() {
        let key = path.object(start);
        let Some(head) = retry(PATIENCE, || store.head(&key)).await.map_err(gather::failed)? else { break };
        let wrong =
            |why: String| Error::new(Exit::ProblemFound, format!("{key}: {why}")).hint("run kafka-backup verify");
        let meta = ObjectMeta::from_metadata(&head.metadata).map_err(|error| wrong(error.to_string()))?;
        if meta.generation != generation.uuid {
            return Err(wrong(format!("it belongs to generation {}", meta.generation)));
        }
        at = meta.next_offset;
        next = Some(at);
    }
    Ok(at)
}

fn unresolved(why: Unresolved) -> Error {
    match why {
        Unresolved::Store(error) => gather::failed(error),
        other => Error::new(Exit::ProblemFound, other.to_string()).hint("run kafka-backup verify"),
    }
}
