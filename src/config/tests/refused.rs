//! What is refused, with the exact text.

use rstest::rstest;

use super::*;

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
#[case(
    "topics = [\"a\"]\nstorage = \"s3://AKIA:hunter2@b/x\"",
    "D/jobs.d/j.toml:2:1: storage: a URL is not the name of a store\n  hint: write [storage.NAME] into D/main.toml, and NAME here"
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
#[case(
    "topics = [\"x\"]\nstorage = { bucket = \"b\" }",
    "topics = [\"y\"]\nstorage = { bucket = \"b\", prefix = \"x/deep\" }",
    "D/jobs.d/b.toml:1:1: storage: job \"b\" writes into the folder of topic \"x\", which job \"a\" backs up\n  hint: give the storage of one of them a prefix that is no topic's name"
)]
#[case(
    "topics = [\"y\"]\nstorage = { bucket = \"b\", prefix = \"p/xyz\" }",
    "topics_regex = \"^x\"\nstorage = { bucket = \"b\", prefix = \"p\" }",
    "D/jobs.d/b.toml:1:1: storage: job \"a\" writes into the folder of topic \"xyz\", which job \"b\" backs up\n  hint: give the storage of one of them a prefix that is no topic's name"
)]
#[case(
    "topics = [\"x\"]\nstorage = { type = \"file\", path = \"/b\" }",
    "topics = [\"y\"]\nstorage = { type = \"file\", path = \"/b/x\" }",
    "D/jobs.d/b.toml:1:1: storage: job \"b\" writes into the folder of topic \"x\", which job \"a\" backs up\n  hint: give the storage of one of them a prefix that is no topic's name"
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

/// Nobody writes to the pipe: whoever read it would wait for ever, and a reload with them.
#[rstest]
#[case::a_device("/dev/zero")]
#[case::a_pipe("PIPE")]
#[case::a_folder("FOLDER")]
fn a_job_that_is_no_file_is_named(#[case] what: &str) {
    let tree = Tree::new(MAIN, &[]);
    let at = tree.0.path().join("jobs.d/j.toml");
    match what {
        "PIPE" => assert!(std::process::Command::new("mkfifo").arg(&at).status().unwrap().success()),
        "FOLDER" => std::fs::create_dir(&at).unwrap(),
        device => std::os::unix::fs::symlink(device, &at).unwrap(),
    }
    assert_eq!(tree.findings(), ["D/jobs.d/j.toml: is neither a file nor a link to one\n  hint: write a regular file"]);
}
