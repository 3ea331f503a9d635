//! What is computed at the moment somebody scrapes: gauges of jobs, topics and partitions.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Counter, Encoder, GaugeVec, Opts, Registry, TextEncoder};

use crate::inspect::verify::watch;
use crate::kafka::TopicPartition;
use crate::metrics;
use crate::model::deadline::retention_deadline_ms;
use crate::model::verify::coverage::{Verified, bad_objects};
use crate::pipeline::status::{JobState, JobStatus, PartitionStatus};
use crate::process::Process;
use crate::standing::ReloadResult;

static STARTED: LazyLock<f64> = LazyLock::new(|| seconds(SystemTime::now()));

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// Remembers when the process started, and begins to count; called once, early.
pub fn process_started() {
    LazyLock::force(&STARTED);
    metrics::initialise();
}

/// When the process started, in seconds since 1970-01-01 UTC.
pub fn started_seconds() -> f64 {
    *STARTED
}

/// The gauges of one scrape.
struct Gauges(Registry);

impl Gauges {
    fn family(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        let family = GaugeVec::new(Opts::new(name, help), labels).expect("names are literals and valid"); // literals
        self.0.register(Box::new(family.clone())).expect("each name is used once"); // literals
        family
    }

    fn single(&self, name: &str, help: &str, value: f64) {
        self.family(name, help, &[]).with_label_values(&[] as &[&str]).set(value);
    }
}

/// The whole text of `/metrics`.
pub fn metrics_text(process: &Process) -> String {
    let gauges = Gauges(Registry::new());
    process_gauges(&gauges, process);
    config_gauges(&gauges, process);
    let jobs = process.all_statuses();
    job_gauges(&gauges, &jobs, process.max_partition_series());
    verify_gauges(&gauges, &jobs);
    crate::compacted::gauges::register(&gauges.0, &jobs);
    let mut families = metrics::REGISTRY.gather();
    families.extend(gauges.0.gather());
    families.sort_by(|a, b| a.name().cmp(b.name()));
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
        tracing::error!(error = %error, "metrics cannot be written");
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn process_gauges(gauges: &Gauges, process: &Process) {
    let info = gauges.family("kafka_backup_build_info", "Which build this is.", &["version", "revision"]);
    let revision = option_env!("KAFKA_BACKUP_REVISION").unwrap_or("unknown");
    info.with_label_values(&[env!("CARGO_PKG_VERSION"), revision]).set(1.0);
    own_process(gauges);
    let (used, limit) = process.buffer();
    gauges.single("kafka_backup_buffer_bytes", "Memory of batches and open objects in use.", used as f64);
    gauges.single("kafka_backup_buffer_limit_bytes", "Memory that batches and open objects may use.", limit as f64);
    gauges.single("kafka_backup_spool_bytes", "Bytes in the spool.", process.spool_bytes() as f64);
    if let Some(state) = process.state() {
        gauges.single("kafka_backup_state_size_bytes", "Size of the local state.", state.size_bytes() as f64);
        if let Ok(fs) = rustix::fs::statvfs(state.path()) {
            let free = fs.f_bavail.saturating_mul(fs.f_frsize);
            gauges.single("kafka_backup_state_free_bytes", "Free on the disk of the local state.", free as f64);
        }
    }
}

fn config_gauges(gauges: &Gauges, process: &Process) {
    let config = process.standing.get();
    let flag = |of: bool| f64::from(u8::from(of));
    let reload = config.last_reload.as_ref().map(|last| last.result);
    let help = "0 when the last reload was rejected.";
    let good = flag(reload != Some(ReloadResult::Rejected));
    gauges.single("kafka_backup_config_last_reload_successful", help, good);
    let help = "When the configuration that runs was loaded, or found unchanged.";
    let at = config.confirmed_ms as f64 / 1000.0;
    gauges.single("kafka_backup_config_last_reload_success_timestamp_seconds", help, at);
    let help = "Counts the configurations applied since the start.";
    gauges.single("kafka_backup_config_generation", help, config.generation as f64);
    let help = "1 when the files differ from what runs.";
    gauges.single("kafka_backup_config_drift", help, flag(config.drift.is_some()));
}

/// What Prometheus' own client libraries tell of a process, from proc(5); what cannot be read is left out.
fn own_process(gauges: &Gauges) {
    gauges.single("process_start_time_seconds", "When the process started.", *STARTED);
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let status = read("status");
    let field = |name: &str| -> Option<f64> {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.split_whitespace().next()?.parse().ok()
    };
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Resident memory.", field("VmRSS").map(|kib| kib * 1024.0)),
        ("process_virtual_memory_bytes", "Virtual memory.", field("VmSize").map(|kib| kib * 1024.0)),
        ("process_threads", "Threads.", field("Threads")),
        (
            "process_open_fds",
            "Open file descriptors.",
            std::fs::read_dir("/proc/self/fd").ok().map(|d| d.count() as f64),
        ),
        ("process_max_fds", "How many file descriptors may be open.", max_fds(&read("limits"))),
    ] {
        if let Some(value) = value {
            gauges.single(name, help, value);
        }
    }
    if let Some(seconds) = cpu_seconds(&read("stat")) {
        let help = "User and system CPU time spent.";
        let counter = Counter::new("process_cpu_seconds_total", help).expect("the name is valid"); // a literal
        counter.inc_by(seconds);
        gauges.0.register(Box::new(counter)).expect("each name is used once"); // a literal
    }
}

