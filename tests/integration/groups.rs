//! Positions of consumer groups: saved beside the topics, and put back where they were.

use rstest::rstest;
use serde_json::Value;

use crate::common::daemon::Daemon;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::record::{Rec, assert_same, numbered};
use crate::common::{SOON, beside_others, unique, wait_until};
use crate::roundtrip::compacted_with_holes;

/// Only groups of the test: the others on the cluster are none of its business. And a group of its own for the job.
fn only(group: &str) -> String {
    format!("group_id = \"backup-of-{group}\"\ngroups_regex = \"^{group}\"\ngroups_interval = \"1s\"\n")
}

/// The saved document of generation 1, with what is saved of `group`.
fn saved(env: &Env, topic: &str, group: &str) -> Option<Value> {
    let key = format!("_kafka_backup/groups/{topic}/1.json");
    env.bucket.list(&key).first()?;
    let document: Value = serde_json::from_slice(&env.bucket.get(&key).0).expect("the document is JSON");
    Some(document["groups"][group].clone()).filter(|group| !group.is_null())
}

/// The saved offsets of a group, by partition.
fn saved_offsets(env: &Env, topic: &str, group: &str) -> Option<Value> {
    Some(saved(env, topic, group)?["offsets"].clone())
}

#[test]
fn a_daemon_saves_what_groups_commit_and_keeps_it_when_kafka_says_nothing_any_more() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let (topic, group) = (kafka.topic("groups", 2, &[]), unique("billing"));
    for partition in 0..2 {
        kafka.produce(&topic, partition, &numbered(0..10, 20));
    }
    let env = Env::new().job("groups", &[&topic], &only(&group));
    kafka.commit(&group, &topic, &[(0, 4), (1, 7)], "beside");
    let daemon = env.daemon().ready();
    let one = |offset: i64| serde_json::json!({ "offset": offset, "metadata": "beside" });
    let expect = |first: i64| Some(serde_json::json!({ "0": one(first), "1": one(7) }));
    wait_until("the positions to be saved", SOON, || saved_offsets(&env, &topic, &group) == expect(4));
    kafka.commit(&group, &topic, &[(0, 9)], "beside");
    wait_until("what has changed to be saved", SOON, || saved_offsets(&env, &topic, &group) == expect(9));
    daemon.await_metric("kafka_backup_groups_saved", &["backup_job=\"groups\""], 1.0);
    let label = ["backup_job=\"groups\""];
    daemon.await_metric("kafka_backup_groups_last_success_timestamp_seconds", &label, 1.0);

    // Nothing that matches is left: an empty answer, again and again.
    kafka.delete_group(&group);
    let seen = daemon.metric("kafka_backup_groups_last_success_timestamp_seconds", &label);
    daemon.await_metric("kafka_backup_groups_last_success_timestamp_seconds", &label, seen + 4.0);
    assert_eq!(saved_offsets(&env, &topic, &group), expect(9), "an empty answer replaces nothing");

    // Another group is there: the first one is known to be gone, and kept.
    let other = format!("{group}-other");
    kafka.commit(&other, &topic, &[(0, 1)], "");
    wait_until("the other group to be saved", SOON, || saved(&env, &topic, &other).is_some());
    assert_eq!(saved_offsets(&env, &topic, &group), expect(9));
    assert!(saved(&env, &topic, &group).unwrap()["gone_since_ms"].is_i64());
    assert_eq!(daemon.metric("kafka_backup_groups_failures_total", &label), 0.0);
    assert!(daemon.stop().success());
}

/// Restores with `consumer_groups = "apply"` for groups that begin with `group`, and returns the summary.
fn apply(env: &Env, mapping: &str, group: &str, args: &[&str]) -> crate::common::env::Output {
    let regex = format!("^{group}");
    env.restore(mapping, &[&["--consumer-groups", "apply", "--groups-regex", &regex], args].concat())
}

/// Panics unless a group that reads `target` from `at` on reads exactly what it had not read of `source`.
fn assert_goes_on(source: &[Rec], committed: i64, target: &[Rec], at: i64) {
    let behind = |records: &[Rec], offset: i64| -> Vec<Rec> {
        records.iter().filter(|record| record.offset >= offset).cloned().map(Rec::without_offset).collect()
    };
    assert_same(&format!("from {committed}, which is {at} now"), &behind(source, committed), &behind(target, at));
}

