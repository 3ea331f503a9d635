//! The clusters that the jobs of a process read from. Jobs on the same cluster share one client for questions and ask
//! together: hundreds of small jobs must not mean hundreds of clients that all ask the same again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::topics::TopicWatch;
use crate::config::{Isolation, KafkaConfig};
use crate::kafka::admin::{Cluster, End, TIMEOUT};
use crate::kafka::groups::{GroupList, GroupOffsets};
use crate::kafka::{KafkaError, TopicPartition};

/// How long questions for the ends of logs are gathered before they are asked together.
const GATHER: Duration = Duration::from_millis(500);
/// A list of topics is good for so long.
const RECENT: Duration = Duration::from_secs(5);

/// The clusters that are in use, each for as long as somebody holds it.
#[derive(Default)]
pub struct Clusters(Mutex<Vec<(KafkaConfig, Weak<SharedCluster>)>>);

impl Clusters {
    /// The cluster of this configuration, shared with whoever has it already. To be called in the runtime on which it
    /// is watched.
    ///
    /// # Errors
    /// librdkafka refuses the configuration. Nothing is sent yet.
    pub fn get(&self, kafka: &KafkaConfig) -> Result<Arc<SharedCluster>, KafkaError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, cluster)| cluster.strong_count() > 0);
        let same = known.iter().find(|(config, _)| config == kafka);
        if let Some(cluster) = same.and_then(|(_, cluster)| cluster.upgrade()) {
            return Ok(cluster);
        }
        let new = SharedCluster::connect(kafka)?;
        known.push((kafka.clone(), Arc::downgrade(&new)));
        Ok(new)
    }
}

/// A cluster with what is watched of it.
pub struct SharedCluster {
    /// Answers questions.
    pub cluster: Arc<Cluster>,
    /// Watches the topics of all who share it.
    pub topics: Arc<TopicWatch>,
    /// Asks for the ends of logs.
    pub ends: Ends,
    names: tokio::sync::Mutex<Option<(Instant, Arc<Vec<String>>)>>,
    kafka: KafkaConfig,
    groups: Mutex<Option<Arc<Cluster>>>,
    committed: tokio::sync::Mutex<Option<Committed>>,
}

/// What was asked of consumer groups last.
struct Committed {
    asked: Instant,
    list: GroupList,
    offsets: GroupOffsets,
}

/// What some consumer groups have committed.
#[derive(Debug)]
pub struct GroupAnswer {
    /// When the question began.
    pub asked: Instant,
    /// Those of the groups that there are.
    pub names: Vec<String>,
    /// Brokers that did not name theirs.
    pub failures: Vec<KafkaError>,
    /// For each of `names`.
    pub offsets: GroupOffsets,
}

impl SharedCluster {
    fn connect(kafka: &KafkaConfig) -> Result<Arc<Self>, KafkaError> {
        let cluster = Cluster::connect(kafka)?;
        let topics = TopicWatch::start(cluster.clone());
        let ends = Ends(Arc::new(Gathering { cluster: cluster.clone(), waiting: Mutex::default() }));
        let (names, groups, committed) =
            (tokio::sync::Mutex::default(), Mutex::default(), tokio::sync::Mutex::default());
        Ok(Arc::new(Self { cluster, topics, ends, names, kafka: kafka.clone(), groups, committed }))
    }

    /// The names of all topics, as they were a few seconds ago at most.
    ///
    /// # Errors
    /// The brokers do not answer.
    pub async fn topic_names(&self) -> Result<Arc<Vec<String>>, KafkaError> {
        let mut names = self.names.lock().await;
        if let Some((asked, names)) = &*names
            && asked.elapsed() < RECENT
        {
            return Ok(names.clone());
        }
        let asked = Instant::now();
        let all: Vec<_> = self.cluster.topics(TIMEOUT).await?.into_iter().map(|topic| topic.name).collect();
        let all = Arc::new(all);
        *names = Some((asked, all.clone()));
        Ok(all)
    }

