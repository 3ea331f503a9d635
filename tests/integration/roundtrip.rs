//! What was produced is in the backup, record by record, and nothing else is.

use std::cell::Cell;
use std::ops::Range;

use rstest::rstest;

use crate::common::avro_reader;
use crate::common::check::{assert_backed_up, await_covered};
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::record::{Rec, assert_same, numbered};
use crate::common::{SOON, beside_others, stack, wait_until, wire};

/// Lifts the broker's limits on how far from now a record's timestamp may be, and how large a record may be.
const NO_LIMITS: &[(&str, &str)] = &[
    ("message.timestamp.after.max.ms", "9223372036854775807"),
    ("message.timestamp.before.max.ms", "9223372036854775807"),
    ("max.message.bytes", "33554432"),
];

/// Null is not empty, header names are bytes, come twice and keep their order, sizes and times are what they are.
fn odd_records() -> Vec<Rec> {
    let key_and_value = |key: Option<&[u8]>, value: Option<&[u8]>| Rec {
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        ..Rec::new(1_767_225_600_000, "", "")
    };
    let large: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(10_000_000).collect();
    vec![
        key_and_value(None, None),
        key_and_value(None, Some(b"")),
        key_and_value(Some(b""), None),
        key_and_value(Some(b""), Some(b"")),
        key_and_value(Some(b"tombstone"), None),
        key_and_value(Some(b"\x00\xff"), Some(b"\xf0\x28\x8c\x28")),
        Rec::new(1_767_225_600_000, "k", "v")
            .header("z", Some(b"1"))
            .header("a", None)
            .header("z", Some(b""))
            .header("", Some(b"nameless"))
            .header(b"\xff\xfe\x80", Some(b"\x00"))
            .header("\u{10FF41}".as_bytes(), Some(b"looks like an escape"))
            .header("z", Some(b"1")),
        key_and_value(Some(b"large"), Some(&large)),
        Rec::new(1, "k", "1970"),
        Rec::new(7_258_118_400_000, "k", "2200"),
        Rec::new(1_000_000_000_000, "k", "2001, after 2200"),
        key_and_value(Some(&large[..100_000]), Some(b"a large key")),
    ]
}

#[test]
fn odd_records_come_to_the_bucket_and_back() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let (source, target) = (kafka.topic("odd", 1, NO_LIMITS), kafka.topic("odd-copy", 1, NO_LIMITS));
    let env = Env::new().job("odd", &[&source], "");
    kafka.produce(&source, 0, &odd_records());

    let summary = env.back_up("odd");
    assert_backed_up(&kafka, &env.bucket, &source);
    assert_eq!((&summary["records"], &summary["gaps"]), (&odd_records().len().into(), &0.into()), "{summary}");

    env.restore(&format!("{source}:{target}"), &[]).success();
    assert_same("the restored topic", &kafka.read(&source, 0), &kafka.read(&target, 0));
}

/// Backs `records` up and restores them, without a client library on either end, and compares. Returns the target.
fn by_hand_and_back(kafka: &Kafka, records: &[Rec]) -> String {
    let (source, target) = (kafka.topic("by-hand", 1, NO_LIMITS), kafka.topic("by-hand-copy", 1, NO_LIMITS));
    wire::produce(&kafka.bootstrap, &source, 0, records);
    let expected: Vec<_> = (0..).zip(records).map(|(offset, record)| Rec { offset, ..record.clone() }).collect();
    assert_same("the source", &expected, &wire::read(&kafka.bootstrap, &source, 0));

    let uncompressed = [("compression.type", "none")];
    let env = Env::new().kafka("main", &kafka.bootstrap, &uncompressed).job("by-hand", &[&source], "");
    env.back_up("by-hand");
    assert_same("the backup", &expected, &avro_reader::read(&env.bucket, &source, 0).records());
    env.restore(&format!("{source}:{target}"), &[]).success();
    assert_same("the restored topic", &expected, &wire::read(&kafka.bootstrap, &target, 0));
    target
}

/// librdkafka's interface takes 0 for "now".
#[test]
fn a_timestamp_of_0_is_a_timestamp_like_any_other() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let times = [0, 1, 1_767_225_600_000, 0, -1, 0];
    let record = |(i, ms): (usize, &i64)| Rec::new(*ms, &format!("k{i}"), "v");
    let target = by_hand_and_back(&kafka, &times.iter().enumerate().map(record).collect::<Vec<_>>());

    // And as Kafka's own consumer sees it.
    let args = ["--bootstrap-server", &kafka.bootstrap, "--topic", &target, "--from-beginning", "--max-messages", "6"];
    let shown = ["--property", "print.timestamp=true", "--property", "print.key=true"];
    let text = stack::kafka_tool("org.apache.kafka.tools.consumer.ConsoleConsumer", &[&args[..], &shown].concat());
    let expected: Vec<_> = times.iter().enumerate().map(|(i, ms)| format!("CreateTime:{ms}\tk{i}\tv")).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

