//! Whole configurations: what is refused, with the exact text, and what comes out.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use rstest::rstest;

use super::load::inspect_with;
use super::*;

/// A folder with a main file and jobs.
struct Tree(tempfile::TempDir);

const MAIN: &str = "jobs_dir = \"jobs.d\"\n\
                    [kafka.main]\nbootstrap_servers = [\"a:9092\"]\n\
                    [storage.main]\nbucket = \"b\"\n";

impl Tree {
    fn new(main: &str, jobs: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("main.toml"), main).unwrap();
        std::fs::create_dir(folder.path().join("jobs.d")).unwrap();
        for (name, text) in jobs {
            std::fs::write(folder.path().join("jobs.d").join(name), text).unwrap();
        }
        Self(folder)
    }

    fn inspect(&self) -> Inspection {
        self.inspect_in(&[])
    }

    fn inspect_in(&self, variables: &[(&str, &str)]) -> Inspection {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        inspect_with(Some(&self.0.path().join("main.toml")), &Jobs::All, variables)
    }

    fn config(&self) -> Config {
        let inspection = self.inspect();
        assert!(inspection.config.is_some(), "{:#?}", inspection.findings);
        inspection.config.unwrap()
    }

    /// All findings, with the folder shortened to `D`.
    fn findings(&self) -> Vec<String> {
        let folder = self.0.path().to_string_lossy().into_owned();
        self.inspect().findings.iter().map(|finding| finding.to_string().replace(&folder, "D")).collect()
    }
}

#[test]
fn an_empty_main_file_is_valid_and_has_every_default() {
    let tree = Tree::new("", &[]);
    let config = tree.config();
    assert_eq!(config.state_dir, Path::new("/var/lib/kafka-backup"));
    assert_eq!(config.jobs_dir, Path::new("/etc/kafka-backup/jobs.d"));
    assert_eq!(config.drain_timeout, Duration::from_secs(60));
    assert!(!config.strict_reload && !config.watch);
    assert_eq!(config.watch_settle, Duration::from_secs(10));
    assert_eq!(config.memory_budget, 512 << 20);
    assert_eq!(config.http_listen, Some("127.0.0.1:9748".parse().unwrap()));
    assert_eq!(config.control_socket, Path::new("/run/kafka-backup/control.sock"));
    assert_eq!((config.log_level.as_str(), config.log_format), ("info", LogFormat::Auto));
    assert_eq!(config.spool_dir, Path::new("/var/lib/kafka-backup/spool"));
    assert_eq!(config.spool_max, 10 << 30);
    assert!(config.warnings.is_empty());
}

#[test]
fn a_job_has_every_default() {
    let config = Tree::new(MAIN, &[("orders.toml", "topics = [\"orders\"]")]).config();
    let job = &config.jobs[0];
    assert_eq!((job.id.as_str(), job.group_id.as_str()), ("orders", "kafka-backup-orders"));
    assert_eq!((job.kafka.name.as_str(), job.storage.name.as_str()), ("main", "main"));
    assert_eq!((job.tasks_max, job.flush_size, job.flush_bytes), (1, 100_000, 64 << 20));
    assert_eq!((job.rotate_interval, job.rpo_target), (Duration::from_secs(600), Duration::from_secs(900)));
    assert_eq!((job.codec, job.isolation), (Codec::Zstandard(3), Isolation::ReadCommitted));
    assert_eq!((job.start, job.on_recreate), (Start::Earliest, OnRecreate::NewGeneration));
    assert_eq!((job.adopt, job.allow_compacted, job.rate_limit), (false, false, None));
    assert_eq!((job.group_instance_id.as_str(), job.topics.literal.as_slice()), ("", ["orders".to_owned()].as_slice()));
}

#[test]
fn defaults_of_the_main_file_hold_where_a_job_says_nothing() {
    let main = format!("{MAIN}[defaults]\ntasks_max = 4\ncodec = \"snappy\"\nrate_limit = \"50MiB/s\"\n");
    let jobs = [("a.toml", "topics = [\"a\"]"), ("b.toml", "topics = [\"b\"]\ntasks_max = 2\ncodec = \"null\"")];
    let config = Tree::new(&main, &jobs).config();
    assert_eq!((config.jobs[0].tasks_max, config.jobs[0].codec), (4, Codec::Snappy));
    assert_eq!((config.jobs[1].tasks_max, config.jobs[1].codec), (2, Codec::Null));
    assert_eq!(config.jobs[1].rate_limit, Some(50 << 20));
}

