//! Permissions that a bucket takes away and gives back, by a policy of the real server: what is not allowed is neither
//! damage nor absence, it is said by name, and everything goes on without a restart when it is allowed again.

use rusoto_s3::{
    LifecycleExpiration, LifecycleRule, LifecycleRuleAndOperator, LifecycleRuleFilter, NoncurrentVersionExpiration, Tag,
};
use serde_json::Value;

use crate::common::check::{assert_backed_up, await_caught_up};
use crate::common::daemon::Daemon;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::record::{Rec, assert_same, numbered};
use crate::common::{SOON, beside_others, unique, wait_until};

fn await_state(daemon: &Daemon, state: &str) {
    daemon.await_metric("kafka_backup_jobs", &[&format!("state=\"{state}\"")], 1.0);
}

/// A topic of one partition with 500 records, and its backup in objects of 50.
fn backed_up(name: &str) -> (Kafka, String, Env) {
    let kafka = Kafka::shared();
    let topic = kafka.topic(name, 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..500, 300));
    let env = Env::new().job("denied", &[&topic], &format!("group_id = \"backup-of-{topic}\"\nflush_size = 50\n"));
    env.back_up("denied");
    (kafka, topic, env)
}

#[test]
fn a_backup_that_may_not_write_or_read_for_a_while_loses_nothing() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("denied", 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..100, 300));
    let env = Env::new().job("denied", &[&topic], "flush_size = 50\nrotate_interval = \"1s\"\n");
    let daemon = env.daemon().ready();
    await_caught_up(&kafka, &env.bucket, &topic);
    env.bucket.deny(&["s3:PutObject"], "*");
    kafka.produce(&topic, 0, &numbered(100..200, 300));
    await_state(&daemon, "degraded");
    let status = daemon.get("/-/status").unwrap().1;
    assert!(status.contains(&format!("{topic}/0 upload")) && status.contains("403"), "{status}");
    env.bucket.allow();
    await_caught_up(&kafka, &env.bucket, &topic);
    await_state(&daemon, "running");
    // Nothing is read or listed while all goes well.
    env.bucket.deny(&["s3:GetObject", "s3:ListBucket"], "*");
    kafka.produce(&topic, 0, &numbered(200..300, 300));
    daemon.await_metric("kafka_backup_partition_durable_offset", &[&topic], 300.0);
    env.bucket.allow();
    assert!(daemon.stop().success());
    assert_backed_up(&kafka, &env.bucket, &topic);
}

#[test]
fn a_backup_that_may_not_list_at_its_start_begins_when_it_may() {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up("unlisted");
    // Without local state the end of the list must be looked for.
    std::fs::remove_dir_all(env.state("a")).unwrap();
    kafka.produce(&topic, 0, &numbered(500..600, 300));
    env.bucket.deny(&["s3:ListBucket"], "*");
    let daemon = env.daemon().ready();
    wait_until("the job to say so", SOON, || daemon.get("/-/status").is_some_and(|(_, status)| status.contains("403")));
    env.bucket.allow();
    await_caught_up(&kafka, &env.bucket, &topic);
    await_state(&daemon, "running");
    assert!(daemon.stop().success());
    assert_backed_up(&kafka, &env.bucket, &topic);
}

/// Half of it is there when the objects may not be read any more: what is on the target stays exact, and the same restore
/// started again brings the rest.
#[test]
fn a_restore_that_is_denied_half_way_goes_on_when_it_may() {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up("half");
    let target = unique("half");
    let mapping = format!("{topic}:{target}");
    let args = ["restore", "--storage", "main", "--kafka", "main", "--topics", &mapping, "--json"];
    let running = env.start(&[&args[..], &["--rate-limit", "2KiB/s"]].concat(), "a");
    wait_until("records in the target", SOON, || kafka.partitions(&target) > 0 && kafka.end(&target, 0) > 0);
    env.bucket.deny(&["s3:GetObject"], &format!("{topic}/*"));
    let log = env.tree().join("log");
    assert_eq!(running.wait().code(), Some(3));
    let said = std::fs::read_to_string(log).unwrap();
    assert!(said.contains("403") && said.contains("the same restore started again goes on"), "{said}");
    let end = kafka.end(&target, 0);
    assert!((1..500).contains(&end), "{end} records are there");
    assert_eq!(env.kafka_backup(&args).code(), 3, "it is denied still");
    assert_eq!(kafka.end(&target, 0), end);
    env.bucket.allow();
    let summary = env.kafka_backup(&args).success();
    assert_eq!(summary["records_produced_before"], end, "{summary}");
    let contents = |topic| kafka.read(topic, 0).into_iter().map(Rec::without_offset).collect::<Vec<_>>();
    assert_same("restored", &contents(&topic), &contents(&target));
}

