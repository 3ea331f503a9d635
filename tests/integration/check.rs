//! `check` proves from the bucket what is durable, and says honestly what is not; what verifications found shows in the
//! daemon's metrics.

use rstest::rstest;

use crate::common::beside_others;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::record::{Rec, numbered};

/// Nothing would be written for an hour by itself.
const LAZY: &str = "rotate_interval = \"1h\"\n";

#[test]
fn what_kafka_holds_is_made_durable_and_proved() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("proved", 3, &[]);
    kafka.produce(&topic, 0, &numbered(0..50, 100));
    let env = Env::new().job("proved", &[&topic], LAZY);
    let _daemon = env.daemon().ready();
    for round in 0..2 {
        kafka.produce(&topic, 1, &numbered(round * 10..round * 10 + 10, 100));
        let output = env.kafka_backup(&["check", "proved", "--json"]);
        assert_eq!(output.code(), 0, "{output:?}");
        let proof = &output.summary()["jobs"][0];
        assert_eq!((&proof["result"], &proof["proof"]["durable"]), (&"durable".into(), &3.into()), "{proof}");
        let lists = [(0, 50), (1, (round + 1) * 10)];
        for (partition, end) in lists {
            let folder = format!("{topic}/{partition}/");
            let last = env.bucket.list(&folder).pop().expect("objects");
            assert_eq!(env.bucket.metadata(&last.key)["next-offset"], end.to_string());
        }
    }
}

#[test]
fn without_a_daemon_it_proves_what_is_there_and_waits_for_nothing() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("alone", 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..10, 100));
    let env = Env::new().job("alone", &[&topic], "");
    let output = env.kafka_backup(&["check", "--json"]);
    assert_eq!(output.code(), 69, "{output:?}");
    assert_eq!(output.summary()["jobs"][0]["result"], "pending");
    env.back_up("alone");
    let output = env.kafka_backup(&["check"]);
    assert!(output.code() == 0 && output.stdout.starts_with("alone: durable: 1 of 1"), "{output:?}");

    // Aborted records and markers are no records: there is nothing left to back up behind the list's end.
    let producer = kafka.producer(&[("transactional.id", &topic)]);
    producer.init_transactions();
    producer.begin();
    producer.send(&topic, 0, &Rec::new(1, "k", "no"));
    producer.abort();
    assert_eq!(env.kafka_backup(&["check"]).code(), 0);

    kafka.produce(&topic, 0, &numbered(10..30, 100));
    kafka.delete_records(&topic, 0, 20);
    let output = env.kafka_backup(&["check"]);
    assert_eq!(output.code(), 4, "{output:?}");
    assert!(output.stdout.contains("are lost: Kafka deleted them"), "{output:?}");
}

#[rstest]
#[case::sound(None, "9000d", 0, "sound")]
#[case::too_old(None, "1h", 4, "its newest record is")]
#[case::an_object_is_gone(Some(30), "9000d", 4, "offsets 30 to 59 are in no object")]
fn the_bucket_alone(#[case] gone: Option<i64>, #[case] age: &str, #[case] code: i32, #[case] word: &str) {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("bucket-alone", 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..90, 100));
    let env = Env::new().job("only", &[&topic], "flush_size = 30\n");
    env.back_up("only");
    if let Some(offset) = gone {
        env.bucket.delete(&format!("{topic}/0/{topic}-0-{offset:020}.avro"));
    }
    let output = env.kafka_backup(&["check", "only", "--repo-only", "--max-age", age]);
    assert_eq!(output.code(), code, "{output:?}");
    assert!(output.stdout.contains(word), "{output:?}");
}

/// A path with a typo is not an empty backup, and is not made one.
#[test]
fn a_folder_that_is_not_there_is_named_and_not_made() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("typo", 1, &[]);
    let env = Env::new();
    let path = env.path("bakcup");
    let env = env.job("typo", &[&topic], &format!("storage = {{ type = \"file\", path = {path:?} }}\n"));
    for args in [&["check", "--repo-only"][..], &["check"]] {
        let output = env.kafka_backup(args);
        assert!(output.code() != 0 && output.stdout.contains("bakcup"), "{output:?}");
        assert!(!path.exists(), "{args:?} made it");
    }
}

#[test]
fn there_is_no_such_job() {
    let _turn = beside_others();
    Env::new().kafka_backup(&["check", "nobody"]).fails_with(10, &["nobody"]);
}

#[test]
fn what_a_verification_found_shows_in_the_metrics() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("shown", 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..90, 100));
    let env = Env::new().job("shown", &[&topic], "flush_size = 30\n");
    env.back_up("shown");
    env.kafka_backup(&["verify", "--mode", "data"]).fails_with(0, &[]);
    env.bucket.delete(&format!("{topic}/0/{topic}-0-{:020}.avro", 30));
    env.kafka_backup(&["verify"]).fails_with(4, &[]);
    let daemon = env.daemon().ready();
    daemon.await_metric("kafka_backup_verify_bad_objects", &["backup_job=\"shown\"", "reason=\"missing\""], 1.0);
    let metric = |name: &str, label: &str| daemon.metric(name, &["backup_job=\"shown\"", label]);
    assert!(metric("kafka_backup_verify_last_success_timestamp_seconds", "mode=\"data\"") > 1e9);
    assert!(metric("kafka_backup_verify_last_run_timestamp_seconds", "mode=\"manifest\"") > 1e9);
    assert!((metric("kafka_backup_verify_data_coverage_ratio", "backup_job") - 1.0).abs() < 1e-9);
    assert!(metric("kafka_backup_verify_bad_objects", "reason=\"checksum\"").abs() < 1e-9);

    let info = env.kafka_backup(&["info", "--json"]);
    let topic = &info.summary()["topics"][0];
    assert_eq!(topic["oldest"], "2026-01-01T00:00:00Z", "{topic}");
    assert_eq!(topic["newest"], "2026-01-01T00:01:29Z", "{topic}");
}
