//! What all jobs of the process share, and how one of them is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{mpsc, oneshot};

use crate::compacted::{self, LaneParts, Pair};
use crate::config::{CompactedJob, Config, Job, Place};
use crate::error::{Error, Exit, Result};
use crate::kafka::admin::{Cluster, End, TIMEOUT};
use crate::kafka::consumer::GroupConsumer;
use crate::kafka::settings::ConsumerSettings;
use crate::kafka::{KafkaError, TopicPartition};
use crate::metrics;
use crate::model::key::PartitionPath;
use crate::pipeline::budget::{Budget, JobBudget};
use crate::pipeline::clusters::{Clusters, SharedCluster};
use crate::pipeline::committer::Committer;
use crate::pipeline::groups::Round;
use crate::pipeline::job::run::OfRun;
use crate::pipeline::job::{Drain, FromGroup, JobRunner, Leave, Parts, SaveGroups};
use crate::pipeline::pool::BatchPool;
use crate::pipeline::rate::RateLimit;
use crate::pipeline::resolve::{Local, Resolver, Unresolved};
use crate::pipeline::run::Run;
use crate::pipeline::spool::Spool;
use crate::pipeline::status::JobStatus;
use crate::pipeline::topics::TopicWatch;
use crate::pipeline::{Shared, Threads};
use crate::standing::Standing;
use crate::state::State;
use crate::storage::check::{StoreCheck, store_check};
use crate::storage::retry::{Backoff, retry};
use crate::storage::{Store, StoreError};

