//! Which topics there are and which ids they have, asked of the brokers again and again.
//!
//! A topic that is deleted and created again keeps its name; only its id tells. The uploader asks for an observation
//! that is newer than a given moment; many such questions are answered by one request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::kafka::Kind;
use crate::kafka::admin::{Cluster, TIMEOUT};

/// How often topics are looked at when nobody asks.
const EVERY: Duration = Duration::from_secs(10);
/// Requests are at least so far apart, however many ask.
const APART: Duration = Duration::from_millis(50);

/// What was seen of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// It is there; with its id, where the broker tells one.
    There {
        /// Kafka's topic id.
        id: Option<String>,
        /// Its partition count.
        partitions: i32,
    },
    /// It is not there.
    Gone,
}

/// What was seen, and when the question was asked.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// Per topic.
    pub topics: BTreeMap<String, (Sight, Option<Instant>)>,
    /// Why the last request failed, if it did.
    pub error: Option<String>,
}

/// Watches the topics of a job.
pub struct TopicWatch {
    cluster: Arc<Cluster>,
    topics: Mutex<BTreeSet<String>>,
    seen: watch::Sender<Observation>,
    wanted: Notify,
}

impl TopicWatch {
    /// Watches topics of `cluster` on the current runtime until nobody holds it any more.
    pub fn start(cluster: Arc<Cluster>) -> Arc<Self> {
        let topics = Mutex::new(BTreeSet::new());
        let this = Arc::new(Self { cluster, topics, seen: watch::Sender::default(), wanted: Notify::new() });
        let weak = Arc::downgrade(&this);
        tokio::spawn(async move {
            while let Some(this) = weak.upgrade() {
                this.look().await;
                let _ = tokio::time::timeout(EVERY, this.wanted.notified()).await;
                tokio::time::sleep(APART).await;
            }
        });
        this
    }

    /// Watches these topics from now on, besides the others.
    pub fn add<'a>(&self, topics: impl IntoIterator<Item = &'a str>) {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).extend(topics.into_iter().map(str::to_owned));
        self.wanted.notify_one();
    }

    /// Watches what is observed.
    pub fn subscribe(&self) -> watch::Receiver<Observation> {
        self.seen.subscribe()
    }

    /// The id of `topic` as observed after `moment`, waiting for as long as it takes. `None`: the broker tells no ids.
    /// `Some("")` stands for a topic that is gone: no generation has that id.
    pub async fn id_after(&self, topic: &str, moment: Instant) -> Option<String> {
        match self.sight_after(topic, moment).await {
            Sight::There { id, .. } => id,
            Sight::Gone => Some(String::new()),
        }
    }

    /// What was seen of `topic` after `moment`, waiting for as long as it takes.
    pub async fn sight_after(&self, topic: &str, moment: Instant) -> Sight {
        let mut seen = self.seen.subscribe();
        loop {
            let sight = seen.borrow_and_update().topics.get(topic).cloned();
            if let Some((sight, Some(at))) = sight
                && at > moment
            {
                return sight;
            }
            self.wanted.notify_one();
            if seen.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn look(&self) {
        let topics: Vec<String> = {
            let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            topics.iter().cloned().collect()
        };
        if topics.is_empty() {
            return;
        }
        // The moment of the question: the answer is at least as new.
        let asked = Instant::now();
        let answer = self.cluster.describe(&topics, TIMEOUT).await;
        self.seen.send_modify(|seen| match answer {
            Err(error) => seen.error = Some(error.to_string()),
            Ok(states) => {
                seen.error = None;
                for (topic, state) in states {
                    let sight = match state {
                        Ok(state) => Sight::There { id: state.id, partitions: state.partitions },
                        Err(error) if error.kind == Kind::UnknownTopic => Sight::Gone,
                        Err(error) => {
                            seen.error = Some(error.to_string());
                            continue;
                        }
                    };
                    seen.topics.insert(topic, (sight, Some(asked)));
                }
            }
        });
    }
}
