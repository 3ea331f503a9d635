//! The target cluster: what is there, what is created, and where the records go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::write::{Ledger, Sink, Sinks};
use crate::config::{Isolation, KafkaConfig, Property};
use crate::error::{Error, Exit, Result};
use crate::kafka::admin::{Cluster, End, TIMEOUT};
use crate::kafka::create::NewTopic;
use crate::kafka::groups::{Activity, OffsetsOfGroup};
use crate::kafka::patience::patiently;
use crate::kafka::permissions::Permissions;
use crate::kafka::producer::{ProducerSettings, RestoreProducer, SendError, TopicHandle};
use crate::kafka::{KafkaError, Kind, TopicPartition};
use crate::model::batch::Record;
use crate::model::groups::plan::Commit;
use crate::model::groups::target::TargetGroup;
use crate::model::restore::{Create, Denied, Plan, Refusal, Target, TargetTopic};

/// How long a created topic may take to be known everywhere.
const SETTLE: Duration = Duration::from_secs(30);

/// What may wait in the producer of one partition; more where a record is larger. librdkafka's idempotent producer has one
/// request of a partition on its way at a time: that one, a full batch behind it, and two to fill. More gains nothing and
/// costs memory (measured: 16 MiB took 16 % more CPU and nearly twice the memory, at the same speed).
const QUEUE_BYTES: u64 = 4 * BATCH_BYTES;

/// The same where nobody knows how large the records are.
const UNKNOWN_QUEUE_BYTES: u64 = 64 << 20;

/// The largest batch worth sending: beyond it nothing gets faster.
const BATCH_BYTES: u64 = 1_000_000;

/// The target cluster.
pub struct KafkaTarget {
    cluster: Arc<Cluster>,
}

impl KafkaTarget {
    /// Connects with the first question.
    pub fn open(kafka: &KafkaConfig) -> Result<Self> {
        Ok(Self { cluster: Cluster::connect(kafka).map_err(failed)? })
    }

    /// The id of the cluster.
    pub async fn cluster_id(&self) -> Result<String> {
        self.cluster.cluster_id(TIMEOUT).await.map_err(failed)
    }

    /// What is known of the cluster and of those of `topics` that exist.
    pub async fn facts(&self, topics: &BTreeSet<String>) -> Result<Target> {
        let cluster_id = self.cluster_id().await?;
        let mut target = Target { cluster_id, topics: BTreeMap::new() };
        if topics.is_empty() {
            return Ok(target);
        }
        let listed = self.cluster.topics(TIMEOUT).await.map_err(failed)?;
        let existing: Vec<_> = listed.into_iter().filter(|t| t.partitions > 0 && topics.contains(&t.name)).collect();
        let names: Vec<String> = existing.iter().map(|topic| topic.name.clone()).collect();
        let configs = self.cluster.topic_configs(&names, TIMEOUT).await.map_err(failed)?;
        let mut ids = self.ids(&names).await.map_err(failed)?;
        let permissions = self.cluster.permissions(&names, TIMEOUT).await.map_err(failed)?;
        for topic in existing {
            let offsets = self.offsets(&topic.name, topic.partitions).await.map_err(failed)?;
            let config = configs.get(&topic.name).into_iter().flatten();
            let config = config.filter_map(|(name, entry)| Some((name.clone(), entry.value.clone()?))).collect();
            let id = ids.remove(&topic.name);
            let denied = permissions.get(&topic.name).map_or_else(Denied::default, denied);
            target.topics.insert(topic.name, TargetTopic { id, offsets, config, denied });
        }
        Ok(target)
    }

    /// The ids of topics that exist, where brokers have them. Asked again for a while, as below.
    async fn ids(&self, names: &[String]) -> Result<BTreeMap<String, String>, KafkaError> {
        let began = Instant::now();
        loop {
            let described = self.cluster.describe(names, TIMEOUT).await?;
            let states = described.into_iter().map(|(name, state)| state.map(|state| Some((name, state.id?))));
            match states.collect::<Result<Vec<_>, _>>() {
                Err(error) if error.kind != Kind::Auth && began.elapsed() < SETTLE => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                states => return Ok(states?.into_iter().flatten().collect()),
            }
        }
    }

    /// Low and high watermark of every partition of a topic. Asked again for a while: of a topic that was created a
    /// moment ago not every broker knows the leaders yet.
    async fn offsets(&self, topic: &str, partitions: i32) -> Result<Vec<(i64, i64)>, KafkaError> {
        let began = Instant::now();
        loop {
            match self.ask_offsets(topic, partitions).await {
                Err(_) if began.elapsed() < SETTLE => tokio::time::sleep(Duration::from_millis(200)).await,
                answer => return answer,
            }
        }
    }