/// The share of the memory budget that librdkafka's own queues get.
const PREFETCH_SHARE: u64 = 4;
/// A partition needs at least so much of the budget.
const PARTITION_BYTES: u64 = 4 * 1024;
/// The budget must hold so many of the largest messages.
const LARGEST_MESSAGES: u64 = 4;
/// How long one step of opening a job is repeated before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest name of a file that the usual file systems take, in bytes.
const FILE_NAME_MAX: usize = 255;

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
    budget_bytes: u64,
    max_partition_series: u64,
    prefetch: Arc<Prefetch>,
    pool: Arc<BatchPool>,
    spool: Arc<Spool>,
    state: Option<State>,
    committer: Addr<Committer>,
    threads: Arc<Threads>,
    clusters: Arc<Clusters>,
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

    /// Opens `job` and starts it. With `until_caught_up` it stops at what the partitions hold now, and the receiver
    /// tells when that is durable.
    pub async fn open(&self, job: &Arc<Job>, until_caught_up: bool) -> Result<OpenJob> {
        let store = crate::storage::open(&job.storage, self.io.clone()).map_err(store_error)?;
        self.open_on(job, store, until_caught_up).await
    }

    /// The same on a store that is open already.
    pub(crate) async fn open_on(
        &self,
        job: &Arc<Job>,
        store: Arc<dyn Store>,
        until_caught_up: bool,
    ) -> Result<OpenJob> {
        let status = self.status(job);
        if job.compacted.is_some() && until_caught_up {
            let what = format!("job {}: one of two instances that take turns never has everything", job.id);
            return Err(Error::new(Exit::Config, what).hint("run it in the daemon, or without --until-caught-up"));
        }
        check_store(job, &*store).await?;
        let shared_cluster = self.cluster(job)?;
        let cluster = shared_cluster.cluster.clone();
        let cluster_id = patiently(|| cluster.cluster_id(TIMEOUT)).await?;
        let selected = select_topics(job, &cluster, until_caught_up).await?;
        self.check_topics(job, &cluster, &selected).await?;
        let partitions: usize = selected.values().map(|n| (*n).max(0) as usize).sum();
        if until_caught_up {
            await_empty_group(job, &cluster).await?;
        }
        if selected.is_empty() && !until_caught_up {
            return Err(Error::new(Exit::NotFound, format!("job {}: there is no topic for it as yet", job.id))
                .hint("create one, or correct `topics`"));
        }
        if let Some(one) = &job.compacted {
            return self
                .open_pair(
                    job,
                    one,
                    compacted::Open {
                        job: job.clone(),
                        status,
                        shared: {
                            shared_cluster.topics.add(selected.keys().map(String::as_str));
                            self.shared(job, store.clone(), shared_cluster.topics.clone())
                        },
                        store,
                        cluster: shared_cluster,
                        cluster_id,
                        topics: selected,
                    },
                )
                .await;
        }
        let (ended, reached) = oneshot::channel();
        let goal = if until_caught_up { Some(self.goal(job, &cluster, &selected).await?) } else { None };
        let topics = shared_cluster.topics.clone();
        topics.add(selected.keys().map(String::as_str));
        let shared = self.shared(job, store.clone(), topics.clone());
        let rate = shared.rate.clone();
        let (state, forks) = (self.state.clone(), shared.forks.clone());
        let local = Local { state, spool: Some(self.spool.clone()) };
        let resolver = Resolver::new(job.clone(), store, cluster, cluster_id, local, topics, forks);
        let names: BTreeSet<String> = selected.into_keys().collect();
        let (groups, events) = self.join(job, &names, partitions)?;
        let parts = Parts {
            job: job.clone(),
            shared,
            resolver,
            status: status.clone(),
            cluster: shared_cluster,
            io: self.io.clone(),
            topics: names,
            groups,
            events,
            goal,
            ended,
            run: None,
        };
        let runner = JobRunner::start_in_arbiter(&self.threads.control(), move |_| JobRunner::new(parts));
        status.solved("start");
        Ok(OpenJob { job: job.clone(), runner: Runner::Lanes(runner), status, rate, reached: Some(reached) })
    }

    async fn open_pair(&self, job: &Arc<Job>, one: &CompactedJob, open: compacted::Open) -> Result<OpenJob> {
        let (status, rate) = (open.status.clone(), open.shared.rate.clone());
        let pair = Pair::open(self, one, open).await?;
        status.solved("start");
        tracing::info!(job = %job.id, instance = one.instance, "one of two instances that take turns");
        Ok(OpenJob { job: job.clone(), runner: Runner::Pair(pair), status, rate, reached: None })
    }

    /// Starts the lanes of one run of a compacted topic's instance.
    pub(crate) fn open_run(&self, parts: &LaneParts, run: Run, of_run: OfRun) -> Result<Addr<JobRunner>> {
        let (job, shared) = (&parts.job, parts.shared.clone());
        let partitions = run.root.partitions as usize;
        // What a run has not made durable is read again: no objects are kept for it.
        let (local, forks) = (Local { state: self.state.clone(), spool: None }, shared.forks.clone());
        let (store, cluster, topics) = (parts.store.clone(), parts.cluster.clone(), shared.topics.clone());
        let resolver =
            Resolver::new(job.clone(), store, cluster.cluster.clone(), parts.cluster_id.clone(), local, topics, forks)
                .of_run(run);
        let (groups, events) = self.join(job, &BTreeSet::new(), partitions)?;
        let (ended, _) = oneshot::channel();
        let parts = Parts {
            job: job.clone(),
            shared,
            resolver,
            status: parts.status.clone(),
            cluster,
            io: self.io.clone(),
            topics: BTreeSet::from([parts.topic.clone()]),
            groups,
            events,
            goal: None,
            ended,
            run: Some(of_run),
        };
        Ok(JobRunner::start_in_arbiter(&self.threads.control(), move |_| JobRunner::new(parts)))
    }

    /// Where jobs run.
    pub(crate) fn control(&self) -> actix_rt::ArbiterHandle {
        self.threads.control()
    }

    fn shared(&self, job: &Job, store: Arc<dyn Store>, topics: Arc<TopicWatch>) -> Shared {
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
    fn cluster(&self, job: &Job) -> Result<Arc<SharedCluster>> {
        let _in_runtime = self.io.enter();
        self.clusters.get(&job.kafka).map_err(kafka_error)
    }

    fn join(
        &self,
        job: &Job,
        topics: &BTreeSet<String>,
        partitions: usize,
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
            };
            let sender = sender.clone();
            let on_event = Box::new(move |event| {
                // The job has ended when nobody listens any more.
                let _ = sender.send(FromGroup { task, event });
            });
            let name = format!("{}-{task}", job.id);
            groups.push(GroupConsumer::start(&name, &job.kafka, &settings, &topics, on_event).map_err(kafka_error)?);
        }
        Ok((groups, events))
    }

    /// What cannot work is said before anything is read.
    async fn check_topics(&self, job: &Job, cluster: &Cluster, selected: &BTreeMap<String, i32>) -> Result<()> {
        let names: Vec<String> = selected.keys().cloned().collect();
        let configs = patiently(|| cluster.topic_configs(&names, TIMEOUT)).await?;
        let setting = |topic: &str, key: &str| configs.get(topic)?.get(key)?.value.clone();
        for (topic, partitions) in selected {
            check_name(job, topic, *partitions)?;
            let policy = setting(topic, "cleanup.policy").unwrap_or_default();
            let is_compacted = policy.split(',').any(|p| p.trim() == "compact");
            // Only the mock cluster has no settings at all.
            if job.compacted.is_some() && !is_compacted && !policy.is_empty() {
                let what = format!("job {}: topic {topic} is not compacted (cleanup.policy={policy})", job.id);
                return Err(Error::new(Exit::Config, what).hint("back it up with type = \"backup\""));
            }
            if is_compacted && job.compacted.is_none() && !job.allow_compacted {
                return Err(Error::new(Exit::Config, format!("job {}: topic {topic} is compacted", job.id)).hint(
                    "a record-by-record backup of it grows for ever; write type = \"compacted\" to have one complete copy, or \
                     set allow_compacted = true to have every record all the same",
                ));
            }
            let largest: u64 = setting(topic, "max.message.bytes").and_then(|v| v.parse().ok()).unwrap_or(1024 * 1024);
            if largest.saturating_mul(LARGEST_MESSAGES) > self.budget_bytes {
                let what = format!(
                    "job {}: memory.budget is {} bytes, but topic {topic} takes messages of {largest} bytes",
                    job.id, self.budget_bytes
                );
                let needed = largest.saturating_mul(LARGEST_MESSAGES).div_ceil(1024 * 1024);
                return Err(Error::new(Exit::Config, what).hint(format!("set memory.budget to at least {needed}MiB")));
            }
        }
        let partitions: u64 = selected.values().map(|n| (*n).max(0) as u64).sum();
        if partitions * PARTITION_BYTES > self.budget_bytes {
            let what = format!(
                "job {}: memory.budget is {} bytes, too little for {partitions} partitions",
                job.id, self.budget_bytes
            );
            let needed = (partitions * PARTITION_BYTES).div_ceil(1024 * 1024);
            return Err(Error::new(Exit::Config, what).hint(format!("set memory.budget to at least {needed}MiB")));
        }
        Ok(())
    }

    /// Where all partitions end now.
    async fn goal(
        &self,
        job: &Job,
        cluster: &Cluster,
        selected: &BTreeMap<String, i32>,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        let all: Vec<_> =
            selected.iter().flat_map(|(topic, n)| (0..*n).map(|p| TopicPartition::new(topic.as_str(), p))).collect();
        // A topic that was created a moment ago has no leaders yet: one that cannot be asked is asked again.
        let ask = || async {
            let ends = cluster.offsets(&all, End::Latest, job.isolation, TIMEOUT).await?;
            ends.into_iter().map(|(p, end)| Ok((p, end?))).collect::<Result<BTreeMap<_, _>, KafkaError>>()
        };
        if all.is_empty() { Ok(BTreeMap::new()) } else { patiently(ask).await }
    }

    /// Ends all threads; nothing may be running on them.
    pub fn stop(&self) {
        self.threads.stop();
    }
}