/// librdkafka's interface ends a name at its first NUL.
#[test]
fn names_of_headers_may_hold_nul() {
    let _turn = beside_others();
    let record = Rec::new(1_767_225_600_000, "k", "v")
        .header(b"a\0b", Some(b"1"))
        .header("a", None)
        .header(b"a\0b", None)
        .header(b"a\0b", Some(b""))
        .header(b"\0", None)
        .header(b"\0", Some(b"\0"))
        .header(b"\xff\0\xfe", None)
        .header("", Some(b"nameless"));
    by_hand_and_back(&Kafka::shared(), &[record.clone(), Rec::new(1_767_225_600_001, "k", "none"), record]);
}

#[test]
fn log_append_time_is_kept() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let source = kafka.topic("appended", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let env = Env::new().job("appended", &[&source], "");
    kafka.produce(&source, 0, &numbered(0..10, 20));
    env.back_up("appended");
    let chains = assert_backed_up(&kafka, &env.bucket, &source);
    assert!(chains[0].records().iter().all(|record| record.timestamp_type == "LOG_APPEND_TIME"));

    // No producer can set another type than its topic has; the moment itself is brought back.
    let target = format!("{source}-copy");
    env.restore(&format!("{source}:{target}"), &[]).success();
    let moments = |topic| kafka.read(topic, 0).into_iter().map(|r| r.timestamp).collect::<Vec<_>>();
    assert_eq!(moments(&target), moments(&source));
}

#[test]
fn source_batches_of_every_codec_are_read() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    let topic = kafka.topic("codecs", codecs.len() as i32, &[]);
    for (partition, codec) in codecs.iter().enumerate() {
        let producer = kafka.producer(&[("compression.type", codec), ("linger.ms", "200")]);
        for record in numbered(0..2000, 300) {
            producer.send(&topic, partition as i32, &record);
        }
        producer.flush();
    }
    let env = Env::new().job("codecs", &[&topic], "");
    env.back_up("codecs");
    assert_backed_up(&kafka, &env.bucket, &topic);
}

#[test]
fn only_committed_records_are_backed_up_and_an_open_transaction_holds_back_what_follows() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("transactions", 1, &[]);
    let env = Env::new().job("transactions", &[&topic], "");
    let transactional = |name: &str| {
        let producer = kafka.producer(&[("transactional.id", &format!("{topic}-{name}"))]);
        producer.init_transactions();
        producer
    };
    let (closed, open) = (transactional("closed"), transactional("open"));
    let send = |producer: &crate::common::kafka::Producer, what: &str| {
        (0..50).for_each(|i| producer.send(&topic, 0, &Rec::new(1_767_225_600_000 + i, what, "v")));
    };
    for commit in [true, false, true, false] {
        closed.begin();
        send(&closed, if commit { "committed" } else { "aborted" });
        if commit { closed.commit() } else { closed.abort() }
    }
    // The log ends in aborted records and markers here: reading to the end must see that it is the end.
    env.back_up("transactions");
    let chain = &assert_backed_up(&kafka, &env.bucket, &topic)[0];
    assert_eq!(chain.records().len(), 100);

    open.begin();
    send(&open, "open");
    open.flush();
    let stable = kafka.watermarks(&topic, 0).1 - 50;
    kafka.produce(&topic, 0, &numbered(0..50, 20));
    env.back_up("transactions");
    let chain = &assert_backed_up(&kafka, &env.bucket, &topic)[0];
    assert_eq!(chain.records().len(), 100, "nothing behind the last stable offset");
    assert!(chain.end() <= stable, "{} lies behind the last stable offset {stable}", chain.end());

    open.commit();
    env.back_up("transactions");
    assert_eq!(assert_backed_up(&kafka, &env.bucket, &topic)[0].records().len(), 200);
}

/// A compacted topic whose cleaner has made holes: offsets 5 to 24 are gone, and those on both sides are there. It holds
/// still from now on.
pub fn compacted_with_holes(kafka: &Kafka) -> String {
    let compacting = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "500"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("max.compaction.lag.ms", "500"),
        ("delete.retention.ms", "86400000"),
    ];
    let topic = kafka.topic("holes", 1, &compacting);
    // Batches of ten: the first loses its tail, the second everything, the third its head. A segment is closed when
    // a record comes that is so much younger than the segment's first one: each batch is, by its timestamps.
    let batches = Cell::new(0);
    let batch = |keys: Range<i64>| {
        let first = batches.replace(batches.get() + 1) * 1000;
        let keyed = |(key, record)| Rec { key: Some(format!("{key}").into()), ..record };
        let records = keys.clone().zip(numbered(first..first + keys.end - keys.start, 50)).map(keyed);
        kafka.produce(&topic, 0, &records.collect::<Vec<_>>());
    };
    [0..10, 10..20, 20..30, 5..25].into_iter().for_each(batch);
    let cleaned = || {
        batch(100..101); // the cleaner leaves the newest segment alone: begin another one
        let kept: Vec<_> = kafka.read(&topic, 0).iter().map(|r| r.offset).collect();
        kept.starts_with(&[0, 1, 2, 3, 4, 25, 26, 27, 28, 29, 30])
    };
    wait_until("the cleaner to have made holes", SOON, cleaned);
    // From here on the log must hold still, or reading it twice gives two answers.
    kafka.configure(
        &topic,
        &[("cleanup.policy", "compact"), ("min.compaction.lag.ms", "9223372036854775807"), ("segment.ms", "9000000")],
    );
    topic
}