/// Committed and aborted transactions by turns: 10 records and a marker each, so that 10, 11 to 21, 32 and so on are not
/// records that are restored.
fn transactions(kafka: &Kafka) -> String {
    let topic = kafka.topic("markers", 1, &[]);
    let producer = kafka.producer(&[("transactional.id", &topic)]);
    producer.init_transactions();
    for turn in 0..4 {
        producer.begin();
        numbered(turn * 10..turn * 10 + 10, 20).iter().for_each(|record| producer.send(&topic, 0, record));
        if turn % 2 == 0 { producer.commit() } else { producer.abort() }
    }
    topic
}

#[test]
fn groups_go_on_with_the_same_record_through_holes_and_markers() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let (holes, markers) = (compacted_with_holes(&kafka), transactions(&kafka));
    let group = unique("reader");
    // In front of the first record there is nothing; 5 to 24 of the one are compacted away, 10 to 21 of the other are a
    // marker and an aborted transaction; the last ones are behind everything.
    let committed: [i64; 9] = [0, 5, 12, 25, 10, 21, 22, 43, 1000];
    for offset in committed {
        for topic in [&holes, &markers] {
            kafka.commit(&format!("{group}-{offset}"), topic, &[(0, offset)], "mine");
        }
    }
    let lines = format!("allow_compacted = true\nflush_size = 7\n{}", only(&group));
    let env = Env::new().job("groups", &[&holes, &markers], &lines);
    let summary = env.back_up("groups");
    assert_eq!((&summary["groups"], &summary["groups_saved"]), (&committed.len().into(), &true.into()), "{summary}");

    let targets = [unique("holes-copy"), unique("markers-copy")];
    let mapping = format!("{holes}:{},{markers}:{}", targets[0], targets[1]);
    // First looked at: nothing is there afterwards.
    let look = ["--consumer-groups", "plan", "--groups-regex", &format!("^{group}"), "--dry-run"];
    let plan = env.restore(&mapping, &look);
    let planned = plan.success();
    let counts = serde_json::json!({
        "groups_planned": 9, "groups_committed": 0, "groups_failed": 0,
        "offsets_planned": 18, "offsets_committed": 0, "offsets_left_out": 0,
    });
    assert_eq!(planned["consumer_groups"], counts);
    let line = |topic: &str, offset: i64| -> Value {
        let lines = plan.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON lines"));
        let is = |line: &Value| {
            line["message_type"] == "consumer_group" && line["target"] == topic && line["source_offset"] == offset
        };
        lines.into_iter().find(is).unwrap_or_else(|| panic!("no line for {topic} at {offset}"))
    };
    for (topic, offset, position) in [
        (&targets[0], 5, "between"),
        (&targets[0], 25, "at"),
        (&targets[1], 10, "between"),
        (&targets[1], 22, "at"),
        (&targets[1], 43, "end"),
        (&targets[1], 1000, "past_end"),
    ] {
        assert_eq!(line(topic, offset)["position"], position, "{topic} at {offset}");
    }
    assert_eq!(kafka.partitions(&targets[0]), 0);

    let summary = apply(&env, &mapping, &group, &[]).success();
    let mut counts = counts;
    counts["groups_committed"] = 9.into();
    counts["offsets_committed"] = 18.into();
    assert_eq!(summary["consumer_groups"], counts);
    for (source, target) in [&holes, &markers].into_iter().zip(&targets) {
        let (before, after) = (kafka.read(source, 0), kafka.read(target, 0));
        for offset in committed {
            let (at, beside) = kafka.committed(&format!("{group}-{offset}"), target, 1).remove(0).expect("an offset");
            assert_goes_on(&before, offset, &after, at);
            assert_eq!(beside, "mine");
        }
    }
    let untouched = kafka.committed(&format!("{group}-{}", committed[1]), &holes, 1).remove(0);
    assert_eq!(untouched, Some((committed[1], "mine".to_owned())), "the source stays as it is");
}

