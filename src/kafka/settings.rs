//! What librdkafka is configured with: the user's properties first, then what correctness needs, which wins.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::bindings::{rd_kafka_conf_destroy, rd_kafka_conf_new, rd_kafka_conf_res_t, rd_kafka_conf_set};

use super::ffi::{ERROR_TEXT, c_text};

/// One Kafka cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Its name in the main file, or `jobs.d/NAME.toml` for one written into a job.
    pub name: String,
    /// `host:port`, at least one.
    pub bootstrap_servers: Vec<String>,
    /// librdkafka properties, files and credentials already read.
    pub properties: BTreeMap<String, Property>,
}

impl KafkaConfig {
    /// After how long without a heartbeat a member of a group is taken for dead; 45 s unless it is configured.
    pub fn session_timeout(&self) -> Duration {
        let configured = self.properties.get("session.timeout.ms").and_then(|p| p.value.parse().ok());
        Duration::from_millis(configured.unwrap_or(45_000))
    }
}

/// The value of a librdkafka property.
#[derive(Clone, PartialEq, Eq)]
pub struct Property {
    /// The value as librdkafka takes it.
    pub value: String,
    /// Where a secret came from; the value is never shown then.
    pub secret_from: Option<PathBuf>,
}

impl std::fmt::Debug for Property {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.secret_from {
            Some(path) => write!(f, "<secret from {}>", path.display()),
            None => write!(f, "{:?}", self.value),
        }
    }
}

/// Kafka's isolation level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Only committed records, up to the last stable offset.
    ReadCommitted,
    /// Everything up to the high watermark, aborted records included.
    ReadUncommitted,
}

/// What a group member needs besides its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerSettings {
    /// The consumer group.
    pub group_id: String,
    /// Static membership; empty is none.
    pub group_instance_id: String,
    /// Which records are read.
    pub isolation: Isolation,
    /// What all partition queues of this client may hold together, in bytes.
    pub prefetch_bytes: u64,
    /// How many partitions this client is expected to own; at least 1 is assumed.
    pub partitions: usize,
    /// Nobody waits for the ends of its partitions to be noticed: a quiet partition is asked about less often.
    pub patient: bool,
}

/// What a restoring producer needs besides its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerSettings {
    /// What may wait in the producer's queue, in bytes.
    pub queue_bytes: u64,
    /// The largest record that may be sent, in bytes, headers and all.
    pub record_bytes_max: u64,
}

