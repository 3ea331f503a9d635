//! Processes die and sleep at the worst moments; the backup is the same as if they had not.

use std::fs;
use std::time::{Duration, Instant};

use rstest::rstest;

use crate::common::avro_reader;
use crate::common::check::{assert_backed_up, assert_untouched, await_caught_up, await_covered, covered, stored};
use crate::common::daemon::Daemon;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::proxy::{Fault, Hits, Proxy};
use crate::common::record::{assert_same, numbered};
use crate::common::{SOON, alone, beside_others, stack, unique, wait_until};

/// Members that died are waited for, in every test that has some.
const SHORT_SESSION: [(&str, &str); 2] = [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "1000")];

/// 30 kills at random moments of a backup of more than 100 MB, the local state kept or lost. S3 answers a little late,
/// so that many kills hit between a request and its answer.
#[test]
fn thirty_kills_lose_nothing_double_nothing_and_change_no_object() {
    const KILLS: i64 = 30;
    const RECORDS: i64 = 90;
    let _turn = alone();
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);

    let kafka = Kafka::shared();
    let topic = kafka.topic("crash", 4, &[]);
    let proxy = Proxy::start(stack::s3_endpoint());
    let late = Fault::Delay(Duration::from_millis(20));
    let lines = "rotate_interval = \"1s\"\nflush_size = 20\ngroup_id = \"-\"\n";
    let mut env = Env::new().storage_behind(&proxy).job("crash", &[&topic], lines);

    for kill in 0..KILLS {
        for partition in 0..4 {
            kafka.produce(&topic, partition, &numbered(kill * RECORDS..(kill + 1) * RECORDS, 10_000));
        }
        // A new group each time: waiting out the dead member is another test's business.
        let group = unique("crash");
        env.change_job("crash", |text| replace_line(text, "group_id", &format!("{group:?}")));
        let before = stored(&env.bucket);
        proxy.set(late, Hits::DataPuts); // and count from 0
        let mut daemon = env.daemon();
        if random.u8(0..4) == 0 {
            std::thread::sleep(Duration::from_millis(random.u64(100..3_000))); // anywhere, also while it starts
        } else {
            let uploads = random.u64(1..12);
            wait_until("uploads to be under way", SOON, || proxy.hit() >= uploads);
            std::thread::sleep(Duration::from_millis(random.u64(0..60)));
        }
        assert!(daemon.is_running(), "killed, not ended");
        daemon.kill();
        assert_untouched(&before, &env.bucket);
        if random.u8(0..3) == 0 {
            let _ = fs::remove_dir_all(env.state("a"));
        }
    }
    let before = stored(&env.bucket);
    assert!(!before.is_empty(), "the kills hit a backup that was going on");
    let daemon = env.daemon().ready();
    await_caught_up(&kafka, &env.bucket, &topic);
    assert!(daemon.stop().success());
    assert_untouched(&before, &env.bucket);
    let chains = assert_backed_up(&kafka, &env.bucket, &topic);
    let bytes: usize = chains.iter().flat_map(|c| c.records()).map(|r| r.value.unwrap().len()).sum();
    assert!(bytes > 100_000_000, "{bytes} bytes");
}

fn replace_line(text: &str, key: &str, value: &str) -> String {
    let line = |line: &str| if line.starts_with(key) { format!("{key} = {value}\n") } else { format!("{line}\n") };
    text.lines().map(line).collect()
}

