//! Positions of consumer groups: saved beside the topics, and put back where they were.

use serde_json::Value;

use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::record::numbered;
use crate::common::{SOON, beside_others, unique, wait_until};

/// Only groups of the test: the others on the cluster are none of its business.
fn only(group: &str) -> String {
    format!("groups_regex = \"^{group}\"\ngroups_interval = \"1s\"\n")
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
