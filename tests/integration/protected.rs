//! Up to which moment everything is safe: the one number to alert on, and what it says around a restart.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::check::await_caught_up;
use crate::common::daemon::Daemon;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::proxy::{Fault, Hits, Proxy};
use crate::common::record::numbered;
use crate::common::{SOON, beside_others, stack, wait_until};

fn protected(daemon: &Daemon, topic: &str) -> f64 {
    let label = format!("topic=\"{topic}\"");
    daemon.metric("kafka_backup_topic_protected_timestamp_seconds", &[&label])
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// A daemon that cannot reach its bucket after a restart says what the one before it knew, no more and no less; one
/// that has lost its state says "never" until it knows better.
#[test]
fn what_is_protected_outlives_a_restart() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("protected", 2, &[]);
    let proxy = Proxy::start(stack::s3_endpoint());
    let env = Env::new();
    let env = env.storage_behind(&proxy).job("protected", &[&topic], "rotate_interval = \"1s\"\n");
    (0..2).for_each(|partition| kafka.produce(&topic, partition, &numbered(0..100, 100)));
    let daemon = env.daemon().ready();
    await_caught_up(&kafka, &env.bucket, &topic);
    wait_until("the topic to be protected", SOON, || protected(&daemon, &topic) > 0.0);
    let before = protected(&daemon, &topic);
    assert!(daemon.stop().success());
    let stopped = now();

    proxy.set(Fault::Status(503), Hits::All);
    kafka.produce(&topic, 0, &numbered(100..200, 100));
    let daemon = env.daemon().ready();
    let kept = protected(&daemon, &topic);
    assert!((before..=stopped).contains(&kept), "{before} <= {kept} <= {stopped}");
    daemon.await_log("503"); // it has tried to begin
    assert_eq!(protected(&daemon, &topic), kept, "nothing more is known");
    proxy.set(Fault::Pass, Hits::All);
    await_caught_up(&kafka, &env.bucket, &topic);
    wait_until("the answer to go on", SOON, || protected(&daemon, &topic) > stopped);
    daemon.kill();

    proxy.set(Fault::Status(503), Hits::All);
    fs::remove_dir_all(env.state("a")).unwrap();
    let daemon = env.daemon().ready();
    assert_eq!(protected(&daemon, &topic), 0.0);
}

/// Two daemons and one partition: the one without it does not report "never" for what the other has in hand.
#[test]
fn a_daemon_without_partitions_of_a_topic_says_nothing_about_it() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("standby", 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..10, 100));
    let env = Env::new().job("standby", &[&topic], "rotate_interval = \"1s\"\n");
    let one = env.daemon_named("a").ready();
    wait_until("the topic to be protected", SOON, || protected(&one, &topic) > 0.0);
    let other = env.daemon_named("b").ready();
    let series = |daemon: &Daemon| {
        let text = daemon.get("/metrics").unwrap().1;
        text.contains(&format!(
            "kafka_backup_topic_protected_timestamp_seconds{{backup_job=\"standby\",topic=\"{topic}\"}}"
        ))
    };
    wait_until("one of two to report the topic", SOON, || series(&one) != series(&other));
    let owner = if series(&one) { &one } else { &other };
    wait_until("the topic to be protected", SOON, || protected(owner, &topic) > 0.0);
}

/// Who is stopping is not ready: whoever balances load looks elsewhere before the door is shut.
#[test]
fn not_ready_while_it_drains() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("draining", 1, &[]);
    let proxy = Proxy::start(stack::s3_endpoint());
    let env = Env::new();
    let env = env.storage_behind(&proxy).job("draining", &[&topic], "rotate_interval = \"1h\"\n");
    kafka.produce(&topic, 0, &numbered(0..1000, 100));
    let daemon = env.daemon().ready();
    daemon.await_metric("kafka_backup_buffer_bytes", &[], 10_000.0);
    proxy.set(Fault::Hang, Hits::All);
    daemon.ask_to_stop();
    wait_until("the upload to hang", SOON, || proxy.hit() > 0);
    assert_eq!(daemon.get("/-/ready").unwrap().0, 503);
    assert_eq!(daemon.get("/-/healthy").unwrap().0, 200);
    assert_eq!(daemon.metric("kafka_backup_jobs", &["state=\"draining\""]), 1.0);
    proxy.set(Fault::Pass, Hits::All);
    assert!(daemon.wait().success());
}
