//! What all jobs of the process share: memory, threads, local state, clients, and how each job is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use actix::prelude::*;
use tokio::sync::mpsc;

use crate::config::{Config, Job};
use crate::error::{Error, Exit, Result};
use crate::kafka::consumer::GroupConsumer;
use crate::kafka::settings::ConsumerSettings;
use crate::metrics;
use crate::pipeline::budget::{Budget, JobBudget};
use crate::pipeline::clusters::{Clusters, SharedCluster};
use crate::pipeline::committer::Committer;
use crate::pipeline::job::FromGroup;
use crate::pipeline::pool::BatchPool;
use crate::pipeline::rate::RateLimit;
use crate::pipeline::spool::Spool;
use crate::pipeline::status::JobStatus;
use crate::pipeline::topics::TopicWatch;
use crate::pipeline::{Shared, Threads};
use crate::standing::Standing;
use crate::state::State;
use crate::storage::Store;
use crate::storage::stores::Stores;

/// The share of the memory budget that librdkafka's own queues get.
const PREFETCH_SHARE: u64 = 4;

/// The status of every job, for whoever shows it.
pub type Statuses = Arc<Mutex<BTreeMap<String, Arc<JobStatus>>>>;

/// How much librdkafka's queues may hold. A client that has begun keeps what it was given; who begins later gets the
/// share of then.
#[derive(Debug)]
struct Prefetch {
    total: u64,
    each: AtomicU64,
}

impl Prefetch {
    fn new(total: u64, jobs: &[Arc<Job>]) -> Self {
        let prefetch = Self { total, each: AtomicU64::new(total) };
        prefetch.share_among(jobs);
        prefetch
    }

    fn share_among(&self, jobs: &[Arc<Job>]) {
        let clients: u64 = jobs.iter().map(|job| u64::from(job.tasks_max)).sum();
        self.each.store(self.total / clients.max(1), Ordering::Relaxed);
    }

    fn of_a_client(&self) -> u64 {
        self.each.load(Ordering::Relaxed)
    }
}

/// What all jobs of the process share.
#[derive(Clone)]
pub struct Process {
    budget: Arc<Budget>,
    pub(crate) budget_bytes: u64,
    max_partition_series: u64,
    prefetch: Arc<Prefetch>,
    pool: Arc<BatchPool>,
    pub(crate) spool: Arc<Spool>,
    state: Option<State>,
    committer: Addr<Committer>,
    threads: Arc<Threads>,
    clusters: Arc<Clusters>,
    stores: Arc<Stores>,
    io: tokio::runtime::Handle,
    /// What every job is doing.
    pub statuses: Statuses,
    /// How the configuration stands.
    pub standing: Arc<Standing>,
}

impl Process {
    /// Opens state and spool and starts the threads, for `config`'s jobs. `io` is where requests run.
    pub fn start(config: &Config, jobs: &[Arc<Job>], io: tokio::runtime::Handle) -> Result<Self> {
        let state = State::open(&config.state_dir)?;
        let spool = Spool::open(&config.spool_dir, config.spool_max).map_err(|e| {
            let what = format!("spool directory {}", config.spool_dir.display());
            Error::new(Exit::Failed, what).because(e).hint("spool.dir must be a folder this user may write to")
        })?;
        let prefetch = config.memory_budget / PREFETCH_SHARE;
        let budget = Budget::new(config.memory_budget - prefetch, jobs.len());
        io.spawn(budget.clone().relieve());
        io.spawn(budget.clone().keep_settled());
        let threads = Arc::new(Threads::start());
        let committer = Committer::start_in_arbiter(&threads.commit(), {
            let state = state.clone();
            move |_| Committer::new(Some(state))
        });
        Ok(Self {
            budget,
            budget_bytes: config.memory_budget,
            max_partition_series: config.max_partition_series,
            prefetch: Arc::new(Prefetch::new(prefetch, jobs)),
            pool: Arc::default(),
            spool,
            state: Some(state),
            committer,
            threads,
            clusters: Arc::default(),
            stores: Arc::default(),
            io,
            statuses: Statuses::default(),
            standing: Arc::new(Standing::new(&config.path, &config.jobs_dir)),
        })
    }

    /// These are the jobs from now on: memory is divided among them.
    pub fn share_among(&self, jobs: &[Arc<Job>]) {
        self.budget.share_among(jobs.len());
        self.prefetch.share_among(jobs);
    }

    /// Bytes of batches and open objects in use, and how many may be.
    pub fn buffer(&self) -> (u64, u64) {
        self.budget.usage()
    }

    /// Above so many partitions none has series of its own.
    pub fn max_partition_series(&self) -> u64 {
        self.max_partition_series
    }

