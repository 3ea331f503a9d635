//! What resolves where partitions go on, and what it asks the brokers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::generations::{Forks, Generations};
use super::spool::Spool;
use super::topics::{Sight, TopicWatch};
use crate::config::{Isolation, Job};
use crate::kafka::admin::{Cluster, End, TIMEOUT};
use crate::kafka::{KafkaError, TopicPartition};
use crate::model::chain::GenerationRecord;
use crate::model::key::PartitionPath;
use crate::state::State;
use crate::storage::{Store, StoreError};

/// How long the group's coordinator is waited for: it only gives a hint.
const GROUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a newer look at a topic is waited for.
const SIGHT_TIMEOUT: Duration = Duration::from_secs(20);

/// Resolves positions of the partitions of one job.
pub struct Resolver {
    pub(super) job: Arc<Job>,
    pub(super) store: Arc<dyn Store>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) cluster_id: String,
    pub(super) local: Local,
    pub(super) topics: Arc<TopicWatch>,
    pub(super) generations: Generations,
    pub(super) forks: Arc<Forks>,
    /// The run of a compacted topic's instance whose lists these are; `None` for normal topics.
    pub(super) run: Option<Run>,
}

/// A run, as its lanes see it.
#[derive(Debug, Clone)]
pub struct Run {
    /// The root of its lists: what the run's record says, in the form that lanes know.
    pub root: Arc<GenerationRecord>,
    /// Kafka had deleted records before the run could read them, behind others that it had read.
    pub lost: Arc<AtomicBool>,
}

/// What this machine has of partitions besides the bucket.
#[derive(Debug, Clone, Default)]
pub struct Local {
    /// What was committed.
    pub state: Option<State>,
    /// Where objects wait that the bucket did not take.
    pub spool: Option<Arc<Spool>>,
}

/// A partition and where to go on with it.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The generation it writes to.
    pub generation: Arc<GenerationRecord>,
    /// The first offset to fetch.
    pub position: i64,
    /// Leader epoch of the last object, -1 when unknown: the broker checks the position against it.
    pub leader_epoch: i32,
    /// Where the range of the last object starts.
    pub tail_start: Option<i64>,
    /// When the last object was written (0: it has expired), and the leader epoch of its last record; `None` where the
    /// list has none yet.
    pub tail: Option<(i64, i32)>,
    /// Records that were found to be missing and are in a gap link now.
    pub gap: i64,
}

/// Why a partition cannot go on now.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// The operator has to act.
    #[error("{what}")]
    Refused {
        /// What is wrong, and the ways out.
        what: String,
    },
    /// Something that is not ours lies where our list must go on.
    #[error("{key} is not ours: {why}; it is neither used nor overwritten")]
    Foreign {
        /// Which object.
        key: String,
        /// In which way.
        why: String,
    },
    /// It may pass by itself.
    #[error("{why}")]
    Later {
        /// What is waited for.
        why: String,
    },
    /// The bucket did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The brokers did not answer.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
}

impl Unresolved {
    /// Whether waiting cannot help.
    pub fn needs_operator(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Foreign { .. })
    }

    /// Whether waiting helps where nobody changes anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Foreign { .. } => false,
            Self::Later { .. } => true,
            Self::Store(error) => error.is_transient(),
            Self::Kafka(error) => !matches!(error.kind, crate::kafka::Kind::Auth | crate::kafka::Kind::Config),
        }
    }
}

/// Log start and high watermark.
#[derive(Debug, Clone, Copy)]
pub struct LogRange {
    /// Log start offset.
    pub lo: i64,
    /// High watermark.
    pub hi: i64,
    /// When they were asked for.
    pub at: Instant,
}

/// What is known of one partition before the bucket is asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its log.
    pub log: LogRange,
    /// What the group has committed: next offset, and the uuid of the generation it speaks of.
    pub group: Option<(i64, String)>,
    /// A truncation that a lane met with.
    pub truncation: Option<Truncation>,
}

/// The broker's end offset for the leader epoch of the last object, below where that object ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truncation {
    /// The generation whose last object it was. It says nothing about any other.
    pub generation: String,
    /// The end offset.
    pub at: i64,
}

impl Resolver {
    /// A resolver for `job`, whose topics `topics` watches.
    pub fn new(
        job: Arc<Job>,
        store: Arc<dyn Store>,
        cluster: Arc<Cluster>,
        cluster_id: String,
        local: Local,
        topics: Arc<TopicWatch>,
        forks: Arc<Forks>,
    ) -> Arc<Self> {
        let generations = Generations::default();
        Arc::new(Self { job, store, cluster, cluster_id, local, topics, generations, forks, run: None })
    }