#[test]
fn a_table_in_a_job_replaces_that_of_the_defaults_as_a_whole() {
    let main = format!("{MAIN}[defaults]\nstorage = {{ bucket = \"x\", prefix = \"p\" }}\n");
    let job =
        "topics = [\"a\"]\nkafka = { bootstrap_servers = [\"c:1\"] }\n[storage]\ntype = \"file\"\npath = \"data\"";
    let tree = Tree::new(&main, &[("a.toml", job), ("b.toml", "topics = [\"b\"]")]);
    let config = tree.config();
    let path = tree.0.path().join("jobs.d/data");
    assert_eq!(config.jobs[0].storage.place, Place::File { path, prefix: String::new() });
    assert_eq!(config.jobs[0].storage.name, "jobs.d/a.toml");
    assert_eq!(config.jobs[0].kafka.bootstrap_servers, ["c:1"]);
    assert!(matches!(&config.jobs[1].storage.place, Place::S3 { bucket, .. } if bucket == "x"));
}

#[test]
fn variables_win_over_the_main_file() {
    let tree = Tree::new("memory.budget = \"1GiB\"", &[]);
    let config = tree.inspect_in(&[("KAFKA_BACKUP__MEMORY__BUDGET", "2GiB"), ("KAFKA_BACKUP_CONFIG", "/x")]).config;
    assert_eq!(config.unwrap().memory_budget, 2 << 30);
    let findings = tree.inspect_in(&[("KAFKA_BACKUP__MEMORY__BUGDET", "2GiB")]).findings;
    let expected = "environment variable KAFKA_BACKUP__MEMORY__BUGDET: memory.bugdet: unknown key of the main file\n  \
                    hint: did you mean memory.budget?";
    assert_eq!(findings.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
}

#[rstest]
#[case(
    "memory.budget = \"15MiB\"",
    "D/main.toml:1:8: memory.budget: 15MiB is less than 16MiB\n  hint: choose at least 16MiB"
)]
#[case(
    "memory.budget = 512",
    "D/main.toml:1:8: memory.budget: 512 has no unit\n  hint: write the number with its unit, for example \"64MiB\""
)]
#[case(
    "memory = \"1GiB\"",
    "D/main.toml:1:1: memory: unknown key of the main file\n  hint: did you mean memory.budget?"
)]
#[case(
    "drain_timeout = \"0s\"",
    "D/main.toml:1:1: drain_timeout: 0s is not within 1s and 1h\n  hint: choose a value from 1s to 1h"
)]
#[case(
    "flush_size = 5",
    "D/main.toml:1:1: flush_size: is a key of a job, not of the main file\n  hint: put it into [defaults], for all jobs, or into the file of a job"
)]
#[case(
    "state_dir = \"\"",
    "D/main.toml:1:1: state_dir: is empty\n  hint: write a path, or remove the key to have the default"
)]
#[case(
    "jobs_dir = \"nowhere\"",
    "D/main.toml:1:1: jobs_dir: cannot read D/nowhere: No such file or directory (os error 2)\n  hint: create the folder, or check the path and its mode"
)]
#[case("a = [", "D/main.toml:1:6: not TOML: unclosed array, expected `]`\n  hint: see https://toml.io/en/v1.0.0")]
#[case("kafka = \"main\"", "D/main.toml:1:1: kafka: must be a table, not a text\n  hint: write it as a [table]")]
#[case(
    "[kafka]\nbootstrap_servers = [\"a:1\"]",
    "D/main.toml:2:1: kafka.bootstrap_servers: is not a table\n  hint: write it under [kafka.NAME]"
)]
#[case(
    "[storage.\"a b\"]\nbucket = \"x\"",
    "D/main.toml:1:10: storage: \"a b\" cannot be a name\n  hint: use a-z A-Z 0-9 . _ -"
)]
#[case(
    "[defaults]\nflush_bytes = \"1MB\"\nflush_bites = 1",
    "D/main.toml:3:1: flush_bites: unknown key of a job\n  hint: did you mean flush_bytes?"
)]
fn broken_main_files(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(Tree::new(text, &[]).findings(), [expected]);
}