/// A virtual machine is paused in the middle of an upload; the other one takes its partitions over and goes on; the
/// late PUT arrives at S3; the machine wakes up and believes that it is still then.
#[test]
fn a_writer_that_slept_through_its_upload_changes_nothing() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("sleeper", 4, &[]);
    let proxy = Proxy::start(stack::s3_endpoint());
    let env = Env::new();
    let env = env.storage_behind(&proxy).kafka("main", stack::kafka_bootstrap(), &SHORT_SESSION).job(
        "sleeper",
        &[&topic],
        "rotate_interval = \"1s\"\nflush_size = 200\n",
    );
    let produce = |range: std::ops::Range<i64>| {
        (0..4).for_each(|partition| kafka.produce(&topic, partition, &numbered(range.clone(), 1000)));
    };

    produce(0..500);
    let sleeper = env.daemon_named("a").ready();
    await_caught_up(&kafka, &env.bucket, &topic);
    for round in 1..3 {
        // The PUTs of the sleeper reach the proxy, and S3 only when the other one has long taken over.
        let late = Duration::from_secs(15);
        proxy.set(Fault::Delay(late), Hits::DataPuts);
        produce(round * 500..round * 500 + 250);
        wait_until("an upload to be under way", SOON, || proxy.hit() > 0);
        sleeper.freeze();
        let frozen = Instant::now();
        proxy.set(Fault::Pass, Hits::All);
        let before = stored(&env.bucket);

        let other = env.daemon_named("b").ready();
        produce(round * 500 + 250..round * 500 + 500);
        await_caught_up(&kafka, &env.bucket, &topic);
        let taken_over = stored(&env.bucket);
        assert_untouched(&before, &env.bucket);
        std::thread::sleep((late + Duration::from_secs(1)).saturating_sub(frozen.elapsed()));
        assert_untouched(&taken_over, &env.bucket);

        sleeper.thaw();
        produce(10_000..10_250);
        await_caught_up(&kafka, &env.bucket, &topic);
        assert!(other.stop().success());
        assert_untouched(&taken_over, &env.bucket);
    }
    produce(20_000..20_250);
    await_caught_up(&kafka, &env.bucket, &topic);
    assert!(sleeper.stop().success());
    assert_backed_up(&kafka, &env.bucket, &topic);
}

/// A sleeper with 100 records stored and 50 in an open object, and what another machine did meanwhile.
///
/// The other one has a group of its own: so nobody tells the sleeper that it has lost the partition, and it sends what it
/// has when it wakes up, as one does that wakes up just before it is told.
struct Slept {
    kafka: Kafka,
    topic: String,
    env: Env,
    sleeper: Daemon,
}

impl Slept {
    fn new(env: Env, lines: &str) -> Self {
        let kafka = Kafka::shared();
        let topic = kafka.topic("slept", 1, &[]);
        let lines = format!("group_id = \"-\"\nrotate_interval = \"1h\"\nflush_size = 100\n{lines}");
        let session = [("session.timeout.ms", "300000")];
        let mut env = env.kafka("main", stack::kafka_bootstrap(), &session).job("slept", &[&topic], &lines);
        let groups = [unique("slept"), unique("awake")].map(|group| format!("{group:?}"));
        env.change_job("slept", |text| replace_line(text, "group_id", &groups[0]));
        kafka.produce(&topic, 0, &numbered(0..150, 100));
        let sleeper = env.daemon_named("a").ready();
        await_covered(&env.bucket, &format!("{topic}/0/"), 100);
        sleeper.await_metric("kafka_backup_buffer_bytes", &[], 5_000.0);
        sleeper.freeze();
        env.change_job("slept", |text| replace_line(text, "group_id", &groups[1]));
        Self { kafka, topic, env, sleeper }
    }

    /// The other machine makes everything durable that is there.
    fn other(&self) {
        self.env.kafka_backup_named("b", &["run", "slept", "--until-caught-up", "--json"]).success();
    }
}

