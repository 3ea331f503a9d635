//! Disks fill up and break, memory is scarce, partitions are many.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rstest::rstest;

use crate::common::check::{assert_backed_up, assert_untouched, await_caught_up, await_covered, stored};
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::proxy::{Fault, Hits, Proxy};
use crate::common::record::numbered;
use crate::common::stack::{self, Cluster};
use crate::common::{alone, beside_others, unique};

/// A spool without room is a brake, whether by its own limit or by a full disk: nothing is lost, nothing ends.
#[rstest]
#[case::its_own_limit(None)]
#[case::a_full_disk(Some("4m"))]
fn a_full_spool_is_a_brake(#[case] disk: Option<&str>) {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("spool", 4, &[]);
    let proxy = Proxy::start(stack::s3_endpoint());
    let env = Env::new();
    let spool = env.path("spool");
    fs::create_dir(&spool).unwrap();
    let max = if disk.is_some() { "10GiB" } else { "16MiB" };
    let env = env
        .storage_behind(&proxy)
        .set(&format!("memory.budget = \"64MiB\"\nspool.dir = {spool:?}\nspool.max = \"{max}\""))
        .job("spool", &[&topic], "rotate_interval = \"2s\"\n");
    let mut daemon = match disk {
        Some(size) => env.daemon_in_namespace(&format!("mount -t tmpfs -o size={size} tmpfs {}", spool.display())),
        None => env.daemon(),
    }
    .ready();
    kafka.produce(&topic, 0, &numbered(0..10, 100));
    await_caught_up(&kafka, &env.bucket, &topic);
    proxy.set(Fault::Status(503), Hits::DataPuts);
    for partition in 0..4 {
        kafka.produce(&topic, partition, &numbered(100..5_100, 10_000));
    }
    std::thread::sleep(Duration::from_secs(5)); // 200 MB wait at a store that takes nothing
    assert!(daemon.is_running());
    proxy.set(Fault::Pass, Hits::All);
    for partition in 0..4 {
        await_covered(&env.bucket, &format!("{topic}/{partition}/"), kafka.watermarks(&topic, partition).1);
    }
    assert!(daemon.stop().success());
    assert_backed_up(&kafka, &env.bucket, &topic);
}

/// All files under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// What sled keeps is a hint: damaged or truncated it is put aside and made anew, and everybody is told.
#[rstest]
#[case::damaged(|path: &Path| { let bytes = fs::read(path).unwrap(); fs::write(path, vec![0xA5; bytes.len()]).unwrap(); })]
#[case::truncated(|path: &Path| { let bytes = fs::read(path).unwrap(); fs::write(path, &bytes[..bytes.len() / 2]).unwrap(); })]
fn damaged_state_is_rebuilt_and_that_is_said(#[case] damage: fn(&Path)) {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("state", 2, &[]);
    let env = Env::new().job("state", &[&topic], "rotate_interval = \"1s\"\n");
    (0..2).for_each(|partition| kafka.produce(&topic, partition, &numbered(0..100, 100)));
    let daemon = env.daemon().ready();
    await_caught_up(&kafka, &env.bucket, &topic);
    assert!(daemon.stop().success());
    let before = stored(&env.bucket);
    let database = files(&env.state("a"));
    let database: Vec<_> =
        database.iter().filter(|path| ["db", "conf"].iter().any(|name| path.ends_with(name))).collect();
    assert!(!database.is_empty(), "sled's files are somewhere in the state folder");
    database.into_iter().for_each(|path| damage(path));

    let daemon = env.daemon().ready();
    (0..2).for_each(|partition| kafka.produce(&topic, partition, &numbered(100..200, 100)));
    await_caught_up(&kafka, &env.bucket, &topic);
    daemon.await_metric("kafka_backup_state_rebuilds_total", &[], 1.0);
    daemon.await_log("rebuil");
    assert!(daemon.stop().success());
    assert_untouched(&before, &env.bucket);
    assert_backed_up(&kafka, &env.bucket, &topic);
}

