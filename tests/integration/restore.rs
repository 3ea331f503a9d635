//! What is restored is what was produced, once, where it was asked for; and where that cannot be, nothing is done and
//! the reason is named.

use std::fs;
use std::time::Duration;

use rstest::rstest;

use crate::common::beside_others;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::record::{Rec, assert_same, numbered};
use crate::common::{SOON, unique, wait_until};

/// A topic of `partitions` partitions with 100 records in each but the last, which is empty, and its backup.
fn backed_up(partitions: i32) -> (Kafka, String, Env) {
    let kafka = Kafka::shared();
    let topic = kafka.topic("restore", partitions, &[]);
    for partition in 0..(partitions - 1).max(1) {
        kafka.produce(&topic, partition, &numbered(0..100, 500));
    }
    let env = Env::new().job("restore", &[&topic], "flush_size = 30\n");
    env.back_up("restore");
    (kafka, topic, env)
}

/// Kafka gives restored records new offsets; all else is the same.
fn contents(records: Vec<Rec>) -> Vec<Rec> {
    records.into_iter().map(Rec::without_offset).collect()
}

#[test]
fn every_partition_is_restored_into_a_created_topic_of_another_name() {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up(4);
    let target = unique("restored");
    let summary = env.restore(&format!("{topic}:{target}"), &[]).success();
    assert_eq!((&summary["records_planned"], &summary["records_produced"]), (&300.into(), &300.into()), "{summary}");
    assert_eq!(kafka.partitions(&target), 4, "the empty partition is there too");
    for partition in 0..4 {
        let (expected, actual) = (kafka.read(&topic, partition), kafka.read(&target, partition));
        assert_same(&format!("partition {partition}"), &contents(expected), &contents(actual));
    }
}

#[test]
fn a_topic_that_holds_records_is_refused_and_stays_as_it_is() {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up(1);
    let target = kafka.topic("occupied", 1, &[]);
    kafka.produce(&target, 0, &numbered(0..1, 10));
    let refused = env.restore(&format!("{topic}:{target}"), &[]);
    assert_ne!(refused.code(), 0);
    assert!(refused.stderr.contains(&target), "{}", refused.stderr);
    assert_eq!(kafka.read(&target, 0).len(), 1);

    let file = env.path("restore.toml");
    let text =
        format!("kafka = \"main\"\nstorage = \"main\"\ntopics = [\"{topic}:{target}\"]\nif_not_empty = \"append\"\n");
    fs::write(&file, text).unwrap();
    env.kafka_backup(&["restore", file.to_str().unwrap(), "--json"]).success();
    assert_same(
        "behind what was there",
        &contents(kafka.read(&topic, 0)),
        &contents(kafka.read(&target, 0)[1..].to_vec()),
    );
}

#[test]
fn the_source_topic_itself_is_refused() {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up(1);
    kafka.delete_records(&topic, 0, 100);
    assert_ne!(env.restore(&topic, &[]).code(), 0);
    assert_eq!(kafka.watermarks(&topic, 0), (100, 100));
}

#[rstest]
#[case::an_empty_topic(false)]
#[case::no_such_topic(true)]
fn restoring_nothing_is_an_error(#[case] unknown: bool) {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("empty", 1, &[]);
    let env = Env::new().job("empty", &[&topic], "");
    env.back_up("empty");
    let (source, target) = (if unknown { "never-heard-of" } else { &topic }, unique("nothing"));
    let output = env.restore(&format!("{source}:{target}"), &[]);
    assert_eq!(output.code(), 10, "{output:?}");
    assert_eq!(kafka.partitions(&target), 0, "and no topic is created for it");
}