#[rstest]
#[case(
    "",
    "D/jobs.d/j.toml:1:1: topics: no topic is named\n  hint: write topics = [\"...\"] or topics_regex = \"^...$\""
)]
#[case(
    "topics = []",
    "D/jobs.d/j.toml:1:1: topics: no topic is named\n  hint: write topics = [\"...\"] or topics_regex = \"^...$\""
)]
#[case(
    "topics = [\"a\", \"b c\"]",
    "D/jobs.d/j.toml:1:16: topics: \"b c\" is not a topic name\n  hint: topic names are 1 to 249 of a-z A-Z 0-9 . _ - (use topics_regex for patterns)"
)]
#[case("topics = [\"a\",\n\"a\"]", "D/jobs.d/j.toml:2:1: topics: \"a\" is listed twice\n  hint: remove one")]
#[case(
    "topics_regex = \"(\"",
    "D/jobs.d/j.toml:1:1: topics_regex: not a regular expression: unclosed group\n  hint: see https://docs.rs/regex/latest/regex/#syntax"
)]
#[case(
    "topics = [\"a\"]\nexclude_regex = \"x\"",
    "D/jobs.d/j.toml:2:1: exclude_regex: has no effect without topics_regex\n  hint: remove it"
)]
#[case(
    "topics = [\"a\"]\nkafka = \"mian\"",
    "D/jobs.d/j.toml:2:1: kafka: there is no cluster \"mian\"\n  hint: did you mean \"main\"?"
)]
#[case(
    "topics = [\"a\"]\nstorage = \"elsewhere\"",
    "D/jobs.d/j.toml:2:1: storage: there is no store \"elsewhere\"\n  hint: write [storage.elsewhere] into D/main.toml, or name one of main"
)]
#[case(
    "topics = [\"a\"]\nkafka = 5",
    "D/jobs.d/j.toml:2:1: kafka: must be a name or a table, not a whole number\n  hint: name a table of the main file"
)]
#[case(
    "topics = [\"a\"]\n[kafka]\nproperties = {}",
    "D/jobs.d/j.toml:2:2: bootstrap_servers: is missing\n  hint: write bootstrap_servers = [\"host:port\"]"
)]
#[case(
    "topics = [\"a\"]\nflush_size = 0",
    "D/jobs.d/j.toml:2:1: flush_size: 0 is less than 1\n  hint: choose at least 1"
)]
#[case(
    "topics = [\"a\"]\nflush_bytes = \"63KiB\"",
    "D/jobs.d/j.toml:2:1: flush_bytes: 63KiB is less than 64KiB\n  hint: choose at least 64KiB"
)]
#[case(
    "topics = [\"a\"]\nflush_bytes = \"2GiB\"",
    "D/jobs.d/j.toml:2:1: flush_bytes: 2GiB is more than 1GiB\n  hint: choose at most 1GiB"
)]
#[case(
    "topics = [\"a\"]\nrotate_interval = \"50ms\"",
    "D/jobs.d/j.toml:2:1: rotate_interval: 50ms is not within 100ms and 365d\n  hint: choose a value from 100ms to 365d"
)]
#[case(
    "topics = [\"a\"]\nrotate_interval = 600",
    "D/jobs.d/j.toml:2:1: rotate_interval: 600 has no unit\n  hint: write the number with its unit, for example \"10m\""
)]
#[case(
    "topics = [\"a\"]\ntasks_max = 129",
    "D/jobs.d/j.toml:2:1: tasks_max: 129 is more than 128\n  hint: choose at most 128"
)]
#[case(
    "topics = [\"a\"]\ncodec = \"gzip\"",
    "D/jobs.d/j.toml:2:1: codec: \"gzip\" is not a choice\n  hint: choose one of \"zstandard\", \"snappy\", \"deflate\", \"null\""
)]
#[case(
    "topics = [\"a\"]\ncodec = \"deflate\"\ncodec_level = 12",
    "D/jobs.d/j.toml:3:1: codec_level: 12 is more than 9, the most of deflate\n  hint: choose a lower level"
)]
#[case(
    "topics = [\"a\"]\ncodec = \"snappy\"\ncodec_level = 3",
    "D/jobs.d/j.toml:3:1: codec_level: has no effect with codec = \"snappy\"\n  hint: remove it"
)]
#[case(
    "topics = [\"a\"]\ngroup_id = \"\"",
    "D/jobs.d/j.toml:2:1: group_id: is empty\n  hint: remove the key to have the default, kafka-backup-JOB"
)]
#[case(
    "topics = [\"a\"]\nrpo_target = \"1m\"",
    "D/jobs.d/j.toml:2:1: rpo_target: 1m is less than rotate_interval (10m): it is missed when little is written\n  hint: lower rotate_interval, or raise rpo_target"
)]
#[case(
    "topics = [\"a\"]\nrotate_interval = \"1h\"",
    "D/jobs.d/j.toml:2:1: rpo_target: 15m is less than rotate_interval (1h): it is missed when little is written\n  hint: lower rotate_interval, or raise rpo_target"
)]
#[case(
    "topics = [\"a\"]\ntype = \"compacted\"\ninstance = \"a\"",
    "D/jobs.d/j.toml:1:1: initial_status: is missing\n  hint: write \"ACTIVATE\" in one of the two jobs and \"PASSIVATE\" in the other"
)]
#[case(
    "topics = [\"a\"]\ninstance = \"a\"",
    "D/jobs.d/j.toml:2:1: instance: belongs to type = \"compacted\"\n  hint: remove it, or write type = \"compacted\""
)]
#[case(
    "topics = [\"a\"]\ntype = \"compacted\"\ninitial_status = \"ACTIVATE\"",
    "D/jobs.d/j.toml:1:1: instance: is missing\n  hint: name it, for example instance = \"a\", and instance = \"b\" in the other job"
)]
#[case(
    "topics = [\"a\"]\ntype = \"compacted\"\ninstance = \"gen-7\"\ninitial_status = \"ACTIVATE\"",
    "D/jobs.d/j.toml:3:1: instance: \"gen-7\" would be taken for the folder of a generation or a partition\n  hint: choose a name that is neither gen-* nor a number, for example \"a\""
)]
#[case(
    "topics = [\"a\"]\ntype = \"compacted\"\ninstance = \"12\"\ninitial_status = \"ACTIVATE\"",
    "D/jobs.d/j.toml:3:1: instance: \"12\" would be taken for the folder of a generation or a partition\n  hint: choose a name that is neither gen-* nor a number, for example \"a\""
)]
#[case(
    "topics = [\"a\"]\ntype = \"compacted\"\ninstance = \"a\"\ninitial_status = \"ACTIVATE\"\nretention = \"30d\"",
    "D/jobs.d/j.toml:5:1: retention: a snapshot of a compacted topic must not expire: its oldest records are as alive as its newest\n  hint: write retention = \"keep\" into the job"
)]
#[case(
    "topics = [\"a\"]\ntype = \"compacted\"\ninstance = \"a\"\ninitial_status = \"ACTIVATE\"\nstart = \"latest\"",
    "D/jobs.d/j.toml:5:1: start: has no effect with type = \"compacted\": a snapshot is read from the beginning of the log\n  hint: remove it"
)]
#[case(
    "topics = [\"a\"]\ntype = \"compacted\"\ninstance = \"a\"\ninitial_status = \"ACTIVATE\"\nlength_hours = 0",
    "D/jobs.d/j.toml:5:1: length_hours: 0 is not within a second and 8784 hours\n  hint: choose a number of hours in between; 0.001 is 3.6 seconds"
)]
#[case(
    "topics = [\"c\"]\ntype = \"compacted\"\ninstance = \"a\"\ninitial_status = \"ACTIVATE\"\ncoordination_topic = \"c\"",
    "D/jobs.d/j.toml:1:11: topics: names the coordination topic, which changes with every turn\n  hint: leave it out"
)]
#[case(
    "topics = [\"a\"]\nretention = \"12h\"",
    "D/jobs.d/j.toml:2:1: retention: 12h is less than a day, the shortest time a store knows\n  hint: choose at least \"1d\""
)]
#[case(
    "topics = [\"a\"]\nretention = \"a while\"",
    "D/jobs.d/j.toml:2:1: retention: \"a while\" is not a retention\n  hint: write for example \"keep\", \"topic\" or \"30d\""
)]
#[case(
    "topics = [\"a\"]\nretention = 30",
    "D/jobs.d/j.toml:2:1: retention: 30 has no unit\n  hint: write the number with its unit, for example \"keep\", \"topic\" or \"30d\""
)]
#[case(
    "topics = [\"a\"]\nretention = \"99999999999d\"",
    "D/jobs.d/j.toml:2:1: retention: 99999999999d is longer than a store can say\n  hint: write \"keep\" to keep everything"
)]
#[case(
    "topics = [\"a\"]\nstate_dir = \"x\"",
    "D/jobs.d/j.toml:2:1: state_dir: is a key of the main file, not of a job\n  hint: put it into the main file"
)]
#[case(
    "topic = [\"a\"]\ntopics_regex = \"x\"",
    "D/jobs.d/j.toml:1:1: topic: unknown key of a job\n  hint: did you mean topics?"
)]
fn broken_jobs(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(Tree::new(MAIN, &[("j.toml", text)]).findings(), [expected]);
}