    async fn ask_offsets(&self, topic: &str, partitions: i32) -> Result<Vec<(i64, i64)>, KafkaError> {
        let name: Arc<str> = topic.into();
        let all: Vec<_> = (0..partitions).map(|p| TopicPartition::new(name.clone(), p)).collect();
        let mut low = self.cluster.offsets(&all, End::Earliest, Isolation::ReadUncommitted, TIMEOUT).await?;
        let mut high = self.cluster.offsets(&all, End::Latest, Isolation::ReadUncommitted, TIMEOUT).await?;
        let untold = |at: &TopicPartition| KafkaError {
            operation: format!("list offsets of {at}"),
            kind: Kind::Other,
            message: "the broker did not answer for it".to_owned(),
        };
        let mut both = |at| {
            let low = low.remove(at).unwrap_or_else(|| Err(untold(at)))?;
            Ok((low, high.remove(at).unwrap_or_else(|| Err(untold(at)))?))
        };
        all.iter().map(&mut both).collect()
    }

    /// What is known of these groups; those that are not there are not in it.
    pub async fn groups(&self, names: &[String]) -> Result<BTreeMap<String, TargetGroup>> {
        let list = self.cluster.groups(TIMEOUT).await.map_err(failed)?;
        if let Some(error) = list.failures.into_iter().next() {
            // Whoever is not listed may be active there.
            return Err(failed(error).hint("all brokers must answer before offsets of groups can be set"));
        }
        // The coordinator of a group that nobody has asked about before may be a moment in coming.
        let denied = patiently(|| self.cluster.groups_denied(names, TIMEOUT)).await.map_err(failed)?;
        let mut offsets = patiently(|| self.offsets_of(names)).await.map_err(failed)?;
        let mut groups = BTreeMap::new();
        for name in names {
            if denied.contains(name) {
                groups.insert(name.clone(), TargetGroup { denied: true, ..TargetGroup::default() });
                continue;
            }
            let committed = offsets.remove(name).unwrap_or_default();
            let committed =
                committed.into_iter().map(|(at, (offset, _))| ((at.topic.to_string(), at.partition), offset));
            let committed: BTreeMap<_, _> = committed.collect();
            let members = match list.groups.get(name) {
                None if committed.is_empty() => continue,
                None | Some(Activity::Empty) => Vec::new(),
                Some(activity) => self.members(name, *activity).await?,
            };
            groups.insert(name.clone(), TargetGroup { members, committed, denied: false });
        }
        Ok(groups)
    }

    /// What all of these groups have committed.
    async fn offsets_of(&self, groups: &[String]) -> Result<BTreeMap<String, OffsetsOfGroup>, KafkaError> {
        let offsets = self.cluster.group_offsets(groups, TIMEOUT).await?;
        offsets.into_iter().map(|(group, offsets)| Ok((group, offsets?))).collect()
    }

    /// The members of a group that is not known to be without any.
    async fn members(&self, group: &str, activity: Activity) -> Result<Vec<String>> {
        let members = self.cluster.group_members(group, TIMEOUT).await.map_err(failed)?;
        let unnamed = members.is_empty() && activity == Activity::Active;
        Ok(if unnamed { vec!["its members are not told".to_owned()] } else { members })
    }

    /// Commits offsets for a group without members.
    pub async fn commit(&self, group: &str, commits: &[Commit]) -> Result<(), KafkaError> {
        let offset = |commit: &Commit| {
            let at = TopicPartition::new(commit.topic.as_str(), commit.partition);
            (at, commit.translation.target_offset, commit.metadata.clone())
        };
        let offsets: Vec<_> = commits.iter().map(offset).collect();
        self.cluster.commit_for(group, &offsets, TIMEOUT).await
    }

    /// Changes settings of a topic, all or none.
    pub async fn alter(&self, topic: &str, changes: &[(String, Option<String>)]) -> Result<(), KafkaError> {
        self.cluster.alter_topic(topic, changes, TIMEOUT).await
    }

    /// What the broker has against creating a topic, without creating it.
    pub async fn could_create(&self, topic: &str, create: &Create) -> Result<Option<Refusal>> {
        match self.cluster.could_create_topic(&new_topic(topic, create), TIMEOUT).await {
            Ok(()) => Ok(None),
            Err(error) if matches!(error.kind, Kind::Timeout | Kind::Unavailable) => Err(failed(error)),
            Err(error) => {
                let (topic, denied) = (topic.to_owned(), error.kind == Kind::Auth);
                Ok(Some(Refusal::CannotCreate { topic, why: error.message, denied }))
            }
        }
    }

