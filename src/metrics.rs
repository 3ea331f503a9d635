//! Every metric of the process, in one registry, with the names that alert rules and dashboards are written against.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use prometheus::{GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

/// What `/metrics` shows.
pub static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::new);

/// Registers a metric once; a name registered twice is a bug that a unit test finds.
fn register<M: prometheus::core::Collector + Clone + 'static>(metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("metric names are literals and valid");
    REGISTRY.register(Box::new(metric.clone())).expect("each metric is registered once");
    metric
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let counters = register(IntCounterVec::new(Opts::new(name, help), labels));
    if labels.contains(&JOB) {
        forgotten_with_job(&counters);
    }
    counters
}

/// The label that names a job. Prometheus itself owns `job`.
const JOB: &str = "backup_job";

/// Removes the series of one job from one metric.
type Forget = Box<dyn Fn(&str) + Send>;

static OF_JOBS: LazyLock<Mutex<Vec<Forget>>> = LazyLock::new(Mutex::default);

/// The series of `metric` that carry the label of a job go away with the job.
fn forgotten_with_job<B: prometheus::core::MetricVecBuilder + 'static>(metric: &prometheus::core::MetricVec<B>)
where
    prometheus::core::MetricVec<B>: prometheus::core::Collector,
{
    let metric = metric.clone();
    let forget = move |job: &str| {
        use prometheus::core::Collector as _;
        for series in metric.collect().iter().flat_map(|family| family.get_metric().to_vec()) {
            let labels: HashMap<_, _> = series.get_label().iter().map(|l| (l.name(), l.value())).collect();
            if labels.get(JOB) == Some(&job) {
                let _ = metric.remove(&labels); // it was there a moment ago; when it is not now, all the better
            }
        }
    };
    OF_JOBS.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(forget));
}

/// Removes all series of a job that is not there any more.
pub fn forget_job(job: &str) {
    OF_JOBS.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|forget| forget(job));
}

fn histograms(name: &str, help: &str, labels: &[&str], buckets: Vec<f64>) -> HistogramVec {
    register(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels))
}

static S3_REQUESTS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("kafka_backup_s3_requests_total", "Requests to the store.", &["operation", "code"]));
static S3_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let buckets = vec![0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0];
    histograms(
        "kafka_backup_s3_request_duration_seconds",
        "Duration of requests to the store.",
        &["operation"],
        buckets,
    )
});

/// Counts one request to a store; `code` is the HTTP status, or a word (`timeout`, `connect`) where there was none.
pub fn s3_request(operation: &str, code: &str, seconds: f64) {
    S3_REQUESTS.with_label_values(&[operation, code]).inc();
    S3_SECONDS.with_label_values(&[operation]).observe(seconds);
}

static STATE_REBUILDS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("kafka_backup_state_rebuilds_total", "Times the local state was begun anew.", &["reason"])
});
static STATE_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    let buckets = vec![0.001, 0.005, 0.02, 0.1, 0.5, 2.0];
    let opts = HistogramOpts::new("kafka_backup_state_flush_duration_seconds", "Time to make local state durable.");
    register(Histogram::with_opts(opts.buckets(buckets)))
});
static ERRORS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("kafka_backup_errors_total", "Failures by origin.", &["component", "kind"]));
static GAPS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Offsets that Kafka no longer had when they were to be read.";
    counters("kafka_backup_offset_gap_records_total", help, &["backup_job", "topic", "reason"])
});
static RECORDS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("kafka_backup_records_total", "Records made durable.", &["backup_job", "topic"]));
static READ_BYTES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("kafka_backup_read_bytes_total", "Keys, values and headers read from Kafka.", &["backup_job", "topic"])
});
static STORED_BYTES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("kafka_backup_stored_bytes_total", "Bytes of objects created.", &["backup_job", "topic"])
});
static SEGMENTS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("kafka_backup_segments_committed_total", "Objects created.", &["backup_job"]));
static SEGMENT_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    let buckets = vec![0.01, 0.05, 0.2, 1.0, 5.0, 30.0, 120.0];
    let opts =
        HistogramOpts::new("kafka_backup_segment_commit_duration_seconds", "From closing an object to its commit.");
    register(Histogram::with_opts(opts.buckets(buckets)))
});
static RESTARTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Times a job, or a part of it, was started again after a failure.";
    counters("kafka_backup_job_restarts_total", help, &["backup_job"])
});