#[rstest]
#[case(
    "topics = [\"x\"]",
    "topics = [\"y\", \"x\"]",
    "D/jobs.d/b.toml:1:16: topics: \"x\" is backed up to the same place by job \"a\" (D/jobs.d/a.toml:1:11)\n  hint: remove it from one of the jobs, or give one of them a storage with another prefix"
)]
#[case(
    "topics = [\"x\"]",
    "topics_regex = \"^x\"",
    "D/jobs.d/b.toml:1:1: topics_regex: matches \"x\", which job \"a\" backs up to the same place (D/jobs.d/a.toml:1:11)\n  hint: leave it out with exclude_regex, or give one of the jobs a storage with another prefix"
)]
#[case(
    "topics_regex = \"^x\"",
    "topics = [\"x\"]",
    "D/jobs.d/a.toml:1:1: topics_regex: matches \"x\", which job \"b\" backs up to the same place (D/jobs.d/b.toml:1:11)\n  hint: leave it out with exclude_regex, or give one of the jobs a storage with another prefix"
)]
#[case(
    "topics_regex = \"^x\"",
    "topics_regex = \"^y\"",
    "D/jobs.d/b.toml:1:1: topics_regex: job \"a\" has a pattern for the same place, too\n  hint: see to it that no topic matches both; the job that comes second to one is degraded"
)]
#[case(
    "topics = [\"x\"]\ngroup_id = \"g\"",
    "topics = [\"y\"]\ngroup_id = \"g\"",
    "D/jobs.d/b.toml:2:1: group_id: \"g\" is the group of job \"a\", too\n  hint: give each job a group of its own, or remove the key to have the default"
)]
#[case(
    "topics = [\"x\"]\ntype = \"compacted\"\ninstance = \"a\"\ninitial_status = \"ACTIVATE\"",
    "topics = [\"x\"]\ntype = \"compacted\"\ninstance = \"a\"\ninitial_status = \"PASSIVATE\"",
    "D/jobs.d/b.toml:3:1: instance: \"a\" is the instance of job \"a\" for topic \"x\", too (D/jobs.d/b.toml:1:11)\n  hint: give the two jobs of a pair different instances"
)]
#[case(
    "topics = [\"x\"]\ntype = \"compacted\"\ninstance = \"a\"\ninitial_status = \"PASSIVATE\"",
    "topics = [\"x\"]\ntype = \"compacted\"\ninstance = \"b\"\ninitial_status = \"PASSIVATE\"",
    "D/jobs.d/b.toml:4:1: initial_status: PASSIVATE is the initial_status of its partner, job \"a\", too\n  hint: write ACTIVATE in one of the two and PASSIVATE in the other"
)]
#[case(
    "topics = [\"x\"]\ntype = \"compacted\"\ninstance = \"a\"\ninitial_status = \"ACTIVATE\"",
    "topics = [\"x\", \"y\"]\ntype = \"compacted\"\ninstance = \"b\"\ninitial_status = \"PASSIVATE\"",
    "D/jobs.d/b.toml:1:1: topics: its partner, job \"a\", has other topics\n  hint: name the same topics in both jobs of a pair"
)]
#[case(
    "topics = [\"x\"]\ntype = \"compacted\"\ninstance = \"a\"\ninitial_status = \"ACTIVATE\"",
    "topics = [\"x\"]\ntype = \"compacted\"\ninstance = \"b\"\ninitial_status = \"PASSIVATE\"\ncoordination_topic = \"c\"",
    "D/jobs.d/b.toml:5:1: coordination_topic: its partner, job \"a\", has \"_compacted_log_backup_coordination\": they would never hear of each other\n  hint: name the same topic in both"
)]
#[case(
    "topics = [\"x\"]\ntype = \"compacted\"\ninstance = \"a\"\ninitial_status = \"ACTIVATE\"",
    "topics = [\"x\"]",
    "D/jobs.d/b.toml:1:11: topics: \"x\" is backed up to the same place by job \"a\" (D/jobs.d/a.toml:1:11)\n  hint: remove it from one of the jobs, or give one of them a storage with another prefix"
)]
fn jobs_that_get_in_each_others_way(#[case] a: &str, #[case] b: &str, #[case] expected: &str) {
    assert_eq!(Tree::new(MAIN, &[("a.toml", a), ("b.toml", b)]).findings(), [expected]);
}