/// The soft limit of open files in /proc/self/limits.
fn max_fds(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time in /proc/self/stat, which counts in hundredths of a second on every Linux there is.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name of the program, in parentheses, may contain anything; the fields behind it do not.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}

fn job_gauges(gauges: &Gauges, jobs: &[std::sync::Arc<JobStatus>], max_series: u64) {
    let by_state = gauges.family("kafka_backup_jobs", "Jobs by state.", &["state"]);
    for (_, name) in JobState::ALL {
        by_state.with_label_values(&[name]).set(0.0);
    }
    let target = gauges.family("kafka_backup_job_rpo_target_seconds", "The job's rpo_target.", &["backup_job"]);
    let help = "Since when the job is paused.";
    let paused = gauges.family("kafka_backup_job_paused_since_timestamp_seconds", help, &["backup_job"]);
    let drift_help = "Topics whose retention in the store is not what the job says.";
    let drift = gauges.family("kafka_backup_lifecycle_drift", drift_help, &["backup_job"]);
    let protected_help = "Everything that was visible in the topic at this time is durable; 0 is never.";
    let labels = ["backup_job", "topic"];
    let protected = gauges.family("kafka_backup_topic_protected_timestamp_seconds", protected_help, &labels);
    let lag = gauges.family("kafka_backup_topic_lag_records", "Offsets not durable yet.", &labels);
    let saved_help = "When positions of consumer groups were last saved as they were; no series where none are to be.";
    let saved_at = gauges.family("kafka_backup_groups_last_success_timestamp_seconds", saved_help, &["backup_job"]);
    let saved = gauges.family("kafka_backup_groups_saved", "Groups whose positions are saved.", &["backup_job"]);
    let deadline_help = "When Kafka may delete the oldest record that is not durable; absent when none waits or Kafka \
                         keeps them for ever.";
    let deadline = gauges.family("kafka_backup_topic_retention_deadline_timestamp_seconds", deadline_help, &labels);
    let all: Vec<_> = jobs.iter().map(|job| (job, job.partitions())).collect();
    for (job, partitions) in &all {
        if let Some((at_ms, groups)) = job.groups() {
            saved_at.with_label_values(&[&job.job.id]).set(at_ms as f64 / 1000.0);
            saved.with_label_values(&[&job.job.id]).set(groups as f64);
        }
        for (_, name) in JobState::ALL.iter().filter(|(state, _)| *state == job.state()) {
            by_state.with_label_values(&[name]).inc();
        }
        target.with_label_values(&[&job.job.id]).set(job.rpo_target().as_secs_f64());
        let retention = job.retention();
        if retention.checked_ms > 0 {
            drift.with_label_values(&[&job.job.id]).set(retention.drift as f64);
        }
        if let Some(pause) = job.paused() {
            paused.with_label_values(&[&job.job.id]).set(pause.since_ms as f64 / 1000.0);
        }
        for (topic, (at, behind)) in topics(job, partitions) {
            protected.with_label_values(&[&job.job.id, &topic]).set(at);
            if let Some(behind) = behind {
                lag.with_label_values(&[&job.job.id, &topic]).set(behind as f64);
            }
        }
        for (topic, at_ms) in deadlines(job, partitions) {
            deadline.with_label_values(&[&job.job.id, topic]).set(at_ms as f64 / 1000.0);
        }
    }
    let series: usize = all.iter().map(|(_, partitions)| partitions.len()).sum();
    let suppressed = series as u64 > max_series;
    let help = "1 when there are too many partitions for series of their own.";
    gauges.single("kafka_backup_metrics_partition_series_suppressed", help, f64::from(u8::from(suppressed)));
    if !suppressed {
        partition_gauges(gauges, &all);
    }
}

/// Per topic: when Kafka may delete the first record that is not durable, in milliseconds.
fn deadlines<'p>(job: &JobStatus, partitions: &'p BTreeMap<TopicPartition, PartitionStatus>) -> BTreeMap<&'p str, i64> {
    let mut earliest: BTreeMap<&str, i64> = BTreeMap::new();
    for (partition, status) in partitions {
        let retention = job.retention_ms(&partition.topic);
        if let Some(at) = retention_deadline_ms(status.protected.at_ms(), status.lag(), retention) {
            earliest.entry(&partition.topic).and_modify(|old| *old = at.min(*old)).or_insert(at);
        }
    }
    earliest
}