    /// A resolver for one run of a compacted topic's instance.
    pub fn of_run(self: Arc<Self>, run: Run) -> Arc<Self> {
        let run = Some(run);
        Arc::new(Self {
            job: self.job.clone(),
            store: self.store.clone(),
            cluster: self.cluster.clone(),
            cluster_id: self.cluster_id.clone(),
            local: self.local.clone(),
            topics: self.topics.clone(),
            generations: Generations::default(),
            forks: self.forks.clone(),
            run,
        })
    }

    /// The store's name in keys of local state: two instances of a topic must not share them.
    pub fn state_url(&self) -> Arc<str> {
        match &self.job.compacted {
            Some(one) => format!("{}#{}", self.store.url(), one.instance).into(),
            None => self.store.url().into(),
        }
    }

    /// Where the objects of a partition lie.
    pub(super) fn path(&self, partition: &TopicPartition, generation: &GenerationRecord) -> PartitionPath {
        match &self.job.compacted {
            Some(one) => PartitionPath::of_instance(&partition.topic, &one.instance, partition.partition),
            None => PartitionPath::normal(&partition.topic, generation.generation, partition.partition),
        }
    }

    /// What the brokers know of many partitions, in a few requests for all. Those whose log range cannot be had are left
    /// out. What the group has committed is only a hint: it is left out when it cannot be had.
    pub async fn ask(&self, all: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, Asked>, KafkaError> {
        let committed = self.cluster.committed(&self.job.group_id, all, GROUP_TIMEOUT);
        let (logs, committed) = tokio::join!(self.log_ranges(all), committed);
        let mut committed: BTreeMap<_, _> = committed
            .unwrap_or_else(|error| {
                tracing::debug!(job = %self.job.id, error = %error, "what the group has committed is not known");
                Vec::new()
            })
            .into_iter()
            .collect();
        let asked = |(p, log)| {
            let group = committed.remove(&p).flatten();
            (p, Asked { log, group, truncation: None })
        };
        Ok(logs?.into_iter().map(asked).collect())
    }

    /// The log ranges of many partitions with two requests; those that cannot be had are left out.
    pub async fn log_ranges(&self, all: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, LogRange>, KafkaError> {
        let (at, uncommitted) = (Instant::now(), Isolation::ReadUncommitted);
        let lo = self.cluster.offsets(all, End::Earliest, uncommitted, TIMEOUT).await?;
        let mut hi = self.cluster.offsets(all, End::Latest, uncommitted, TIMEOUT).await?;
        let both = lo.into_iter().filter_map(|(p, lo)| {
            let hi = hi.remove(&p)?;
            Some((p, LogRange { lo: lo.ok()?, hi: hi.ok()?, at }))
        });
        Ok(both.collect())
    }

    pub(super) async fn log_range(&self, partition: &TopicPartition) -> Result<LogRange, Unresolved> {
        let ranges = self.log_ranges(std::slice::from_ref(partition)).await?;
        let missing = || Unresolved::Later { why: format!("{partition}: the brokers do not tell its offsets") };
        ranges.get(partition).copied().ok_or_else(missing)
    }

    pub(super) async fn log_offsets(
        &self,
        all: &[TopicPartition],
        which: End,
    ) -> Result<BTreeMap<TopicPartition, i64>, Unresolved> {
        let offsets = self.cluster.offsets(all, which, Isolation::ReadUncommitted, TIMEOUT).await?;
        offsets.into_iter().map(|(p, offset)| Ok((p, offset?))).collect()
    }

    pub(super) async fn topic_config(&self, topic: &str) -> Result<BTreeMap<String, String>, Unresolved> {
        let configs = self.cluster.topic_configs(&[topic.to_owned()], TIMEOUT).await?;
        let own = configs.into_values().flatten().filter(|(_, entry)| !entry.is_default && !entry.sensitive);
        Ok(own.filter_map(|(name, entry)| Some((name, entry.value?))).collect())
    }

    /// Id (empty when the broker tells none) and partition count of a topic, as seen a moment ago.
    pub(super) async fn topic(&self, topic: &str) -> Result<(String, i32), Unresolved> {
        let moment = Instant::now().checked_sub(Duration::from_secs(2)).unwrap_or_else(Instant::now);
        self.topic_after(topic, moment).await
    }

    /// The same, as seen after `moment`.
    pub(super) async fn topic_after(&self, topic: &str, moment: Instant) -> Result<(String, i32), Unresolved> {
        let waited = tokio::time::timeout(SIGHT_TIMEOUT, self.topics.sight_after(topic, moment)).await;
        match waited {
            Ok(Sight::There { id, partitions }) => Ok((id.unwrap_or_default(), partitions)),
            Ok(Sight::Gone) => Err(Unresolved::Later { why: format!("topic {topic} does not exist") }),
            Err(_) => Err(Unresolved::Later { why: format!("topic {topic}: the brokers do not describe it") }),
        }
    }
}