/// A topic of one partition with 100 records in objects of 30, and groups at these offsets.
fn backed_up(kafka: &Kafka, groups: &[(&str, i64)]) -> (String, Env) {
    let topic = kafka.topic("groups", 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..100, 500));
    for (group, offset) in groups {
        kafka.commit(group, &topic, &[(0, *offset)], "");
    }
    let lines = format!("flush_size = 30\n{}", only(groups[0].0));
    let env = Env::new().job("groups", &[&topic], &lines);
    env.back_up("groups");
    (topic, env)
}

fn at(kafka: &Kafka, group: &str, topic: &str) -> Option<i64> {
    kafka.committed(group, topic, 1).remove(0).map(|(offset, _)| offset)
}

#[test]
fn a_part_of_a_topic_behind_other_records_moves_the_groups_with_it() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let base = unique("part");
    let names = [10, 45, 90].map(|offset| (format!("{base}-{offset}"), offset));
    let groups: Vec<(&str, i64)> = names.iter().map(|(name, offset)| (name.as_str(), *offset)).collect();
    let kafka_groups = [&[(base.as_str(), 70)], groups.as_slice()].concat();
    let (topic, env) = backed_up(&kafka, &kafka_groups);
    let target = kafka.topic("part-copy", 1, &[]);
    kafka.produce(&target, 0, &numbered(0..5, 10));
    // Records 20 to 69, behind five others.
    let part = ["--from", "2026-01-01T00:00:20Z", "--until", "2026-01-01T00:01:10Z", "--if-not-empty", "append"];
    apply(&env, &format!("{topic}:{target}"), &base, &part).success();
    let found: Vec<_> = kafka_groups.iter().map(|(group, offset)| (*offset, at(&kafka, group, &target))).collect();
    assert_eq!(found, [(70, Some(55)), (10, Some(5)), (45, Some(30)), (90, Some(55))]);
}

/// Under either protocol: groups of the newer one (KIP-848) have other states, and are asked in other ways.
#[rstest]
#[case::classic("classic")]
#[case::consumer("consumer")]
fn a_group_that_is_active_or_stands_elsewhere_is_refused_and_nothing_is_touched(#[case] protocol: &str) {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let (group, target) = (unique("billing"), unique("refused"));
    let (topic, env) = backed_up(&kafka, &[(&group, 40)]);
    let mapping = format!("{topic}:{target}");
    let member = kafka.join_with(&group, &topic, protocol);
    apply(&env, &mapping, &group, &[]).fails_with(1, &[&group, "active on the target"]);
    assert_eq!((kafka.partitions(&target), at(&kafka, &group, &target)), (0, None));
    // To look at it is no reason to refuse, and says what would be.
    let look = ["--consumer-groups", "plan", "--groups-regex", &group, "--dry-run"];
    let plan = env.restore(&mapping, &look);
    assert_eq!(plan.code(), 0, "{plan:?}");
    assert!(plan.stdout.contains("active on the target"), "{}", plan.stdout);
    drop(member);

    kafka.create_topic(&target, 1, 1, &[]);
    kafka.commit(&group, &target, &[(0, 7)], "");
    apply(&env, &mapping, &group, &[]).fails_with(1, &[&group, "partition 0: 7, planned 40"]);
    assert_eq!((kafka.end(&target, 0), at(&kafka, &group, &target)), (0, Some(7)));
    // Left out it is left alone.
    let exclude = ["--consumer-groups", "apply", "--groups-exclude-regex", ".*"];
    let summary = env.restore(&mapping, &exclude).success();
    assert_eq!(summary["consumer_groups"]["groups_planned"], 0, "{summary}");
    assert_eq!((kafka.end(&target, 0), at(&kafka, &group, &target)), (100, Some(7)));
}

#[test]
fn offsets_of_another_topic_of_the_name_are_refused_by_name() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let (group, target) = (unique("billing"), unique("refused"));
    let (topic, env) = backed_up(&kafka, &[(&group, 40)]);
    let key = format!("_kafka_backup/groups/{topic}/1.json");
    let mut document: Value = serde_json::from_slice(&env.bucket.get(&key).0).unwrap();
    document["topic_id"] = "AAAAAAAAAAAAAAAAAAAAAA".into();
    env.bucket.put(&key, document.to_string().as_bytes());
    let mapping = format!("{topic}:{target}");
    apply(&env, &mapping, &group, &[]).fails_with(1, &[&group, &topic, "AAAAAAAAAAAAAAAAAAAAAA"]);
    assert_eq!(kafka.partitions(&target), 0);
    env.bucket.put(&key, b"{");
    apply(&env, &mapping, &group, &[]).fails_with(4, &[&key]);
    assert_eq!(kafka.partitions(&target), 0);
}