#[test]
fn a_compacted_source_is_backed_up_with_its_holes() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = compacted_with_holes(&kafka);
    let refused = Env::new().job("holes", &[&topic], "");
    assert_ne!(refused.try_back_up("holes").code(), 0, "a compacted topic needs to be allowed");
    assert!(avro_reader::read(&refused.bucket, &topic, 0).objects.is_empty());

    let env = Env::new().job("holes", &[&topic], "allow_compacted = true\nflush_size = 7\n");
    env.back_up("holes");
    let chain = &assert_backed_up(&kafka, &env.bucket, &topic)[0];
    assert!(chain.gaps().is_empty(), "what the cleaner removed is no gap");
}

#[test]
fn records_deleted_before_they_were_read_are_a_gap_that_is_never_silent() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("gap", 1, &[]);
    let env = Env::new().job("gap", &[&topic], "rotate_interval = \"1s\"\n");
    let all = numbered(0..150, 100);
    kafka.produce(&topic, 0, &all[..30]);
    assert_eq!(env.back_up("gap")["gaps"], 0);

    kafka.produce(&topic, 0, &all[30..100]);
    kafka.delete_records(&topic, 0, 60);
    assert_eq!(env.back_up("gap")["gaps"], 1);

    kafka.produce(&topic, 0, &all[100..]);
    kafka.delete_records(&topic, 0, 120);
    let daemon = env.daemon().ready();
    await_covered(&env.bucket, &format!("{topic}/0/"), 150);
    let job = format!("topic=\"{topic}\"");
    daemon.await_metric("kafka_backup_offset_gap_records_total", &[&job], 20.0);
    assert!(daemon.stop().success());

    let chain = avro_reader::read(&env.bucket, &topic, 0);
    assert_eq!(chain.gaps(), [(30, 60), (100, 120)]);
    let kept = |r: &&Rec| !(30..60).contains(&r.offset) && !(100..120).contains(&r.offset);
    let expected: Vec<_> = (0..).zip(all).map(|(offset, r)| Rec { offset, ..r }).collect();
    assert_same("the backup", &expected.iter().filter(kept).cloned().collect::<Vec<_>>(), &chain.records());
}

/// Interoperability: the reference implementation's own tool opens the files, whatever the codec.
#[rstest]
#[case("zstandard")]
#[case("snappy")]
#[case("deflate")]
#[case("null")]
fn avro_tools_reads_the_objects(#[case] codec: &str) {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("avro", 1, &[]);
    let env = Env::new().job("avro", &[&topic], &format!("codec = \"{codec}\"\n"));
    let mut records = numbered(0..1000, 200);
    records.push(Rec { key: None, ..Rec::new(1, "", "last") }.header("h", None).header("h", Some(b"1")));
    kafka.produce(&topic, 0, &records);
    env.back_up("avro");

    let object = &avro_reader::read(&env.bucket, &topic, 0).objects[0];
    let file = env.path("object.avro");
    std::fs::write(&file, env.bucket.get(&object.key).0).unwrap();
    let meta = stack::avro_tools(&["getmeta", file.to_str().unwrap()]);
    let named = meta.lines().any(|line| line.starts_with("avro.codec") && line.ends_with(codec));
    assert!(named || codec == "null", "{meta}");
    let json = stack::avro_tools(&["tojson", file.to_str().unwrap()]);
    let read: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read.len(), object.records.len());
    for (read, expected) in read.iter().zip(&object.records) {
        assert_eq!(read["offset"], expected.offset);
        assert_eq!(read["timestamp"], expected.timestamp);
        assert_eq!(read["timestamp_type"], expected.timestamp_type);
        assert_eq!(read["value"]["bytes"], String::from_utf8(expected.value.clone().unwrap()).unwrap());
    }
    let last = read.last().unwrap();
    assert_eq!(last["key"], serde_json::Value::Null);
    assert_eq!(last["headers"], serde_json::json!([{"key":"h","value":null},{"key":"h","value":{"bytes":"1"}}]));
}
