//! The configuration, validated: every default resolved, every unit parsed, every reference followed.
//!
//! This module is what the program runs on; the others make it from what was typed, in this order:
//!
//! ```text
//! source    files and variables -> values that know their file, line and column
//! keys      every key there is, with its kind, default and text (also the source of the manual pages)
//! kind      types, units and ranges
//! layers    known and sound values; defaults under [defaults] under a job's own file
//! cluster, store, job, restore      what the values say together
//! rules     between jobs
//! load      all of it, with every finding of every file at once
//! ```
//!
//! All defaults are resolved here and nowhere else.

mod cluster;
mod compacted;
mod draft;
mod facts;
mod finding;
mod heartbeat;
mod job;
mod key;
pub mod keys;
mod kind;
mod layers;
mod load;
mod restore;
mod rules;
mod source;
mod store;
#[cfg(test)]
mod tests;

pub use compacted::CompactedJob;
pub use finding::{ConfigErrors, Finding, Layer, Origin, Severity};
pub use heartbeat::Heartbeat;
pub use key::{Fallback, Key, Kind};
pub use load::{FileKind, Inspection, Jobs, Shown, inspect, kind_of_file, load, load_job_file, load_main};
pub use restore::{ConsumerGroups, IfNotEmpty, RestoreFlags, RestoreRequest};
pub use source::job_files;

pub use crate::kafka::settings::{Isolation, KafkaConfig, Property};
pub use crate::model::avro::Codec;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;

use self::finding::Findings;
use crate::error::Error;
use crate::model::restore::Pattern;

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The main file, or where it would be.
    pub path: PathBuf,
    /// sled, spool, restore plans.
    pub state_dir: PathBuf,
    /// Where the job files are.
    pub jobs_dir: PathBuf,
    /// How long a stop may take to make durable what has been read.
    pub drain_timeout: Duration,
    /// A reload that brings a cluster or a store that cannot be reached is rejected.
    pub strict_reload: bool,
    /// Files that were edited are loaded without being asked for.
    pub watch: bool,
    /// When they have been as they are for so long.
    pub watch_settle: Duration,
    /// All queues and open objects together, in bytes.
    pub memory_budget: u64,
    /// Where metrics and health are served; `None` is off.
    pub http_listen: Option<SocketAddr>,
    /// How HTTP is protected.
    pub http: HttpProtection,
    /// The sign of life; `None` is none.
    pub heartbeat: Option<Heartbeat>,
    /// Above so many partitions none has series of its own.
    pub max_partition_series: u64,
    /// The unix socket for control.
    pub control_socket: PathBuf,
    /// Log level (an `EnvFilter` directive).
    pub log_level: String,
    /// Log format.
    pub log_format: LogFormat,
    /// Where open objects go under memory pressure.
    pub spool_dir: PathBuf,
    /// The most the spool may hold, in bytes.
    pub spool_max: u64,
    /// Clusters by name.
    pub kafka: BTreeMap<String, Arc<KafkaConfig>>,
    /// Stores by name.
    pub storage: BTreeMap<String, Arc<StorageConfig>>,
    /// Jobs in the order of their ids.
    pub jobs: Vec<Arc<Job>>,
    /// What is hardly as intended, but does not keep the program from running.
    pub warnings: Vec<Finding>,
    /// Clusters that no job uses and whose secrets cannot be read, with the reasons.
    pub unusable: BTreeMap<String, Vec<Finding>>,
}

/// The main file of an installed system.
pub const MAIN_FILE: &str = "/etc/kafka-backup/kafka-backup.toml";

impl Config {
    /// The job with this id.
    pub fn job(&self, id: &str) -> Option<&Arc<Job>> {
        self.jobs.iter().find(|job| job.id == id)
    }

