//! The older layout of the same data, read only.
//!
//! ```text
//! record { topic: string, partition: int, offset: long, timestamp: long, key, value: bytes or null,
//!          headers: map of bytes, or null }
//! ```
//!
//! The fields may stand in any order and unions in either order; `timestamp` and `headers` may be missing. There is no
//! timestamp type: `CREATE_TIME` is assumed. A map has one value for each name, so that what the older writer did with
//! repeated headers cannot be undone; the order is that of the file.
//!
//! Fields that are not in this list make a schema foreign: to leave out what a record says would not be a restore.

use apache_avro::Schema;
use apache_avro::schema::RecordField;

use super::error::Fault;
use super::source::Source;
use super::wire::Cursor;
use crate::model::batch::{RecordBatch, Span, TimestampType};

/// How the records of one older object are read: its fields in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyPlan {
    fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Topic,
    Partition,
    Offset,
    Timestamp(Nullable<()>),
    Key(Nullable<()>),
    Value(Nullable<()>),
    /// A map of values.
    Headers(Nullable<Nullable<()>>),
}

/// A type, null, or a union of both.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Nullable<T> {
    /// Whether an index stands in front of the value.
    union: bool,
    /// `None` is null.
    branches: Vec<Option<T>>,
}

impl<T> Nullable<T> {
    /// From a schema, of which `accept` takes the types that are not null.
    fn new(schema: &Schema, accept: impl Fn(&Schema) -> Option<T>) -> Option<Self> {
        let branch = |schema: &Schema| match schema {
            Schema::Null => Some(None),
            other => accept(other).map(Some),
        };
        Some(match schema {
            Schema::Union(union) => {
                Self { union: true, branches: union.variants().iter().map(branch).collect::<Option<_>>()? }
            }
            other => Self { union: false, branches: vec![branch(other)?] },
        })
    }

    /// Which of its types comes next.
    fn next(&self, cursor: &mut Cursor<'_>) -> Result<Option<&T>, Fault> {
        let index = if self.union { cursor.index(self.branches.len())? } else { 0 };
        Ok(self.branches[index].as_ref())
    }
}

impl Nullable<()> {
    fn bytes(schema: &Schema) -> Option<Self> {
        Self::new(schema, |s| matches!(s, Schema::Bytes | Schema::String).then_some(()))
    }

    fn read_bytes(&self, cursor: &mut Cursor<'_>) -> Result<Option<Span>, Fault> {
        self.next(cursor)?.map(|()| cursor.span()).transpose()
    }
}

impl Field {
    fn new(field: &RecordField) -> Result<Self, String> {
        let long = |schema: &Schema| matches!(schema, Schema::Int | Schema::Long).then_some(());
        let millis = |schema: &Schema| matches!(schema, Schema::Long | Schema::TimestampMillis).then_some(());
        let map = |schema: &Schema| match schema {
            Schema::Map(map) => Nullable::bytes(&map.types),
            _ => None,
        };
        let schema = &field.schema;
        let found = match field.name.as_str() {
            "topic" => matches!(schema, Schema::String).then_some(Self::Topic),
            "partition" => long(schema).map(|()| Self::Partition),
            "offset" => long(schema).map(|()| Self::Offset),
            "timestamp" => Nullable::new(schema, millis).map(Self::Timestamp),
            "key" => Nullable::bytes(schema).map(Self::Key),
            "value" => Nullable::bytes(schema).map(Self::Value),
            "headers" => Nullable::new(schema, map).map(Self::Headers),
            name => return Err(format!("unexpected field {name:?}")),
        };
        found.ok_or_else(|| format!("field {:?} has an unexpected type", field.name))
    }
}

impl LegacyPlan {
    /// From the schema of an object; otherwise what keeps it from being the older layout.
    pub(super) fn new(schema: &Schema) -> Result<Self, String> {
        let Schema::Record(record) = schema else { return Err("not a record".to_owned()) };
        for needed in ["topic", "partition", "offset", "key", "value"] {
            if !record.fields.iter().any(|field| field.name == needed) {
                return Err(format!("field {needed:?} is missing"));
            }
        }
        let fields = record.fields.iter().map(Field::new).collect::<Result<_, _>>()?;
        Ok(Self { fields })
    }

