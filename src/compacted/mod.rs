//! Compacted topics: everything that runs the state machine of [`crate::model::compacted`].
//!
//! ```text
//! coordination topic ──heard──┐                       ┌──> lanes of the run (pipeline)
//! bucket ────────────look─────┼──> Coordinator: step ─┼──> bucket: run, TERM, mark, DELETE
//! lanes ─────────────progress─┘                       └──> coordination topic: own state
//! ```
//!
//! One [`Coordinator`] per topic: an actor that feeds the machine and does what it asks for. It decides nothing itself.
//! Whatever fails is said (status, metric) and asked for again by the machine's next tick.
//!
//! Crash consistency: records are created once, objects are deleted only under C1 read again, and what is lost of this
//! process is made anew from the bucket. What can be left behind: objects of a run that nobody owns, which the instance
//! deletes when it begins its next run.

pub mod bucket;
mod coordinator;
mod deletions;
mod effects;
pub mod gauges;
mod lanes;
mod now;
mod report;
mod topic;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use serde::{Deserialize, Serialize};

use self::coordinator::Parts;
pub use self::coordinator::{Coordinator, Swap};
pub use self::lanes::LaneParts;
pub(crate) use self::lanes::root;
use crate::clock::millis;
use crate::config::{CompactedJob, Job, Place};
use crate::error::Result;
use crate::model::compacted::{Initial, MessageKey, Rules, Settings};
use crate::pipeline::clusters::SharedCluster;
use crate::pipeline::job::{Drain, Leave};
use crate::pipeline::status::JobStatus;
use crate::process::Process;
use crate::storage::Store;

/// A signed DELETE is taken by an S3 server for 15 minutes; with the batch and a margin for clocks that differ.
const S3_DELETE_LIFETIME: Duration = Duration::from_secs(20 * 60);
/// A DELETE in a folder is over when its process is, or its coordinator has left.
const FILE_DELETE_LIFETIME: Duration = Duration::from_secs(1);
/// For how long the proof that a batch of deletions rests on is good.
const BATCH: Duration = Duration::from_secs(30);

/// What a job of type "compacted" is opened with.
pub struct Open {
    /// The job.
    pub job: Arc<Job>,
    /// Where it says how it is.
    pub status: Arc<JobStatus>,
    /// The bucket.
    pub store: Arc<dyn Store>,
    /// The cluster of its topics, and its id.
    pub cluster: Arc<SharedCluster>,
    /// The id of that cluster.
    pub cluster_id: String,
    /// Its topics and their numbers of partitions.
    pub topics: BTreeMap<String, i32>,
    /// What its lanes share.
    pub shared: crate::pipeline::Shared,
}

/// What an order to start a turn of one topic came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// Who scans next: `this`, `partner`, `nobody` (the partner is not heard of), or `none` (a turn without a scan);
    /// [`Ordered::REFUSED`] where no turn was started.
    pub next: String,
    /// The highest valid TERM when the order was given; 0 is none. The turn is over when there is a higher one.
    pub term: u64,
    /// What that means, for a person.
    pub text: String,
}

impl Ordered {
    /// What stands in `next` where no turn was started.
    pub const REFUSED: &str = "refused";

    /// What keeps a turn from being started.
    fn refused(why: &str) -> Self {
        let text = format!("no turn was started: {why}; try again when status shows it at work");
        Self { next: Self::REFUSED.to_owned(), term: 0, text }
    }

    /// Whether no turn was started.
    pub fn is_refused(&self) -> bool {
        self.next == Self::REFUSED
    }
}

/// A running job of type "compacted": a coordinator for each of its topics.
#[derive(Clone)]
pub struct Pair(Vec<(String, Addr<Coordinator>)>);

impl Pair {
    /// Starts the coordinators.
    ///
    /// # Errors
    /// The coordination topic cannot be reached, or is none.
    pub async fn open(process: &Process, one: &CompactedJob, open: Open) -> Result<Self> {
        topic::ensure(&open.job, one).await?;
        let mut all = Vec::new();
        let topics = Arc::new(open.topics.keys().cloned().collect());
        for topic in open.topics.keys() {
            let key = MessageKey {
                storage: open.store.url().to_owned(),
                cluster_id: open.cluster_id.clone(),
                topic: topic.clone(),
                instance: one.instance.clone(),
            };
            let settings = Arc::new(settings(&open.job, one));
            let parts = Parts {
                lanes: LaneParts {
                    process: process.clone(),
                    job: open.job.clone(),
                    status: open.status.clone(),
                    store: open.store.clone(),
                    cluster: open.cluster.clone(),
                    cluster_id: open.cluster_id.clone(),
                    shared: open.shared.clone(),
                    topic: topic.clone(),
                },
                one: one.clone(),
                settings,
                key,
                topics: Arc::clone(&topics),
            };
            let coordinator = Coordinator::start_in_arbiter(&process.control(), move |_| Coordinator::new(parts));
            all.push((topic.clone(), coordinator));
        }
        Ok(Self(all))
    }

    /// Whether all coordinators are alive.
    pub fn connected(&self) -> bool {
        self.0.iter().all(|(_, one)| one.connected())
    }

    /// Makes durable what was read; `stop` also stops reading. `false`: not everything.
    pub async fn drain(&self, stop: bool) -> bool {
        let all = self.0.iter().map(|(_, one)| one.send(Drain { stop }));
        futures_util::future::join_all(all).await.into_iter().all(|drained| drained.unwrap_or(false))
    }

    /// Ends: nothing is written afterwards.
    pub async fn leave(&self) {
        futures_util::future::join_all(self.0.iter().map(|(_, one)| one.send(Leave))).await;
    }

    /// Starts a turn of every topic by hand; says by topic what that comes to. One that refuses keeps no other from its
    /// turn.
    pub async fn swap(&self) -> BTreeMap<String, Ordered> {
        let ordered = self.0.iter().map(|(topic, one)| async move {
            let answer = match one.send(Swap).await {
                Ok(Ok((next, term))) => Ordered { next: next.name().to_owned(), term, text: next.to_string() },
                Ok(Err(why)) => Ordered::refused(&why),
                Err(_) => Ordered::refused("it has just ended"),
            };
            (topic.clone(), answer)
        });
        futures_util::future::join_all(ordered).await.into_iter().collect()
    }
}

fn settings(job: &Job, one: &CompactedJob) -> Settings {
    // Short turns, for trying out, are looked after more often.
    let part = one.length.min(one.partner_timeout) / 20;
    let delete_lifetime = match &job.storage.place {
        Place::S3 { .. } => S3_DELETE_LIFETIME,
        Place::File { .. } => FILE_DELETE_LIFETIME,
    };
    #[cfg(debug_assertions)]
    let delete_lifetime = crate::failpoint::delete_lifetime().unwrap_or(delete_lifetime);
    Settings {
        instance: one.instance.as_str().into(),
        initial: if one.begins { Initial::Activate } else { Initial::Passivate },
        length_ms: millis(one.length),
        interval_offsets: i64::try_from(one.interval_offsets).unwrap_or(i64::MAX),
        partner_timeout_ms: millis(one.partner_timeout),
        takeover: one.takeover,
        delete_lifetime_ms: millis(delete_lifetime),
        batch_ms: millis(BATCH),
        look_every_ms: millis(part.clamp(Duration::from_millis(500), Duration::from_secs(30))),
        publish_every_ms: millis(part.clamp(Duration::from_millis(500), Duration::from_secs(60))),
        rules: Rules::default(),
    }
}