/// What may not be read is not damaged, and not absent.
#[test]
fn what_may_not_be_read_is_called_neither_damaged_nor_absent() {
    let _turn = beside_others();
    let (_, topic, env) = backed_up("unreadable");
    let one = format!("{topic}/0/{topic}-0-{:020}.avro", 100);
    let to = format!("{topic}:{}", unique("never"));
    for (action, keys) in [("s3:ListBucket", "*"), ("s3:GetObject", "*"), ("s3:GetObject", one.as_str())] {
        env.bucket.deny(&[action], keys);
        let commands: [&[&str]; 4] = [
            &["info", "--storage", "main"],
            &["verify", "--storage", "main", "--no-record"],
            &["verify", "--storage", "main", "--no-record", "--mode", "data"],
            &["restore", "--storage", "main", "--kafka", "main", "--topics", &to],
        ];
        for command in commands {
            env.kafka_backup(command).fails_with(12, &["403", action]);
        }
    }
    env.bucket.allow();
    assert_eq!(env.kafka_backup(&["verify", "--storage", "main", "--mode", "data"]).code(), 0);
}

/// Runs `kafka-backup retention --json` and returns its exit code and the step for the topic.
fn retention(env: &Env, args: &[&str]) -> (i32, Value) {
    let output = env.kafka_backup(&[&["retention", "--json"], args].concat());
    let shown: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    (output.code(), shown["stores"][0]["topics"][0].clone())
}

/// A rule that the server refused is not in force: what is missing has not expired by it.
#[test]
fn a_rule_that_was_denied_explains_nothing_that_is_missing() {
    let _turn = beside_others();
    let (_, topic, mut env) = backed_up("ruled");
    env.change_job("denied", |lines| format!("{lines}retention = \"1d\"\n"));
    let record = format!("_kafka_backup/retention/{topic}.json");
    let terms = || serde_json::from_slice::<Value>(&env.bucket.get(&record).0).unwrap()["terms"].clone();
    env.bucket.deny(&["s3:PutLifecycleConfiguration"], "*");
    env.kafka_backup(&["retention"]).fails_with(12, &["s3:PutLifecycleConfiguration"]);
    assert_eq!(terms(), Value::Array(vec![]));
    env.bucket.deny(&["s3:GetLifecycleConfiguration"], "*");
    env.kafka_backup(&["retention"]).fails_with(12, &["s3:GetLifecycleConfiguration"]);
    assert_eq!(env.try_back_up("denied").code(), 0, "the backup goes on");
    env.bucket.deny(&["s3:PutLifecycleConfiguration"], "*");
    env.bucket.delete(&format!("{topic}/0/{topic}-0-{:020}.avro", 0));
    let env = env.variable("KAFKA_BACKUP_DAY_MS", "1");
    let verified = env.kafka_backup(&["verify", "--storage", "main", "--no-record"]);
    assert_eq!(verified.code(), 4, "a day of it has gone by, and still nothing can have expired: {verified:?}");
    env.bucket.allow();
    let (code, shown) = retention(&env, &[]);
    assert_eq!((code, &shown["done"]), (0, &Value::from(true)), "{shown}");
    let terms = serde_json::from_slice::<Value>(&env.bucket.get(&record).0).unwrap()["terms"].clone();
    assert_eq!(terms[0]["days"], 1, "{terms}");
    assert_eq!(env.bucket.rules().len(), 1);
}

