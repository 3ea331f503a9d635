//! S3 breaks in every way it can: nothing is lost, nothing is doubled, nothing needs a restart.

use std::time::Duration;

use rstest::rstest;

use crate::common::check::{assert_backed_up, assert_untouched, await_caught_up, await_covered, stored};
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::proxy::{Fault, Hits, Proxy};
use crate::common::record::numbered;
use crate::common::s3::Bucket;
use crate::common::{SOON, beside_others, stack, wait_until};

/// A daemon that uploads every second meets the fault twice, the second time while it already works on a fault.
#[rstest]
#[case::internal_error(Fault::Status(500), Hits::DataPuts)]
#[case::slow_down(Fault::Status(503), Hits::All)]
#[case::forbidden(Fault::Status(403), Hits::All)]
#[case::cut_before_it_arrived(Fault::CutBefore, Hits::All)]
#[case::cut_after_it_was_done(Fault::CutAfter, Hits::DataPuts)]
#[case::no_answer(Fault::Hang, Hits::All)]
#[case::slow(Fault::Delay(Duration::from_secs(2)), Hits::All)]
fn s3_fails_and_recovers(#[case] fault: Fault, #[case] hits: Hits) {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("faults", 2, &[]);
    let proxy = Proxy::start(stack::s3_endpoint());
    let env = Env::new();
    let env = env.storage_behind(&proxy).job("faults", &[&topic], "rotate_interval = \"1s\"\nflush_size = 500\n");
    let produce = |range: std::ops::Range<i64>| {
        (0..2).for_each(|partition| kafka.produce(&topic, partition, &numbered(range.clone(), 1000)));
    };
    produce(0..1000);
    let mut daemon = env.daemon().ready();
    await_caught_up(&kafka, &env.bucket, &topic);
    for round in 1..3 {
        let before = stored(&env.bucket);
        proxy.set(fault, hits);
        produce(round * 1000..(round + 1) * 1000);
        wait_until("requests to meet the fault", SOON, || proxy.hit() >= 2);
        std::thread::sleep(Duration::from_secs(2)); // time to do something wrong
        proxy.set(Fault::Pass, Hits::All);
        await_caught_up(&kafka, &env.bucket, &topic);
        assert_untouched(&before, &env.bucket);
    }
    assert!(daemon.is_running(), "the same process all the time");
    assert!(daemon.stop().success());
    assert_backed_up(&kafka, &env.bucket, &topic);
}

/// Whoever emptied the bucket while it could not be reached: to go on behind what was there would be a backup without its
/// beginning, though Kafka still has it.
#[test]
fn a_bucket_that_comes_back_empty_is_filled_from_the_beginning() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("emptied", 2, &[]);
    let proxy = Proxy::start(stack::s3_endpoint());
    let env = Env::new();
    let env = env.storage_behind(&proxy).job("emptied", &[&topic], "rotate_interval = \"1s\"\nflush_size = 50\n");
    let produce = |range: std::ops::Range<i64>| {
        (0..2).for_each(|partition| kafka.produce(&topic, partition, &numbered(range.clone(), 100)));
    };
    produce(0..200);
    let mut daemon = env.daemon().ready();
    await_caught_up(&kafka, &env.bucket, &topic);
    proxy.set(Fault::CutBefore, Hits::All);
    produce(200..300);
    wait_until("uploads to fail", SOON, || proxy.hit() >= 4);
    env.bucket.wipe("");
    proxy.set(Fault::Pass, Hits::All);
    await_caught_up(&kafka, &env.bucket, &topic);
    assert!(daemon.is_running(), "the same process all the time");
    assert!(daemon.stop().success());
    assert_backed_up(&kafka, &env.bucket, &topic);
}

#[test]
fn a_job_that_cannot_store_is_degraded_as_long_as_that_lasts() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("degraded", 1, &[]);
    let proxy = Proxy::start(stack::s3_endpoint());
    let env = Env::new();
    let env = env.storage_behind(&proxy).job("degraded", &[&topic], "rotate_interval = \"1s\"\n");
    let daemon = env.daemon().ready();
    let jobs = |state: &str| daemon.metric("kafka_backup_jobs", &[&format!("state=\"{state}\"")]);
    wait_until("the job to run", SOON, || jobs("running") >= 1.0);
    proxy.set(Fault::Status(403), Hits::DataPuts);
    kafka.produce(&topic, 0, &numbered(0..10, 100));
    wait_until("the job to be degraded", SOON, || jobs("degraded") >= 1.0);
    assert!(daemon.metric("kafka_backup_errors_total", &["kind=\"auth\""]) >= 1.0);
    proxy.set(Fault::Pass, Hits::All);
    await_caught_up(&kafka, &env.bucket, &topic);
    wait_until("the job to run again", SOON, || jobs("running") >= 1.0 && jobs("degraded") == 0.0);
}