impl Default for ProducerSettings {
    fn default() -> Self {
        Self { queue_bytes: 64 << 20, record_bytes_max: 64 << 20 }
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// How much larger compressed records are taken to become. JSON under zstd and lz4 shows 3 to 8.
const EXPANSION: u64 = 4;
/// What librdkafka allocates for a queued record besides its content.
const RECORD_OVERHEAD: u64 = 512;

/// The limits that keep librdkafka's memory near a given size.
///
/// librdkafka bounds each partition's queue by itself: once it is split off, `queued.max.messages.kbytes` applies to
/// each alone. It looks at the limit before a fetch, not during one, and a fetch is counted as it travels,
/// compressed. So a partition holds up to its queue limit plus one expanded fetch, and each broker connection one
/// response in flight. One record batch is always delivered whole, however large (KIP-74).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Prefetch {
    /// `queued.max.messages.kbytes`
    queue_kib: u64,
    /// `queued.min.messages`: an upper limit in spite of its name.
    queue_records: u64,
    /// `fetch.message.max.bytes`: of one partition in one response.
    partition_fetch: u64,
    /// `fetch.max.bytes`: of one response.
    response: u64,
    /// `fetch.wait.max.ms`: how long a broker holds a fetch that finds nothing. A partition whose queue was full
    /// when the fetch was sent waits that long for its next turn, so it must be short; but the request names every
    /// partition each time (librdkafka has no incremental fetch sessions), so it must not be short with thousands.
    /// A partition that is alone waits for no other; there may be hundreds of such clients, and each asks so often. The
    /// end of a partition is noticed that much later; a new record is delivered at once all the same.
    wait_ms: u64,
}

impl Prefetch {
    fn derive(s: &ConsumerSettings) -> Prefetch {
        let prefetch_bytes = s.prefetch_bytes;
        let partitions = s.partitions.max(1) as u64;
        let share = prefetch_bytes / partitions;
        let queue = (share / 2).clamp(4 * KIB, 64 * MIB);
        Prefetch {
            queue_kib: queue / KIB,
            queue_records: (queue / RECORD_OVERHEAD).clamp(100, 10_000_000),
            partition_fetch: (share / 2 / EXPANSION).clamp(16 * KIB, 8 * MIB),
            response: (prefetch_bytes / 8).clamp(256 * KIB, 32 * MIB),
            wait_ms: match partitions {
                1 if s.patient => 6000,
                1 => 1000,
                many => (many / 8).clamp(100, 250),
            },
        }
    }
}

/// The configuration of a group member.
///
/// `auto.offset.reset=error` because the other values silently rewind or skip; `check.crcs` because a backup is no
/// place to trust the wire; `enable.partition.eof` because its offset is the only sign that a partition was read to
/// its end. `partition.assignment.strategy` is the user's choice; the default is `cooperative-sticky`.
pub fn consumer(kafka: &KafkaConfig, s: &ConsumerSettings) -> ClientConfig {
    let mut config = base(kafka);
    let prefetch = Prefetch::derive(s);
    config
        .set("group.id", &s.group_id)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true")
        .set("allow.auto.create.topics", "false")
        .set("fetch.queue.backoff.ms", "20")
        .set("fetch.wait.max.ms", prefetch.wait_ms.to_string())
        .set("isolation.level", isolation(s.isolation))
        .set("queued.max.messages.kbytes", prefetch.queue_kib.to_string())
        .set("queued.min.messages", prefetch.queue_records.to_string())
        .set("fetch.message.max.bytes", prefetch.partition_fetch.to_string())
        .set("fetch.max.bytes", prefetch.response.to_string())
        // Only a lower bound of fetch.max.bytes for a consumer; larger batches arrive all the same.
        .set("message.max.bytes", prefetch.response.min(1_000_000).to_string())
        // A check, not a buffer: it also limits what one batch may decompress to, so it is as large as it may be.
        .set("receive.message.max.bytes", i32::MAX.to_string());
    if !s.group_instance_id.is_empty() {
        config.set("group.instance.id", &s.group_instance_id);
    }
    let new_protocol = config.get("group.protocol").is_some_and(|p| p.eq_ignore_ascii_case("consumer"));
    if !new_protocol && config.get("partition.assignment.strategy").is_none() {
        config.set("partition.assignment.strategy", "cooperative-sticky");
    }
    config
}

/// The configuration of a client for metadata and administration.
pub fn admin(kafka: &KafkaConfig) -> ClientConfig {
    let mut config = base(kafka);
    // A group would make it a member-to-be; it only asks questions.
    config.remove("group.id");
    config.remove("group.instance.id");
    config.remove("partition.assignment.strategy");
    config.set("allow.auto.create.topics", "false");
    config
}

/// The same with the name of a group that it asks for the offsets of, and never joins.
pub fn group_admin(kafka: &KafkaConfig, group: &str) -> ClientConfig {
    let mut config = admin(kafka);
    config.set("group.id", group).set("enable.auto.commit", "false");
    config
}

/// The configuration of a client that reads single records by their offsets.
pub fn reader(kafka: &KafkaConfig, isolation_level: Isolation) -> ClientConfig {
    let mut config = admin(kafka);
    config
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true")
        .set("isolation.level", isolation(isolation_level))
        .set("queued.min.messages", "1")
        .set("fetch.wait.max.ms", "50");
    config
}

/// The configuration of a restoring producer: idempotent, so that retries neither double nor reorder, and patient,
/// because a record given up for lack of time would be a hole.
///
/// `compression.type`, `linger.ms` and `batch.size` are the user's choice. Lingering is long, because an idempotent
/// producer whose waiting messages are older than `linger.ms` turns in circles until the broker has answered
/// (`rd_kafka_toppar_producer_serve` asks to be called again at once before it sees that it may not send); full batches
/// go out at once all the same, and the end is flushed. `enable.gapless.guarantee` makes any
/// record that fails fatal for the client, which is what a restore wants: it stops at the first hole.
pub fn producer(kafka: &KafkaConfig, s: &ProducerSettings) -> ClientConfig {
    let mut config = base(kafka);
    let defaults = [("compression.type", "lz4"), ("linger.ms", "1000"), ("batch.size", "1000000")];
    for (key, value) in defaults {
        if config.get(key).is_none() {
            config.set(key, value);
        }
    }
    config.remove("delivery.timeout.ms").remove("transactional.id");
    config
        .set("enable.idempotence", "true")
        .set("enable.gapless.guarantee", "true")
        .set("acks", "all")
        .set("max.in.flight", "5")
        // 0 is for ever: a broker that is away is waited for, and shows as no progress.
        .set("message.timeout.ms", "0")
        .set("message.max.bytes", s.record_bytes_max.clamp(1_000_000, 1_000_000_000).to_string())
        .set("queue.buffering.max.kbytes", (s.queue_bytes / KIB).clamp(1024, 2_097_151).to_string())
        .set("queue.buffering.max.messages", "0");
    config
}

/// What all clients have in common.
fn base(kafka: &KafkaConfig) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", "kafka-backup");
    // Telemetry for the brokers (KIP-714) costs a client a quarter of a megabyte of histograms, whether they ask for it or
    // not, and with hundreds of jobs there are hundreds of clients. Who wants it sets the property.
    config.set("enable.metrics.push", "false");
    for (key, property) in &kafka.properties {
        config.set(key, &property.value);
    }
    config.set("bootstrap.servers", kafka.bootstrap_servers.join(","));
    config.set("statistics.interval.ms", "0");
    config
}

