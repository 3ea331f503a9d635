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

/// What was seen last of each topic, and when the question was asked.
type Observation = BTreeMap<String, (Sight, Instant)>;

/// What was seen last of each topic.
pub type Sights = Arc<BTreeMap<String, Sight>>;

/// Watches topics of a cluster.
pub struct TopicWatch {
    cluster: Arc<Cluster>,
    topics: Mutex<BTreeSet<String>>,
    /// Those of which somebody waits for something newer.
    wanted: Mutex<BTreeSet<String>>,
    seen: watch::Sender<Observation>,
    /// Sent only when something is not as it was: whoever looks for that need not look at every observation.
    changes: watch::Sender<Sights>,
    wake: Notify,
}

impl TopicWatch {
    /// Watches topics of `cluster` on the current runtime until nobody holds it any more.
    pub fn start(cluster: Arc<Cluster>) -> Arc<Self> {
        let this = Arc::new(Self {
            cluster,
            topics: Mutex::default(),
            wanted: Mutex::default(),
            seen: watch::Sender::default(),
            changes: watch::Sender::default(),
            wake: Notify::new(),
        });
        let weak = Arc::downgrade(&this);
        tokio::spawn(async move {
            let mut all_at = Instant::now();
            while let Some(this) = weak.upgrade() {
                let all = Instant::now() >= all_at;
                if all {
                    all_at = Instant::now() + EVERY;
                }
                this.look(all).await;
                let _ =
                    tokio::time::timeout(all_at.saturating_duration_since(Instant::now()), this.wake.notified()).await;
                tokio::time::sleep(APART).await;
            }
        });
        this
    }

    /// Watches these topics from now on, besides the others.
    pub fn add<'a>(&self, topics: impl IntoIterator<Item = &'a str>) {
        let topics: Vec<_> = topics.into_iter().map(str::to_owned).collect();
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).extend(topics.iter().cloned());
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).extend(topics);
        self.wake.notify_one();
    }

    /// What changes from now on: an id, a partition count, a topic that comes or goes.
    pub fn changes(&self) -> watch::Receiver<Sights> {
        self.changes.subscribe()
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
            let sight = seen.borrow_and_update().get(topic).cloned();
            if let Some((sight, at)) = sight
                && at > moment
            {
                return sight;
            }
            self.wanted.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.to_owned());
            self.wake.notify_one();
            if seen.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Asks for all topics, or only for those that somebody waits for.
    async fn look(&self, all: bool) {
        let wanted = std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        let topics: Vec<String> = if all {
            let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            topics.union(&wanted).cloned().collect()
        } else {
            wanted.into_iter().collect()
        };
        if topics.is_empty() {
            return;
        }
        // The moment of the question: the answer is at least as new.
        let asked = Instant::now();
        let states = match self.cluster.describe(&topics, TIMEOUT).await {
            Ok(states) => states,
            Err(error) => {
                tracing::debug!(error = %error, "topics are not described");
                // Whoever waits goes on waiting, and is asked for again.
                return self.seen.send_modify(|_| ());
            }
        };
        let sights = states.into_iter().filter_map(|(topic, state)| match state {
            Ok(state) => Some((topic, Sight::There { id: state.id, partitions: state.partitions })),
            Err(error) if error.kind == Kind::UnknownTopic => Some((topic, Sight::Gone)),
            Err(error) => {
                tracing::debug!(topic, error = %error, "a topic is not described");
                None
            }
        });
        let sights: BTreeMap<_, _> = sights.collect();
        self.changes.send_if_modified(|known| {
            let changed = sights.iter().any(|(topic, sight)| known.get(topic) != Some(sight));
            if changed {
                Arc::make_mut(known).extend(sights.clone());
            }
            changed
        });
        self.seen.send_modify(|seen| seen.extend(sights.into_iter().map(|(topic, sight)| (topic, (sight, asked)))));
    }
}