/// What runs a job.
#[derive(Clone)]
pub enum Runner {
    /// The lanes of all its partitions.
    Lanes(Addr<JobRunner>),
    /// One of two instances that take turns.
    Pair(Pair),
}

impl Runner {
    /// Whether it is alive.
    pub fn connected(&self) -> bool {
        match self {
            Self::Lanes(runner) => runner.connected(),
            Self::Pair(pair) => pair.connected(),
        }
    }

    /// Makes durable what was read; `stop` also stops reading. `false`: not everything.
    pub async fn drain(&self, stop: bool) -> bool {
        match self {
            Self::Lanes(runner) => runner.send(Drain { stop }).await.unwrap_or(false),
            Self::Pair(pair) => pair.drain(stop).await,
        }
    }

    /// Ends: nothing is written afterwards.
    pub async fn leave(&self) {
        match self {
            Self::Lanes(runner) => _ = runner.send(Leave).await,
            Self::Pair(pair) => pair.leave().await,
        }
    }
}

/// A job that runs.
pub struct OpenJob {
    /// What it was opened with.
    pub job: Arc<Job>,
    /// What runs it.
    pub runner: Runner,
    /// How it is.
    pub status: Arc<JobStatus>,
    rate: Arc<RateLimit>,
    /// Tells when everything is durable that there was at the start of a one-shot run, or why that cannot be; and of any
    /// run when it has ended by itself.
    pub reached: Option<oneshot::Receiver<Result<(), Unresolved>>>,
}

