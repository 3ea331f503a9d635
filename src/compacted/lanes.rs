//! The lanes of one run: the pipeline of a backup, for as long as the machine wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;

use crate::config::Job;
use crate::error::Result;
use crate::kafka::TopicPartition;
use crate::model::chain::{GENERATION_FORMAT_VERSION, GenerationRecord};
use crate::model::compacted::record::RunRecord;
use crate::model::compacted::{Name, Offsets, Progress, Reached};
use crate::pipeline::Shared;
use crate::pipeline::clusters::SharedCluster;
use crate::pipeline::job::of_run::{HowFar, OfRun};
use crate::pipeline::job::run::{AskHowFar, AtEveryEnd, GoOn};
use crate::pipeline::job::{Drain, JobRunner, Leave, Parts};
use crate::pipeline::resolver::{Local, Resolver, Run};
use crate::pipeline::status::JobStatus;
use crate::process::Process;
use crate::storage::Store;

/// How long making durable may take when the lanes are stopped. What is not durable by then is read again by whoever
/// comes next.
const STOP: Duration = Duration::from_secs(60);

/// What lanes are made of.
#[derive(Clone)]
pub struct LaneParts {
    /// The process.
    pub process: Process,
    /// The job.
    pub job: Arc<Job>,
    /// Where it says how it is.
    pub status: Arc<JobStatus>,
    /// The bucket.
    pub store: Arc<dyn Store>,
    /// The cluster of the topic.
    pub cluster: Arc<SharedCluster>,
    /// Its id.
    pub cluster_id: String,
    /// What lanes share.
    pub shared: Shared,
    /// The topic.
    pub topic: String,
}

/// The lanes of one run, running.
pub struct Lanes {
    record: RunRecord,
    runner: Addr<JobRunner>,
    lost: Arc<AtomicBool>,
    status: Arc<JobStatus>,
    at_every_end: bool,
    /// What is known of each partition, over all lanes it had.
    reached: BTreeMap<i32, Reached>,
    ends: Offsets,
}

impl Lanes {
    /// Starts the lanes of `record`; `blocked` is called when one waits for an object of another run to go.
    pub fn start(parts: &LaneParts, record: RunRecord, blocked: Box<dyn Fn() + Send>) -> Result<Self> {
        let lost = Arc::new(AtomicBool::new(false));
        let run = Run { root: Arc::new(root(&record)), lost: lost.clone() };
        let runner = open_run(parts, run, OfRun::new(&parts.topic, blocked))?;
        let (reached, ends) = (BTreeMap::new(), Offsets::new());
        Ok(Self { record, runner, lost, status: parts.status.clone(), at_every_end: true, reached, ends })
    }

    /// Its run.
    pub fn run(&self) -> &Name {
        &self.record.run
    }

    /// Whether they are alive.
    pub fn connected(&self) -> bool {
        self.runner.connected()
    }

    /// Kafka had deleted records before they could be read.
    fn lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Lanes that wait go on.
    pub fn go_on(&self) {
        self.runner.do_send(GoOn);
    }

    /// Whether objects are closed whenever the end of a partition is seen.
    pub fn at_every_end(&mut self, yes: bool) {
        if std::mem::replace(&mut self.at_every_end, yes) != yes {
            self.runner.do_send(AtEveryEnd(yes));
        }
    }

    /// Asks how far they are.
    pub fn ask(&self) -> impl Future<Output = Option<BTreeMap<i32, HowFar>>> + use<> {
        let asked = self.runner.send(AskHowFar);
        async move { asked.await.ok() }
    }

    /// Makes durable what was read; `stop` also stops reading.
    pub fn drain(&self, stop: bool) -> impl Future<Output = bool> + use<> {
        let drained = self.runner.send(Drain { stop });
        async move { drained.await.unwrap_or(false) }
    }

