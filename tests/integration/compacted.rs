//! Compacted topics: two daemons take turns, and what is restored is the latest value of every key.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::daemon::Daemon;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::record::Rec;
use crate::common::{SOON, beside_others, unique, wait_until};

/// A topic that Kafka really compacts, within seconds.
const COMPACTED: [(&str, &str); 6] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "1048576"),
    ("segment.ms", "1000"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("min.compaction.lag.ms", "0"),
    ("delete.retention.ms", "60000"),
];

/// Two machines, one instance each, of one topic and one bucket.
struct Two {
    kafka: Kafka,
    topic: String,
    /// Instance a, ACTIVATE.
    a: Env,
    /// Instance b, PASSIVATE.
    b: Env,
    /// The latest value of each key.
    live: BTreeMap<String, String>,
    /// All that was ever written, in the order of each partition.
    log: Vec<Vec<(String, Option<String>)>>,
    written: u64,
}

const PARTITIONS: i32 = 2;

impl Two {
    /// Turns of `length_hours`.
    fn new(what: &str, length_hours: &str, lines: &str) -> Self {
        let kafka = Kafka::shared();
        let topic = kafka.topic(what, PARTITIONS, &COMPACTED);
        let coordination = unique("coordination");
        let job = |instance: &str, status: &str| {
            format!(
                "type = \"compacted\"\ninstance = {instance:?}\ninitial_status = {status:?}\n\
                 length_hours = {length_hours}\ninterval_offsets = 100\nrotate_interval = \"2s\"\n\
                 coordination_topic = {coordination:?}\n{lines}"
            )
        };
        let env = || Env::new().variable("KAFKA_BACKUP_DELETE_LIFETIME_MS", "2000");
        let a = env().job("pair-a", &[&topic], &job("a", "ACTIVATE"));
        let b = env().sharing(&a.bucket).job("pair-b", &[&topic], &job("b", "PASSIVATE"));
        Self { kafka, topic, a, b, live: BTreeMap::new(), log: vec![Vec::new(); PARTITIONS as usize], written: 0 }
    }

    /// Writes to some of the keys; every seventh record deletes one.
    fn write(&mut self, records: usize) {
        let mut all = vec![Vec::new(); PARTITIONS as usize];
        for _ in 0..records {
            let key = format!("key-{}", fastrand::u32(0..200));
            let partition = partition_of(&key);
            self.written += 1;
            let mut record =
                Rec::new(1_700_000_000_000 + self.written as i64, &key, &format!("value-{}", self.written));
            if self.written.is_multiple_of(7) {
                record.value = None;
                self.live.remove(&key);
            } else {
                self.live.insert(key.clone(), format!("value-{}", self.written));
            }
            let value = (!self.written.is_multiple_of(7)).then(|| format!("value-{}", self.written));
            self.log[partition].push((key, value));
            all[partition].push(record);
        }
        for (partition, records) in all.iter().enumerate() {
            self.kafka.produce(&self.topic, partition as i32, records);
        }
    }

    /// Waits until what is restored is what is live: the latest value of each key and no deleted one.
    fn await_restored(&self) {
        wait_until("the snapshot to be what is live", SOON, || self.restored() == self.live);
    }

    /// What is restored is, in each partition, what was live at one moment: after some record of its log, with every
    /// key that then had a value, and none that was deleted.
    fn assert_snapshot(&self) {
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
            assert!(was_live, "partition {partition} was never like that: {found:?}");
        }
    }

    fn restored(&self) -> BTreeMap<String, String> {
        let target = unique("restored");
        self.a.restore(&format!("{}:{target}", self.topic), &[]).success();
        let mut found = BTreeMap::new();
        for partition in 0..PARTITIONS {
            for record in self.kafka.read(&target, partition) {
                let key = String::from_utf8(record.key.expect("a key")).unwrap();
                match record.value {
                    Some(value) => _ = found.insert(key, String::from_utf8(value).unwrap()),
                    None => _ = found.remove(&key),
                }
            }
        }
        self.kafka.delete_topic(&target);
        found
    }
}

fn partition_of(key: &str) -> usize {
    key.bytes().map(usize::from).sum::<usize>() % PARTITIONS as usize
}

fn term(daemon: &Daemon) -> f64 {
    daemon.metric("kafka_backup_compacted_term", &[])
}

fn await_term(daemon: &Daemon, at_least: f64) {
    wait_until(&format!("TERM {at_least}"), SOON, || term(daemon) >= at_least);
}

#[test]
fn two_instances_take_turns_and_the_newest_snapshot_is_restored() {
    let _turn = beside_others();
    let mut two = Two::new("turns", "0.002", "");
    two.write(500);
    let a = two.a.daemon().ready();
    await_term(&a, 1.0);
    two.await_restored();

    let b = two.b.daemon().ready();
    await_term(&b, 2.0);
    two.write(300);
    await_term(&b, 4.0);
    assert!(a.stop().success() && b.stop().success());
    two.await_restored();
}

/// Either daemon is killed again and again while records come in: there is always a snapshot, and it is one.
#[test]
fn kills_during_turns_leave_a_snapshot_that_was_live() {
    let _turn = beside_others();
    let mut two = Two::new("kills", "0.0015", "");
    two.write(400);
    let mut daemons = [Some(two.a.daemon().ready()), Some(two.b.daemon().ready())];
    wait_until("the first TERM", SOON, || daemons.iter().flatten().any(|one| term(one) >= 1.0));
    for round in 0..8 {
        two.write(150);
        std::thread::sleep(Duration::from_millis(fastrand::u64(200..2_500)));
        let which = fastrand::usize(0..2);
        daemons[which].take().expect("both run between rounds").kill();
        println!("round {round}: killed {}", ["a", "b"][which]);
        two.write(50);
        two.assert_snapshot();
        daemons[which] = Some([&two.a, &two.b][which].daemon().ready());
    }
    let a = daemons[0].as_ref().expect("both run between rounds");
    wait_until("a TERM to be known", SOON, || term(a) >= 1.0);
    let before = term(a);
    println!("TERM {before} after the kills");
    await_term(a, before + 2.0);
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