impl OpenJob {
    /// Goes on with a definition that differs only in what holds without a restart.
    pub fn retune(&mut self, job: Arc<Job>) {
        self.status.set_rpo_target(job.rpo_target);
        if self.job.rate_limit != job.rate_limit {
            self.rate.set(job.rate_limit);
        }
        self.job = job;
    }

    /// Saves the positions of consumer groups now.
    pub async fn save_groups(&self) -> Round {
        let ended = |error: MailboxError| Round { problems: vec![error.to_string()], ..Round::default() };
        match &self.runner {
            Runner::Lanes(runner) => runner.send(SaveGroups).await.unwrap_or_else(ended),
            // It has no end to save at: its lanes save now and then.
            Runner::Pair(_) => Round::default(),
        }
    }

    /// Makes durable what was read, for at most `timeout`, then leaves the groups. `false` when time ran out: what was
    /// not durable by then is read again at the next start.
    pub async fn end(self, timeout: Duration) -> bool {
        let drained = tokio::time::timeout(timeout, self.runner.drain(true)).await;
        let drained = matches!(drained, Ok(true));
        self.runner.leave().await;
        drained
    }
}

async fn check_store(job: &Job, store: &dyn Store) -> Result<()> {
    let check =
        retry(PATIENCE, || async { store_check(store, &job.id, &uuid::Uuid::new_v4().to_string()).await }).await;
    // A job that cannot begin has no uploads that would count it.
    let counted = check.inspect_err(|error| metrics::error("s3", metrics::store_kind(error.kind)));
    match counted.map_err(store_error)? {
        StoreCheck::Conditional => Ok(()),
        StoreCheck::Ignored { why } if job.storage.single_writer => {
            tracing::warn!(job = %job.id, store = store.url(), why, "the store has no conditional writes; single_writer = true");
            Ok(())
        }
        StoreCheck::Ignored { why } => {
            let what = format!("job {}: {} cannot be used safely: {why}", job.id, store.url());
            Err(Error::new(Exit::Config, what).hint(
                "use a bucket without versioning on a store that honours If-None-Match, or set single_writer = true \
                 for the storage and make sure yourself that one process only ever writes to it",
            ))
        }
    }
}

/// Whether the objects of a topic can have names where they are to be stored.
fn check_name(job: &Job, topic: &str, partitions: i32) -> Result<()> {
    let longest = PartitionPath::normal(topic, 1, partitions.max(1) - 1).object(0);
    let file = longest.rsplit('/').next().unwrap_or_default();
    if matches!(job.storage.place, Place::File { .. }) && file.len() > FILE_NAME_MAX {
        let (length, what) = (topic.len(), format!("job {}: topic {topic} cannot be stored in a folder", job.id));
        return Err(Error::new(Exit::Config, what).hint(format!(
            "its name of {length} characters makes file names of {}, and file systems take {FILE_NAME_MAX}: \
             leave it out, or back it up to S3",
            file.len()
        )));
    }
    Ok(())
}