fn isolation(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::ReadCommitted => "read_committed",
        Isolation::ReadUncommitted => "read_uncommitted",
    }
}

/// Which of the properties librdkafka refuses, and why; no network is used. Values are never in the text.
pub fn check_properties(properties: &BTreeMap<String, Property>) -> Vec<(String, String)> {
    let mut refused = Vec::new();
    // SAFETY: a configuration of our own, destroyed below.
    let conf = unsafe { rd_kafka_conf_new() };
    for (key, property) in properties {
        let (Ok(name), Ok(value)) = (CString::new(key.as_str()), CString::new(property.value.as_str())) else {
            refused.push((key.clone(), "contains a NUL byte".to_owned()));
            continue;
        };
        let mut text = [0 as c_char; ERROR_TEXT];
        // SAFETY: valid strings and a buffer with its length.
        let result = unsafe { rd_kafka_conf_set(conf, name.as_ptr(), value.as_ptr(), text.as_mut_ptr(), text.len()) };
        if result != rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
            let mut why = c_text(text.as_ptr());
            if property.secret_from.is_some() && !property.value.is_empty() {
                why = why.replace(&property.value, "***");
            }
            refused.push((key.clone(), why));
        }
    }
    // SAFETY: ours, and no client was made of it.
    unsafe { rd_kafka_conf_destroy(conf) };
    refused
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn cluster(properties: &[(&str, &str)]) -> KafkaConfig {
        let property = |value: &str| Property { value: value.into(), secret_from: None };
        KafkaConfig {
            name: "test".into(),
            bootstrap_servers: vec!["localhost:1".into(), "localhost:2".into()],
            properties: properties.iter().map(|(k, v)| ((*k).to_owned(), property(v))).collect(),
        }
    }

    fn settings(prefetch_bytes: u64, partitions: usize) -> ConsumerSettings {
        ConsumerSettings {
            group_id: "g".into(),
            group_instance_id: String::new(),
            isolation: Isolation::ReadCommitted,
            prefetch_bytes,
            partitions,
            patient: false,
        }
    }

    #[rstest]
    #[case::few_partitions_little_memory(8 * MIB, 12, 341, 682, 87_381, MIB, 100)]
    #[case::few_partitions_much_memory(256 * MIB, 12, 10_922, 21_845, 2_796_202, 32 * MIB, 100)]
    #[case::one_partition(64 * MIB, 1, 32_768, 65_536, 8 * MIB, 8 * MIB, 1000)]
    #[case::many_idle_partitions(8 * MIB, 2000, 4, 100, 16 * KIB, MIB, 250)]
    #[case::nothing_known(MIB, 0, 512, 1024, 131_072, 256 * KIB, 1000)]
    fn prefetch_is_derived_from_memory_and_partitions(
        #[case] bytes: u64,
        #[case] partitions: usize,
        #[case] queue_kib: u64,
        #[case] queue_records: u64,
        #[case] partition_fetch: u64,
        #[case] response: u64,
        #[case] wait_ms: u64,
    ) {
        let expected = Prefetch { queue_kib, queue_records, partition_fetch, response, wait_ms };
        assert_eq!(Prefetch::derive(&settings(bytes, partitions)), expected);
    }

    #[test]
    fn one_quiet_partition_is_asked_about_less_often_where_nobody_waits() {
        let wait =
            |partitions| Prefetch::derive(&ConsumerSettings { patient: true, ..settings(MIB, partitions) }).wait_ms;
        assert_eq!((wait(1), wait(2)), (6000, 100));
    }

    #[rstest]
    fn prefetch_stays_near_its_limit(#[values(8, 32, 256, 1024)] mib: u64, #[values(1, 3, 12, 100)] partitions: usize) {
        let p = Prefetch::derive(&settings(mib * MIB, partitions));
        let queues = partitions as u64 * (p.queue_kib * KIB + EXPANSION * p.partition_fetch);
        // One response in flight for each of three brokers besides.
        assert!(queues + 3 * p.response <= 2 * mib * MIB, "{p:?}");
    }

    #[rstest]
    fn librdkafka_takes_every_derived_configuration(
        #[values(0, 1, 8, 256, 8192)] mib: u64,
        #[values(0, 1, 12, 2000, 100_000)] partitions: usize,
    ) {
        use crate::kafka::ffi::{Client, Events, Role};
        struct Quiet;
        impl Events for Quiet {}
        let config = consumer(&cluster(&[]), &settings(mib * MIB, partitions));
        Client::new(Role::CONSUMER, "test", &config, std::sync::Arc::new(Quiet)).expect("accepted");
    }

    #[test]
    fn ours_win_over_the_users() {
        let config = consumer(
            &cluster(&[("auto.offset.reset", "latest"), ("enable.auto.commit", "true"), ("client.id", "theirs")]),
            &settings(MIB, 1),
        );
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
        assert_eq!(config.get("enable.auto.commit"), Some("false"));
        assert_eq!(config.get("client.id"), Some("theirs"));
        assert_eq!(config.get("bootstrap.servers"), Some("localhost:1,localhost:2"));
        assert_eq!(config.get("partition.assignment.strategy"), Some("cooperative-sticky"));
    }

    #[test]
    fn the_strategy_is_the_users() {
        let config = consumer(&cluster(&[("partition.assignment.strategy", "range")]), &settings(MIB, 1));
        assert_eq!(config.get("partition.assignment.strategy"), Some("range"));
    }

    #[test]
    fn properties_are_checked_one_by_one() {
        let properties = cluster(&[
            ("security.protocol", "SASL_SSL"),
            ("security.protcol", "SASL_SSL"),
            ("socket.timeout.ms", "soon"),
        ])
        .properties;
        let refused = check_properties(&properties);
        let keys: Vec<&str> = refused.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["security.protcol", "socket.timeout.ms"]);
        assert!(refused[0].1.contains("No such configuration property"), "{}", refused[0].1);
    }

    #[test]
    fn a_secret_is_not_in_the_text() {
        let secret = Property { value: "hunter2".into(), secret_from: Some("/etc/secret".into()) };
        let refused = check_properties(&BTreeMap::from([("socket.timeout.ms".to_owned(), secret)]));
        assert!(!refused[0].1.contains("hunter2"), "{}", refused[0].1);
    }
}
