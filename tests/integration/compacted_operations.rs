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

    let scans = || daemon.log().matches("scan begins").count();
    let before = scans();
    // With --wait it is over: the partner owns the snapshot, and this job's folder is empty.
    let over = env.tell(&["swap", "pair-b", "--wait", "--timeout", "2m", "--json"]).success();
    assert_eq!(over["turn"], "over");
    assert_eq!((&over["topics"][&topic]["next"], owner_of(&daemon, &topic)), (&"partner".into(), "a"));
    assert_eq!(env.bucket.list(&format!("{topic}/b/")).len(), 0, "what was handed over is cleared");
    assert!(holds(&env, &kafka, &topic, 4));
    // The same from the other side: the resting instance scans and owns.
    let over = env.tell(&["swap", "pair-b", "--wait", "--timeout", "2m", "--json"]).success();
    assert_eq!((&over["topics"][&topic]["next"], &over["turn"]), (&"this".into(), &"over".into()));
    // The other one has yet to see it.
    wait_until("b to be known as the owner", SOON, || owner_of(&daemon, &topic) == "b");
    wait_until("a to clear its folder", SOON, || env.bucket.list(&format!("{topic}/a/")).is_empty());
    assert_eq!(scans(), before + 2, "one order, one turn");
    for job in ["pair-a", "pair-b"] {
        let status = env.tell(&["status", "--job", job]).stdout;
        assert!(status.contains(&format!("{job}  running")), "the lanes of a run end, the job goes on: {status}");
    }
    assert!(holds(&env, &kafka, &topic, 4));
    assert!(daemon.stop().success());
}

/// One of a pair, whose turns come once a day.
fn instance(name: &str, status: &str, coordination: &str) -> String {
    format!(
        "type = \"compacted\"\ninstance = {name:?}\ninitial_status = {status:?}\nlength_hours = 24\n\
         rotate_interval = \"2s\"\ncoordination_topic = {coordination:?}\n"
    )
}

/// The instance that owns the snapshot of a topic; nothing while there are none or two that say so.
fn owner_of(daemon: &Daemon, topic: &str) -> &'static str {
    let owns = |instance: &str| {
        let labels = [format!("instance={instance:?}"), format!("topic={topic:?}")];
        daemon.metric("kafka_backup_compacted_owner", &[&labels[0], &labels[1]]) == 1.0
    };
    match [owns("a"), owns("b")] {
        [true, false] => "a",
        [false, true] => "b",
        _ => "",
    }
}

/// One of two topics has been taken over by another process of the same instance: it refuses, the other one takes its turn,
/// and both are told of.
#[test]
fn a_turn_of_several_topics_is_tried_for_each_and_refusals_are_named() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let [turns, refuses] = ["turns", "refuses"].map(|what| kafka.topic(what, 1, &[("cleanup.policy", "compact")]));
    let coordination = unique("coordination");
    let env = || Env::new().variable("KAFKA_BACKUP_DELETE_LIFETIME_MS", "2000");
    let both: [&str; 2] = [&turns, &refuses];
    let env_of_both = env().job("pair-a", &both, &instance("a", "ACTIVATE", &coordination)).job(
        "pair-b",
        &both,
        &instance("b", "PASSIVATE", &coordination),
    );
    write(&kafka, &turns, 1);
    write(&kafka, &refuses, 1);
    let daemon = env_of_both.daemon().ready();
    wait_until("a to own both", SOON, || both.iter().all(|topic| owner_of(&daemon, topic) == "a"));

    let env_of_one =
        env().sharing(&env_of_both.bucket).job("pair-a", &[&refuses], &instance("a", "ACTIVATE", &coordination));
    let thief = env_of_one.daemon().ready();
    daemon.await_log("another process runs instance");
    let output = env_of_both.tell(&["swap", "pair-a", "--wait", "--timeout", "2m", "--json"]);
    output.fails_with(75, &[&format!("topic {refuses}: no turn was started"), "another process has taken its place"]);
    let said = output.summary();
    assert_eq!((&said["turn"], &said["topics"][&turns]["next"]), (&"over".into(), &"partner".into()), "{said}");
    assert_eq!(said["topics"][&refuses]["next"], "refused", "{said}");
    assert_eq!(owner_of(&daemon, &turns), "b");
    assert!(holds(&env_of_both, &kafka, &turns, 1) && holds(&env_of_both, &kafka, &refuses, 1));
    assert!(daemon.stop().success() && thief.stop().success());
}

/// The coordinator of one topic panics as the owner, twice: its job, with its other topic, is begun anew, later each time,
/// and shows it; other jobs do not notice.
#[test]
fn a_job_whose_coordinator_panics_is_begun_anew_and_takes_its_turns() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let [dies, other] = ["dies", "other"].map(|what| kafka.topic(what, 1, &[("cleanup.policy", "compact")]));
    let plain = kafka.topic("plain", 1, &[]);
    let coordination = unique("coordination");
    let env = Env::new()
        .variable("KAFKA_BACKUP_DELETE_LIFETIME_MS", "2000")
        .variable("KAFKA_BACKUP_FAIL_COORDINATOR", &format!("{dies}/a@owningx2"))
        .job("pair-a", &[&dies, &other], &instance("a", "ACTIVATE", &coordination))
        .job("pair-b", &[&dies, &other], &instance("b", "PASSIVATE", &coordination))
        .job("plain", &[&plain], "rotate_interval = \"1s\"\n");
    [&dies, &other, &plain].into_iter().for_each(|topic| write(&kafka, topic, 1));
    let daemon = env.daemon().ready();
    let restarts = |job: &str| daemon.metric("kafka_backup_job_restarts_total", &[&format!("backup_job={job:?}")]);
    wait_until("two deaths", SOON, || restarts("pair-a") == 2.0);
    wait_until("a to own both", SOON, || [&dies, &other].iter().all(|topic| owner_of(&daemon, topic) == "a"));
    let status = env.tell(&["status", "--job", "pair-a"]).stdout;
    assert!(status.contains("the job ended (2 times in a row) and is started again: it died"), "{status}");
    for job in ["pair-b", "plain"] {
        let status = env.tell(&["status", "--job", job]).stdout;
        assert!(restarts(job) == 0.0 && !status.contains("started again"), "{status}");
    }

    [&dies, &other].into_iter().for_each(|topic| write(&kafka, topic, 2));
    wait_until("round 2 to be restored", SOON, || [&dies, &other].iter().all(|topic| holds(&env, &kafka, topic, 2)));
    env.tell(&["swap", "pair-a", "--wait", "--timeout", "2m", "--json"]).success();
    assert!([&dies, &other].iter().all(|topic| owner_of(&daemon, topic) == "b" && holds(&env, &kafka, topic, 2)));
    assert_eq!(env.bucket.list(&format!("{dies}/a/")).len(), 0, "no lane of a dead coordinator goes on");
    let log = daemon.log();
    assert!(!log.contains("another process runs instance"), "what was left of the job has ended before it began anew");
    assert!(daemon.stop().success());
}

/// The exit code of an order that the daemon refuses.
const REFUSED: i32 = 78;
