//! What a configuration comes to, value by value, for comparing what runs with what is wanted. Contents of referenced
//! files are part of it, secrets only as their hashes.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{CompactedJob, Config, Job, KafkaConfig, Place, StorageConfig, TopicSelection};
use crate::model::hex::hex;
use crate::model::reload::{Fact, Facts, Picture};

/// librdkafka properties that name a file whose content counts.
const FILES: &[&str] = &[
    "https.ca.location",
    "sasl.kerberos.keytab",
    "sasl.oauthbearer.assertion.jwt.template.file",
    "sasl.oauthbearer.assertion.private.key.file",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.crl.location",
    "ssl.key.location",
    "ssl.keystore.location",
];

fn shown(value: &impl Debug) -> Fact {
    Fact { shown: format!("{value:?}"), mark: String::new() }
}

fn put(facts: &mut Facts, key: &str, value: &impl Debug) {
    facts.insert(key.to_owned(), shown(value));
}

impl Config {
    /// The configuration, value by value.
    pub fn picture(&self) -> Picture {
        Picture { main: self.main_facts(), jobs: self.jobs.iter().map(|job| (job.id.clone(), job.facts())).collect() }
    }

    /// Every field, so that none is forgotten: the compiler asks for a new one.
    fn main_facts(&self) -> Facts {
        let Self {
            path: _,
            state_dir,
            jobs_dir,
            drain_timeout,
            strict_reload,
            watch,
            watch_settle,
            memory_budget,
            http_listen,
            http,
            heartbeat,
            control_socket,
            log_level,
            log_format,
            spool_dir,
            spool_max,
            max_partition_series,
            // These count as far as jobs use them.
            kafka: _,
            storage: _,
            jobs: _,
            warnings: _,
            unusable: _,
        } = self;
        let mut facts = Facts::new();
        put(&mut facts, "state_dir", state_dir);
        put(&mut facts, "jobs_dir", jobs_dir);
        put(&mut facts, "drain_timeout", drain_timeout);
        put(&mut facts, "strict_reload", strict_reload);
        put(&mut facts, "watch", watch);
        put(&mut facts, "watch_settle", watch_settle);
        put(&mut facts, "memory.budget", memory_budget);
        put(&mut facts, "http.listen", http_listen);
        put(&mut facts, "http", http);
        put(&mut facts, "heartbeat", heartbeat);
        put(&mut facts, "control.socket", control_socket);
        put(&mut facts, "log.level", log_level);
        put(&mut facts, "log.format", log_format);
        put(&mut facts, "spool.dir", spool_dir);
        put(&mut facts, "spool.max", spool_max);
        put(&mut facts, "metrics.max_partition_series", max_partition_series);
        facts
    }

    /// Files besides the configuration's own whose contents count.
    pub fn references(&self) -> BTreeSet<PathBuf> {
        let clusters = self.kafka.values().chain(self.jobs.iter().map(|job| &job.kafka));
        clusters.flat_map(|cluster| cluster.references()).collect()
    }
}

impl KafkaConfig {
    fn references(&self) -> Vec<PathBuf> {
        let file = |(key, property): (&String, &super::Property)| match &property.secret_from {
            Some(path) => Some(path.clone()),
            None => FILES.contains(&key.as_str()).then(|| PathBuf::from(&property.value)),
        };
        self.properties.iter().filter_map(file).collect()
    }

    fn facts(&self, facts: &mut Facts) {
        let Self { name: _, bootstrap_servers, properties } = self;
        put(facts, "kafka.bootstrap_servers", bootstrap_servers);
        for (key, property) in properties {
            let fact = match &property.secret_from {
                Some(path) => {
                    Fact { shown: format!("content of {}", path.display()), mark: hash(property.value.as_bytes()) }
                }
                None if FILES.contains(&key.as_str()) => {
                    let shown = format!("content of {}", property.value);
                    Fact { shown, mark: content(Path::new(&property.value)) }
                }
                None => shown(&property.value),
            };
            facts.insert(format!("kafka.{key}"), fact);
        }
    }
}