#[rstest]
#[case("topics = [\"x\"]", "topics = [\"x\"]\nstorage = { bucket = \"b\", prefix = \"p\" }")]
#[case("topics_regex = \"^x\"\nexclude_regex = \"x$\"", "topics = [\"x\"]")]
#[case(
    "topics = [\"x\"]\ngroup_id = \"g\"",
    "topics = [\"y\"]\ngroup_id = \"g\"\nkafka = { bootstrap_servers = [\"c:1\"] }"
)]
#[case(
    "topics = [\"x\"]\ntype = \"compacted\"\ninstance = \"a\"\ninitial_status = \"ACTIVATE\"\nlength_hours = 0.5",
    "topics = [\"x\"]\ntype = \"compacted\"\ninstance = \"b\"\ninitial_status = \"PASSIVATE\"\ncoordination_kafka = \"main\""
)]
fn jobs_that_do_not(#[case] a: &str, #[case] b: &str) {
    assert_eq!(Tree::new(MAIN, &[("a.toml", a), ("b.toml", b)]).findings(), Vec::<String>::new());
}

#[test]
fn everything_wrong_is_reported_at_once_in_the_order_of_files_and_lines() {
    let jobs = [("a.toml", "topics = [\"a\"]\nflush_bytes = 1\ncodec = \"x\""), ("b b.toml", "kafka = \"x\"")];
    let tree = Tree::new("jobs_dir = \"jobs.d\"\nmemory.budget = \"1KiB\"\n", &jobs);
    let places: Vec<_> =
        tree.findings().iter().map(|text| text.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "D/jobs.d/a.toml:1:1 kafka",
        "D/jobs.d/a.toml:1:1 storage",
        "D/jobs.d/a.toml:2:1 flush_bytes",
        "D/jobs.d/a.toml:3:1 codec",
        "D/jobs.d/b b.toml \"b b\" cannot be the id of a job\n  hint",
        "D/main.toml:2:8 memory.budget",
    ];
    assert_eq!(places, expected);
}