    /// Creates a topic and waits until all of it can be asked for.
    pub async fn create(&self, topic: &str, create: &Create) -> Result<()> {
        self.cluster.create_topic(&new_topic(topic, create), TIMEOUT).await.map_err(|error| {
            let hint = match error.kind {
                Kind::Exists => "somebody created it just now; start the restore again",
                _ => "create the topic by hand with these settings, or give the user the permission to",
            };
            failed(error).hint(hint)
        })?;
        self.offsets(topic, create.partitions as i32).await.map(drop).map_err(failed)
    }
}

fn new_topic(name: &str, create: &Create) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        partitions: create.partitions as i32,
        replication_factor: create.replication_factor,
        configs: create.config.clone(),
    }
}

fn denied(permissions: &Permissions) -> Denied {
    let Permissions { write, read, alter_configs } = *permissions;
    Denied { write: !write, read: !read, alter_configs: !alter_configs }
}

/// Producers for the partitions of a plan, one each: one that fails takes no other with it.
pub struct KafkaSinks {
    kafka: Arc<KafkaConfig>,
    topics: BTreeMap<String, Limits>,
}

struct Limits {
    settings: ProducerSettings,
    batch_bytes: u64,
}

impl KafkaSinks {
    /// For the topics of `plan`, which all exist: `target` says what they take.
    pub fn new(kafka: Arc<KafkaConfig>, plan: &Plan, target: &Target) -> Self {
        let limits = |topic: &crate::model::restore::TopicPlan| {
            let config = target.topics.get(&topic.target).map(|t| &t.config);
            let takes = config.and_then(|config| config.get("max.message.bytes")?.parse().ok());
            let takes: u64 = takes.unwrap_or(BATCH_BYTES);
            let largest = topic.needs.batch_bytes();
            let queue_bytes = if topic.needs.unknown { UNKNOWN_QUEUE_BYTES } else { QUEUE_BYTES }.max(2 * largest);
            // A record that is too large all the same is the broker's to refuse, which names it.
            let record_bytes_max = takes.max(2 * largest).max(ProducerSettings::default().record_bytes_max);
            // librdkafka does not split a batch that the broker finds too large. Compression can add a little.
            let batch_bytes = (takes - takes / 64).saturating_sub(1024).clamp(1, BATCH_BYTES);
            (topic.target.clone(), Limits { settings: ProducerSettings { queue_bytes, record_bytes_max }, batch_bytes })
        };
        Self { kafka, topics: plan.topics.iter().map(limits).collect() }
    }
}

impl Sinks for KafkaSinks {
    fn open(&self, topic: &str, partition: i32, ledger: Arc<Ledger>) -> Result<Box<dyn Sink>, KafkaError> {
        let mut kafka = KafkaConfig::clone(&self.kafka);
        let limits = self.topics.get(topic);
        if let Some(limits) = limits.filter(|limits| limits.batch_bytes < BATCH_BYTES) {
            let value = limits.batch_bytes.to_string();
            kafka.properties.insert("batch.size".to_owned(), Property { value, secret_from: None });
        }
        let settings = limits.map(|limits| limits.settings.clone()).unwrap_or_default();
        let producer = RestoreProducer::new(&kafka, &settings, Box::new(move |_, _, result| ledger.report(result)))?;
        let handle = producer.topic(topic)?;
        Ok(Box::new(KafkaSink { producer, handle, partition }))
    }
}

struct KafkaSink {
    handle: TopicHandle,
    producer: RestoreProducer,
    partition: i32,
}

impl Sink for KafkaSink {
    fn send(&mut self, record: &Record<'_>) -> Result<bool, KafkaError> {
        let failed = |kind, why: String| KafkaError {
            operation: format!("send the record of source offset {}", record.offset),
            kind,
            message: why,
        };
        match self.producer.send(&self.handle, self.partition, record, 0) {
            Ok(()) => Ok(true),
            Err(SendError::Full) if self.producer.in_flight() > 0 => Ok(false),
            Err(error @ (SendError::Full | SendError::TooLarge(_))) => Err(failed(Kind::TooLarge, error.to_string())),
            Err(error @ SendError::Timestamp(_)) => Err(failed(Kind::Other, error.to_string())),
            Err(SendError::Fatal(error)) => Err(error),
        }
    }

    fn poll(&mut self, wait: Duration) {
        self.producer.poll(wait);
    }

    fn flush(&mut self, wait: Duration) {
        // An error says that the time is up; the ledger says what is missing.
        let _ = self.producer.flush(wait);
    }
}

/// A failed call to Kafka as the end of a command.
pub(super) fn failed(error: KafkaError) -> Error {
    let exit = match error.kind {
        Kind::Auth => Exit::Auth,
        Kind::Timeout | Kind::Unavailable => Exit::Unavailable,
        Kind::Config => Exit::Config,
        _ => Exit::Failed,
    };
    Error::new(exit, error.to_string())
}
