//! What must hold of every backup, whatever happened to the program that wrote it.

use std::collections::BTreeMap;

use super::avro_reader::{self, Chain};
use super::kafka::Kafka;
use super::record::assert_same;
use super::s3::Bucket;
use super::{SOON, wait_until};

/// The backup of every partition is, record by record, what a consumer reads from Kafka now. Returns the chains.
pub fn assert_backed_up(kafka: &Kafka, bucket: &Bucket, topic: &str) -> Vec<Chain> {
    let check = |partition| {
        let chain = avro_reader::read(bucket, topic, partition);
        assert_same(&format!("backup of {topic}/{partition}"), &kafka.read(topic, partition), &chain.records());
        chain
    };
    (0..kafka.partitions(topic)).map(check).collect()
}

/// Waits until the backup of every partition reaches the end (the high watermark) the partition has now.
pub fn await_caught_up(kafka: &Kafka, bucket: &Bucket, topic: &str) {
    for partition in 0..kafka.partitions(topic) {
        await_covered(bucket, &format!("{topic}/{partition}/"), kafka.watermarks(topic, partition).1);
    }
}

/// Waits until the objects in `folder` reach offset `end` (exclusive).
pub fn await_covered(bucket: &Bucket, folder: &str, end: i64) {
    wait_until(&format!("{folder} to reach {end}"), SOON, || covered(bucket, folder) >= end);
}

/// How far the objects in `folder` reach (exclusive), by the last one's own word; 0 without objects.
pub fn covered(bucket: &Bucket, folder: &str) -> i64 {
    let Some(last) = bucket.list(folder).pop() else { return 0 };
    let meta = bucket.metadata(&last.key);
    meta["next-offset"].parse().unwrap_or_else(|e| panic!("{}: next-offset: {e}", last.key))
}

/// Key and entity tag of every object with records: what must never change once it is there.
pub type Stored = BTreeMap<String, String>;

/// The objects with records that are in the bucket now.
pub fn stored(bucket: &Bucket) -> Stored {
    let objects = bucket.list("").into_iter().filter(|object| object.key.ends_with(".avro"));
    objects.map(|object| (object.key, object.etag)).collect()
}

/// Every object of `before` is still there, untouched.
pub fn assert_untouched(before: &Stored, bucket: &Bucket) {
    let now = stored(bucket);
    for (key, etag) in before {
        assert_eq!(now.get(key), Some(etag), "{key} has changed or is gone");
    }
}