#[test]
fn a_main_file_that_is_asked_for_must_be_there() {
    let inspection = inspect_with(Some(Path::new("/nowhere/x.toml")), &Jobs::All, std::iter::empty());
    assert_eq!(inspection.findings[0].to_string(), "/nowhere/x.toml: there is no such file\n  hint: check the path");
}

#[test]
fn secrets_of_clusters_that_no_job_uses_stop_only_their_users() {
    let main = format!(
        "{MAIN}[kafka.dr]\nbootstrap_servers = [\"d:1\"]\nproperties.\"sasl.password_file\" = \"/nowhere/p\"\n"
    );
    let tree = Tree::new(&main, &[("a.toml", "topics = [\"a\"]")]);
    let config = tree.config();
    assert_eq!(config.warnings.len(), 1);
    assert!(config.cluster("dr", "--kafka").unwrap_err().to_string().contains("cannot read /nowhere/p"));
    assert!(config.cluster("main", "--kafka").is_ok());

    let tree = Tree::new(&main, &[("a.toml", "topics = [\"a\"]\nkafka = \"dr\"")]);
    let expected = "D/main.toml:8:12: sasl.password_file: cannot read /nowhere/p: there is no such file\n  hint: create it, or check the path";
    assert_eq!(tree.findings(), [expected]);
    assert!(tree.inspect().config.is_none());
}

#[test]
fn clusters_and_stores_of_the_command_line() {
    let config = Tree::new(MAIN, &[]).config();
    assert_eq!(config.cluster("x:1,y:2", "--kafka").unwrap().bootstrap_servers, ["x:1", "y:2"]);
    assert_eq!(
        config.cluster("mian", "--kafka").unwrap_err().to_string(),
        "--kafka: kafka: there is no cluster \"mian\"\n  hint: did you mean \"main\"?"
    );
    assert!(config.store("file:///srv", "--storage").is_ok());
    assert!(config.store("nothing", "--storage").is_err());
}

#[test]
fn every_effective_value_says_where_it_came_from() {
    let main =
        format!("{MAIN}[defaults]\ntasks_max = 4\n[kafka.main.properties]\n\"sasl.password_credential\" = \"p\"\n");
    let tree = Tree::new(&main, &[("a.toml", "topics = [\"a\"]\nkafka = { bootstrap_servers = [\"c:1\"] }")]);
    let folder = tree.0.path().to_string_lossy().into_owned();
    let line = |s: &Shown| format!("{} {} {} {}", s.section, s.key, s.value, s.origin).replace(&folder, "D");
    let values: Vec<_> = tree.inspect().values.iter().map(line).collect();
    for expected in [
        "main memory.budget \"512MiB\" default",
        "main spool.dir \"/var/lib/kafka-backup/spool\" default",
        "kafka.main bootstrap_servers [\"a:9092\"] D/main.toml:3:1",
        "kafka.main properties.sasl.password_credential \"p\" D/main.toml:9:1",
        "storage.main bucket \"b\" D/main.toml:5:1",
        "storage.main path_style false default",
        "job a tasks_max 4 D/main.toml:7:1",
        "job a kafka.bootstrap_servers [\"c:1\"] D/jobs.d/a.toml:2:11",
        "job a storage \"main\" default",
        "job a group_id \"kafka-backup-a\" default",
    ] {
        assert!(values.iter().any(|value| value == expected), "{expected} is not in {values:#?}");
    }
}

