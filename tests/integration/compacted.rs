//! Compacted topics: two daemons take turns, and what is restored is the latest value of every key.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::common::daemon::Daemon;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::proxy::{Fault, Hits, Proxy};
use crate::common::record::Rec;
use crate::common::stack::s3_endpoint;
use crate::common::{SOON, beside_others, unique, wait_until};

/// A topic that Kafka really compacts, within seconds.
pub(super) const COMPACTED: [(&str, &str); 6] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "1048576"),
    ("segment.ms", "1000"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("min.compaction.lag.ms", "0"),
    ("delete.retention.ms", "60000"),
];

/// Two machines, one instance each, of one topic and one bucket.
pub(super) struct Two {
    pub(super) kafka: Kafka,
    pub(super) topic: String,
    coordination: String,
    /// Instance a, ACTIVATE.
    pub(super) a: Env,
    /// Instance b, PASSIVATE.
    pub(super) b: Env,
    /// The latest value of each key.
    pub(super) live: BTreeMap<String, String>,
    /// All that was ever written, in the order of each partition.
    log: Vec<Vec<(String, Option<String>)>>,
    pub(super) written: u64,
    pub(super) keys: u32,
    /// Bytes of a value.
    pub(super) size: usize,
}

pub(super) const PARTITIONS: i32 = 2;

impl Two {
    /// Turns of `length_hours`.
    pub(super) fn new(what: &str, length_hours: &str, lines: &str) -> Self {
        Self::in_environment(what, length_hours, lines, Env::new)
    }

    /// The same, with both in such an environment.
    fn in_environment(what: &str, length_hours: &str, lines: &str, environment: impl Fn() -> Env) -> Self {
        Self::on(Kafka::shared(), what, length_hours, lines, environment)
    }

    /// The same, with the topic on this cluster, which is that of the environment.
    pub(super) fn on(kafka: Kafka, what: &str, length_hours: &str, lines: &str, environment: impl Fn() -> Env) -> Self {
        let topic = kafka.topic(what, PARTITIONS, &COMPACTED);
        let coordination = unique("coordination");
        let job = |instance: &str, status: &str| {
            format!(
                "type = \"compacted\"\ninstance = {instance:?}\ninitial_status = {status:?}\n\
                 length_hours = {length_hours}\ninterval_offsets = 100\nrotate_interval = \"2s\"\n\
                 coordination_topic = {coordination:?}\n{lines}"
            )
        };
        let env = || environment().variable("KAFKA_BACKUP_DELETE_LIFETIME_MS", "2000");
        let a = env().job("pair-a", &[&topic], &job("a", "ACTIVATE"));
        let b = env().sharing(&a.bucket).job("pair-b", &[&topic], &job("b", "PASSIVATE"));
        let log = vec![Vec::new(); PARTITIONS as usize];
        Self { kafka, topic, coordination, a, b, live: BTreeMap::new(), log, written: 0, keys: 200, size: 12 }
    }

    /// Writes records and starts `a`, until its snapshot of them is the newest and complete.
    pub(super) fn a_owns(&mut self, records: usize) -> Daemon {
        self.write(records);
        let a = self.a.daemon().ready();
        await_term(&a, 1.0);
        self.await_restored();
        a
    }

    /// Writes to some of the keys; every seventh record deletes one.
    pub(super) fn write(&mut self, records: usize) {
        let keys: Vec<_> = (0..records).map(|_| fastrand::u32(0..self.keys)).collect();
        self.write_to(&keys);
    }

    pub(super) fn write_to(&mut self, keys: &[u32]) {
        let mut all = vec![Vec::new(); PARTITIONS as usize];
        for key in keys {
            let key = format!("key-{key}");
            let partition = partition_of(&key);
            self.written += 1;
            let value = (!self.written.is_multiple_of(7)).then(|| value(self.written, self.size));
            let mut record = Rec::new(1_700_000_000_000 + self.written as i64, &key, "");
            record.value = value.clone().map(String::into_bytes);
            match &value {
                Some(value) => _ = self.live.insert(key.clone(), value.clone()),
                None => _ = self.live.remove(&key),
            }
            self.log[partition].push((key, value));
            all[partition].push(record);
        }
        for (partition, records) in all.iter().enumerate() {
            self.kafka.produce(&self.topic, partition as i32, records);
        }
    }

