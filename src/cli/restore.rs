//! `restore`: puts topics back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Context, help, runtime};
use crate::config::{Config, RestoreFlags, RestoreRequest};
use crate::error::{Error, Exit, Result};
use crate::model::verify::ExpiryOf;
use crate::restore::stop::Stop;
use crate::restore::{self, Restore, gather, plan_file};
use crate::storage;

/// Put topics back into a cluster
///
/// What to restore is said in a file, by options, or both; options win. Nothing is written before everything has been
/// checked, and the same restore started again goes on where the target ends.
#[derive(Debug, clap::Args)]
#[command(after_long_help = help(
    "  kafka-backup restore --storage main --kafka dr --topics orders,payments:payments-copy\n  \
       kafka-backup restore --storage s3://bucket/prefix --kafka broker1:9092 --topics orders --dry-run\n  \
       kafka-backup restore --storage main --kafka dr --topics orders --until 2026-11-01T00:00:00Z\n  \
       kafka-backup restore --resume /var/lib/kafka-backup/restores/0123456789abcdef.json\n  \
       kafka-backup restore /etc/kafka-backup/restore.d/orders.toml --json"
))]
pub struct Args {
    /// A file with the keys of kafka-backup-restore(5)
    pub file: Option<PathBuf>,
    /// Where the backup is: a name from the main file, or a URL (s3://bucket/prefix?endpoint=URL, file:///path)
    #[arg(long, value_name = "NAME|URL")]
    pub storage: Option<String>,
    /// The target cluster: a name from the main file, or host:port[,host:port]
    #[arg(long, value_name = "NAME|SERVERS")]
    pub kafka: Option<String>,
    /// Which topics: source, or source:target
    #[arg(long, value_delimiter = ',', value_name = "TOPIC[:TARGET],...")]
    pub topics: Vec<String>,
    /// Besides these, all topics of the backup that match
    #[arg(long, value_name = "REGEX")]
    pub topics_regex: Option<String>,
    /// Names of targets that are not given, for example s/^/dr-/
    #[arg(long, value_name = "s/PATTERN/REPLACEMENT/")]
    pub rename: Option<String>,
    /// Partitions restored at the same time [default: 4]
    #[arg(long, value_name = "N")]
    pub tasks_max: Option<u32>,
    /// Only these partitions of the sources [default: all]
    #[arg(long, value_delimiter = ',', value_name = "TOPIC/PARTITION,...")]
    pub partitions: Vec<String>,
    /// Only records with timestamps from this time on (RFC 3339), each record by its own
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Only records with timestamps before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Of these partitions of the sources only records from this offset on
    #[arg(long, value_delimiter = ',', value_name = "TOPIC/PARTITION=OFFSET,...")]
    pub from_offset: Vec<String>,
    /// Of these partitions of the sources only records before this offset
    #[arg(long, value_delimiter = ',', value_name = "TOPIC/PARTITION=OFFSET,...")]
    pub until_offset: Vec<String>,
    /// Which generation [default: the newest, with what its parents hold below it]
    #[arg(long, value_name = "N")]
    pub generation: Option<u32>,
    /// Which instance of compacted topics [default: the newest complete snapshot]
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// Create targets that do not exist, with the partition counts of the sources [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub create_topics: Option<bool>,
    /// Replication factor of topics that are created [default: the broker's]
    #[arg(long, value_name = "N")]
    pub replication_factor: Option<u32>,
    /// What to do when a target holds records: refuse or append; started again, the latter appends everything once more
    /// [default: refuse]
    #[arg(long, value_name = "WHAT")]
    pub if_not_empty: Option<String>,
    /// Allow the source's own topic on the source's own cluster
    #[arg(long)]
    pub in_place: bool,
    /// At the end give the targets the settings of their sources
    #[arg(long)]
    pub apply_topic_config: bool,
    /// Where the plan is written [default: STATE_DIR/restores/ID.json]
    #[arg(long, value_name = "FILE")]
    pub plan: Option<String>,
    /// Go on with the unfinished restore that this plan is of; what it asked for is taken from the plan
    #[arg(
        long,
        value_name = "PLAN",
        conflicts_with_all = [
            "file", "topics", "topics_regex", "rename", "partitions", "generation", "instance", "from", "until", "from_offset",
            "until_offset", "if_not_empty", "plan",
        ]
    )]
    pub resume: Option<PathBuf>,
    /// What to do with the offsets of consumer groups: none, plan (show them translated) or apply [default: none]
    #[arg(long, value_name = "WHAT")]
    pub consumer_groups: Option<String>,
    /// Only with the consumer groups that match
    #[arg(long, value_name = "REGEX")]
    pub groups_regex: Option<String>,
    /// Not with those that match
    #[arg(long, value_name = "REGEX")]
    pub groups_exclude_regex: Option<String>,
    /// Bytes per second read from the storage, for example 50MiB/s [default: no limit]
    #[arg(long, value_name = "RATE")]
    pub rate_limit: Option<String>,
    /// Show what would be done, and do nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// How often progress is shown; 0s is only on SIGUSR1 [default: every second on a terminal, else every minute]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub progress_interval: Option<Duration>,
    /// Print JSON, one object a line, the last one a summary
    #[arg(long)]
    pub json: bool,
}