#[test]
fn files_of_jobs_are_told_from_main_files() {
    let jobs = [
        ("a.toml", "topics = [\"a\"]"),
        ("b.toml", "kafka = \"main\"\ntopcis = 1"),
        ("r.toml", "kafka = \"main\"\ntopics = [\"a\"]\nif_not_empty = \"append\""),
    ];
    let tree = Tree::new(MAIN, &jobs);
    let kind = |name: &str| kind_of_file(&tree.0.path().join(name));
    assert_eq!((kind("main.toml"), kind("absent.toml")), (FileKind::Main, FileKind::Main));
    assert_eq!((kind("jobs.d/a.toml"), kind("jobs.d/b.toml")), (FileKind::Job, FileKind::Job));
    assert_eq!(kind("jobs.d/r.toml"), FileKind::Restore);
}

mod restores {
    use super::*;

    fn request(text: &str, flags: &RestoreFlags) -> Result<RestoreRequest, String> {
        let tree = Tree::new(MAIN, &[]);
        let file = tree.0.path().join("r.toml");
        std::fs::write(&file, text).unwrap();
        let folder = tree.0.path().to_string_lossy().into_owned();
        RestoreRequest::load(&tree.config(), Some(&file), flags)
            .map_err(|error| error.to_string().replace(&folder, "D"))
    }

    const REQUEST: &str = "kafka = \"x:1\"\nstorage = \"main\"\n";

    #[test]
    fn options_win_over_the_file() {
        let mut flags = RestoreFlags::default();
        flags.count("tasks_max", "--tasks-max", Some(9));
        flags.text("storage", "--storage", Some("file:///srv"));
        flags.flag("in_place", "--in-place", true);
        let text = format!("{REQUEST}topics = [\"a\", \"b:c\"]\ntasks_max = 2\npartitions = [\"b/1\", \"b/0\"]");
        let request = request(&text, &flags).unwrap();
        assert_eq!((request.tasks_max, request.in_place, request.dry_run), (9, true, false));
        assert!(matches!(request.storage.place, Place::File { .. }));
        assert_eq!(request.topics, [("a".into(), "a".into()), ("b".into(), "c".into())]);
        assert_eq!(request.partitions, [("b".into(), 0), ("b".into(), 1)]);
        assert_eq!((request.if_not_empty, request.replication_factor), (IfNotEmpty::Refuse, None));
    }

    #[test]
    fn times_and_offsets_limit_what_is_restored() {
        let mut flags = RestoreFlags::default();
        flags.offsets("until_offset", "--until-offset", &["shop.a/1=9".to_owned()]);
        flags.text("until", "--until", Some("1970-01-01T00:00:02Z"));
        let text = format!(
            "{REQUEST}topics = [\"shop.a\"]\nfrom = 1970-01-01T00:00:01Z\nuntil = 1970-01-01T00:00:03Z\n\
             from_offset = {{\"shop.a/0\" = 3, \"shop.a/1\" = 4}}\nuntil_offset = {{\"shop.a/0\" = 100}}"
        );
        let request = request(&text, &flags).unwrap();
        assert_eq!((request.times.from_ms, request.times.until_ms), (Some(1_000), Some(2_000)));
        let offsets: Vec<_> = request.offsets.iter().map(|((t, p), o)| (t.as_str(), *p, o.from, o.until)).collect();
        assert_eq!(offsets, [("shop.a", 0, Some(3), None), ("shop.a", 1, Some(4), Some(9))]);
        flags.offsets("until_offset", "--until-offset", &["shop.a/1".to_owned()]);
        let refused = super::restores::request(&text, &flags).unwrap_err();
        assert!(refused.starts_with("--until-offset: until_offset: must be a whole number"), "{refused}");
    }

    #[test]
    fn targets_are_renamed_unless_they_are_given() {
        let text = format!("{REQUEST}topics = [\"a\", \"b:c\"]\ntopics_regex = \"^x\"\nrename = \"s/^/dr-/\"");
        let request = request(&text, &RestoreFlags::default()).unwrap();
        assert_eq!(request.topics, [("a".into(), "dr-a".into()), ("b".into(), "c".into())]);
        assert!(request.topics_regex.is_some_and(|pattern| pattern.0.is_match("xy")));
        assert_eq!(request.rename.map(|rename| rename.apply("x")), Some("dr-x".to_owned()));
    }