#[test]
fn a_dead_bucket_stops_its_own_job_and_no_other() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let (alive, dead) = (kafka.topic("alive", 1, &[]), kafka.topic("dead", 1, &[]));
    let proxy = Proxy::start(stack::s3_endpoint());
    let dead_bucket = Bucket::create();
    let env = Env::new();
    let alive_bucket = env.bucket.clone();
    let env = env
        .set("memory.budget = \"64MiB\"")
        .storage("main", stack::s3_endpoint(), &alive_bucket)
        .storage("dead", &proxy.url(), &dead_bucket)
        .job("alive", &[&alive], "rotate_interval = \"1s\"\n")
        .job("dead", &[&dead], "rotate_interval = \"1s\"\nstorage = \"dead\"\n");
    let daemon = env.daemon().ready();
    kafka.produce(&dead, 0, &numbered(0..10, 100));
    await_caught_up(&kafka, &dead_bucket, &dead);
    let before = stored(&dead_bucket);
    proxy.set(Fault::Status(503), Hits::All);
    // Far more for the dead one than fits into memory: it must not take the other's share.
    for part in 0..10 {
        kafka.produce(&dead, 0, &numbered(part * 2000..(part + 1) * 2000, 5000));
        kafka.produce(&alive, 0, &numbered(part * 100..(part + 1) * 100, 1000));
        await_caught_up(&kafka, &alive_bucket, &alive);
    }
    assert_backed_up(&kafka, &alive_bucket, &alive);
    assert_eq!(stored(&dead_bucket), before);
    proxy.set(Fault::Pass, Hits::All);
    await_caught_up(&kafka, &dead_bucket, &dead);
    drop(daemon);
    assert_backed_up(&kafka, &dead_bucket, &dead);
}

#[test]
fn a_bucket_that_keeps_versions_is_refused() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("versioned", 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..10, 100));
    let env = Env::new().job("versioned", &[&topic], "");
    env.bucket.version();
    env.try_back_up("versioned").fails_with(78, &["single_writer"]);
    assert!(stored(&env.bucket).is_empty());
}

/// A one-shot backup whose store stays away ends with an error, not with a promise.
#[test]
fn a_one_shot_backup_to_a_dead_bucket_fails() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("one-shot", 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..10, 100));
    let env = Env::new().job("one-shot", &[&topic], "");
    let nowhere = Bucket::named("there-is-no-such-bucket");
    let env = env.storage("main", stack::s3_endpoint(), &nowhere);
    assert_ne!(env.try_back_up("one-shot").code(), 0);
}

/// The brake works: what S3 does not take stays in Kafka.
#[test]
fn memory_stays_flat_while_nothing_can_be_stored() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("flat", 4, &[]);
    let proxy = Proxy::start(stack::s3_endpoint());
    let env = Env::new();
    let env = env.storage_behind(&proxy).set("memory.budget = \"64MiB\"\nspool.max = \"64MiB\"").job(
        "flat",
        &[&topic],
        "rotate_interval = \"2s\"\n",
    );
    let daemon = env.daemon().ready();
    kafka.produce(&topic, 0, &numbered(0..10, 100));
    await_caught_up(&kafka, &env.bucket, &topic);
    proxy.set(Fault::Status(503), Hits::DataPuts);
    for partition in 0..4 {
        kafka.produce(&topic, partition, &numbered(100..10_100, 10_000));
    }
    let mut peak = 0;
    for _ in 0..100 {
        peak = peak.max(daemon.memory());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(peak < 256 << 20, "{} MiB for a budget of 64 MiB", peak >> 20);
    proxy.set(Fault::Pass, Hits::All);
    for partition in 0..4 {
        await_covered(&env.bucket, &format!("{topic}/{partition}/"), kafka.watermarks(&topic, partition).1);
        peak = peak.max(daemon.memory());
    }
    assert!(peak < 256 << 20, "{} MiB for a budget of 64 MiB", peak >> 20);
    drop(daemon);
    assert_backed_up(&kafka, &env.bucket, &topic);
}
