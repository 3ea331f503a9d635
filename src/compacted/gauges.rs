//! The gauges of compacted topics, made at the moment somebody asks.

use prometheus::{GaugeVec, Opts, Registry};

use crate::pipeline::shown::TurnStatus;
use crate::pipeline::status::JobStatus;

/// What of a [`TurnStatus`] is shown under a name of its own; `None` leaves the series out.
type Shown = (&'static str, &'static str, fn(&TurnStatus) -> Option<f64>);

/// Without those of `kafka_backup_compacted_status`, which has a label more.
const GAUGES: [Shown; 13] = [
    ("kafka_backup_compacted_status_since_timestamp_seconds", "Since when the instance does what it does.", |t| {
        Some(seconds(t.since_ms))
    }),
    ("kafka_backup_compacted_term", "The highest valid TERM; 0 is none.", |t| Some(t.term as f64)),
    ("kafka_backup_compacted_owner", "1: that TERM is this instance's.", |t| {
        Some(f64::from(u8::from(t.owner == t.instance)))
    }),
    ("kafka_backup_compacted_progress_ratio", "What is durable of what the topic holds, from 0 to 1.", |t| t.progress),
    (
        "kafka_backup_compacted_expected_end_timestamp_seconds",
        "When the scan will be complete if it goes on as it did.",
        |t| t.expected_end_ms.map(seconds),
    ),
    ("kafka_backup_compacted_announced_offsets", "Offsets announced last, over all partitions.", |t| {
        Some(t.announced_offsets as f64)
    }),
    ("kafka_backup_compacted_reached_offsets", "Offsets that the objects reach, over all partitions.", |t| {
        Some(t.reached_offsets as f64)
    }),
    ("kafka_backup_compacted_last_swap_timestamp_seconds", "When the owner last changed.", |t| {
        t.last_swap_ms.map(seconds)
    }),
    ("kafka_backup_compacted_partner_silent", "1: nothing was heard of an active partner for partner_timeout.", |t| {
        Some(f64::from(u8::from(t.partner_silent)))
    }),
    ("kafka_backup_compacted_partner_heard_timestamp_seconds", "When the partner was last heard of.", |t| {
        t.partner_heard_ms.map(seconds)
    }),
    ("kafka_backup_compacted_tainted", "1: deleted keys may have survived in its snapshot.", |t| {
        Some(f64::from(u8::from(t.tainted)))
    }),
    ("kafka_backup_compacted_last_scan_seconds", "How long the last scan took.", |t| t.last_scan_seconds),
    ("kafka_backup_compacted_length_seconds", "How long a turn is meant to be.", |t| Some(seconds(t.length_ms))),
];

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// Registers the gauges of all compacted topics.
pub fn register(registry: &Registry, jobs: &[std::sync::Arc<JobStatus>]) {
    let family = |name: &str, help: &str, labels: &[&str]| {
        let family = GaugeVec::new(Opts::new(name, help), labels).expect("names are literals and valid"); // literals
        registry.register(Box::new(family.clone())).expect("each name is used once"); // literals
        family
    };
    let labels = ["backup_job", "topic", "instance"];
    let status_labels = ["backup_job", "topic", "instance", "status"];
    let status = family("kafka_backup_compacted_status", "1 for the status that the instance has.", &status_labels);
    let families = GAUGES.map(|(name, help, value)| (family(name, help, &labels), value));
    for job in jobs {
        for (topic, turn) in job.turns() {
            for word in ["ACTIVATE", "PASSIVATE", "CATCHING_UP"] {
                let is = f64::from(u8::from(turn.status == word));
                status.with_label_values(&[&job.job.id, &topic, &turn.instance, word]).set(is);
            }
            for (family, value) in &families {
                if let Some(value) = value(&turn) {
                    family.with_label_values(&[&job.job.id, &topic, &turn.instance]).set(value);
                }
            }
        }
    }
}