    #[rstest]
    #[case("topics = []", "D/r.toml:1:1: topics: is missing\n  hint: give --topics, or write topics into the file")]
    #[case("topics = [\"a\", \"a:b\"]", "D/r.toml:3:16: topics: source \"a\" is given twice\n  hint: remove one")]
    #[case("topics = [\"a:c\", \"b:c\"]", "D/r.toml:3:18: topics: target \"c\" is given twice\n  hint: remove one")]
    #[case(
        "topics = [\"a\"]\npartitions = [\"b/0\"]",
        "D/r.toml:4:15: partitions: \"b/0\" is of a topic that is not restored\n  hint: name the source topic in topics, or remove the partition"
    )]
    #[case(
        "topics = [\"a\"]\npartitions = [\"a\"]",
        "D/r.toml:4:15: partitions: \"a\" is not a partition\n  hint: write TOPIC/PARTITION, for example \"orders/0\""
    )]
    #[case(
        "topics = [\"a\"]\nfrom = 2026-11-02T00:00:00Z\nuntil = 2026-11-02T00:00:00Z",
        "D/r.toml:4:1: from: is not before until: no record would be restored\n  hint: make it earlier"
    )]
    #[case(
        "topics = [\"a\"]\nuntil_offset = {\"b/0\" = 5}",
        "D/r.toml:4:1: until_offset: \"b/0\" is of a topic that is not restored\n  hint: name the source topic in topics, or remove the partition"
    )]
    #[case(
        "topics = [\"a\"]\nfrom_offset = {\"a/0\" = 5}\nuntil_offset = {\"a/0\" = 5}",
        "D/r.toml:5:1: until_offset: leaves nothing of a partition\n  hint: make from_offset the smaller one"
    )]
    #[case(
        "topics = [\"a\"]\nfrom_offset = {\"a\" = 5}",
        "D/r.toml:4:1: from_offset: \"a\" is not a partition\n  hint: write TOPIC/PARTITION, for example \"orders/0\""
    )]
    #[case(
        "topics = [\"a\"]\nrename = \"x\"",
        "D/r.toml:4:1: rename: \"x\": it does not begin with s/\n  hint: write s/PATTERN/REPLACEMENT/, for example \"s/^/dr-/\""
    )]
    #[case(
        "topics = [\"a\"]\ninplace = true",
        "D/r.toml:4:1: inplace: unknown key of a restore\n  hint: did you mean in_place?"
    )]
    fn broken_requests(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(request(&format!("{REQUEST}{text}"), &RestoreFlags::default()), Err(expected.to_owned()));
    }
}

/// Text that looks enough like a configuration to get past the parser.
fn toml() -> impl Strategy<Value = String> {
    let names: Vec<&str> = [keys::MAIN, keys::JOB, keys::KAFKA, keys::STORAGE, keys::RESTORE]
        .iter()
        .flat_map(|keys| keys.iter().map(|key| key.name))
        .chain([
            "x",
            "\"a[9999999999]\"",
            "kafka.main",
            "kafka.main.properties",
            "storage.main.type",
            "\"\"",
            "defaults.codec",
        ])
        .collect();
    let values = [
        "\"main\"",
        "\"\"",
        "1",
        "-1",
        "1.5",
        "true",
        "[]",
        "[\"a\"]",
        "[1]",
        "{}",
        "{ a = 1 }",
        "\"64MiB\"",
        "\"1h\"",
        "\"0\"",
        "\"compacted\"",
        "2026-11-01T00:00:00Z",
        "\"é\"",
        "{ bootstrap_servers = [\"a:1\"] }",
        "nan",
        "\"999999999999999EiB\"",
        "\"99999999999999999999d\"",
        "\"deflate\"",
        "\"(\"",
    ];
    let line = (prop::sample::select(names), prop::sample::select(values.to_vec()), any::<bool>()).prop_map(
        |(name, value, table)| if table && value == "{}" { format!("[{name}]") } else { format!("{name} = {value}") },
    );
    prop::collection::vec(line, 0..8).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_panics_the_loader(main in prop_oneof![any::<String>(), toml()], job in prop_oneof![any::<String>(), toml()]) {
        let tree = Tree::new(&main, &[]);
        let file = tree.0.path().join("jobs.d/j.toml");
        std::fs::write(&file, job).unwrap();
        let path = tree.0.path().join("main.toml");
        let inspection = inspect_with(Some(&path), &Jobs::One(file), std::iter::empty());
        prop_assert_eq!(inspection.config.is_none(), inspection.findings.iter().any(|f| f.severity == Severity::Error));
        let config = Tree::new(MAIN, &[]).config();
        let _ = RestoreRequest::load(&config, Some(&path), &RestoreFlags::default());
        let _ = config.store(&main, "--storage");
        let _ = config.cluster(&main, "--kafka");
    }

    #[test]
    fn sizes_read_back_what_was_shown(bytes in any::<u64>()) {
        let text = kind::size_text(bytes);
        prop_assert_eq!(kind::size(&::config::Value::new(None, text)).unwrap(), bytes);
    }
}
