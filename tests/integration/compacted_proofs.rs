//! Compacted topics: what does not prove that a snapshot is complete leads to no deletion and to no TERM.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::common::env::Env;
use crate::common::proxy::{Fault, Hits, Proxy};
use crate::common::stack::s3_endpoint;
use crate::common::{SOON, beside_others, wait_until};
use crate::compacted::{COMPACTED, PARTITIONS, Two, await_term, owns, term};

/// Turns that would come once a day; whose partner is looked after often.
pub(super) fn two(what: &str, lines: &str) -> Two {
    Two::new(what, "24", &format!("partner_timeout = \"60s\"\n{lines}"))
}

pub(super) fn swap(env: &Env, job: &str) {
    wait_until("a turn to be started by hand", SOON, || env.tell(&["swap", job]).code() == 0);
}

/// The objects of an instance.
pub(super) fn folder(two: &Two, instance: &str) -> BTreeSet<String> {
    let prefix = format!("{}/{instance}/", two.topic);
    two.a.bucket.list(&prefix).into_iter().map(|object| object.key).collect()
}

/// What the topic holds now.
fn live(two: &Two) -> BTreeMap<String, String> {
    let mut live = BTreeMap::new();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    for record in (0..PARTITIONS).flat_map(|partition| two.kafka.read(&two.topic, partition)) {
        let key = text(record.key.expect("a key"));
        match record.value {
            Some(value) => _ = live.insert(key, text(value)),
            None => _ = live.remove(&key),
        }
    }
    live
}

/// An instance has read everything and says so, but its TERM does not come to be: the other one goes on as if nothing
/// was said.
#[test]
fn the_word_of_the_other_instance_deletes_nothing() {
    let _turn = beside_others();
    let before_b = Proxy::start(s3_endpoint());
    let mut two = two("word", "");
    two.b = two.b.storage_behind(&before_b);
    let a = two.a_owns(300);
    let of_a = folder(&two, "a");

    before_b.set(Fault::Status(503), Hits::TermPuts);
    let b = two.b.daemon().ready();
    swap(&two.b, "pair-b");
    // Before each attempt it has said on the coordination topic that it is complete.
    wait_until("b to try to take over", SOON, || before_b.hit() >= 4);
    two.write(100);
    two.await_restored();
    assert!(owns(&a) && term(&b) == 1.0);
    assert!(folder(&two, "a").is_superset(&of_a), "the only complete snapshot has lost objects");
    assert!(!a.log().contains("objects deleted"), "nothing of a may be deleted");

    before_b.set(Fault::Pass, Hits::All);
    await_term(&b, 2.0);
    wait_until("a to clear its folder", SOON, || folder(&two, "a").is_empty());
    two.await_restored();
}

/// The record that proves that the other instance is complete is destroyed by hand, at the moment the old owner wants to
/// delete: its own snapshot is the newest again.
#[test]
fn a_term_that_was_destroyed_is_no_proof() {
    let _turn = beside_others();
    let before_a = Proxy::start(s3_endpoint());
    let mut two = two("destroyed", "");
    two.a = two.a.storage_behind(&before_a);
    let a = two.a_owns(300);
    let of_a = folder(&two, "a");

    before_a.set(Fault::Status(503), Hits::Method("DELETE"));
    let b = two.b.daemon().ready();
    swap(&two.b, "pair-b");
    wait_until("a to want to delete", SOON, || before_a.hit() > 0);
    two.a.bucket.delete(&format!("_kafka_backup/compacted/{}/TERM-2.json", two.topic));
    wait_until("a to own the snapshot again", SOON, || owns(&a));
    before_a.set(Fault::Pass, Hits::All);
    wait_until("b to clear its folder", SOON, || folder(&two, "b").is_empty());
    assert!(folder(&two, "a").is_superset(&of_a), "the only complete snapshot has lost objects");
    two.write(100);
    two.await_restored();
    assert!(owns(&a) && !owns(&b));
}

