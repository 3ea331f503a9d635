//! Processes die and sleep at the worst moments; the backup is the same as if they had not.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::avro_reader;
use crate::common::check::{assert_backed_up, assert_untouched, await_caught_up, await_covered, stored};
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::proxy::{Fault, Hits, Proxy};
use crate::common::record::{assert_same, numbered};
use crate::common::{SOON, alone, beside_others, stack, unique, wait_until};

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
    let session = [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "1000")];
    let env = Env::new();
    let env = env.storage_behind(&proxy).kafka("main", stack::kafka_bootstrap(), &session).job(
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

/// The bucket is away for longer than Kafka keeps the records, and the daemon is killed meanwhile: what it had closed is
/// on its disk and comes to the bucket all the same.
#[test]
fn what_waited_for_the_bucket_survives_a_kill_and_kafkas_retention() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("outage", 1, &[]);
    let proxy = Proxy::start(stack::s3_endpoint());
    let session = [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "1000")];
    let env = Env::new();
    let env = env.storage_behind(&proxy).kafka("main", stack::kafka_bootstrap(), &session).job(
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
    assert!(daemon.stop().success());
    let chain = avro_reader::read(&env.bucket, &topic, 0);
    assert_same("backup", &all, &chain.records());
    assert_eq!(kept(), 0);
}

fn is_closed(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|extension| extension == "closed")
}
