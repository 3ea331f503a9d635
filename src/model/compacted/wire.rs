//! Messages of the coordination topic as bytes: Avro, in the single-object encoding (the bytes C3 01, eight bytes that
//! name the schema, the datum). Key and value have a schema each; the same key is always the same bytes.

use std::collections::BTreeSet;

use apache_avro::reader::single_object::GenericSingleObjectReader;
use apache_avro::types::Value;
use apache_avro::writer::single_object::GenericSingleObjectWriter;
use apache_avro::{Schema, from_value, to_value};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::message::{Message, Status};
use super::settings::Initial;

/// The schema of a message's key.
pub const KEY_SCHEMA: &str = r#"{
  "type": "record", "name": "CompactedInstance", "namespace": "kafka_backup", "fields": [
    {"name": "storage", "type": "string"},
    {"name": "cluster_id", "type": "string"},
    {"name": "topic", "type": "string"},
    {"name": "instance", "type": "string"}
  ]
}"#;

/// The schema of a message, with what was added to it since it was first written.
macro_rules! message_schema {
    ($added:literal) => {
        concat!(
            r#"{
  "type": "record", "name": "CompactedState", "namespace": "kafka_backup", "fields": [
    {"name": "run", "type": "string"},
    {"name": "term", "type": "long"},
    {"name": "status", "type": {"type": "enum", "name": "Status", "symbols": ["ACTIVATE", "PASSIVATE", "CATCHING_UP"]}},
    {"name": "next", "type": {"type": "array", "items": {"type": "record", "name": "NextOffset", "fields": [
      {"name": "partition", "type": "int"},
      {"name": "offset", "type": "long"}
    ]}}},
    {"name": "complete", "type": "boolean"},
    {"name": "wants_successor", "type": "boolean"},
    {"name": "tainted", "type": "boolean"},
    {"name": "initial_status", "type": {"type": "enum", "name": "Initial", "symbols": ["ACTIVATE", "PASSIVATE"]}},
    {"name": "seen_end_ms", "type": ["null", "long"]}"#,
            $added,
            "\n  ]\n}"
        )
    };
}

/// The schema of a message.
pub const MESSAGE_SCHEMA: &str = message_schema!(
    r#",
    {"name": "topics", "type": {"type": "array", "items": "string"}, "default": []}"#
);

/// The same as it was before messages said the topics of their job. What was written by it is still read.
const MESSAGE_SCHEMA_WITHOUT_TOPICS: &str = message_schema!("");

/// Which instance of which topic a message is about. Installations that share a coordination topic keep apart by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MessageKey {
    /// Names the place of the backup.
    pub storage: String,
    /// The cluster the topic is on.
    pub cluster_id: String,
    /// The topic.
    pub topic: String,
    /// The instance.
    pub instance: String,
}

/// Bytes that are no message, or a message that has no bytes.
#[derive(Debug, thiserror::Error)]
#[error("coordination message: {0}")]
pub struct WireError(String);

#[derive(Serialize, Deserialize)]
struct Next {
    partition: i32,
    offset: i64,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    run: String,
    term: i64,
    status: Status,
    next: Vec<Next>,
    complete: bool,
    wants_successor: bool,
    tainted: bool,
    initial_status: Initial,
    seen_end_ms: Option<i64>,
    /// Those of the job; empty where they are not known.
    #[serde(default)]
    topics: BTreeSet<String>,
}

impl MessageKey {
    /// The bytes of the key.
    pub fn to_bytes(&self) -> Result<Vec<u8>, WireError> {
        encode(KEY_SCHEMA, self)
    }

    /// Reads the bytes of a key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        decode(KEY_SCHEMA, bytes)
    }
}

impl Message {
    /// The bytes of the message, with the topics of the job.
    pub fn to_bytes(&self, topics: &BTreeSet<String>) -> Result<Vec<u8>, WireError> {
        let next = self.next.iter().map(|(partition, offset)| Next { partition: *partition, offset: *offset });
        let wire = Wire {
            run: self.run.to_string(),
            term: i64::try_from(self.term).map_err(|e| WireError(e.to_string()))?,
            status: self.status,
            next: next.collect(),
            complete: self.complete,
            wants_successor: self.wants_successor,
            tainted: self.tainted,
            initial_status: self.initial,
            seen_end_ms: self.seen_end_ms,
            topics: topics.clone(),
        };
        encode(MESSAGE_SCHEMA, &wire)
    }