impl Args {
    /// What is asked for by file and options together.
    ///
    /// # Errors
    /// [`Exit::Config`] with everything that is wrong; [`Exit::NotFound`] without the plan to go on with.
    pub fn request(&self, config: &Config) -> Result<RestoreRequest> {
        let mut flags = RestoreFlags::default();
        if let Some(path) = &self.resume {
            let missing = || Error::new(Exit::NotFound, format!("there is no plan {}", path.display()));
            flags.words(&plan_file::read(path)?.ok_or_else(missing)?.request, "--resume");
            flags.text("plan", "--resume", Some(&std::path::absolute(path).unwrap_or(path.clone()).to_string_lossy()));
        }
        flags.text("storage", "--storage", self.storage.as_deref());
        flags.text("kafka", "--kafka", self.kafka.as_deref());
        flags.list("topics", "--topics", &self.topics);
        flags.text("topics_regex", "--topics-regex", self.topics_regex.as_deref());
        flags.text("rename", "--rename", self.rename.as_deref());
        flags.count("tasks_max", "--tasks-max", self.tasks_max);
        flags.list("partitions", "--partitions", &self.partitions);
        flags.text("from", "--from", self.from.as_deref());
        flags.text("until", "--until", self.until.as_deref());
        flags.offsets("from_offset", "--from-offset", &self.from_offset);
        flags.offsets("until_offset", "--until-offset", &self.until_offset);
        flags.text("instance", "--instance", self.instance.as_deref());
        flags.count("generation", "--generation", self.generation);
        flags.choice("create_topics", "--create-topics", self.create_topics);
        flags.count("replication_factor", "--replication-factor", self.replication_factor);
        flags.text("if_not_empty", "--if-not-empty", self.if_not_empty.as_deref());
        flags.flag("in_place", "--in-place", self.in_place);
        flags.flag("apply_topic_config", "--apply-topic-config", self.apply_topic_config);
        flags.text("plan", "--plan", self.plan.as_deref());
        if self.consumer_groups.as_deref() == Some("none") {
            // The plan that is gone on with may say with which.
            flags.remove("groups_regex");
            flags.remove("groups_exclude_regex");
        }
        flags.text("consumer_groups", "--consumer-groups", self.consumer_groups.as_deref());
        flags.text("groups_regex", "--groups-regex", self.groups_regex.as_deref());
        flags.text("groups_exclude_regex", "--groups-exclude-regex", self.groups_exclude_regex.as_deref());
        flags.text("rate_limit", "--rate-limit", self.rate_limit.as_deref());
        flags.flag("dry_run", "--dry-run", self.dry_run);
        let request = RestoreRequest::load(config, self.file.as_deref(), &flags)?;
        Ok(RestoreRequest { resume: self.resume.is_some(), ..request })
    }
}

/// Restores.
///
/// # Errors
/// What keeps it from beginning, or stopped it.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    let config = context.load_leniently()?;
    let request = args.request(&config)?;
    let expiry = super::verify::expiry(Arc::new(config), request.storage.place.clone());
    put_back(request, expiry, args.json, args.progress_interval)
}

/// Runs a restore on a runtime of its own.
pub(super) fn put_back(
    request: RestoreRequest,
    expiry: ExpiryOf,
    json: bool,
    progress_interval: Option<Duration>,
) -> Result<Exit> {
    let stop = Stop::on_signals()?;
    let runtime = runtime()?;
    let store = storage::open_existing(&request.storage, runtime.handle().clone()).map_err(gather::failed)?;
    let restore = Restore { expiry, progress_interval, ..Restore::from_request(request, store, json) };
    runtime.block_on(restore::run(restore, stop))
}