static GROUP_FAILURES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Rounds after which the saved positions of consumer groups were not those of Kafka.";
    counters("kafka_backup_groups_failures_total", help, &["backup_job"])
});

/// Positions of consumer groups could not be saved as they are.
pub fn groups_not_saved(job: &str) {
    GROUP_FAILURES.with_label_values(&[job]).inc();
}

static KAFKA_REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Calls to brokers that were answered or failed, fetches excepted; result is ok or the kind of failure.";
    counters("kafka_backup_kafka_requests_total", help, &["api", "result"])
});
static CREDENTIALS_EXPIRY: LazyLock<GaugeVec> = LazyLock::new(|| {
    let help = "When the credentials in use expire; absent when they do not.";
    register(GaugeVec::new(Opts::new("kafka_backup_credentials_expiry_timestamp_seconds", help), &["provider"]))
});
static LOG_MESSAGES: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("kafka_backup_log_messages_total", "Lines logged.", &["level"]));

/// Origins and kinds of [`error`]s.
const COMPONENTS: [&str; 5] = ["kafka", "s3", "state", "codec", "config"];
const KINDS: [&str; 6] = ["auth", "timeout", "throttle", "corrupt", "disk", "other"];
/// Why offsets can be missing.
const GAP_REASONS: [&str; 3] = ["retention", "compaction", "truncation"];
const LEVELS: [&str; 3] = ["error", "warn", "info"];

/// Shows every series whose labels are known beforehand as 0: what appears with the first failure only cannot be
/// alerted on by its increase.
pub fn initialise() {
    for (component, kind) in COMPONENTS.iter().flat_map(|c| KINDS.map(|kind| (c, kind))) {
        ERRORS.with_label_values(&[*component, kind]).inc_by(0);
    }
    LEVELS.iter().for_each(|level| LOG_MESSAGES.with_label_values(&[level]).inc_by(0));
    STATE_REBUILDS.with_label_values(&["corrupt"]).inc_by(0);
    for result in ["applied", "unchanged", "rejected"] {
        RELOADS.with_label_values(&[result]).inc_by(0);
    }
    for result in ["ok", "failed", "withheld"] {
        HEARTBEATS.with_label_values(&[result]).inc_by(0);
    }
    LazyLock::force(&STATE_SECONDS);
    LazyLock::force(&SEGMENT_SECONDS);
}

/// The same for a job that was just configured.
pub fn initialise_job(job: &str) {
    for counter in [&SEGMENTS, &RESTARTS, &DISCOVERED] {
        counter.with_label_values(&[job]).inc_by(0);
    }
}

/// One call to the brokers has ended; `result` is `ok`, or the kind of error.
pub fn kafka_request(api: &str, result: &str) {
    KAFKA_REQUESTS.with_label_values(&[api, result]).inc();
}

/// Credentials of a store were loaded; `provider` is the profile, or `default`. `None`: they do not expire.
pub fn credentials_loaded(provider: &str, expiry_seconds: Option<f64>) {
    match expiry_seconds {
        Some(at) => CREDENTIALS_EXPIRY.with_label_values(&[provider]).set(at),
        // There is nothing to remove the first time.
        None => _ = CREDENTIALS_EXPIRY.remove_label_values(&[provider]),
    }
}

/// One line was logged.
pub fn logged(level: &str) {
    LOG_MESSAGES.with_label_values(&[level]).inc();
}

/// The local state was begun anew.
pub fn state_rebuilt(reason: &str) {
    STATE_REBUILDS.with_label_values(&[reason]).inc();
}

/// One flush of the local state.
pub fn state_flushed(seconds: f64) {
    STATE_SECONDS.observe(seconds);
}

/// One failure.
pub fn error(component: &str, kind: &str) {
    ERRORS.with_label_values(&[component, kind]).inc();
}