    /// The cluster that an option of the command line names: a name from the main file, or `host:port[,host:port]`.
    ///
    /// # Errors
    /// [`crate::error::Exit::Config`]: there is none, it is not one, or its secrets cannot be read.
    pub fn cluster(&self, given: &str, option: &str) -> Result<Arc<KafkaConfig>, Error> {
        let mut findings = Findings::default();
        let found = self.find_cluster(given, &Origin::Named(option.to_owned()), &mut findings);
        found.ok_or_else(|| ConfigErrors(findings.sorted()).into())
    }

    fn find_cluster(&self, given: &str, at: &Origin, findings: &mut Findings) -> Option<Arc<KafkaConfig>> {
        if let Some(reasons) = self.unusable.get(given) {
            findings.0.extend(reasons.iter().cloned());
            return None;
        }
        if let Some(config) = self.kafka.get(given) {
            return Some(Arc::clone(config));
        }
        let complaint = match cluster::from_servers(given) {
            Ok(config) => return Some(Arc::new(config)),
            Err(complaint) if given.contains(':') => complaint,
            Err(_) => job::no_such("kafka", given, self.kafka.keys().map(String::as_str), &self.path),
        };
        findings.semantics(at, "kafka", complaint);
        None
    }

    /// The store that an option of the command line names: a name from the main file, or a URL
    /// (`s3://bucket/prefix?endpoint=..&region=..&path_style=true&profile=..`, `file:///path`).
    ///
    /// # Errors
    /// [`crate::error::Exit::Config`]: there is none, or it is not one.
    pub fn store(&self, given: &str, option: &str) -> Result<Arc<StorageConfig>, Error> {
        let mut findings = Findings::default();
        let found = self.find_store(given, &Origin::Named(option.to_owned()), &mut findings);
        found.ok_or_else(|| ConfigErrors(findings.sorted()).into())
    }

    fn find_store(&self, given: &str, at: &Origin, findings: &mut Findings) -> Option<Arc<StorageConfig>> {
        if let Some(config) = self.storage.get(given) {
            return Some(Arc::clone(config));
        }
        if given.contains("://") {
            return store::from_url(given, at, findings);
        }
        let complaint = job::no_such("storage", given, self.storage.keys().map(String::as_str), &self.path);
        findings.semantics(at, "storage", complaint);
        None
    }
}

/// How metrics and health are protected; with nothing of it everybody may read them who reaches the port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpProtection {
    /// TLS.
    pub tls: Option<HttpTls>,
    /// Users and bcrypt hashes of their passwords.
    pub basic_auth_file: Option<PathBuf>,
}

/// The files of a TLS server, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTls {
    /// The certificate with its chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Clients need a certificate from one of these.
    pub client_ca: Option<PathBuf>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal and in the journal, without colours where nobody sees them.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
    /// Text with the journal's priority prefix (`<6>`), without time stamps.
    Journald,
}

/// One store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConfig {
    /// Its name in the main file, or `jobs.d/NAME.toml` for one written into a job.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// The store has no conditional writes and the operator takes the risk.
    pub single_writer: bool,
}

impl StorageConfig {
    /// Whether both are the same bucket and prefix, or the same folder; the names do not tell.
    pub fn same_place(&self, other: &Self) -> bool {
        store::same_place(self, other)
    }
}

/// Where a store keeps its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A bucket.
    S3 {
        /// Its name.
        bucket: String,
        /// In front of every key, without slashes at its ends; may be empty.
        prefix: String,
        /// Region; default: what the AWS default chain says, or `us-east-1` with an endpoint.
        region: Option<String>,
        /// Profile of the AWS configuration files.
        profile: Option<String>,
        /// `http://host:port` of a proxy.
        proxy_url: Option<String>,
        /// URL of an S3-compatible server.
        endpoint: Option<String>,
        /// The bucket in the path instead of in the host name.
        path_style: bool,
    },
    /// A folder.
    File {
        /// Where it is.
        path: PathBuf,
        /// As with a bucket.
        prefix: String,
    },
}