    /// One datum.
    pub(super) fn read_record(
        &self,
        cursor: &mut Cursor<'_>,
        source: &mut Source,
        batch: &mut RecordBatch,
    ) -> Result<(), Fault> {
        let at = cursor.position();
        let (mut topic, mut partition, mut offset) = (&[][..], 0, 0);
        let mut timestamp = (-1, TimestampType::NotAvailable);
        let (mut key, mut value) = (None, None);
        let first_header = batch.header_count();
        for field in &self.fields {
            match field {
                Field::Topic => topic = cursor.bytes()?,
                Field::Partition => partition = cursor.int()?,
                Field::Offset => offset = cursor.long()?,
                Field::Timestamp(nullable) => {
                    if nullable.next(cursor)?.is_some() {
                        timestamp = (cursor.long()?, TimestampType::CreateTime);
                    }
                }
                Field::Key(nullable) => key = nullable.read_bytes(cursor)?,
                Field::Value(nullable) => value = nullable.read_bytes(cursor)?,
                Field::Headers(nullable) => {
                    if let Some(values) = nullable.next(cursor)? {
                        read_map(cursor, values, batch)?;
                    }
                }
            }
        }
        source.check(topic, partition).map_err(|problem| Fault { at, problem })?;
        batch.push_at(offset, timestamp, key, value, first_header);
        Ok(())
    }
}