    /// Takes note of how far they are: the whole of it, over all lanes there were.
    pub fn note(&mut self, far: &BTreeMap<i32, HowFar>, delete_retention_ms: Option<i64>) -> Progress {
        for (partition, far) in far {
            let origin = self.record.origin(*partition);
            let known = self.reached.entry(*partition).or_insert(Reached { stored: origin, ..Reached::default() });
            known.stored = known.stored.max(far.stored.unwrap_or(origin));
            known.restorable = known.restorable.max(far.restorable);
            known.seen_end_ms = known.seen_end_ms.max(far.seen_end_ms);
            if let Some(end) = far.end {
                self.ends.insert(*partition, end);
            }
        }
        let (run, partitions, lost) = (self.record.run.clone(), self.reached.clone(), self.lost());
        Progress { run, partitions, delete_retention_ms, lost }
    }

    /// Where the acknowledged objects of each partition end, as far as known.
    pub fn stored(&self) -> Offsets {
        self.reached.iter().map(|(partition, reached)| (*partition, reached.stored)).collect()
    }

    /// What is durable of what there is: offsets below the ends of the logs, counted from where the run began.
    pub fn share(&self) -> Option<f64> {
        let whole = |p: &i32, end: i64| (end - self.record.origin(*p)).max(0);
        let all: i64 = self.ends.iter().map(|(p, end)| whole(p, *end)).sum();
        let done = |p: &i32, end: i64| {
            let reached = self.reached.get(p).map_or(0, |r| r.stored.max(r.restorable.unwrap_or(0)));
            (reached.min(end) - self.record.origin(*p)).max(0)
        };
        let done: i64 = self.ends.iter().map(|(p, end)| done(p, *end)).sum();
        (!self.ends.is_empty()).then(|| if all == 0 { 1.0 } else { done as f64 / all as f64 })
    }

    /// Stops reading, makes durable what was read, for a while, and ends. Returns where the objects end.
    pub async fn stop(mut self) -> Offsets {
        let _ = tokio::time::timeout(STOP, self.drain(true)).await;
        if let Some(far) = self.ask().await {
            self.note(&far, None);
        }
        self.leave().await;
        self.stored()
    }

    /// Ends at once.
    pub async fn leave(&self) {
        let _ = self.runner.send(Leave).await;
        for partition in self.reached.keys() {
            self.status.lost(&TopicPartition::new(self.record.topic.as_str(), *partition));
        }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        // Also when the coordinator has died: lanes that nobody looks after would go on for ever.
        self.runner.do_send(Leave);
    }
}

/// What the run's record says, in the form that lanes know.
pub(crate) fn root(record: &RunRecord) -> GenerationRecord {
    GenerationRecord {
        format_version: GENERATION_FORMAT_VERSION,
        generation: 1,
        uuid: record.run.to_string(),
        cluster_id: record.cluster_id.clone(),
        topic: record.topic.clone(),
        topic_id: record.topic_id.clone(),
        job: record.job.clone(),
        isolation: record.isolation,
        created_ms: record.started_ms,
        partitions: record.partitions,
        origins: record.origins.iter().map(|(partition, origin)| (partition.to_string(), *origin)).collect(),
        parent: None,
        forks: BTreeMap::new(),
        topic_config: BTreeMap::new(),
    }
}

/// Starts the lanes of one run of a compacted topic's instance.
fn open_run(parts: &LaneParts, run: Run, of_run: OfRun) -> Result<Addr<JobRunner>> {
    let (job, shared) = (&parts.job, parts.shared.clone());
    let partitions = run.root.partitions as usize;
    // What a run has not made durable is read again: no objects are kept for it.
    let (local, forks) = (Local { state: parts.process.state().cloned(), spool: None }, shared.forks.clone());
    let (store, cluster, topics) = (parts.store.clone(), parts.cluster.clone(), shared.topics.clone());
    let resolver =
        Resolver::new(job.clone(), store, cluster.cluster.clone(), parts.cluster_id.clone(), local, topics, forks)
            .of_run(run);
    let (groups, events) = parts.process.join(job, &BTreeSet::new(), partitions, false)?;
    let (ended, _) = oneshot::channel();
    let process = &parts.process;
    let lanes = Parts {
        job: job.clone(),
        shared,
        resolver,
        status: parts.status.clone(),
        cluster,
        io: process.io(),
        topics: BTreeSet::from([parts.topic.clone()]),
        groups,
        events,
        goal: None,
        ended,
        run: Some(of_run),
    };
    Ok(JobRunner::start_in_arbiter(&process.control(), move |_| JobRunner::new(lanes)))
}
