//! How a job is opened, and an open job.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;

use super::admission::{await_empty_group, check_store, check_topics, goal, select_topics};
use crate::compacted::{self, Pair};
use crate::config::{CompactedJob, Job};
use crate::error::{Error, Exit, Result};
use crate::kafka::admin::TIMEOUT;
use crate::kafka::patience::patiently;
use crate::pipeline::groups::Round;
use crate::pipeline::job::{Drain, JobRunner, Leave, Parts, SaveGroups};
use crate::pipeline::rate::RateLimit;
use crate::pipeline::resolver::{Local, Resolver, Unresolved};
use crate::pipeline::status::JobStatus;
use crate::process::Process;
use crate::storage::Store;

impl Process {
    /// Opens `job` and starts it. With `until_caught_up` it stops at what the partitions hold now, and the receiver
    /// tells when that is durable.
    pub async fn open(&self, job: &Arc<Job>, until_caught_up: bool) -> Result<OpenJob> {
        let store = self.store(job)?;
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
        check_topics(job, &cluster, &selected, self.budget_bytes).await?;
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
        let goal = if until_caught_up { Some(goal(job, &cluster, &selected).await?) } else { None };
        let topics = shared_cluster.topics.clone();
        topics.add(selected.keys().map(String::as_str));
        let shared = self.shared(job, store.clone(), topics.clone());
        let rate = shared.rate.clone();
        let (state, forks) = (self.state().cloned(), shared.forks.clone());
        let local = Local { state, spool: Some(self.spool.clone()) };
        let resolver = Resolver::new(job.clone(), store, cluster, cluster_id, local, topics, forks);
        let names: BTreeSet<String> = selected.into_keys().collect();
        let (groups, events) = self.join(job, &names, partitions, goal.is_none())?;
        let parts = Parts {
            job: job.clone(),
            shared,
            resolver,
            status: status.clone(),
            cluster: shared_cluster,
            io: self.io(),
            topics: names,
            groups,
            events,
            goal,
            ended,
            run: None,
        };
        let runner = JobRunner::start_in_arbiter(&self.control(), move |_| JobRunner::new(parts));
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