/// The topic was deleted and created again, and the other machine has begun the new generation. The sleeper still holds
/// records of the topic that was, and fetches where it stood: nothing of the one gets into the list of the other, and it
/// goes on in the new generation.
#[rstest]
#[case::and_goes_on(false)]
#[case::and_is_told_to_stop(true)]
fn a_writer_that_slept_through_a_new_generation_mixes_nothing_up(#[case] is_to_stop: bool) {
    let _turn = beside_others();
    let slept = Slept::new(Env::new(), "");
    let (kafka, topic, bucket) = (&slept.kafka, &slept.topic, &slept.env.bucket);
    let old = kafka.read(topic, 0);
    kafka.delete_topic(topic);
    kafka.create_topic(topic, 1, 1, &[]);
    kafka.produce(topic, 0, &numbered(1000..1200, 100));
    slept.other();
    let second = format!("{topic}/gen-2/0/");
    assert_eq!(covered(bucket, &second), 200);
    let before = stored(bucket);

    kafka.produce(topic, 0, &numbered(1200..1300, 100));
    if is_to_stop {
        slept.sleeper.ask_to_stop();
        slept.sleeper.thaw();
        wait_until("the sleeper to end", SOON, || slept.sleeper.has_ended());
        slept.other();
    } else {
        slept.sleeper.thaw();
    }
    await_covered(bucket, &second, 300);
    assert_untouched(&before, bucket);
    // What it held of the topic that was may be in that topic's list, as it may be the last copy.
    let first = avro_reader::read(bucket, topic, 0).records();
    assert!([100, 150].contains(&first.len()), "{} records", first.len());
    assert_same("the first generation", &old[..first.len()], &first);
    let second = avro_reader::read_generation(bucket, topic, 2, 0);
    assert_same("the second generation", &kafka.read(topic, 0), &second.records());
}

/// What the sleeper has in hand was stored by the other machine and has expired: its name is free again. It looks at the
/// tail before it sends.
#[test]
fn a_writer_that_slept_creates_no_name_again_that_has_expired() {
    let _turn = beside_others();
    // A day of the test server's lifecycle.
    let slept = Slept::new(Env::new().variable("KAFKA_BACKUP_DAY_MS", "10000"), "retention = \"1d\"\n");
    let bucket = &slept.env.bucket;
    slept.other();
    wait_until("everything to expire", SOON, || stored(bucket).is_empty());
    slept.sleeper.ask_to_stop();
    slept.sleeper.thaw();
    wait_until("the sleeper to end", SOON, || slept.sleeper.has_ended());
    assert_eq!(stored(bucket).into_keys().collect::<Vec<_>>(), [""; 0]);
    assert!(slept.sleeper.log().contains("the last object is gone from the bucket"));
}

/// An orderly stop makes durable what has been read, and is quick.
#[test]
fn a_stop_makes_durable_what_was_read() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("stop", 2, &[]);
    let env = Env::new().job("stop", &[&topic], "rotate_interval = \"1h\"\n");
    let daemon = env.daemon().ready();
    (0..2).for_each(|partition| kafka.produce(&topic, partition, &numbered(0..1000, 100)));
    daemon.await_metric("kafka_backup_buffer_bytes", &[], 200_000.0);
    std::thread::sleep(Duration::from_secs(1)); // the objects stay open for an hour: nothing says how far they got
    assert!(stored(&env.bucket).is_empty());
    assert!(daemon.stop().success());
    assert!(!stored(&env.bucket).is_empty());
    env.back_up("stop");
    assert_backed_up(&kafka, &env.bucket, &topic);
}

/// Two one-shot runs at once, or a run beside a daemon: the second says that the job is taken.
#[test]
fn a_job_that_is_running_is_not_run_again() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("twice", 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..10, 100));
    let group = unique("twice");
    let lines = format!("rotate_interval = \"1s\"\ngroup_id = \"{group}\"\n");
    let env = Env::new().job("twice", &[&topic], &lines);
    let _daemon = env.daemon_named("a").ready();
    await_caught_up(&kafka, &env.bucket, &topic);
    let second = env.kafka_backup_named("b", &["run", "twice", "--until-caught-up", "--json"]);
    second.fails_with(11, &[&group]);
}