/// A scan has read as far as the owner had announced, and not to the end. Kafka has cleaned away what the owner had read
/// of each key: what the scan has so far was never the state of the topic.
#[test]
fn a_scan_that_has_not_seen_the_end_is_no_snapshot() {
    let _turn = beside_others();
    let before_b = Proxy::start(s3_endpoint());
    let mut two = two("end", "flush_bytes = \"64KiB\"\n");
    two.b = two.b.storage_behind(&before_b);
    // A scan of this test may be slow.
    let slow = COMPACTED.map(|(key, value)| (key, if key == "delete.retention.ms" { "3600000" } else { value }));
    two.kafka.configure(&two.topic, &slow);
    (two.keys, two.size) = (200, 3_000);
    let all: Vec<u32> = (0..two.keys).collect();
    two.write_to(&all);
    let a = two.a.daemon().ready();
    await_term(&a, 1.0);
    two.await_restored();
    a.kill();
    let announced: Vec<i64> = (0..PARTITIONS).map(|partition| two.kafka.end(&two.topic, partition)).collect();
    let old = two.written;
    wait_until("the old values to be cleaned away", SOON, || {
        two.write_to(&all); // Kafka cleans segments that are full
        let number = |value: &[u8]| -> u64 {
            String::from_utf8_lossy(value).split(' ').next().unwrap_or_default().parse().expect("a number")
        };
        let all = (0..PARTITIONS).flat_map(|partition| two.kafka.read(&two.topic, partition));
        all.filter_map(|record| record.value).all(|value| number(&value) > old)
    });

    // Only the first object of each partition is stored.
    before_b.set(Fault::Status(503), Hits::LaterDataPuts);
    let b = two.b.daemon().ready();
    swap(&two.b, "pair-b");
    wait_until("b to have stored the first objects", SOON, || {
        folder(&two, "b").len() == PARTITIONS as usize && before_b.hit() >= 2
    });
    for (key, announced) in folder(&two, "b").iter().zip(&announced) {
        let next: i64 = two.b.bucket.metadata(key)["next-offset"].parse().unwrap();
        assert!(next >= *announced, "{key} ends at {next}, below what was announced: {announced}");
    }
    let looks = before_b.seen("GET");
    wait_until("b to look at the bucket again", SOON, || before_b.seen("GET") >= looks + 20);
    two.assert_snapshot();
    assert_eq!(term(&b), 1.0, "nothing has been complete since");

    before_b.set(Fault::Pass, Hits::All);
    await_term(&b, 2.0);
    assert_eq!(live(&two), two.live);
    two.await_restored();
}

/// Records vanish from the topic while the owner is asleep: what it has read of their keys may be wrong, so it marks its
/// snapshot and asks the other instance for another one.
#[test]
fn an_owner_that_lost_records_asks_for_a_successor() {
    let _turn = beside_others();
    let mut two = two("gap", "");
    two.write(300);
    let (a, b) = (two.a.daemon().ready(), two.b.daemon().ready());
    await_term(&a, 1.0);
    two.await_restored();
    a.freeze();
    // The first ones may be on their way to it.
    two.write(100);
    two.write(300);
    let gone = two.kafka.end(&two.topic, 0);
    two.write(100);
    // Kafka deletes no records of a topic that is only compacted.
    two.kafka.configure(&two.topic, &[("cleanup.policy", "compact,delete")]);
    two.kafka.delete_records(&two.topic, 0, gone);
    two.kafka.configure(&two.topic, &[("cleanup.policy", "compact")]);
    two.live = live(&two);
    a.thaw();
    a.await_log("Kafka deleted records before they were read");
    await_term(&b, 2.0);
    wait_until("what is left to be restored", SOON, || two.restored() == two.live);
    let marked = two.a.bucket.list(&format!("_kafka_backup/compacted/{}/TERM-1.tainted", two.topic));
    assert_eq!(marked.len(), 1, "the snapshot is marked");
    wait_until("a to clear its folder", SOON, || folder(&two, "a").is_empty());
}

/// The topic is deleted by mistake, and whoever uses it creates it again, empty: both instances say so, and the snapshot of
/// the topic before stays what is restored.
#[test]
fn a_topic_that_was_created_again_takes_nothing_away() {
    let _turn = beside_others();
    let mut two = two("again", "");
    two.write(300);
    let (a, b) = (two.a.daemon().ready(), two.b.daemon().ready());
    await_term(&a, 1.0);
    two.await_restored();
    two.kafka.delete_topic(&two.topic);
    two.kafka.create_topic(&two.topic, PARTITIONS, 1, &COMPACTED);
    swap(&two.b, "pair-b");
    let says = |env: &Env| env.tell(&["status"]).stdout.contains("was deleted and created again: what s3://");
    wait_until("both to say so", SOON, || says(&two.a) && says(&two.b));
    assert_eq!((term(&a), term(&b)), (1.0, 1.0));
    assert_eq!(two.restored(), two.live);
    // Also when both begin anew, and somebody writes to the new one.
    assert!(a.stop().success() && b.stop().success());
    two.kafka.produce(&two.topic, 0, &crate::common::record::numbered(0..10, 10));
    let (a, b) = (two.a.daemon(), two.b.daemon());
    swap(&two.b, "pair-b");
    wait_until("both to say so again", SOON, || says(&two.a) && says(&two.b));
    assert_eq!((term(&a), term(&b)), (1.0, 1.0));
    assert_eq!(two.restored(), two.live);
    assert!(folder(&two, "b").is_empty());
}