/// Offsets that cannot be backed up any more.
pub fn gap(job: &str, topic: &str, reason: &str, offsets: i64) {
    GAPS.with_label_values(&[job, topic, reason]).inc_by(offsets.max(0) as u64);
}

/// One object is durable and committed; `seconds` since it was closed.
pub fn segment_committed(job: &str, seconds: f64) {
    SEGMENTS.with_label_values(&[job]).inc();
    SEGMENT_SECONDS.observe(seconds);
}

/// A lane, or the whole job, was started again after a failure.
pub fn restarted(job: &str) {
    RESTARTS.with_label_values(&[job]).inc();
}

/// The counters of one topic of one job, looked up once.
#[derive(Debug, Clone)]
pub struct TopicCounters {
    /// Records made durable.
    pub records: IntCounter,
    /// Content bytes read.
    pub read_bytes: IntCounter,
    /// Object bytes created.
    pub stored_bytes: IntCounter,
}

impl TopicCounters {
    /// The counters of `topic` in `job`.
    pub fn of(job: &str, topic: &str) -> Self {
        let labels = [job, topic];
        GAP_REASONS.iter().for_each(|reason| GAPS.with_label_values(&[job, topic, reason]).inc_by(0));
        Self {
            records: RECORDS.with_label_values(&labels),
            read_bytes: READ_BYTES.with_label_values(&labels),
            stored_bytes: STORED_BYTES.with_label_values(&labels),
        }
    }
}

static DISCOVERED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("kafka_backup_topics_discovered_total", "Topics that matched while running.", &["backup_job"])
});

/// A topic began to match a job.
pub fn topic_discovered(job: &str) {
    DISCOVERED.with_label_values(&[job]).inc();
}

static EXPIRED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Objects that the daemon removed because they were older than the retention (stores without rules).";
    counters("kafka_backup_expired_objects_total", help, &["backup_job"])
});

/// One object was removed because of its age.
pub fn expired(job: &str) {
    EXPIRED.with_label_values(&[job]).inc();
}

static COMPACTED_REFUSED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Deletions of a compacted instance that were wanted and not allowed.";
    counters("kafka_backup_compacted_refused_deletions_total", help, &["backup_job", "topic", "instance"])
});

/// A deletion of a compacted topic's instance was not allowed.
pub fn compacted_refused(job: &str, topic: &str, instance: &str) {
    COMPACTED_REFUSED.with_label_values(&[job, topic, instance]).inc();
}

/// The sums over all series of one job, by metric name.
pub fn sums(job: &str) -> std::collections::BTreeMap<String, f64> {
    let mut sums = std::collections::BTreeMap::new();
    for family in REGISTRY.gather() {
        for metric in family.get_metric() {
            let of_job = metric.get_label().iter().any(|l| l.name() == "backup_job" && l.value() == job);
            if of_job {
                *sums.entry(family.name().to_owned()).or_insert(0.0) += metric.get_counter().get_value();
            }
        }
    }
    sums
}

static RELOADS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("kafka_backup_config_reloads_total", "Reloads of the configuration by their result.", &["result"])
});

/// One reload ended: `applied`, `unchanged` or `rejected`.
pub fn reloaded(result: &str) {
    RELOADS.with_label_values(&[result]).inc();
}

static HEARTBEATS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Heartbeats by result; withheld while not all is well.";
    counters("kafka_backup_heartbeat_sent_total", help, &["result"])
});

/// It was time for one heartbeat: `ok`, `failed` or `withheld`.
pub fn heartbeat(result: &str) {
    HEARTBEATS.with_label_values(&[result]).inc();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_is_forgotten_has_no_series() {
        let shown = |job: &str| sums(job).len();
        TopicCounters::of("forgotten-a", "t").records.inc();
        TopicCounters::of("forgotten-b", "t").records.inc();
        restarted("forgotten-a");
        assert!(shown("forgotten-a") > 1);
        forget_job("forgotten-a");
        assert_eq!(shown("forgotten-a"), 0);
        assert!(shown("forgotten-b") > 0, "the others keep theirs");
    }
}