/// 2,000 partitions with nothing to do cost no memory to speak of.
#[test]
fn two_thousand_idle_partitions_fit_into_a_small_budget() {
    let _turn = alone();
    let cluster = Cluster::start(1);
    let kafka = Kafka::at(&cluster.bootstrap);
    let topic = kafka.topic("idle", 2000, &[]);
    let env = Env::new().kafka("main", &cluster.bootstrap, &[]).set("memory.budget = \"64MiB\"").job(
        "idle",
        &[&topic],
        "rotate_interval = \"1s\"\n",
    );
    let busy = [0, 999, 1999];
    let daemon = env.daemon().ready();
    for round in 0..3 {
        for partition in busy {
            kafka.produce(&topic, partition, &numbered(round * 100..(round + 1) * 100, 1000));
        }
        for partition in busy {
            await_covered(&env.bucket, &format!("{topic}/{partition}/"), (round + 1) * 100);
        }
        let memory = daemon.memory() >> 20;
        println!("{memory} MiB for a budget of 64 MiB");
        assert!(memory < 64 + 100, "{memory} MiB for a budget of 64 MiB");
    }
    assert!(daemon.stop().success());
}

/// A record near the size of the whole budget passes; nothing waits for ever for room that there cannot be.
#[test]
fn large_records_pass_through_a_small_budget() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("huge", 2, &[("max.message.bytes", "12000000")]);
    let env = Env::new().set("memory.budget = \"64MiB\"").job("huge", &[&topic], "");
    for partition in 0..2 {
        kafka.produce(&topic, partition, &numbered(0..10, 10_000_000));
    }
    env.back_up("huge");
    assert_backed_up(&kafka, &env.bucket, &topic);
}

/// Memory that `verify` and `restore` may need for more or larger objects than for small ones that are enough to keep all
/// threads at work. What a run takes varies, of a restore by some 15 MiB: queues towards the broker are as full as it is slow,
/// and every producer has threads, whose heaps stay. With objects held whole the larger ones took some 80 and 170 MiB.
const MEMORY_MARGINS: [u64; 2] = [16 << 20, 28 << 20];

/// Twice as many objects, or objects four times as large, are restored and verified in the same memory.
#[test]
fn restore_and_verify_need_no_more_memory_for_more_or_larger_objects() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let (small, large) = (kafka.topic("memory", 4, &[]), kafka.topic("memory", 4, &[]));
    for partition in 0..4 {
        let records = numbered(0..3200, 10_000);
        kafka.produce(&small, partition, &records[..1600]);
        kafka.produce(&large, partition, &records);
    }
    let peaks = |topic: &str, records: u32, objects: usize| {
        let env = Env::new().job("memory", &[topic], &format!("flush_size = {records}\n"));
        env.back_up("memory");
        let sizes: Vec<i64> = env.bucket.list(&format!("{topic}/")).iter().map(|object| object.size).collect();
        assert_eq!(sizes.len(), objects);
        assert!(
            sizes.iter().all(|size| *size > i64::from(records) * 7_000),
            "objects of more than one piece: {sizes:?}"
        );
        let verify = env.start(&["verify", "--storage", "main", "--mode", "data", "--topic", topic], "v").peak_memory();
        let target = unique("restored");
        let topics = format!("{topic}:{target}");
        let restore = ["restore", "--storage", "main", "--kafka", "main", "--topics", &topics, "--create-topics"];
        let restore = env.start(&restore, "r").peak_memory();
        assert_eq!(
            (0..4).map(|partition| kafka.end(&target, partition)).sum::<i64>(),
            i64::from(records) * objects as i64
        );
        println!("{objects} objects of {records} records: verify {} MiB, restore {} MiB", verify >> 20, restore >> 20);
        [verify, restore]
    };
    let few = peaks(&small, 400, 16);
    for more in [peaks(&large, 400, 32), peaks(&large, 1600, 8)] {
        for ((more, few), margin) in more.into_iter().zip(few).zip(MEMORY_MARGINS) {
            assert!(more < few + margin, "{} MiB instead of {} MiB", more >> 20, few >> 20);
        }
    }
}