/// A rule of somebody else's.
fn foreign(id: &str, filter: LifecycleRuleFilter) -> LifecycleRule {
    LifecycleRule {
        id: Some(id.to_owned()),
        filter: Some(filter),
        status: "Enabled".to_owned(),
        expiration: Some(LifecycleExpiration { days: Some(3000), ..Default::default() }),
        ..Default::default()
    }
}

fn prefix(prefix: &str) -> LifecycleRuleFilter {
    LifecycleRuleFilter { prefix: Some(prefix.to_owned()), ..Default::default() }
}

/// The server takes a thousand rules and no more; one that has no place is said, and the others stay.
#[test]
fn a_bucket_with_a_thousand_rules_takes_no_more() {
    let _turn = beside_others();
    let (_, topic, mut env) = backed_up("thousand");
    env.change_job("denied", |lines| format!("{lines}retention = \"30d\"\n"));
    let rules = |count: usize| (0..count).map(|i| foreign(&format!("rule {i:04}"), prefix(&format!("their-{i}/"))));
    env.bucket.rule(rules(1000).collect());
    let (code, shown) = retention(&env, &[]);
    assert!(code == 3 && shown.to_string().contains("1000 lifecycle rules"), "{code}: {shown}");
    assert_eq!(env.bucket.rules().len(), 1000);
    env.bucket.rule(rules(999).collect());
    assert_eq!(retention(&env, &[]).0, 0);
    let there = env.bucket.rules();
    assert!(there.len() == 1000 && there.iter().any(|(_, prefix, days)| *prefix == format!("{topic}/") && *days == 30));
}

/// What the real server makes of rules by tags and of old versions goes back to it byte for byte.
#[test]
fn rules_of_others_go_back_to_the_real_server_as_they_came() {
    let _turn = beside_others();
    let (_, topic, mut env) = backed_up("tagged");
    env.bucket.version();
    let tag = |key: &str| Tag { key: key.to_owned(), value: "<&> \u{fc}".to_owned() };
    let both = LifecycleRuleAndOperator { prefix: Some("logs/".to_owned()), tags: Some(vec![tag("a"), tag("b")]) };
    let both = LifecycleRuleFilter { and: Some(both), ..Default::default() };
    let tagged = LifecycleRuleFilter { tag: Some(tag("c")), ..Default::default() };
    let old = NoncurrentVersionExpiration { noncurrent_days: Some(7) };
    let rules = vec![
        foreign("both <&>", both),
        LifecycleRule { status: "Disabled".to_owned(), ..foreign("everything", prefix("")) },
        LifecycleRule { noncurrent_version_expiration: Some(old), ..foreign("tagged", tagged) },
    ];
    env.bucket.rule(rules);
    for days in ["30d", "60d", "90d"] {
        env.change_job("denied", |lines| {
            let kept: String =
                lines.lines().filter(|line| !line.starts_with("retention")).map(|l| format!("{l}\n")).collect();
            format!("{kept}retention = \"{days}\"\n")
        });
        assert_eq!(retention(&env, &[]).0, 0, "{days}");
    }
    // Each change keeps the document as the server gave it out before.
    let kept = env.bucket.list("_kafka_backup/lifecycle/");
    let documents: Vec<String> =
        kept.iter().map(|entry| String::from_utf8(env.bucket.get(&entry.key).0).unwrap()).collect();
    assert_eq!(documents.len(), 3);
    for document in &documents[1..] {
        let at = document.find(&format!("<ID>kafka-backup:{topic}/</ID>")).expect("our rule");
        let from = document[..at].rfind("<Rule>").unwrap();
        let until = at + document[at..].find("</Rule>").unwrap() + "</Rule>".len();
        assert_eq!(format!("{}{}", &document[..from], &document[until..]), documents[0]);
        assert!(document[from..until].contains("<NoncurrentDays>1</NoncurrentDays>"), "the bucket keeps versions");
    }
}