/// A backup job.
#[derive(Debug, Clone)]
pub struct Job {
    /// The stem of its file.
    pub id: String,
    /// Its file.
    pub path: PathBuf,
    /// The source cluster.
    pub kafka: Arc<KafkaConfig>,
    /// Where the backup goes.
    pub storage: Arc<StorageConfig>,
    /// Which topics.
    pub topics: TopicSelection,
    /// Kafka clients (group members) in this process.
    pub tasks_max: u32,
    /// The consumer group.
    pub group_id: String,
    /// Static membership; empty is none.
    pub group_instance_id: String,
    /// Records per object.
    pub flush_size: u64,
    /// Encoded bytes per object.
    pub flush_bytes: u64,
    /// Age of an object since its first record.
    pub rotate_interval: Duration,
    /// Compression of the blocks.
    pub codec: Codec,
    /// Whether aborted and open transactions are read.
    pub isolation: Isolation,
    /// Where a topic begins that has never been backed up.
    pub start: Start,
    /// What a topic that was deleted and created again means.
    pub on_recreate: OnRecreate,
    /// Objects that are not ours become a read-only generation.
    pub adopt: bool,
    /// Compacted topics are copied record by record.
    pub allow_compacted: bool,
    /// Bytes per second read from Kafka; `None` is no limit.
    pub rate_limit: Option<u64>,
    /// For status and alerts.
    pub rpo_target: Duration,
    /// It is there, but does not run.
    pub paused: bool,
    /// How long what is backed up is kept.
    pub retention: Retention,
    /// Who sees to that in a bucket.
    pub lifecycle: Lifecycle,
    /// Of which consumer groups the positions are saved; never of its own.
    pub groups: GroupSelection,
    /// How often.
    pub groups_interval: Duration,
    /// What it is besides, when it is one of two instances that take turns.
    pub compacted: Option<CompactedJob>,
}

/// How long what is backed up is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// For ever.
    Keep,
    /// So many days.
    Days(u32),
    /// As long as the topic's `retention.ms`, in whole days, rounded up.
    Topic,
}

/// What is done about the lifecycle rules of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// Rules of ours are added, changed and removed.
    Manage,
    /// They are only looked at.
    Check,
    /// They are somebody else's business.
    Off,
}

/// Which consumer groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSelection {
    /// Those that match.
    pub include: Pattern,
    /// Of these, not those.
    pub exclude: Option<Pattern>,
}

impl GroupSelection {
    /// Whether a group is among them. One without a name, which very old clients have, never is: it cannot be named in
    /// requests.
    pub fn takes(&self, group: &str) -> bool {
        let matches = |pattern: &Pattern| pattern.0.is_match(group);
        !group.is_empty() && matches(&self.include) && !self.exclude.as_ref().is_some_and(matches)
    }
}

/// Which topics a job takes.
#[derive(Debug, Clone, Default)]
pub struct TopicSelection {
    /// By name.
    pub literal: Vec<String>,
    /// By pattern.
    pub include: Option<Regex>,
    /// Of those matched by the pattern, not these.
    pub exclude: Option<Regex>,
    /// The coordination topic of the job, which no pattern matches.
    pub coordination: Option<String>,
}

impl TopicSelection {
    /// Whether `topic` is taken. Patterns never match internal topics (`__*`, the coordination topic of compacted
    /// jobs, `_kafka_backup`).
    pub fn takes(&self, topic: &str) -> bool {
        if self.literal.iter().any(|name| name == topic) {
            return true;
        }
        let internal = topic.starts_with("__")
            || topic == crate::model::key::SYSTEM
            || topic == "_compacted_log_backup_coordination"
            || self.coordination.as_deref() == Some(topic);
        let matches = |regex: &Option<Regex>| regex.as_ref().is_some_and(|r| r.is_match(topic));
        !internal && matches(&self.include) && !matches(&self.exclude)
    }
}

/// Where a topic begins that has never been backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record.
    Earliest,
    /// Behind the newest record.
    Latest,
}

/// What to do with a topic that was deleted and created again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRecreate {
    /// Begin a new generation beside the old one.
    NewGeneration,
    /// Stop and say so.
    Stop,
}