#[test]
fn a_point_in_time_is_a_matter_of_each_record() {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up(1);
    let target = unique("window");
    // Record i is i seconds after midnight; the window crosses objects of 30 records.
    let window = ["--from", "2026-01-01T00:00:20Z", "--until", "2026-01-01T00:01:10Z"];
    let summary = env.restore(&format!("{topic}:{target}"), &window).success();
    assert_eq!(summary["records_produced"], 50, "{summary}");
    let expected = kafka.read(&topic, 0)[20..70].to_vec();
    assert_same("the window", &contents(expected), &contents(kafka.read(&target, 0)));

    let target = unique("nothing");
    let nothing = env.restore(&format!("{topic}:{target}"), &["--from", "2100-01-01T00:00:00Z"]);
    assert_eq!(nothing.code(), 10, "{nothing:?}");
    assert_eq!(kafka.partitions(&target), 0, "and no topic is created for it");

    let (target, offsets) = (unique("offsets"), (format!("{topic}/0=20"), format!("{topic}/0=70")));
    let part = ["--from-offset", &offsets.0, "--until-offset", &offsets.1];
    env.restore(&format!("{topic}:{target}"), &part).success();
    let expected = kafka.read(&topic, 0)[20..70].to_vec();
    assert_same("the offsets", &contents(expected), &contents(kafka.read(&target, 0)));
}

#[test]
fn a_dry_run_plans_and_touches_nothing() {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up(1);
    let target = unique("dry");
    let plan = env.restore(&format!("{topic}:{target}"), &["--dry-run"]);
    assert_eq!(plan.code(), 0, "{}", plan.stderr);
    assert!(plan.stdout.contains("100"), "the plan says how many records: {}", plan.stdout);
    assert_eq!(kafka.partitions(&target), 0);
}

#[test]
fn a_target_that_takes_only_smaller_records_is_refused_before_anything_is_produced() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("large", 1, &[("max.message.bytes", "4000000")]);
    kafka.produce(&topic, 0, &[numbered(0..1, 10), numbered(1..2, 900_000)].concat());
    let env = Env::new().job("large", &[&topic], "");
    env.back_up("large");
    let target = kafka.topic("small", 1, &[("max.message.bytes", "100000")]);
    let refused = env.restore(&format!("{topic}:{target}"), &[]);
    assert_ne!(refused.code(), 0);
    assert!(refused.stderr.contains("max.message.bytes"), "{}", refused.stderr);
    assert!(kafka.read(&target, 0).is_empty());
}

#[test]
fn a_restore_that_was_killed_goes_on_where_the_target_ends() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("killed", 2, &[]);
    for partition in 0..2 {
        kafka.produce(&topic, partition, &numbered(0..5_000, 2_000));
    }
    let env = Env::new().job("killed", &[&topic], "flush_bytes = \"256KiB\"\n");
    env.back_up("killed");

    let (target, file) = (unique("revived"), env.path("restore.toml"));
    let ask = |rate: &str| {
        let text = "kafka = \"main\"\nstorage = \"main\"\n".to_owned();
        fs::write(&file, format!("{text}topics = [\"{topic}:{target}\"]\nrate_limit = {rate:?}\n")).unwrap();
        ["restore", file.to_str().unwrap(), "--json"]
    };
    let done = || (0..2).map(|partition| kafka.end(&target, partition)).sum::<i64>();
    for part in [1, 4] {
        let restore = env.start(&ask("2MiB/s"), "a"); // slow, so that there is a middle to be killed in
        wait_until("the restore to be under way", SOON, || done() > part * 1_000);
        restore.kill();
        assert!(done() < 10_000, "killed in the middle");
    }
    let summary = env.kafka_backup(&ask("0")).success();
    assert_eq!((&summary["records_planned"], &summary["records_produced"]), (&10_000.into(), &10_000.into()));
    assert!(summary["records_produced_before"].as_i64().is_some_and(|records| records > 4_000), "{summary}");
    for partition in 0..2 {
        let (expected, actual) = (kafka.read(&topic, partition), kafka.read(&target, partition));
        assert_same(&format!("partition {partition}"), &contents(expected), &contents(actual));
    }
}