/// What cannot be read may be all that there is of the positions: the backup goes on, says so, and leaves it alone.
#[test]
fn a_document_that_cannot_be_read_is_not_written_over() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let group = unique("billing");
    let (topic, env) = backed_up(&kafka, &[(&group, 40)]);
    let key = format!("_kafka_backup/groups/{topic}/1.json");
    env.bucket.put(&key, b"not a document");
    kafka.commit(&group, &topic, &[(0, 50)], "");
    let output = env.try_back_up("groups");
    assert_eq!(output.success()["groups_saved"], false);
    assert!(output.stderr.contains(&key), "{}", output.stderr);
    assert_eq!(env.bucket.get(&key).0, b"not a document");

    let daemon = env.daemon().ready();
    daemon.await_metric("kafka_backup_groups_failures_total", &["backup_job=\"groups\""], 2.0);
    assert!(daemon.get("/-/status").unwrap().1.contains(&key), "the status names it");
    env.bucket.delete(&key);
    wait_until("it to be written anew", SOON, || saved(&env, &topic, &group).is_some());
}

/// The topic is deleted and created again: what groups commit then belongs to the new generation, and the offsets of the
/// old one are not touched.
#[test]
fn every_generation_has_its_own_positions() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let group = unique("billing");
    let (topic, env) = backed_up(&kafka, &[(&group, 40)]);
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, 1, 1, &[]);
    kafka.produce(&topic, 0, &numbered(200..210, 500));
    kafka.commit(&group, &topic, &[(0, 3)], "");
    env.back_up("groups");
    let first = saved_offsets(&env, &topic, &group).unwrap();
    assert_eq!(first["0"]["offset"], 40);
    let targets = [unique("first"), unique("second")];
    for (generation, target, offset) in [("1", &targets[0], 40), ("2", &targets[1], 3)] {
        apply(&env, &format!("{topic}:{target}"), &group, &["--generation", generation]).success();
        assert_eq!(at(&kafka, &group, target), Some(offset));
    }
}

/// Killed in the middle and started again: the groups get what was planned, whatever has become of the saved positions.
/// A group that came to life meanwhile is named, all records are there, and the same restore again puts it back, too.
#[test]
fn a_restore_that_goes_on_commits_what_was_planned() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let (group, target) = (unique("billing"), unique("revived"));
    let other = format!("{group}-other");
    let (topic, env) = backed_up(&kafka, &[(&group, 40), (&other, 60)]);
    let mapping = format!("{topic}:{target}");
    let arguments = |rate: &str| {
        [
            "restore",
            "--storage",
            "main",
            "--kafka",
            "main",
            "--topics",
            &mapping,
            "--consumer-groups",
            "apply",
            "--json",
        ]
        .into_iter()
        .map(str::to_owned)
        .chain(["--groups-regex".to_owned(), format!("^{group}"), "--rate-limit".to_owned(), rate.to_owned()])
        .collect::<Vec<_>>()
    };
    let restore = env.start(&arguments("10KiB/s"), "a");
    wait_until("the restore to be under way", SOON, || kafka.end(&target, 0) > 0);
    restore.kill();
    assert!(kafka.end(&target, 0) < 100);
    assert_eq!(at(&kafka, &group, &target), None, "nothing is committed before everything is there");
    kafka.commit(&group, &topic, &[(0, 80)], "");
    env.back_up("groups");

    let restore = env.start(&arguments("10KiB/s"), "a");
    wait_until("the restore to go on", SOON, || restore.log().contains("going on with the plan"));
    let member = kafka.join(&other, &topic);
    assert_eq!(restore.wait().code(), Some(3), "a group has not got its positions");
    assert_eq!(
        (kafka.end(&target, 0), at(&kafka, &group, &target), at(&kafka, &other, &target)),
        (100, Some(40), None)
    );
    drop(member);
    // The target is in use by now: that is no reason not to put back the group that is left, and only that one.
    kafka.produce(&target, 0, &numbered(500..501, 10));
    kafka.commit(&group, &target, &[(0, 50)], "its own");
    let summary = env.kafka_backup(&arguments("0")).success();
    assert_eq!(summary["consumer_groups"]["groups_committed"], 1, "{summary}");
    assert_eq!((at(&kafka, &group, &target), at(&kafka, &other, &target)), (Some(50), Some(60)));
    assert_eq!(kafka.end(&target, 0), 101, "and no record is restored again");
}