fn read_map(cursor: &mut Cursor<'_>, values: &Nullable<()>, batch: &mut RecordBatch) -> Result<(), Fault> {
    loop {
        let items = cursor.items()?;
        if items == 0 {
            return Ok(());
        }
        for _ in 0..items {
            let name = cursor.span()?;
            let value = values.read_bytes(cursor)?;
            batch.push_header_at(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::types::Value;
    use bytes::Bytes;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::model::avro::{DecodeError, ObjectReader};

    const HEADERS: &str = r#"{"name":"headers","type":["null",{"type":"map","values":"bytes"}]}"#;
    const COMMON: &str = r#"{"name":"topic","type":"string"},{"name":"partition","type":"int"},
        {"name":"offset","type":"long"},{"name":"timestamp","type":"long"}"#;

    fn schema(fields: &[&str]) -> String {
        format!(r#"{{"type":"record","name":"Older","fields":[{}]}}"#, fields.join(","))
    }

    fn read(object: Vec<u8>) -> Result<RecordBatch, DecodeError> {
        let (mut reader, mut batch) = (ObjectReader::new(), RecordBatch::default());
        reader.push(Bytes::from(object));
        reader.next_batch(&mut batch)?;
        reader.finish().map(|_| batch)
    }

    fn write(schema: &str, records: Vec<Value>, codec: apache_avro::Codec) -> Vec<u8> {
        let schema = Schema::parse_str(schema).expect("schema");
        let mut writer = apache_avro::Writer::with_codec(&schema, Vec::new(), codec).expect("writer");
        for record in records {
            writer.append_value(record).expect("append");
        }
        writer.into_inner().expect("object")
    }

    #[rstest]
    #[case::null_first(0, 1, r#""null","bytes""#)]
    #[case::bytes_first(1, 0, r#""bytes","null""#)]
    fn both_union_orders(#[case] null: u32, #[case] bytes: u32, #[case] order: &str) {
        let nullable = |name: &str| format!(r#"{{"name":"{name}","type":[{order}]}}"#);
        // value before key, headers in front: the order of fields is the writer's
        let schema = schema(&[HEADERS, &nullable("value"), &nullable("key"), COMMON]);
        let field = |name: &str, value| (name.to_owned(), value);
        let some = |text: &str| Value::Union(bytes, Box::new(Value::Bytes(text.into())));
        let record = |offset, headers, key, value| {
            Value::Record(vec![
                field("headers", headers),
                field("value", value),
                field("key", key),
                field("topic", Value::String("orders".to_owned())),
                field("partition", Value::Int(3)),
                field("offset", Value::Long(offset)),
                field("timestamp", Value::Long(1_700_000_000_000)),
            ])
        };
        let map = Value::Map([("trace".to_owned(), Value::Bytes(b"1".to_vec()))].into());
        let records = vec![
            record(41, Value::Union(1, Box::new(map)), some("k"), Value::Union(null, Box::new(Value::Null))),
            record(43, Value::Union(0, Box::new(Value::Null)), Value::Union(null, Box::new(Value::Null)), some("")),
        ];
        for codec in [apache_avro::Codec::Snappy, apache_avro::Codec::Null] {
            let batch = read(write(&schema, records.clone(), codec)).expect("read");
            let (first, last) = (batch.first().expect("first"), batch.last().expect("last"));
            assert_eq!((first.offset, first.key, first.value), (41, Some(&b"k"[..]), None));
            assert_eq!((first.timestamp, first.timestamp_type), (1_700_000_000_000, TimestampType::CreateTime));
            let header = first.headers.iter().next().expect("header");
            assert_eq!((first.headers.len(), header.name, header.value), (1, &b"trace"[..], Some(&b"1"[..])));
            assert_eq!((last.offset, last.key, last.value), (43, None, Some(&b""[..])));
            assert!(last.headers.is_empty());
        }
    }

    const KEY: &str = r#"{"name":"key","type":["null","bytes"]}"#;
    const VALUE: &str = r#"{"name":"value","type":["null","bytes"]}"#;

    #[rstest]
    #[case::no_headers(schema(&[COMMON, KEY, VALUE]))]
    #[case::headers_not_nullable(schema(&[COMMON, KEY, VALUE, r#"{"name":"headers","type":{"type":"map","values":["bytes","null"]}}"#]))]
    #[case::plain_bytes(schema(&[COMMON, r#"{"name":"key","type":"bytes"}"#, r#"{"name":"value","type":"string"}"#, HEADERS]))]
    fn accepted(#[case] json: String) {
        LegacyPlan::new(&Schema::parse_str(&json).expect("schema")).expect("accepted");
    }

    #[rstest]
    #[case::not_a_record(r#""string""#.to_owned(), "not a record")]
    #[case::missing(schema(&[COMMON, KEY]), "field \"value\" is missing")]
    #[case::unexpected(schema(&[COMMON, KEY, VALUE, r#"{"name":"user","type":"string"}"#]), "unexpected field \"user\"")]
    #[case::type_(schema(&[COMMON, r#"{"name":"key","type":"double"}"#, VALUE]), "field \"key\" has an unexpected type")]
    #[case::union(schema(&[COMMON, r#"{"name":"key","type":["null","int"]}"#, VALUE]), "field \"key\" has an unexpected type")]
    #[case::empty(schema(&[]), "field \"topic\" is missing")]
    fn foreign(#[case] json: String, #[case] why: &str) {
        let error = LegacyPlan::new(&Schema::parse_str(&json).expect("schema")).expect_err("foreign");
        assert_eq!(error, why);
        let error = read(write(&json, vec![], apache_avro::Codec::Null)).expect_err("foreign").to_string();
        assert!(error.contains("not that of Kafka records") && error.contains(why), "{error}");
    }

    /// apache-avro takes a record that ends too early for one with null in its last fields.
    #[test]
    fn a_record_that_ends_too_early_is_an_error() {
        let json = schema(&[COMMON, KEY, VALUE]);
        let plan = LegacyPlan::new(&Schema::parse_str(&json).expect("schema")).expect("plan");
        let whole = [2, b't', 0, 0, 0, 0, 0];
        for cut in 0..=whole.len() {
            let (mut source, mut batch) = (Source::default(), RecordBatch::default());
            let result = plan.read_record(&mut Cursor::new(&whole[..cut]), &mut source, &mut batch);
            assert_eq!(result.is_ok(), cut == whole.len(), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            let json = schema(&[HEADERS, COMMON, r#"{"name":"key","type":["bytes","null"]}"#, VALUE]);
            let plan = LegacyPlan::new(&Schema::parse_str(&json).expect("schema")).expect("plan");
            let (mut source, mut batch) = (Source::default(), RecordBatch::default());
            let mut cursor = Cursor::new(&bytes);
            while plan.read_record(&mut cursor, &mut source, &mut batch).is_ok() {}
        }
    }
}
