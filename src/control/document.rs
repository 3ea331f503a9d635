//! How a daemon and its jobs are, as one document: the answer to `status`, and `/-/status`.
//!
//! Fields may be added, never renamed. Times ending in `_ms` are milliseconds since 1970-01-01 UTC.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::now_ms;
use crate::model::standing::Safety;
use crate::pipeline::shown::JobRetention;
use crate::pipeline::shown::TurnStatus;
use crate::pipeline::status::{JobState, JobStatus, PartitionStatus, Paused, Problem};
use crate::process::Process;
use crate::standing::ConfigStanding;

/// The document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusDocument {
    /// 1.
    pub schema_version: u32,
    /// Of the daemon.
    pub version: String,
    /// When it started, in seconds since 1970-01-01 UTC.
    pub started_seconds: f64,
    /// When this was written.
    pub now_ms: i64,
    /// Every job is within its target, and none needs the operator. Paused jobs are not judged.
    pub ok: bool,
    /// How the configuration stands.
    pub config: ConfigStanding,
    /// The jobs, in the order of their ids.
    pub jobs: Vec<JobDocument>,
}

/// One job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobDocument {
    /// Its id.
    pub job: String,
    /// How it is.
    pub state: JobState,
    /// When this run of it began; a reload that does not touch the job does not change it.
    pub began_ms: i64,
    /// How old what is not yet safe may be, in seconds; absent while nothing is known.
    pub rpo_seconds: Option<f64>,
    /// What it should be at most.
    pub rpo_target_seconds: f64,
    /// It is more.
    pub over_rpo: bool,
    /// Everything visible at this time is durable.
    pub protected_ms: Option<i64>,
    /// Offsets that are not durable yet; absent while that is not known of all partitions.
    pub lag_records: Option<i64>,
    /// When the last object became durable, in this run.
    pub last_commit_ms: Option<i64>,
    /// Since when and why it is paused.
    pub paused: Option<Paused>,
    /// What is wrong, by subject.
    pub problems: BTreeMap<String, Problem>,
    /// What was wrong last, whether it still is or not.
    pub last_error: Option<Problem>,
    /// How long what is backed up is kept, against how long it should be.
    #[serde(default)]
    pub retention: JobRetention,
    /// By topic.
    pub topics: BTreeMap<String, TopicDocument>,
    /// By topic and number.
    pub partitions: Vec<PartitionDocument>,
    /// The instance of each compacted topic; empty for other jobs.
    #[serde(default)]
    pub compacted: BTreeMap<String, TurnStatus>,
    /// Whose positions are saved; absent where that has not happened in this run.
    pub consumer_groups: Option<GroupsDocument>,
}

/// The positions of consumer groups that a job has saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupsDocument {
    /// When.
    pub saved_ms: i64,
    /// Of how many groups.
    pub groups: usize,
}

/// One topic of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopicDocument {
    /// As the metric: the oldest of its partitions, 0 is never.
    pub protected_timestamp_seconds: f64,
    /// The sum over its partitions.
    pub lag_records: Option<i64>,
}

/// One partition of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartitionDocument {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// Everything below is durable; absent while it is not being backed up.
    pub durable_offset: Option<i64>,
    /// Where the log ended when it was last asked.
    pub end_offset: Option<i64>,
    /// What lies between.
    pub lag_records: Option<i64>,
    /// Everything visible at this time is durable.
    pub protected_timestamp_ms: Option<i64>,
}

impl StatusDocument {
    /// The document of this moment.
    pub fn of(process: &Process) -> Self {
        let now = now_ms();
        let jobs: Vec<_> = process.all_statuses().iter().map(|status| JobDocument::of(status, now)).collect();
        let mut document = Self {
            schema_version: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_seconds: crate::scrape::started_seconds(),
            now_ms: now,
            ok: true,
            config: process.standing.get(),
            jobs,
        };
        document.judge();
        document
    }

    /// Only this job is of interest.
    pub fn only(&mut self, job: &str) {
        self.jobs.retain(|each| each.job == job);
        self.judge();
    }

    fn judge(&mut self) {
        let bad = |job: &JobDocument| job.state == JobState::Failed || job.over_rpo && job.state != JobState::Paused;
        self.ok = !self.jobs.iter().any(bad);
    }
}

impl JobDocument {
    fn of(status: &JobStatus, now: i64) -> Self {
        let partitions = status.partitions();
        let topics: BTreeMap<_, _> = crate::scrape::topics(status, &partitions)
            .into_iter()
            .map(|(topic, (at, lag_records))| (topic, TopicDocument { protected_timestamp_seconds: at, lag_records }))
            .collect();
        let oldest = topics.values().map(|topic| topic.protected_timestamp_seconds).reduce(f64::min);
        let protected_ms = oldest.filter(|at| *at > 0.0).map(|at| (at * 1000.0) as i64);
        let target_ms = status.rpo_target().as_millis() as i64; // at most a year
        let safety = Safety { protected_ms, began_ms: status.began_ms, target_ms };
        let lags: Option<Vec<i64>> = topics.values().map(|topic| topic.lag_records).collect();
        Self {
            job: status.job.id.clone(),
            state: status.state(),
            began_ms: status.began_ms,
            rpo_seconds: safety.age_ms(now).map(|ms| ms as f64 / 1000.0),
            rpo_target_seconds: status.rpo_target().as_secs_f64(),
            over_rpo: safety.over_target(now),
            protected_ms,
            lag_records: lags.filter(|lags| !lags.is_empty()).map(|lags| lags.into_iter().sum()),
            last_commit_ms: partitions.values().filter_map(|p| p.progress.as_ref()?.durable_ms()).max(),
            paused: status.paused(),
            problems: status.problems(),
            retention: status.retention(),
            last_error: status.last_problem(),
            topics,
            partitions: partitions.iter().map(|(p, status)| PartitionDocument::of(p, status)).collect(),
            compacted: status.turns(),
            consumer_groups: status.groups().map(|(saved_ms, groups)| GroupsDocument { saved_ms, groups }),
        }
    }
}

impl PartitionDocument {
    fn of(partition: &crate::kafka::TopicPartition, status: &PartitionStatus) -> Self {
        Self {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            durable_offset: status.progress.as_ref().map(|p| p.covered()),
            end_offset: status.end_offset,
            lag_records: status.lag(),
            protected_timestamp_ms: status.protected.at_ms(),
        }
    }
}