    /// Reads the bytes of a message, and the topics of its job: none where it does not say them.
    pub fn from_bytes(bytes: &[u8]) -> Result<(Self, BTreeSet<String>), WireError> {
        let wire: Wire = decode(MESSAGE_SCHEMA, bytes).or_else(|_| decode(MESSAGE_SCHEMA_WITHOUT_TOPICS, bytes))?;
        let message = Self {
            run: wire.run.into(),
            term: u64::try_from(wire.term).map_err(|e| WireError(e.to_string()))?,
            status: wire.status,
            next: wire.next.iter().map(|next| (next.partition, next.offset)).collect(),
            complete: wire.complete,
            wants_successor: wire.wants_successor,
            tainted: wire.tainted,
            initial: wire.initial_status,
            seen_end_ms: wire.seen_end_ms,
        };
        Ok((message, wire.topics))
    }
}

fn encode<T: Serialize>(schema: &str, value: &T) -> Result<Vec<u8>, WireError> {
    let failed = |e: apache_avro::Error| WireError(e.to_string());
    let schema = Schema::parse_str(schema).map_err(failed)?;
    let value = to_value(value).and_then(|value| value.resolve(&schema)).map_err(failed)?;
    let mut writer = GenericSingleObjectWriter::new_with_capacity(&schema, 256).map_err(failed)?;
    let mut bytes = Vec::new();
    writer.write_value(value, &mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(schema: &str, bytes: &[u8]) -> Result<T, WireError> {
    let failed = |e: apache_avro::Error| WireError(e.to_string());
    let schema = Schema::parse_str(schema).map_err(failed)?;
    let reader = GenericSingleObjectReader::builder().schema(schema).build().map_err(failed)?;
    let value: Value = reader.read_value(&mut &bytes[..]).map_err(failed)?;
    from_value(&value).map_err(failed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn key() -> MessageKey {
        let [storage, cluster_id, topic, instance] = ["s3://b/p", "c", "orders", "a"].map(str::to_owned);
        MessageKey { storage, cluster_id, topic, instance }
    }

    fn message() -> Message {
        Message {
            run: "r".into(),
            term: 3,
            status: Status::CatchingUp,
            next: [(0, 7), (1, 9)].into(),
            complete: false,
            wants_successor: true,
            tainted: false,
            initial: Initial::Passivate,
            seen_end_ms: Some(5),
        }
    }

    #[test]
    fn keys_come_back_and_are_always_the_same_bytes() {
        let bytes = key().to_bytes().expect("bytes");
        assert_eq!(bytes[..2], [0xC3, 0x01]);
        assert_eq!(bytes, key().to_bytes().expect("bytes"));
        assert_eq!(MessageKey::from_bytes(&bytes).expect("key"), key());
    }

    #[rstest]
    #[case::nothing(&[])]
    #[case::text(b"{\"run\": \"r\"}")]
    #[case::another_schema(&[0xC3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1])]
    fn other_bytes_are_refused(#[case] bytes: &[u8]) {
        assert!(Message::from_bytes(bytes).is_err());
        assert!(MessageKey::from_bytes(bytes).is_err());
    }

    #[test]
    fn a_message_without_topics_is_read() {
        #[derive(Serialize)]
        struct Earlier {
            run: &'static str,
            term: i64,
            status: Status,
            next: Vec<Next>,
            complete: bool,
            wants_successor: bool,
            tainted: bool,
            initial_status: Initial,
            seen_end_ms: Option<i64>,
        }
        let earlier = Earlier {
            run: "r",
            term: 3,
            status: Status::CatchingUp,
            next: vec![Next { partition: 0, offset: 7 }, Next { partition: 1, offset: 9 }],
            complete: false,
            wants_successor: true,
            tainted: false,
            initial_status: Initial::Passivate,
            seen_end_ms: Some(5),
        };
        let bytes = encode(MESSAGE_SCHEMA_WITHOUT_TOPICS, &earlier).expect("bytes");
        assert_eq!(Message::from_bytes(&bytes).expect("message"), (message(), BTreeSet::new()));
    }

    #[test]
    fn a_message_without_its_whole_header_is_refused() {
        let bytes = message().to_bytes(&BTreeSet::new()).expect("bytes");
        for end in 0..10 {
            assert!(Message::from_bytes(&bytes[..end]).is_err(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn messages_come_back(
            run in ".{0,8}", term in 0..=i64::MAX as u64, flags: [bool; 4], status in 0..3_usize,
            next in prop::collection::btree_map(0..i32::MAX, 0..i64::MAX, 0..4), seen_end_ms: Option<i64>,
            topics in prop::collection::btree_set("[a-z]{1,4}", 0..3),
        ) {
            let [complete, wants_successor, tainted, active] = flags;
            let status = [Status::Activate, Status::Passivate, Status::CatchingUp][status];
            let initial = if active { Initial::Activate } else { Initial::Passivate };
            let message = Message {
                run: run.as_str().into(), term, status, next, complete, wants_successor, tainted, initial, seen_end_ms,
            };
            let bytes = message.to_bytes(&topics).expect("bytes");
            prop_assert_eq!(Message::from_bytes(&bytes).expect("message"), (message, topics));
        }
    }
}
