//! Compacted topics that are set up wrongly in a way that only shows at run time: status names what, where and the way
//! out, and nothing is lost.

use crate::common::daemon::Daemon;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::record::Rec;
use crate::common::{SOON, beside_others, unique, wait_until};

const FIRST_MS: i64 = 1_700_000_000_000;
const COMPACT: (&str, &str) = ("cleanup.policy", "compact");

/// Waits until the status of a job says all of this.
fn await_said(env: &Env, daemon: &Daemon, job: &str, words: &[&str]) {
    let mut said = String::new();
    wait_until(&format!("{words:?} in the status of {job}"), SOON, || {
        said = env.tell(&["status", "--job", job]).stdout;
        assert!(!daemon.has_ended(), "{}", daemon.log());
        words.iter().all(|word| said.contains(word))
    });
}

/// One of a pair.
fn instance(name: &str, coordination: &str, lines: &str) -> String {
    format!(
        "type = \"compacted\"\ninstance = {name:?}\ninitial_status = \"ACTIVATE\"\nlength_hours = 24\n\
         rotate_interval = \"2s\"\ncoordination_topic = {coordination:?}\n{lines}"
    )
}

fn await_owner(daemon: &Daemon, job: &str) {
    let label = format!("backup_job={job:?}");
    wait_until(&format!("{job} to own a snapshot"), SOON, || {
        daemon.metric("kafka_backup_compacted_owner", &[&label]) >= 1.0
    });
}

fn write(kafka: &Kafka, topic: &str) {
    let record = |key: i64| Rec::new(FIRST_MS + key, &format!("key-{key}"), "value");
    kafka.produce(topic, 0, &(0..50).map(record).collect::<Vec<_>>());
}

fn assert_restored(env: &Env, kafka: &Kafka, topic: &str) {
    let target = unique("restored");
    env.restore(&format!("{topic}:{target}"), &[]).success();
    assert_eq!(kafka.read(&target, 0).len(), 50);
    kafka.delete_topic(&target);
}

#[test]
fn what_only_shows_at_run_time_is_named_with_the_way_out() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let coordination = unique("coordination");
    let plain = kafka.topic("not-compacted", 1, &[]);
    let policy = kafka.topic("policy", 1, &[COMPACT]);
    let deleting = kafka.topic("deleting-coordination", 1, &[("cleanup.policy", "delete")]);
    let expiring = kafka.topic("expiring", 1, &[COMPACT]);
    let hasty = kafka.topic("hasty", 1, &[COMPACT, ("delete.retention.ms", "1")]);
    for topic in [&plain, &policy, &expiring, &hasty] {
        write(&kafka, topic);
    }
    let env = Env::new()
        .variable("KAFKA_BACKUP_DELETE_LIFETIME_MS", "500")
        .job("plain", &[&plain], &instance("a", &coordination, ""))
        .job("policy", &[&policy], &instance("a", &deleting, ""))
        .job("expiring", &[&expiring], &instance("a", &coordination, ""))
        .job("hasty", &[&hasty], &instance("a", &coordination, "partner_timeout = \"2s\"\ntakeover = false\n"));
    env.bucket.expire("cheap", &format!("{expiring}/a/"), 3);
    let daemon = env.daemon();

    await_said(&env, &daemon, "plain", &[&plain, "is not compacted (cleanup.policy=delete)", "type = \"backup\""]);
    await_said(&env, &daemon, "policy", &[&deleting, "cleanup.policy=delete instead of compact", "name another one"]);
    let rule = ["\"cheap\"", "removes objects of its snapshot", "remove the rule", &expiring];
    await_said(&env, &daemon, "expiring", &rule);
    await_owner(&daemon, "expiring");
    assert_restored(&env, &kafka, &expiring);

    // Every scan takes longer than that.
    let raise = format!("raise delete.retention.ms of topic {hasty} to at least");
    await_said(&env, &daemon, "hasty", &["it begins again", &raise, "no snapshot yet"]);
    kafka.configure(&hasty, &[COMPACT, ("delete.retention.ms", "86400000")]);
    await_owner(&daemon, "hasty");
    assert_restored(&env, &kafka, &hasty);

    an_owner_without_a_partner(&env, &daemon, &hasty);

    // The next scan would be too slow.
    kafka.configure(&hasty, &[COMPACT, ("delete.retention.ms", "1")]);
    let short = ["the last scan took", "less than twice as long", "raise delete.retention.ms to at least", &hasty];
    await_said(&env, &daemon, "hasty", &short);
    assert_restored(&env, &kafka, &hasty);
    assert!(daemon.stop().success());
}

/// The partner does not run, or its job has other topics: an order says that no turn begins, and status says why.
fn an_owner_without_a_partner(env: &Env, daemon: &Daemon, topic: &str) {
    let output = env.tell(&["swap", "hasty"]);
    let said = &output.stdout;
    assert!(said.contains("no turn begins yet") && said.contains("start the daemon that runs the other"), "{said}");
    env.tell(&["swap", "hasty", "--wait", "--timeout", "1s"]).fails_with(75, &["not over after 1s", "is owning"]);
    await_said(env, daemon, "hasty", &["a successor of instance \"a\" is wanted", topic, "the same topics, storage"]);

    env.bucket.put(&format!("{topic}/b/0/{topic}-0-00000000000000000000.avro"), b"begun");
    let info = env.kafka_backup(&["info", "--topic", topic]).stdout;
    assert!(info.contains("instance a is complete; TERMs ["), "{info}");
    assert!(info.contains("instance b is not complete; no TERM yet, 1 objects, 5 bytes"), "{info}");
}

/// Two jobs on two machines, each with a topic that the other one does not have: named at the first word that is heard, and
/// over when the partner has the same topics.
#[test]
fn different_topics_are_named_when_the_partner_is_first_heard() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let [shared, of_a, of_b] = ["shared", "of-a", "of-b"].map(|what| kafka.topic(what, 1, &[COMPACT]));
    [&shared, &of_a, &of_b].into_iter().for_each(|topic| write(&kafka, topic));
    let coordination = unique("coordination");
    let passive = instance("b", &coordination, "").replace("ACTIVATE", "PASSIVATE");
    let a = Env::new().job("pair-a", &[&shared, &of_a], &instance("a", &coordination, ""));
    let mut b = Env::new().sharing(&a.bucket).job("pair-b", &[&shared, &of_b], &passive);
    let (daemon, partner) = (a.daemon().ready(), b.daemon().ready());
    let only = |topic: &str| {
        [format!("does not back up {topic}, of which no"), format!("only that instance backs up {topic},")]
    };
    let [missing_of_a, extra_of_a] = only(&of_a);
    let [missing_of_b, extra_of_b] = only(&of_b);
    await_said(&a, &daemon, "pair-a", &["have different topics", &missing_of_a, &extra_of_b, "same `topics` in both"]);
    await_said(&b, &partner, "pair-b", &["have different topics", &missing_of_b, &extra_of_a]);
    await_owner(&daemon, "pair-a");
    assert!(partner.stop().success());

    b.change_job("pair-b", |text| text.replace(&of_b, &of_a));
    let partner = b.daemon().ready();
    daemon.await_log(&format!("job recovered job=pair-a subject=\"{shared} topics\""));
    assert!(daemon.stop().success() && partner.stop().success());
}