/// The topics a job takes now, with their partition counts. A one-shot run needs all its literal topics.
async fn select_topics(job: &Job, cluster: &Cluster, all_needed: bool) -> Result<BTreeMap<String, i32>> {
    let topics = patiently(|| cluster.topics(TIMEOUT)).await?;
    let selected: BTreeMap<_, _> =
        topics.into_iter().filter(|t| job.topics.takes(&t.name)).map(|t| (t.name, t.partitions)).collect();
    let missing: Vec<_> = job.topics.literal.iter().filter(|name| !selected.contains_key(*name)).collect();
    if all_needed && let Some(topic) = missing.first() {
        return Err(Error::new(Exit::NotFound, format!("job {}: topic {topic} does not exist", job.id))
            .hint("create it, or take it out of `topics`"));
    }
    Ok(selected)
}

/// A one-shot run is alone in its group: it waits for dead members to go, and refuses live ones.
async fn await_empty_group(job: &Job, cluster: &Cluster) -> Result<()> {
    let session = job.kafka.properties.get("session.timeout.ms").and_then(|p| p.value.parse().ok()).unwrap_or(45_000);
    let until = tokio::time::Instant::now() + Duration::from_millis(session + 3_000);
    loop {
        let members = patiently(|| cluster.group_members(&job.group_id, TIMEOUT)).await?;
        if members.is_empty() {
            return Ok(());
        }
        if tokio::time::Instant::now() > until {
            let what = format!("job {}: group {} has live members: {}", job.id, job.group_id, members.join(", "));
            return Err(Error::new(Exit::Locked, what)
                .hint("a daemon runs this job; stop it, or give this run another group_id"));
        }
        tracing::info!(job = %job.id, members = members.len(), "waiting for members of an earlier run to leave the group");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Repeats a call to the brokers for a while.
pub(crate) async fn patiently<T, Fut>(mut call: impl FnMut() -> Fut) -> Result<T>
where
    Fut: Future<Output = Result<T, KafkaError>>,
{
    use crate::kafka::Kind;
    let (began, mut backoff) = (std::time::Instant::now(), Backoff::default());
    loop {
        match call().await {
            Ok(value) => return Ok(value),
            Err(error) => {
                let transient = matches!(error.kind, Kind::Timeout | Kind::Unavailable | Kind::Other);
                if !transient || began.elapsed() > PATIENCE {
                    return Err(kafka_error(error));
                }
                tokio::time::sleep(backoff.wait()).await;
            }
        }
    }
}

/// A failed Kafka call as what a command ends with.
pub fn kafka_error(error: KafkaError) -> Error {
    use crate::kafka::Kind;
    let (exit, hint) = match error.kind {
        Kind::Auth => (Exit::Auth, "check the credentials and the ACLs of this user"),
        Kind::Config => (Exit::Config, "check the cluster's [properties]"),
        Kind::UnknownTopic => (Exit::NotFound, "check the topic's name"),
        Kind::Timeout | Kind::Unavailable => (Exit::Unavailable, "check bootstrap_servers and the network"),
        _ => return Error::new(Exit::Failed, error.to_string()),
    };
    Error::new(exit, error.to_string()).hint(hint)
}

/// A failed call to a store as what a command ends with.
pub fn store_error(error: StoreError) -> Error {
    use crate::storage::Kind;
    let (exit, hint) = match error.kind {
        Kind::Auth => (Exit::Auth, "check the credentials and the bucket's policy"),
        Kind::NoBucket => (Exit::Config, "create the bucket, or correct its name"),
        Kind::ClockSkew => (Exit::Failed, "set this machine's clock"),
        Kind::Timeout | Kind::Throttle | Kind::Unavailable => (Exit::Unavailable, "check the endpoint and the network"),
        _ => return Error::new(Exit::Failed, error.to_string()),
    };
    Error::new(exit, error.to_string()).hint(hint)
}