    /// Waits until what is restored is what is live: the latest value of each key and no deleted one.
    pub(super) fn await_restored(&self) {
        wait_until("the snapshot to be what is live", SOON, || self.restored() == self.live);
    }

    /// What is restored is, in each partition, what was live at one moment: after some record of its log, with every
    /// key that then had a value, and none that was deleted.
    pub(super) fn assert_snapshot(&self) {
        let restored = self.restored();
        for (partition, log) in self.log.iter().enumerate() {
            let found: BTreeMap<_, _> = restored.iter().filter(|(key, _)| partition_of(key) == partition).collect();
            let mut live = BTreeMap::new();
            let was_live = log.iter().any(|(key, value)| {
                match value {
                    Some(value) => _ = live.insert(key, value),
                    None => _ = live.remove(key),
                }
                live == found
            });
            let keys: Vec<_> = found.keys().collect();
            assert!(was_live, "partition {partition} was never like that: {keys:?}");
        }
    }

    pub(super) fn restored(&self) -> BTreeMap<String, String> {
        restored(&self.a, &self.kafka, &self.topic)
    }
}

/// What a restore of `topic` gives, by key.
pub(super) fn restored(env: &Env, kafka: &Kafka, topic: &str) -> BTreeMap<String, String> {
    let target = unique("restored");
    env.restore(&format!("{topic}:{target}"), &[]).success();
    let mut found = BTreeMap::new();
    for partition in 0..PARTITIONS {
        for record in kafka.read(&target, partition) {
            let key = String::from_utf8(record.key.expect("a key")).unwrap();
            match record.value {
                Some(value) => _ = found.insert(key, String::from_utf8(value).unwrap()),
                None => _ = found.remove(&key),
            }
        }
    }
    kafka.delete_topic(&target);
    found
}

pub(super) fn partition_of(key: &str) -> usize {
    key.bytes().map(usize::from).sum::<usize>() % PARTITIONS as usize
}

/// A value like no other, that hardly compresses.
pub(super) fn value(number: u64, size: usize) -> String {
    let random = std::iter::repeat_with(fastrand::alphanumeric).take(size);
    format!("{number} ").chars().chain(random).take(size).collect()
}

pub(super) fn term(daemon: &Daemon) -> f64 {
    daemon.metric("kafka_backup_compacted_term", &[])
}

pub(super) fn await_term(daemon: &Daemon, at_least: f64) {
    wait_until(&format!("TERM {at_least}"), SOON, || term(daemon) >= at_least);
}

#[test]
fn two_instances_take_turns_and_the_newest_snapshot_is_restored() {
    let _turn = beside_others();
    let mut two = Two::new("turns", "0.002", "");
    let a = two.a_owns(500);

    let b = two.b.daemon().ready();
    await_term(&b, 2.0);
    two.write(300);
    await_term(&b, 4.0);
    assert!(a.stop().success() && b.stop().success());
    two.await_restored();
}

/// The active machine is lost for good: after partner_timeout the other one makes a snapshot by itself.
#[test]
fn a_partner_that_is_lost_for_good_is_replaced() {
    let _turn = beside_others();
    let mut two = Two::new("lost", "24", "partner_timeout = \"8s\"\n");
    two.write(300);
    let a = two.a.daemon().ready();
    await_term(&a, 1.0);
    let b = two.b.daemon().ready();
    wait_until("b to rest", SOON, || b.metric("kafka_backup_compacted_status", &["status=\"PASSIVATE\""]) == 1.0);
    let of_a = format!("{}/a/", two.topic);
    a.kill();
    let left: Vec<_> = two.a.bucket.list(&of_a).into_iter().map(|object| object.key).collect();
    assert!(!left.is_empty());
    two.write(100);
    await_term(&b, 2.0);
    two.await_restored();
    let now: Vec<_> = two.a.bucket.list(&of_a).into_iter().map(|object| object.key).collect();
    assert_eq!(now, left, "the partner's folder is the partner's");
}