impl StorageConfig {
    fn facts(&self, facts: &mut Facts) {
        let Self { name: _, place, single_writer } = self;
        put(facts, "storage.single_writer", single_writer);
        match place {
            Place::S3 { bucket, prefix, region, profile, proxy_url, endpoint, path_style } => {
                put(facts, "storage.type", &"s3");
                put(facts, "storage.bucket", bucket);
                put(facts, "storage.prefix", prefix);
                put(facts, "storage.region", region);
                put(facts, "storage.profile", profile);
                // It may hold a password.
                let mark = proxy_url.as_ref().map(|url| hash(url.as_bytes())).unwrap_or_default();
                let fact = Fact { shown: "not shown".to_owned(), mark };
                facts.insert("storage.proxy_url".to_owned(), fact);
                put(facts, "storage.endpoint", endpoint);
                put(facts, "storage.path_style", path_style);
            }
            Place::File { path, prefix } => {
                put(facts, "storage.type", &"file");
                put(facts, "storage.path", path);
                put(facts, "storage.prefix", prefix);
            }
        }
    }
}

fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A hash of what is in a file, or in the files of a folder of certificates.
fn content(path: &Path) -> String {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
        let files: BTreeSet<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        let all: Vec<String> = files.iter().map(|file| format!("{} {}", file.display(), content(file))).collect();
        return hash(all.join("\n").as_bytes());
    }
    std::fs::read(path).map_or_else(|error| format!("unreadable: {}", error.kind()), |bytes| hash(&bytes))
}

impl CompactedJob {
    fn facts(&self, facts: &mut Facts) {
        let Self {
            instance,
            begins,
            length,
            interval_offsets,
            coordination_topic,
            coordination_kafka,
            partner_timeout,
            takeover,
        } = self;
        put(facts, "instance", instance);
        put(facts, "initial_status", begins);
        put(facts, "length_hours", length);
        put(facts, "interval_offsets", interval_offsets);
        put(facts, "coordination_topic", coordination_topic);
        let mut cluster = Facts::new();
        coordination_kafka.facts(&mut cluster);
        facts.extend(cluster.into_iter().map(|(key, fact)| (format!("coordination_{key}"), fact)));
        put(facts, "partner_timeout", partner_timeout);
        put(facts, "takeover", takeover);
    }
}

impl Job {
    /// The job, value by value; every field, so that none is forgotten.
    pub fn facts(&self) -> Facts {
        let Self {
            id: _,
            path: _,
            kafka,
            storage,
            topics: TopicSelection { literal, include, exclude, coordination: _ },
            tasks_max,
            group_id,
            group_instance_id,
            flush_size,
            flush_bytes,
            rotate_interval,
            codec,
            isolation,
            start,
            on_recreate,
            adopt,
            allow_compacted,
            rate_limit,
            rpo_target,
            paused,
            groups,
            groups_interval,
            retention,
            lifecycle,
            compacted,
        } = self;
        let mut facts = Facts::new();
        kafka.facts(&mut facts);
        storage.facts(&mut facts);
        put(&mut facts, "topics", literal);
        put(&mut facts, "topics_regex", &include.as_ref().map(regex::Regex::as_str));
        put(&mut facts, "exclude_regex", &exclude.as_ref().map(regex::Regex::as_str));
        put(&mut facts, "tasks_max", tasks_max);
        put(&mut facts, "group_id", group_id);
        put(&mut facts, "group_instance_id", group_instance_id);
        put(&mut facts, "flush_size", flush_size);
        put(&mut facts, "flush_bytes", flush_bytes);
        put(&mut facts, "rotate_interval", rotate_interval);
        put(&mut facts, "codec", codec);
        put(&mut facts, "isolation", isolation);
        put(&mut facts, "start", start);
        put(&mut facts, "on_recreate", on_recreate);
        put(&mut facts, "adopt", adopt);
        put(&mut facts, "allow_compacted", allow_compacted);
        put(&mut facts, "rate_limit", rate_limit);
        put(&mut facts, "rpo_target", rpo_target);
        put(&mut facts, "retention", retention);
        put(&mut facts, "lifecycle", lifecycle);
        put(&mut facts, "paused", paused);
        put(&mut facts, "consumer_groups", groups);
        put(&mut facts, "consumer_groups_interval", groups_interval);
        put(&mut facts, "type", &if compacted.is_some() { "compacted" } else { "backup" });
        if let Some(compacted) = compacted {
            compacted.facts(&mut facts);
        }
        facts
    }
}