/// A run that was killed has left a member in the group. The next one says that it waits for it to go, and goes on.
#[test]
fn a_run_waits_for_the_dead_member_of_the_one_before() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("dead", 1, &[]);
    let session = [("session.timeout.ms", "10000"), ("heartbeat.interval.ms", "1000")];
    let env = Env::new().kafka("main", stack::kafka_bootstrap(), &session).job(
        "dead",
        &[&topic],
        "rotate_interval = \"1s\"\n",
    );
    kafka.produce(&topic, 0, &numbered(0..100, 100));
    let first = env.start(&["run", "dead"], "a");
    await_caught_up(&kafka, &env.bucket, &topic);
    let before = stored(&env.bucket);
    first.kill();
    kafka.produce(&topic, 0, &numbered(100..200, 100));
    let second = env.try_back_up("dead");
    assert_eq!(second.success()["complete"], true);
    assert!(second.stderr.contains("waiting for members of an earlier run to leave the group"), "{}", second.stderr);
    assert_untouched(&before, &env.bucket);
    assert_backed_up(&kafka, &env.bucket, &topic);
}

/// Killed in the middle of a rebalance: Kafka keeps who waits for its end until those are gone who do not answer any more,
/// and only then begins to wait for him, too. That takes two sessions.
#[test]
fn a_run_waits_for_members_that_died_in_a_rebalance() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("dead-many", 3, &[]);
    let session = [("session.timeout.ms", "12000"), ("heartbeat.interval.ms", "1000")];
    let env = Env::new().kafka("main", stack::kafka_bootstrap(), &session).job(
        "dead-many",
        &[&topic],
        "rotate_interval = \"1s\"\n",
    );
    (0..3).for_each(|partition| kafka.produce(&topic, partition, &numbered(0..100, 100)));
    let members: Vec<_> = ["b", "c"].iter().map(|name| env.daemon_named(name).ready()).collect();
    let group = || kafka.group("kafka-backup-dead-many");
    wait_until("two members with partitions", SOON, || {
        let group = group();
        group.is_stable() && group.members.values().filter(|partitions| !partitions.is_empty()).count() == 2
    });
    members.iter().for_each(Daemon::freeze);
    let newest = env.start(&["run", "dead-many"], "d");
    wait_until("a third member that waits for them", SOON, || group().members.len() == 3);
    assert_eq!(group().state, "PreparingRebalance");
    newest.kill();
    members.into_iter().for_each(Daemon::kill);
    assert_eq!(env.try_back_up("dead-many").success()["complete"], true);
    assert_backed_up(&kafka, &env.bucket, &topic);
}

/// The bucket is away for longer than Kafka keeps the records, and the daemon is killed meanwhile: what it had closed is
/// on its disk and comes to the bucket all the same.
#[test]
fn what_waited_for_the_bucket_survives_a_kill_and_kafkas_retention() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("outage", 1, &[]);
    let proxy = Proxy::start(stack::s3_endpoint());
    let env = Env::new();
    let env = env.storage_behind(&proxy).kafka("main", stack::kafka_bootstrap(), &SHORT_SESSION).job(
        "outage",
        &[&topic],
        "rotate_interval = \"1h\"\nflush_size = 100\n",
    );
    proxy.set(Fault::Status(503), Hits::DataPuts);
    kafka.produce(&topic, 0, &numbered(0..250, 100));
    let all = kafka.read(&topic, 0);
    let daemon = env.daemon().ready();
    let spool = env.state("a").join("spool");
    let kept = || fs::read_dir(&spool).into_iter().flatten().filter(|e| is_closed(&e.as_ref().unwrap().path())).count();
    wait_until("two closed objects on disk", SOON, || kept() == 2);
    daemon.kill();
    kafka.delete_records(&topic, 0, 200);
    assert!(stored(&env.bucket).is_empty());

    proxy.set(Fault::Pass, Hits::All);
    let daemon = env.daemon().ready();
    await_covered(&env.bucket, &format!("{topic}/0/"), 200);
    wait_until("what is in Kafka still to follow", SOON, || {
        let flushed = env.tell(&["flush", "outage", "--wait"]);
        flushed.code() == 0 && covered(&env.bucket, &format!("{topic}/0/")) == 250
    });
    assert!(daemon.stop().success());
    let chain = avro_reader::read(&env.bucket, &topic, 0);
    assert_same("backup", &all, &chain.records());
    assert_eq!(kept(), 0);
}

fn is_closed(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|extension| extension == "closed")
}