/// Whoever has restored without groups first, as is the default, can have them afterwards: the plan is a record of it.
#[test]
fn groups_are_put_back_on_what_was_restored_without_them() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let (group, target) = (unique("billing"), unique("later"));
    let (topic, env) = backed_up(&kafka, &[(&group, 40)]);
    let plan = env.path("plan.json");
    let plan = plan.to_str().unwrap();
    env.restore(&format!("{topic}:{target}"), &["--plan", plan]).success();
    assert_eq!(at(&kafka, &group, &target), None);
    kafka.produce(&target, 0, &numbered(500..501, 10));

    let later = ["restore", "--resume", plan, "--groups-regex", &group, "--json", "--consumer-groups"];
    let with = |args: &[&str]| env.kafka_backup(&[&later, args].concat());
    let summary = with(&["apply", "--dry-run"]).success();
    assert_eq!((&summary["consumer_groups"]["groups_planned"], at(&kafka, &group, &target)), (&1.into(), None));
    with(&["apply"]).success();
    assert_eq!((kafka.end(&target, 0), at(&kafka, &group, &target)), (101, Some(40)));
    // It goes on by itself from here; asked again there is nothing left to do.
    kafka.commit(&group, &target, &[(0, 90)], "");
    assert_eq!(with(&["apply"]).success()["consumer_groups"]["groups_planned"], 0);
    assert_eq!(at(&kafka, &group, &target), Some(90));
    kafka.delete_topic(&target);
    kafka.create_topic(&target, 1, 1, &[]);
    with(&["apply"]).fails_with(1, &[&target, "deleted and created again"]);
}

/// Two daemons share the job: who owns partition 0 saves, and what is saved is what Kafka says.
#[test]
fn of_daemons_that_share_a_job_one_saves_the_groups_of_a_topic() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let (topic, group) = (kafka.topic("groups", 2, &[]), unique("billing"));
    kafka.produce(&topic, 0, &numbered(0..10, 20));
    kafka.commit(&group, &topic, &[(0, 4), (1, 0)], "");
    let env = Env::new().job("groups", &[&topic], &only(&group));
    let daemons = ["a", "b"].map(|name| env.daemon_named(name).ready());
    let label = ["backup_job=\"groups\""];
    let saving = || {
        let saves = |daemon: &Daemon| daemon.metric("kafka_backup_groups_saved", &label) > 0.0;
        daemons.iter().filter(|daemon| saves(daemon)).count()
    };
    let owned = |daemon: &Daemon| {
        daemon.metric("kafka_backup_partition_durable_offset", &label[..]) >= 0.0
            && daemon.get("/metrics").is_some_and(|(_, text)| text.contains("kafka_backup_partition_durable_offset{"))
    };
    wait_until("each to have a partition, and one to save", SOON, || daemons.iter().all(owned) && saving() == 1);
    for offset in [5, 3, 9] {
        kafka.commit(&group, &topic, &[(0, offset)], "");
        let is = || saved_offsets(&env, &topic, &group).is_some_and(|saved| saved["0"]["offset"] == offset);
        wait_until("what was committed last to be saved", SOON, is);
    }
    // The one that saves goes: the other one takes over.
    let [a, b] = daemons;
    let (saver, other) = if a.metric("kafka_backup_groups_saved", &label) > 0.0 { (a, b) } else { (b, a) };
    assert!(saver.stop().success());
    kafka.commit(&group, &topic, &[(0, 7)], "");
    let is = || saved_offsets(&env, &topic, &group).is_some_and(|saved| saved["0"]["offset"] == 7);
    wait_until("the other one to save", SOON, is);
    drop(other);
}