/// Per topic: the oldest protected time of its partitions in seconds (0: one of them never), and the sum of their lags.
pub fn topics(
    job: &JobStatus,
    partitions: &BTreeMap<TopicPartition, PartitionStatus>,
) -> BTreeMap<String, (f64, Option<i64>)> {
    let mut topics: BTreeMap<String, (f64, Option<i64>)> = BTreeMap::new();
    for (partition, status) in partitions {
        let at = status.protected.at_ms().map_or(0.0, |ms| ms as f64 / 1000.0);
        let topic = topics.entry(partition.topic.to_string()).or_insert((at, Some(0)));
        topic.0 = topic.0.min(at);
        topic.1 = topic.1.zip(status.lag()).map(|(sum, lag)| sum + lag);
    }
    for (topic, at_ms) in job.topics_without_partitions() {
        topics.entry(topic).or_insert((at_ms.map_or(0.0, |ms| ms as f64 / 1000.0), None));
    }
    topics
}

/// What verifications have shown of each job, wherever they ran.
fn verify_gauges(gauges: &Gauges, jobs: &[std::sync::Arc<JobStatus>]) {
    let run_help = "When the last verification of this mode ended.";
    let last_run = gauges.family("kafka_backup_verify_last_run_timestamp_seconds", run_help, &["backup_job", "mode"]);
    let success_help = "When a verification of this mode last found everything sound; no series before the first.";
    let success =
        gauges.family("kafka_backup_verify_last_success_timestamp_seconds", success_help, &["backup_job", "mode"]);
    let bad = gauges.family(
        "kafka_backup_verify_bad_objects",
        "Bad objects that verifications found.",
        &["backup_job", "reason"],
    );
    let coverage_help = "Share of the stored bytes that was read and decoded in the last rotation of verifications.";
    let coverage = gauges.family("kafka_backup_verify_data_coverage_ratio", coverage_help, &["backup_job"]);
    for job in jobs {
        let (id, records) = (job.job.id.as_str(), watch::known(&job.job.id));
        for record in &records {
            let labels = [id, record.mode.name()];
            last_run.with_label_values(&labels).set(record.last_run_ms as f64 / 1000.0);
            if let Some(ms) = record.last_success_ms {
                success.with_label_values(&labels).set(ms as f64 / 1000.0);
            }
        }
        for (reason, count) in bad_objects(&records) {
            bad.with_label_values(&[id, reason.name()]).set(count as f64);
        }
        coverage.with_label_values(&[id]).set(records.iter().map(Verified::coverage).fold(0.0, f64::max));
    }
}

fn partition_gauges(gauges: &Gauges, all: &[(&std::sync::Arc<JobStatus>, BTreeMap<TopicPartition, PartitionStatus>)]) {
    let family = |name: &str, help: &str| gauges.family(name, help, &["backup_job", "topic", "partition"]);
    let protected = family(
        "kafka_backup_partition_protected_timestamp_seconds",
        "Everything visible at this time is durable; 0 is never.",
    );
    let newest =
        family("kafka_backup_partition_newest_record_timestamp_seconds", "The newest durable record's own timestamp.");
    let durable = family("kafka_backup_partition_durable_offset", "Everything below this offset is durable.");
    let end = family("kafka_backup_partition_end_offset", "Where the log ended when it was last asked.");
    let lag = family("kafka_backup_partition_lag_records", "Offsets not durable yet.");
    for (job, partitions) in all {
        for (partition, status) in partitions {
            let number = partition.partition.to_string();
            let labels = [job.job.id.as_str(), &*partition.topic, number.as_str()];
            protected.with_label_values(&labels).set(status.protected.at_ms().map_or(0.0, |ms| ms as f64 / 1000.0));
            if let Some(progress) = &status.progress {
                durable.with_label_values(&labels).set(progress.covered() as f64);
                if let Some(ms) = progress.newest_timestamp() {
                    newest.with_label_values(&labels).set(ms as f64 / 1000.0);
                }
            }
            if let Some(offset) = status.end_offset {
                end.with_label_values(&labels).set(offset as f64);
            }
            if let Some(behind) = status.lag() {
                lag.with_label_values(&labels).set(behind as f64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_read() {
        assert_eq!(
            max_fds("Limit  Soft Limit  Hard\nMax open files            1024                 4096  files\n"),
            Some(1024.0)
        );
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 9 9 20 0 1 0 100 1 2 3";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds(""), None);
    }
}