/// Both have the same initial_status, which no configuration check sees on two machines; and the coordination topic is
/// deleted under them.
#[test]
fn neither_a_wrong_initial_status_nor_a_deleted_coordination_topic_costs_the_snapshot() {
    let _turn = beside_others();
    let mut two = Two::new("wrong", "0.002", "");
    two.b.change_job("pair-b", |text| text.replace("PASSIVATE", "ACTIVATE"));
    two.write(300);
    let (a, b) = (two.a.daemon().ready(), two.b.daemon().ready());
    let named = |env: &Env| env.tell(&["status"]).stdout.contains("has the same initial_status");
    wait_until("the problem to be named", SOON, || named(&two.a) || named(&two.b));
    await_term(&a, 1.0);
    two.await_restored();

    two.kafka.delete_topic(&two.coordination);
    two.write(100);
    let before = term(&a);
    await_term(&a, before + 3.0);
    two.await_restored();
    assert_eq!(two.kafka.partitions(&two.coordination), 1);
    let policy = two.kafka.setting(&two.coordination, "cleanup.policy");
    assert_eq!(policy.as_deref(), Some("compact"), "made again by the daemons");
    assert!(a.stop().success() && b.stop().success());
}

/// S3 goes away in the middle of a hand-over, in several ways: the turns go on when it is back, and nothing is lost.
#[test]
fn s3_down_during_a_hand_over_costs_nothing() {
    let _turn = beside_others();
    let proxy = Proxy::start(s3_endpoint());
    let bucket = Env::new().bucket;
    let mut two = Two::in_environment("away", "0.002", "", || Env::new().sharing(&bucket).storage_behind(&proxy));
    two.write(300);
    let (a, b) = (two.a.daemon().ready(), two.b.daemon().ready());
    await_term(&a, 1.0);
    for fault in [Fault::Status(503), Fault::CutAfter, Fault::Hang] {
        // Whoever hands over deletes at its end.
        proxy.set(Fault::Status(503), Hits::Method("DELETE"));
        wait_until("a hand-over", SOON, || proxy.hit() > 0);
        proxy.set(fault, Hits::All);
        let before = term(&a);
        two.write(100);
        wait_until("both to meet the fault", SOON, || proxy.hit() >= 4);
        std::thread::sleep(Duration::from_secs(3));
        println!("{fault:?}: {} requests, TERM {before}", proxy.hit());
        proxy.set(Fault::Pass, Hits::All);
        two.assert_snapshot();
        await_term(&a, before + 2.0);
        two.await_restored();
    }
    assert!(a.stop().success() && b.stop().success());
}

/// A daemon falls asleep while it deletes; another process becomes its instance and fills the same folder again. What
/// the sleeper still wanted to delete is not deleted when it wakes up.
#[test]
fn a_sleeper_in_the_delete_loop_deletes_nothing_of_its_successor() {
    let _turn = beside_others();
    let mut two = Two::new("sleeper", "0.002", "");
    two.write(400);
    // One object a second.
    let sleeper = two.a.daemon_with(&[("KAFKA_BACKUP_DELETE_SLOWLY_MS", "1000")]).ready();
    await_term(&sleeper, 1.0);
    let (bucket, of_a) = (two.a.bucket.clone(), format!("{}/a/", two.topic));
    let objects = || -> BTreeSet<String> { bucket.list(&of_a).into_iter().map(|object| object.key).collect() };
    wait_until("some more objects", SOON, || {
        two.write(20);
        objects().len() >= 6
    });
    let b = two.b.daemon().ready();
    sleeper.await_log("handing over to the other instance");
    let before = objects().len();
    wait_until("the first object to be deleted", SOON, || objects().len() < before);
    sleeper.freeze();
    let (asleep, left) = (Instant::now(), objects());
    println!("asleep with {} of {before} objects", left.len());
    assert!(!left.is_empty(), "it has nothing to do when it wakes up");

    // The same instance on another machine: it clears the folder, and takes turns.
    let a = two.a.daemon_named("another").ready();
    let known = term(&b);
    two.write(100);
    // A batch is good for 30 s.
    wait_until("a to own objects of the same names", Duration::from_secs(240), || {
        asleep.elapsed() > Duration::from_secs(35) && term(&a) > known && owns(&a) && !objects().is_disjoint(&left)
    });
    sleeper.thaw();
    sleeper.await_log("another process runs instance");
    println!("awake at TERM {}", term(&a));
    two.await_restored();
    two.write(100);
    let now = term(&b);
    await_term(&b, now + 2.0);
    two.await_restored();
    assert!(!(a.log() + &b.log()).contains("somebody deleted them"), "objects of a TERM were gone");
}

pub(super) fn owns(daemon: &Daemon) -> bool {
    daemon.metric("kafka_backup_compacted_status", &["status=\"ACTIVATE\""]) == 1.0
}