/// Somebody deletes the record of the owner's run, without which nobody knows what its objects are, and the owner begins
/// anew: both say so, and the other instance makes the next snapshot at once.
#[test]
fn an_owner_whose_record_was_deleted_is_replaced() {
    let _turn = beside_others();
    let mut two = two("record", "");
    two.write(300);
    let a = two.a.daemon().ready();
    await_term(&a, 1.0);
    two.await_restored();
    a.kill();
    let record = format!("_kafka_backup/compacted/{}/RUN-a-1.json", two.topic);
    two.a.bucket.delete(&record);
    let restore = two.a.restore(&format!("{}:elsewhere", two.topic), &[]);
    restore.fails_with(4, &["the record of run", "of instance a is missing", "RUN-a-N.json back"]);
    let (a, b) = (two.a.daemon().ready(), two.b.daemon().ready());
    a.await_log("objects of TERM 1, or the record of its run, are gone");
    await_term(&b, 2.0);
    wait_until("a to clear its folder", SOON, || folder(&two, "a").is_empty());
    two.await_restored();
}

/// `verify` knows the newest TERM: what that relies on must be there, whatever else comes and goes.
#[test]
fn verify_misses_what_the_newest_snapshot_relies_on() {
    let _turn = beside_others();
    let mut two = two("verified", "");
    two.write(300);
    let a = two.a.daemon().ready();
    await_term(&a, 1.0);
    let b = two.b.daemon().ready();
    swap(&two.b, "pair-b");
    await_term(&b, 2.0);
    wait_until("a to clear its folder", SOON, || folder(&two, "a").is_empty());
    assert!(a.stop().success() && b.stop().success());
    let verify = |mode: &str| two.b.kafka_backup(&["verify", "--json", "--mode", mode]);
    for mode in ["list", "manifest", "data"] {
        let summary = verify(mode).success();
        assert_eq!(summary["notes"], 0, "TERM 1, whose objects are gone, is history: {summary}");
    }

    let bucket = &two.b.bucket;
    let record = format!("_kafka_backup/compacted/{}/TERM-2.json", two.topic);
    let term: Value = serde_json::from_slice(&bucket.get(&record).0).unwrap();
    let objects = term["partitions"]["0"]["objects"].as_array().unwrap();
    let number = |object: &Value, key: &str| object[key].as_i64().unwrap();
    for object in [objects.first().unwrap(), objects.last().unwrap()] {
        let (from, until) = (number(object, "offset"), number(object, "next_offset"));
        let key = format!("{0}/b/0/{0}-0-{from:020}.avro", two.topic);
        let (content, metadata) = bucket.get(&key);
        bucket.delete(&key);
        for mode in ["list", "manifest", "data"] {
            let output = verify(mode);
            let lines = output.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let damage: Vec<Value> = lines.filter(|line| line["severity"] == "damage").collect();
            assert!(output.code() == 4 && damage.len() == 1, "{mode}: {output:?}");
            let found = ["object", "from_offset", "until_offset"].map(|name| damage[0][name].clone());
            assert_eq!(found, [Value::from(key.as_str()), from.into(), until.into()], "{mode}");
            let said = damage[0].to_string();
            assert!(said.contains("TERM 2 of instance b") && said.contains("kafka-backup swap"), "{said}");
        }
        bucket.put_with(&key, &content, &metadata);
        verify("data").success();
    }

    let run = format!("_kafka_backup/compacted/{}/RUN-b-1.json", two.topic);
    let intact = bucket.get(&run).0;
    bucket.put(&run, b"{}");
    let output = verify("manifest");
    assert!(output.code() == 4 && output.stdout.contains(&run), "{output:?}");
    bucket.put(&run, &intact);

    // Nobody knows any longer what became of the turn behind it.
    let next = format!("_kafka_backup/compacted/{}/TERM-3.json", two.topic);
    bucket.put(&next, b"{\"format_version\": 1}");
    let output = verify("list");
    assert!(output.code() == 4 && output.stdout.contains(&next), "{output:?}");
    bucket.delete(&next);
    verify("list").success();
}
