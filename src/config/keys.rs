//! Every key there is: one table per kind of file. Loading refuses what is not in it, and the manual pages are made
//! from it.

use super::key::{Fallback, Key, Kind};

use Fallback::{Is, Required, Said};
use Kind::{
    Address, Count, Flag, Hours, Keys, LogLevel, Offsets, OneOf, Path, Pattern, Properties, Rate, Reference, Retention,
    Size, Span, Tables, Text, Texts, Time,
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const SECOND: u64 = 1_000;
const DAY: u64 = 86_400 * SECOND;
const YEAR: u64 = 365 * DAY;

const fn key(name: &'static str, kind: Kind, default: Fallback, doc: &'static str) -> Key {
    Key { name, kind, default, doc }
}

/// The main file.
pub static MAIN: &[Key] = &[
    key("state_dir", Path, Is("/var/lib/kafka-backup"), "Local state, spool files and plans of restores."),
    key(
        "jobs_dir",
        Path,
        Is("/etc/kafka-backup/jobs.d"),
        "Where the job files are: one *.toml per job, its name without .toml is the id of the job.",
    ),
    key(
        "drain_timeout",
        Span(SECOND, 3600 * SECOND),
        Is("60s"),
        "How long a stop may take to make durable what has been read.",
    ),
    key(
        "strict_reload",
        Flag,
        Is("false"),
        "true: a reload with a new cluster or store that cannot be reached is rejected, and what ran goes on running. \
         false: it is applied with a warning, and the job begins as soon as what it needs is there.",
    ),
    key(
        "watch",
        Flag,
        Is("false"),
        "true: the daemon reloads by itself when the files have been edited and have then held still for watch_settle. \
         What is rejected is tried again when they change again. false: it says so, and waits for a reload.",
    ),
    key(
        "watch_settle",
        Span(SECOND, 3600 * SECOND),
        Is("10s"),
        "With watch = true: how long the files must have been as they are. Longer than whoever writes them pauses.",
    ),
    key("memory.budget", Size(16 * MIB, TIB), Is("512MiB"), "All queues and open objects together."),
    key("http.listen", Address, Is("127.0.0.1:9748"), "Where metrics and health are served; \"\" switches it off."),
    key(
        "http.tls_cert_file",
        Path,
        Is(""),
        "A certificate with its chain (PEM): HTTP is served over TLS then. It is read again when the file changes.",
    ),
    key("http.tls_key_file", Path, Is(""), "The private key of http.tls_cert_file (PEM)."),
    key(
        "http.tls_client_ca_file",
        Path,
        Is(""),
        "Certificates (PEM) of whom clients must have theirs from; without it clients need none.",
    ),
    key(
        "http.basic_auth_file",
        Path,
        Is(""),
        "Who may ask over HTTP: lines USER:HASH with bcrypt hashes, as `htpasswd -B` writes them. It is read again when \
         it changes. Without it everybody may who reaches http.listen.",
    ),
    key(
        "heartbeat.url_file",
        Path,
        Is(""),
        "A file with the URL of a dead-man's switch. It is asked for (GET) every heartbeat.interval as long as there are \
         jobs and all of them are within their rpo_target, so that whoever owns the switch hears of it when this daemon \
         or its jobs fail in whatever way. The file is read each time. \"\" is none.",
    ),
    key("heartbeat.interval", Span(SECOND, 3600 * SECOND), Is("1m"), "How often heartbeat.url_file is asked for."),
    key(
        "metrics.max_partition_series",
        Count(0, 1_000_000),
        Is("10000"),
        "With more partitions than this, metrics of single partitions are left out; those of topics are always there.",
    ),
    key("control.socket", Path, Is("/run/kafka-backup/control.sock"), "The unix socket for control."),
    key("log.level", LogLevel, Is("info"), "off, error, warn, info, debug or trace. The variable RUST_LOG wins."),
    key(
        "log.format",
        OneOf(&["auto", "text", "json", "journald"]),
        Is("auto"),
        "How log lines look. auto: as the journal wants them when it listens, else text.",
    ),
    key(
        "spool.dir",
        Path,
        Is(""),
        "Where open objects go when memory is short, and closed ones while the store is away; \"\" is STATE_DIR/spool.",
    ),
    key(
        "spool.max",
        Size(16 * MIB, 1024 * TIB),
        Is("10GiB"),
        "The most it may hold; never more than half of what is free.",
    ),
    key("defaults", Keys(JOB), Said("none"), "Any key of a job, for the jobs that do not set it themselves."),
    key("kafka", Tables(KAFKA), Said("none"), "Clusters, by name: [kafka.NAME]."),
    key("storage", Tables(STORAGE), Said("none"), "Stores, by name: [storage.NAME]."),
];

/// A cluster.
pub static KAFKA: &[Key] = &[
    key("bootstrap_servers", Texts, Required, "Some brokers of the cluster, each as host:port."),
    key(
        "properties",
        Properties,
        Said("none"),
        "librdkafka properties, passed through. A property that is a secret is not written here but read: \
         KEY_file = path of a file, or KEY_credential = name of a systemd credential.",
    ),
];

/// A store.
pub static STORAGE: &[Key] = &[
    key("type", OneOf(&["s3", "file"]), Is("s3"), "s3: a bucket of Amazon S3 or a compatible server. file: a folder."),
    key("bucket", Text, Said("none; needed for type = \"s3\""), "The bucket. It must exist."),
    key("prefix", Text, Is(""), "In front of every name, as a folder; \"\" puts topics at the top."),
    key("region", Text, Said("as the AWS default chain says; us-east-1 with an endpoint"), "The region of the bucket."),
    key(
        "profile",
        Text,
        Said("the AWS default chain"),
        "A profile of the AWS credentials and config files. Keys are never written here.",
    ),
    key("proxy_url", Text, Said("none"), "An HTTP proxy on the way to the bucket, as http://host:port."),
    key("endpoint", Text, Said("Amazon S3"), "The URL of an S3-compatible server."),
    key(
        "path_style",
        Flag,
        Is("false"),
        "The bucket in the path of the URL instead of in the host name. It always is there where the endpoint is an IP address or the name of the bucket has a dot.",
    ),
    key("path", Path, Said("none; needed for type = \"file\""), "The folder. It must exist."),
    key(
        "single_writer",
        Flag,
        Is("false"),
        "true: use a store that does not know conditional writes. Two daemons with the same job would then damage the \
         backup; that there is only one is for the operator to see to.",
    ),
];

/// A job.
pub static JOB: &[Key] = &[
    key(
        "type",
        OneOf(&["backup", "compacted"]),
        Is("backup"),
        "backup: every record once. compacted: one of two instances that take turns in keeping one complete copy of \
         compacted topics.",
    ),
    key(
        "kafka",
        Reference(KAFKA),
        Is("main"),
        "The cluster: a name from the main file, or a table with the same keys.",
    ),
    key(
        "storage",
        Reference(STORAGE),
        Is("main"),
        "The store: a name from the main file, or a table with the same keys.",
    ),
    key("topics", Texts, Said("none; topics or topics_regex is needed"), "Topics, by name."),
    key(
        "topics_regex",
        Pattern,
        Said("none"),
        "Topics, by pattern; topics that appear later are picked up. Names that begin with __, the coordination topic \
         and _kafka_backup never match.",
    ),
    key("exclude_regex", Pattern, Said("none"), "Not these of those that topics_regex matches."),
    key(
        "tasks_max",
        Count(1, 128),
        Is("1"),
        "Kafka clients (members of the consumer group) in this daemon. More than one per partition is of no use.",
    ),
    key(
        "group_id",
        Text,
        Said("kafka-backup-JOB"),
        "The consumer group. It divides partitions among all who share it: jobs of one name on one cluster that back up to different places need one each.",
    ),
    key("group_instance_id", Text, Is(""), "Static membership in the group; \"\" is none."),
    key("flush_size", Count(1, u64::MAX), Is("100000"), "Close an object at this many records."),
    key("flush_bytes", Size(64 << 10, GIB), Is("64MiB"), "Close an object at this many encoded bytes."),
    key("rotate_interval", Span(100, YEAR), Is("10m"), "Close an object this long after its first record was read."),
    key("codec", OneOf(&["zstandard", "snappy", "deflate", "null"]), Is("zstandard"), "Compression of the objects."),
    key(
        "codec_level",
        Count(1, 22),
        Said("3 for zstandard, 6 for deflate"),
        "How hard to compress: 1 to 22 for zstandard, 1 to 9 for deflate; the others have no level.",
    ),
    key(
        "isolation",
        OneOf(&["read_committed", "read_uncommitted"]),
        Is("read_committed"),
        "Whether records of aborted and open transactions are left out.",
    ),
    key(
        "start",
        OneOf(&["earliest", "latest"]),
        Is("earliest"),
        "Where to begin with a topic of which nothing has been backed up yet.",
    ),
    key(
        "retention",
        Retention,
        Is("keep"),
        "How long what is backed up is kept. keep: for ever. A duration such as \"30d\": objects expire so long after they \
         were written, in whole days, rounded up. topic: as long as Kafka keeps the topic's records (its retention.ms). \
         In a bucket this is done by lifecycle rules, in a folder by the daemon. It is never made shorter by itself \
         than it is in the bucket: that takes kafka-backup retention --allow-retention-decrease.",
    ),
    key(
        "lifecycle",
        OneOf(&["manage", "check", "off"]),
        Is("manage"),
        "manage: give the bucket the lifecycle rules that retention asks for, and no others; rules of others are left as \
         they are. check: only look, and show the difference. off: leave it to whoever looks after the bucket; retention \
         then says what they do.",
    ),
    key(
        "on_recreate",
        OneOf(&["new-generation", "stop"]),
        Is("new-generation"),
        "When a topic was deleted and created again: begin a new generation beside the old one, or stop and say so.",
    ),
    key(
        "adopt",
        Flag,
        Is("false"),
        "true: objects under the topic's name that are not ours become a generation that is only read.",
    ),
    key("allow_compacted", Flag, Is("false"), "true: back up a compacted topic record by record."),
    key("rate_limit", Rate, Is("0"), "Bytes per second read from Kafka, for example \"50MiB/s\"; \"0\" is no limit."),
    key("rpo_target", Span(SECOND, YEAR), Is("15m"), "How old what is not yet safe may become; for status and alerts."),
    key(
        "groups_regex",
        Pattern,
        Is(".*"),
        "Of which consumer groups the committed offsets are saved beside the topics, so that a restore can put groups \
         back where they were (consumer_groups in kafka-backup-restore(5)). The job's own group is never among them.",
    ),
    key(
        "groups_exclude_regex",
        Pattern,
        Is("^(console-consumer-[0-9]+|kafka-backup-.*)$"),
        "Not these of those that groups_regex matches; \".*\" saves none.",
    ),
    key(
        "groups_interval",
        Span(SECOND, DAY),
        Is("1m"),
        "How often committed offsets are looked at. They are written when they have changed. A run until caught up looks \
         once, at its end.",
    ),
    key(
        "paused",
        Flag,
        Is("false"),
        "true: the job is there, but does not run. `kafka-backup pause` does the same without a change of the file.",
    ),
    key(
        "instance",
        Text,
        Said("none; needed for type = \"compacted\""),
        "For type = \"compacted\": which of the two instances that take turns this is, and the folder under TOPIC/. \
         Letters, digits, . _ -; not gen-* and not digits alone.",
    ),
    key(
        "initial_status",
        OneOf(&["ACTIVATE", "PASSIVATE"]),
        Said("none; needed for type = \"compacted\""),
        "For type = \"compacted\": which of the two scans first. One of a pair is ACTIVATE, the other PASSIVATE. Used \
         only where neither the bucket nor the coordination topic says something else.",
    ),
    key(
        "length_hours",
        Hours(24 * 366),
        Is("24"),
        "For type = \"compacted\": how long an instance stays active before the other one is started. Fractions are \
         allowed.",
    ),
    key(
        "interval_offsets",
        Count(1, i64::MAX as u64),
        Is("10000"),
        "For type = \"compacted\": the active instance announces its durable offsets after this many new ones.",
    ),
    key(
        "coordination_topic",
        Text,
        Is("_compacted_log_backup_coordination"),
        "For type = \"compacted\": where the two instances tell each other what they do. It is created where it is \
         missing (one partition, cleanup.policy=compact); one with another policy is refused.",
    ),
    key(
        "coordination_kafka",
        Reference(KAFKA),
        Said("the cluster of the topic"),
        "For type = \"compacted\": the cluster of the coordination topic, where it is another one or takes other \
         credentials.",
    ),
    key(
        "partner_timeout",
        Span(SECOND, YEAR),
        Is("48h"),
        "For type = \"compacted\": after how long a partner that is not heard of counts as silent, which is said; and \
         how long a successor may take to catch up.",
    ),
    key(
        "takeover",
        Flag,
        Is("true"),
        "For type = \"compacted\": true: when the partner is silent that long, start a scan, which deletes nothing by \
         itself.",
    ),
];

/// A restore.
pub static RESTORE: &[Key] = &[
    key("kafka", Reference(KAFKA), Required, "The target cluster: a name from the main file, or a table."),
    key("storage", Reference(STORAGE), Required, "Where the backup is: a name from the main file, or a table."),
    key(
        "topics",
        Texts,
        Said("none; topics or topics_regex is needed"),
        "Which topics: \"source\", or \"source:target\".",
    ),
    key("topics_regex", Pattern, Said("none"), "Besides these, all topics of the backup that match."),
    key("rename", Text, Said("none"), "Names of targets that are not given: s/PATTERN/REPLACEMENT/, as in sed."),
    key("tasks_max", Count(1, 128), Is("4"), "Partitions restored at the same time."),
    key("partitions", Texts, Said("all"), "Only these partitions of the source, each as TOPIC/PARTITION."),
    key(
        "generation",
        Count(1, u32::MAX as u64),
        Said("the newest, with what its parents hold below it"),
        "Which generation.",
    ),
    key(
        "from",
        Time,
        Said("no limit"),
        "Only records with timestamps from this time on, each record by its own. Records without a timestamp are kept, \
         and counted.",
    ),
    key("until", Time, Said("no limit"), "Only records with timestamps before this time."),
    key(
        "from_offset",
        Offsets,
        Said("no limit"),
        "Of these partitions of the source only records from this offset on, each as \"TOPIC/PARTITION\" = OFFSET.",
    ),
    key("until_offset", Offsets, Said("no limit"), "Of these partitions only records before this offset."),
    key(
        "create_topics",
        Flag,
        Is("true"),
        "Create targets that do not exist, with the partition counts of the sources.",
    ),
    key("replication_factor", Count(1, 32_767), Said("the broker's default"), "For the topics that are created."),
    key(
        "apply_topic_config",
        Flag,
        Is("false"),
        "true: at the end the targets get the settings that the sources had of their own. Until then created topics keep \
         everything. Settings that the target cluster does not take are named.",
    ),
    key(
        "if_not_empty",
        OneOf(&["refuse", "append"]),
        Is("refuse"),
        "What to do when a target holds records. What is appended cannot be told from what others write: a restore with \
         \"append\" that was interrupted and is started again appends everything once more.",
    ),
    key("in_place", Flag, Is("false"), "true: allow the source's own topic on the source's own cluster."),
    key(
        "plan",
        Path,
        Said("STATE_DIR/restores/ID.json"),
        "Where the plan is written before the first record. The same restore started again finds its unfinished plan and \
         goes on exactly where the target ends; a finished one is kept as a record. With if_not_empty = \"append\" none is \
         written: such a restore cannot be gone on with.",
    ),
    key(
        "rate_limit",
        Rate,
        Is("0"),
        "Bytes per second read from the storage, where objects of more than 2 MiB are read twice; \"0\" is no limit.",
    ),
    key("dry_run", Flag, Is("false"), "Show what would be done, and do nothing."),
    key(
        "instance",
        Text,
        Said("the newest complete snapshot"),
        "Of compacted topics: what this instance has, with a warning where that is not complete.",
    ),
    key(
        "consumer_groups",
        OneOf(&["none", "plan", "apply"]),
        Is("none"),
        "What to do with the offsets that consumer groups had committed. They are translated: a group goes on with the \
         same record on the target. plan: show what they would be. apply: commit them once everything is restored. \
         A group that is active on the target, that has committed other offsets there, or whose offsets are of another \
         topic of the name is refused before anything is produced.",
    ),
    key("groups_regex", Pattern, Is(".*"), "Only with the consumer groups that match."),
    key("groups_exclude_regex", Pattern, Said("none"), "Not these of those that groups_regex matches."),
];

/// The key with this name.
pub(super) fn find(keys: &'static [Key], name: &str) -> Option<&'static Key> {
    keys.iter().find(|key| key.name == name)
}

/// The one of `names` that somebody who wrote `wrong` most probably meant.
pub(super) fn meant<'n>(wrong: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let wrong = wrong.to_lowercase().replace('-', "_");
    let distance = |name: &str| {
        let name = name.to_lowercase().replace('-', "_");
        // `memory` for `memory.budget`, `budget` for it, too.
        let part = name.split_once('.').is_some_and(|(table, rest)| table == wrong || rest == wrong);
        if part { 0 } else { strsim::damerau_levenshtein(&wrong, &name) }
    };
    let near = |name: &str| distance(name) <= (wrong.chars().count() / 3).clamp(1, 3);
    names.filter(|name| near(name)).min_by_key(|name| distance(name))
}

#[cfg(test)]
mod tests {
    use config::Value;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("topic", Some("topics"))]
    #[case("topics_regexp", Some("topics_regex"))]
    #[case("flush-bytes", Some("flush_bytes"))]
    #[case("FLUSH_SIZE", Some("flush_size"))]
    #[case("flush_byets", Some("flush_bytes"))]
    #[case("rotation", None)]
    #[case("x", None)]
    fn suggestions(#[case] wrong: &str, #[case] expected: Option<&str>) {
        assert_eq!(meant(wrong, JOB.iter().map(|key| key.name)), expected);
    }

    #[test]
    fn suggestions_for_tables() {
        let names = || MAIN.iter().map(|key| key.name);
        assert_eq!(meant("memory", names()), Some("memory.budget"));
        assert_eq!(meant("budget", names()), Some("memory.budget"));
    }

    #[test]
    fn every_table_is_sound() {
        for keys in [MAIN, KAFKA, STORAGE, JOB, RESTORE] {
            for (index, key) in keys.iter().enumerate() {
                assert!(!keys[..index].iter().any(|other| other.name == key.name), "{} twice", key.name);
                assert!(key.doc.ends_with('.'), "{}: its text is no sentence", key.name);
                if let Is(text) = key.default {
                    let value = Value::new(None, key.kind.typed(text));
                    assert_eq!(key.kind.check(&value), Ok(()), "the default of {}", key.name);
                }
            }
        }
    }
}
