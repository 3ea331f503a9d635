//! Reads a backup with nothing but an S3 client and the Avro library, and checks what its format promises.
//!
//! Shares no code with the program under test: names, metadata and records are understood here from the documentation
//! alone.

use std::collections::BTreeMap;

use apache_avro::types::Value;
use sha2::{Digest as _, Sha256};

use super::record::{Header, Rec};
use super::s3::Bucket;

/// One object: a stretch of a partition, or a gap.
#[derive(Debug)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Its metadata.
    pub meta: BTreeMap<String, String>,
    /// Where its range starts.
    pub start: i64,
    /// Where its range ends (exclusive).
    pub end: i64,
    /// Its records.
    pub records: Vec<Rec>,
}

/// The objects of one partition in their order, each beginning where its predecessor ends.
#[derive(Debug, Default)]
pub struct Chain {
    /// The objects.
    pub objects: Vec<Object>,
}

impl Chain {
    /// All records.
    pub fn records(&self) -> Vec<Rec> {
        self.objects.iter().flat_map(|object| object.records.iter().cloned()).collect()
    }

    /// The stretches that are named as missing.
    pub fn gaps(&self) -> Vec<(i64, i64)> {
        self.objects.iter().filter(|o| o.meta.contains_key("gap")).map(|o| (o.start, o.end)).collect()
    }

    /// Where it begins.
    pub fn start(&self) -> i64 {
        self.objects.first().map_or(0, |object| object.start)
    }

    /// Where it ends (exclusive); 0 without objects.
    pub fn end(&self) -> i64 {
        self.objects.last().map_or(0, |object| object.end)
    }
}

/// Reads and checks one partition of a topic in its first generation.
pub fn read(bucket: &Bucket, topic: &str, partition: i32) -> Chain {
    read_folder(bucket, &format!("{topic}/{partition}/"), topic, partition)
}

/// Reads and checks one partition in generation `n` (2 and up).
pub fn read_generation(bucket: &Bucket, topic: &str, n: u32, partition: i32) -> Chain {
    read_folder(bucket, &format!("{topic}/gen-{n}/{partition}/"), topic, partition)
}

fn read_folder(bucket: &Bucket, folder: &str, topic: &str, partition: i32) -> Chain {
    let mut chain = Chain::default();
    for listed in bucket.list(folder) {
        let object = read_object(bucket, &listed.key, folder, topic, partition);
        if let Some(last) = chain.objects.last() {
            assert_eq!(object.start, last.end, "{} does not begin where {} ends", object.key, last.key);
        }
        chain.objects.push(object);
    }
    chain
}

fn read_object(bucket: &Bucket, key: &str, folder: &str, topic: &str, partition: i32) -> Object {
    let (content, meta) = bucket.get(key);
    let text = |name: &str| meta.get(name).unwrap_or_else(|| panic!("{key}: no metadata {name}")).as_str();
    let number = |name: &str| text(name).parse::<i64>().unwrap_or_else(|e| panic!("{key}: {name}: {e}"));
    let (start, end) = (number("range-start"), number("next-offset"));
    assert_eq!(key, format!("{folder}{topic}-{partition}-{start:020}.avro"), "a name is made from its range");
    assert!(start < end, "{key}: [{start}, {end}) is no range");
    assert_eq!((text("topic"), number("partition")), (topic, i64::from(partition)), "{key}");
    let hash: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text("sha256"), hash, "{key}: sha256");

    let records = decode(key, &content, topic, partition);
    assert_eq!(number("records"), records.len() as i64, "{key}: number of records");
    let ascending = records.windows(2).all(|pair| pair[0].offset < pair[1].offset);
    assert!(ascending, "{key}: offsets do not ascend");
    if let (Some(first), Some(last)) = (records.first(), records.last()) {
        assert_eq!((number("first-offset"), number("last-offset")), (first.offset, last.offset), "{key}");
        assert!(start <= first.offset && last.offset < end, "{key}: records outside of its range");
    }
    Object { key: key.to_owned(), start, end, records, meta }
}

/// The records of an Avro file.
fn decode(key: &str, content: &[u8], topic: &str, partition: i32) -> Vec<Rec> {
    let reader = apache_avro::Reader::new(content).unwrap_or_else(|e| panic!("{key}: {e}"));
    let decoded = reader.map(|value| {
        let fields = fields_of(value.unwrap_or_else(|e| panic!("{key}: {e}")));
        let [t, p, offset, timestamp, kind, k, v, headers] =
            ["topic", "partition", "offset", "timestamp", "timestamp_type", "key", "value", "headers"]
                .map(|name| fields.get(name).unwrap_or_else(|| panic!("{key}: a record without {name}")).clone());
        assert_eq!((string(t), int(p)), (topic.to_owned(), partition), "{key}: a record of another partition");
        Rec {
            offset: long(offset),
            timestamp: long(timestamp),
            timestamp_type: kind_of(kind),
            key: optional_bytes(k),
            value: optional_bytes(v),
            headers: header_list(headers),
        }
    });
    decoded.collect()
}

fn fields_of(value: Value) -> BTreeMap<String, Value> {
    match value {
        Value::Record(fields) => fields.into_iter().collect(),
        other => panic!("a record was expected: {other:?}"),
    }
}

fn string(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => panic!("a string was expected: {other:?}"),
    }
}

fn int(value: Value) -> i32 {
    match value {
        Value::Int(number) => number,
        other => panic!("an int was expected: {other:?}"),
    }
}

fn long(value: Value) -> i64 {
    match value {
        Value::Long(number) | Value::TimestampMillis(number) => number,
        other => panic!("a long was expected: {other:?}"),
    }
}

fn kind_of(value: Value) -> &'static str {
    let Value::Enum(_, name) = value else { panic!("an enum was expected: {value:?}") };
    let known = ["CREATE_TIME", "LOG_APPEND_TIME", "NOT_AVAILABLE"];
    known.into_iter().find(|known| *known == name).unwrap_or_else(|| panic!("unknown timestamp type {name}"))
}

fn optional_bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::Union(_, inner) => match *inner {
            Value::Null => None,
            Value::Bytes(bytes) => Some(bytes),
            other => panic!("bytes were expected: {other:?}"),
        },
        other => panic!("a union was expected: {other:?}"),
    }
}

fn header_list(value: Value) -> Vec<Header> {
    let Value::Array(items) = value else { panic!("an array was expected: {value:?}") };
    let headers = items.into_iter().map(|item| {
        let mut fields = fields_of(item);
        let name = string(fields.remove("key").expect("a header has a key"));
        (header_name(&name), optional_bytes(fields.remove("value").expect("a header has a value")))
    });
    headers.collect()
}

/// The bytes of a header's name: Kafka does not promise UTF-8, Avro does, so a byte that is none stands in the file as
/// the character U+10FF00 + byte.
fn header_name(text: &str) -> Vec<u8> {
    let mut name = Vec::new();
    for character in text.chars() {
        match u32::from(character).checked_sub(0x10_FF00) {
            Some(byte) => name.push(byte as u8),
            None => name.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    name
}