    /// What the `wanted` groups have committed, as it was `age` ago at most: each group is asked once for all jobs that
    /// want to know at about the same time.
    ///
    /// # Errors
    /// The groups cannot be listed.
    pub async fn committed(&self, wanted: impl Fn(&str) -> bool, age: Duration) -> Result<GroupAnswer, KafkaError> {
        let client = self.for_groups()?;
        let mut committed = self.committed.lock().await;
        let known = match committed.take().filter(|known| known.asked.elapsed() <= age) {
            Some(known) => known,
            None => {
                let asked = Instant::now();
                Committed { asked, list: client.groups(TIMEOUT).await?, offsets: GroupOffsets::new() }
            }
        };
        let known = committed.insert(known);
        let names: Vec<String> = known.list.groups.keys().filter(|name| wanted(name)).cloned().collect();
        let unknown: Vec<String> = names.iter().filter(|name| !known.offsets.contains_key(*name)).cloned().collect();
        if !unknown.is_empty() {
            known.offsets.extend(client.group_offsets(&unknown, TIMEOUT).await?);
        }
        let offsets = names.iter().filter_map(|name| Some((name.clone(), known.offsets.get(name)?.clone())));
        let (asked, failures, offsets) = (known.asked, known.list.failures.clone(), offsets.collect());
        Ok(GroupAnswer { asked, names, failures, offsets })
    }

    /// A client for questions about consumer groups. Those may take long where there are many, so they have one of
    /// their own: the client's thread answers one after the other.
    ///
    /// # Errors
    /// As [`Clusters::get`].
    fn for_groups(&self) -> Result<Arc<Cluster>, KafkaError> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = &*groups {
            return Ok(cluster.clone());
        }
        Ok(groups.insert(Cluster::connect(&self.kafka)?).clone())
    }
}

/// Where logs end: questions that come within [half a second](GATHER) are asked in one call.
pub struct Ends(Arc<Gathering>);

struct Gathering {
    cluster: Arc<Cluster>,
    waiting: Mutex<Vec<Waiting>>,
}

struct Waiting {
    partitions: Vec<TopicPartition>,
    isolation: Isolation,
    answer: oneshot::Sender<Found>,
}

type Found = Result<BTreeMap<TopicPartition, i64>, KafkaError>;

impl Ends {
    /// The ends of these logs; those that cannot be had are left out. They are asked for after the call.
    ///
    /// # Errors
    /// The brokers do not answer.
    pub async fn ask(&self, partitions: Vec<TopicPartition>, isolation: Isolation) -> Found {
        let (answer, answered) = oneshot::channel();
        let first = {
            let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.push(Waiting { partitions, isolation, answer });
            waiting.len() == 1
        };
        if first {
            let gathering = self.0.clone();
            tokio::spawn(async move {
                tokio::time::sleep(GATHER).await;
                gathering.ask().await;
            });
        }
        answered.await.unwrap_or_else(|_| Ok(BTreeMap::new()))
    }
}

impl Gathering {
    async fn ask(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let (committed, uncommitted): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|one| one.isolation == Isolation::ReadCommitted);
        for all in [committed, uncommitted] {
            let Some(isolation) = all.first().map(|one| one.isolation) else { continue };
            let partitions: BTreeSet<_> = all.iter().flat_map(|one| one.partitions.iter().cloned()).collect();
            let partitions: Vec<_> = partitions.into_iter().collect();
            let ends = self.cluster.offsets(&partitions, End::Latest, isolation, TIMEOUT).await;
            for one in all {
                // Whoever gave up waiting does not want the answer.
                let _ = one.answer.send(part(&ends, one.partitions));
            }
        }
    }
}

/// What of `ends` one asked for.
fn part(ends: &Result<crate::kafka::admin::Offsets, KafkaError>, partitions: Vec<TopicPartition>) -> Found {
    let ends = ends.as_ref().map_err(Clone::clone)?;
    let end = |p: TopicPartition| {
        let end = *ends.get(&p)?.as_ref().ok()?;
        Some((p, end))
    };
    Ok(partitions.into_iter().filter_map(end).collect())
}
