//! Compacted topics in the hands of an operator: turns by hand, and a pause of one of the two.

use std::collections::BTreeMap;

use crate::common::daemon::Daemon;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::record::Rec;
use crate::common::{SOON, beside_others, unique, wait_until};

const FIRST_MS: i64 = 1_700_000_000_000;

/// Keys 0 to 49 with a value of this round.
fn write(kafka: &Kafka, topic: &str, round: usize) {
    let record = |key: usize| Rec::new(FIRST_MS + round as i64, &format!("key-{key}"), &format!("{round}-{key}"));
    kafka.produce(topic, 0, &(0..50).map(record).collect::<Vec<_>>());
}

/// Whether each key is restored with its value of this round.
fn holds(env: &Env, kafka: &Kafka, topic: &str, round: usize) -> bool {
    let target = unique("restored");
    env.restore(&format!("{topic}:{target}"), &[]).success();
    let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.expect("key and value")).unwrap();
    let records = kafka.read(&target, 0).into_iter();
    let found: BTreeMap<_, _> = records.map(|record| (text(record.key), text(record.value))).collect();
    kafka.delete_topic(&target);
    found == (0..50).map(|key| (format!("key-{key}"), format!("{round}-{key}"))).collect()
}

fn await_owner(daemon: &Daemon, instance: &str) {
    let label = format!("instance={instance:?}");
    let owns = || daemon.metric("kafka_backup_compacted_owner", &[&label]) == 1.0;
    wait_until(&format!("{instance} to own the snapshot"), SOON, owns);
}

/// Both instances in one daemon, and turns that would come once a day.
#[test]
fn a_turn_is_started_by_hand_and_a_pause_of_one_instance_loses_nothing() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("by-hand", 1, &[("cleanup.policy", "compact")]);
    let other = kafka.topic("no-pair", 1, &[]);
    let coordination = unique("coordination");
    let job = |instance: &str, status: &str| {
        format!(
            "type = \"compacted\"\ninstance = {instance:?}\ninitial_status = {status:?}\nlength_hours = 24\n\
             rotate_interval = \"2s\"\ncoordination_topic = {coordination:?}\n"
        )
    };
    let env = Env::new()
        .variable("KAFKA_BACKUP_DELETE_LIFETIME_MS", "2000")
        .job("pair-a", &[&topic], &job("a", "ACTIVATE"))
        .job("pair-b", &[&topic], &job("b", "PASSIVATE"))
        .job("plain", &[&other], "");
    write(&kafka, &topic, 1);
    let daemon = env.daemon().ready();
    await_owner(&daemon, "a");
    env.tell(&["swap", "plain"]).fails_with(REFUSED, &["plain", "compacted"]);

    env.tell(&["swap", "pair-a", "--json"]).success();
    await_owner(&daemon, "b");
    write(&kafka, &topic, 2);
    wait_until("round 2 to be restored", SOON, || holds(&env, &kafka, &topic, 2));

    env.tell(&["pause", "pair-a", "--json"]).success();
    write(&kafka, &topic, 3);
    wait_until("round 3, with a paused", SOON, || holds(&env, &kafka, &topic, 3));
    env.tell(&["resume", "pair-a", "--json"]).success();

    env.tell(&["pause", "pair-b", "--json"]).success();
    write(&kafka, &topic, 4);
    env.tell(&["resume", "pair-b", "--json"]).success();
    wait_until("round 4, after b was paused", SOON, || holds(&env, &kafka, &topic, 4));

    env.tell(&["swap", "pair-b", "--json"]).success();
    await_owner(&daemon, "a");
    assert!(holds(&env, &kafka, &topic, 4));
    assert!(daemon.stop().success());
}

/// The exit code of an order that the daemon refuses.
const REFUSED: i32 = 78;