    /// Bytes in the spool.
    pub fn spool_bytes(&self) -> u64 {
        self.spool.used()
    }

    /// A number that differs as soon as anything was made durable or any job has ended.
    pub fn progress(&self) -> (usize, i64) {
        let all = self.all_statuses();
        let durable = all.iter().flat_map(|job| job.partitions().into_values());
        let sum = durable.filter_map(|p| Some(p.progress?.durable_next())).fold(0, i64::wrapping_add);
        (all.len(), sum)
    }

    /// The actor that writes down what is durable, to see whether it answers.
    pub fn committer(&self) -> &Addr<Committer> {
        &self.committer
    }

    /// Where requests run.
    pub fn io(&self) -> tokio::runtime::Handle {
        self.io.clone()
    }

    /// Where the local state is, for metrics.
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// The status of `job`, from now on shown with the others; a new one where the definition is another one.
    pub fn status(&self, job: &Arc<Job>) -> Arc<JobStatus> {
        let mut all = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(&job.id) {
            Some(status) if Arc::ptr_eq(&status.job, job) => status.clone(),
            _ => {
                let status = JobStatus::new(job.clone());
                status.remember(self.state.as_ref().map(|state| state.protected(&job.id)).unwrap_or_default());
                all.insert(job.id.clone(), status.clone());
                status
            }
        }
    }

    /// The job is not shown any more, nor are its metrics.
    pub fn forget(&self, job: &str) {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).remove(job);
        metrics::forget_job(job);
    }

    /// The statuses of all jobs, in the order of their ids.
    pub fn all_statuses(&self) -> Vec<Arc<JobStatus>> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Where jobs run.
    pub(crate) fn control(&self) -> actix_rt::ArbiterHandle {
        self.threads.control()
    }

    /// What the lanes of `job` share.
    pub(crate) fn shared(&self, job: &Job, store: Arc<dyn Store>, topics: Arc<TopicWatch>) -> Shared {
        let budget: JobBudget = self.budget.job();
        Shared {
            store,
            budget,
            pool: self.pool.clone(),
            rate: Arc::new(RateLimit::new(job.rate_limit)),
            spool: self.spool.clone(),
            topics,
            forks: Arc::default(),
            committer: self.committer.clone(),
            threads: self.threads.clone(),
        }
    }

    /// The cluster of `job`, shared with the other jobs that are on it.
    pub(crate) fn cluster(&self, job: &Job) -> Result<Arc<SharedCluster>> {
        let _in_runtime = self.io.enter();
        self.clusters.get(&job.kafka).map_err(Error::from)
    }

    /// The store of `job`, shared with the other jobs that begin there at about the same time.
    pub(crate) fn store(&self, job: &Job) -> Result<Arc<dyn Store>> {
        self.stores.open(&job.storage, self.io.clone()).map_err(Error::from)
    }

    /// Has `job` join its consumer group, as many times as it has tasks. `patient`: see [`ConsumerSettings`].
    pub(crate) fn join(
        &self,
        job: &Job,
        topics: &BTreeSet<String>,
        partitions: usize,
        patient: bool,
    ) -> Result<(Vec<Arc<GroupConsumer>>, mpsc::UnboundedReceiver<FromGroup>)> {
        let (sender, events) = mpsc::unbounded_channel();
        let topics: Vec<String> = topics.iter().cloned().collect();
        let mut groups = Vec::new();
        // A one-shot run of no topic at all has nobody to read it; there is no subscription to nothing either.
        let tasks = if topics.is_empty() && job.compacted.is_none() { 0 } else { job.tasks_max as usize };
        for task in 0..tasks {
            let settings = ConsumerSettings {
                group_id: job.group_id.clone(),
                group_instance_id: match job.group_instance_id.as_str() {
                    "" => String::new(),
                    id if job.tasks_max > 1 => format!("{id}-{task}"),
                    id => id.to_owned(),
                },
                isolation: job.isolation,
                prefetch_bytes: self.prefetch.of_a_client(),
                partitions: partitions.div_ceil(job.tasks_max as usize),
                patient,
            };
            let sender = sender.clone();
            let on_event = Box::new(move |event| {
                // The job has ended when nobody listens any more.
                let _ = sender.send(FromGroup { task, event });
            });
            let name = format!("{}-{task}", job.id);
            groups.push(GroupConsumer::start(&name, &job.kafka, &settings, &topics, on_event)?);
        }
        Ok((groups, events))
    }

    /// Ends all threads; nothing may be running on them.
    pub fn stop(&self) {
        self.threads.stop();
    }
}