/// SIGUSR1 does not end it: it says how far it is.
#[test]
fn a_restore_says_how_far_it_is_when_asked() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("asked", 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..600, 300));
    let env = Env::new().job("asked", &[&topic], "flush_size = 60\n");
    env.back_up("asked");
    let target = unique("asked");
    let mapping = format!("{topic}:{target}");
    let fixed = ["restore", "--storage", "main", "--kafka", "main", "--progress-interval", "0s"];
    let restore = env.start(&[&fixed[..], &["--topics", &mapping, "--rate-limit", "25KiB/s"]].concat(), "a");
    wait_until("the restore to be under way", SOON, || kafka.end(&target, 0) > 0);
    assert!(!restore.log().contains(" %, "), "nothing unasked");
    restore.ask_for_progress();
    restore.await_log(" %, ");
    assert!(restore.wait().success());
}

/// Killed at twenty random moments, every other one while it produces, and finished by what is written in its plan alone.
#[test]
fn a_restore_that_is_killed_again_and_again_restores_every_record_once() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("killed", 3, &[]);
    for partition in 0..3 {
        kafka.produce(&topic, partition, &numbered(0..4_000, 500));
    }
    let env = Env::new();
    let store = env.path("store");
    std::fs::create_dir(&store).unwrap();
    let env = env.set(&format!("[storage.files]\ntype = \"file\"\npath = {store:?}\n")).job(
        "killed",
        &[&topic],
        "storage = \"files\"\nflush_size = 100\n",
    );
    env.back_up("killed");

    let target = unique("revived");
    let mapping = format!("{topic}:{target}");
    // A rate at which it takes longer than what is left of it after twenty kills.
    let arguments = [
        "restore",
        "--storage",
        "files",
        "--kafka",
        "main",
        "--topics",
        &mapping,
        "--rate-limit",
        "200KiB/s",
        "--json",
    ];
    let done = || (0..kafka.partitions(&target)).map(|p| kafka.end(&target, p)).sum::<i64>();
    for kill in 0..20 {
        let before = done();
        let mut restore = env.start(&arguments, "a");
        if kill % 2 == 0 {
            // Anywhere: in its listing, in its plan, or in the two seconds in which a restore that goes on looks
            // whether the target stands still.
            std::thread::sleep(Duration::from_millis(fastrand::u64(50..4_000)));
        } else {
            wait_until("records of this run in the target", SOON, || done() > before);
            std::thread::sleep(Duration::from_millis(fastrand::u64(0..500)));
        }
        assert!(restore.is_running(), "killed before its end: {}", restore.log());
        restore.kill();
    }
    let plans = env.state("a").join("restores");
    let is_plan = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let plan = std::fs::read_dir(plans).unwrap().map(|entry| entry.unwrap().path()).find(is_plan).unwrap();
    let summary = env.kafka_backup(&["restore", "--resume", plan.to_str().unwrap(), "--json"]).success();
    assert_eq!((&summary["records_planned"], &summary["records_produced"]), (&12_000.into(), &12_000.into()));
    assert!(summary["records_produced_before"].as_i64().unwrap() > 0, "{summary}");
    for partition in 0..3 {
        let (expected, actual) = (kafka.read(&topic, partition), kafka.read(&target, partition));
        assert_same(&format!("partition {partition}"), &contents(expected), &contents(actual));
    }
}

/// A gap in the backup is named, and what lies on both sides of it is restored.
#[test]
fn a_gap_is_named_before_the_first_record_is_produced() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("gap", 1, &[]);
    let env = Env::new().job("gap", &[&topic], "");
    kafka.produce(&topic, 0, &numbered(0..30, 100));
    env.back_up("gap");
    kafka.produce(&topic, 0, &numbered(30..100, 100));
    let all = kafka.read(&topic, 0);
    kafka.delete_records(&topic, 0, 60);
    env.back_up("gap");

    let target = unique("ungapped");
    let output = env.restore(&format!("{topic}:{target}"), &[]);
    assert!([0, 3].contains(&output.code()), "{output:?}");
    assert!(output.stderr.contains("gap") || output.stdout.contains("gap"), "{output:?}");
    let expected = [&all[..30], &all[60..]].concat();
    assert_same("both sides", &contents(expected), &contents(kafka.read(&target, 0)));
}
