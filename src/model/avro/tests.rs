//! The whole format: against `apache-avro`, against itself, and against damage.

use apache_avro::types::Value;
use bytes::Bytes;
use proptest::prelude::*;
use rstest::rstest;

use super::encode::{prefix, put_record};
use super::wire::{put_bytes, put_long};
use super::*;
use crate::model::avro::Codec;
use crate::model::batch::{Header as RecordHeader, Record, RecordBatch, TimestampType};
use crate::model::object::Metadata;

const SYNC: [u8; SYNC_BYTES] = *b"0123456789abcdef";
const CODECS: [Codec; 4] = [Codec::Zstandard(3), Codec::Snappy, Codec::Deflate(6), Codec::Null];
const SYMBOLS: [&str; 3] = ["CREATE_TIME", "LOG_APPEND_TIME", "NOT_AVAILABLE"];
const TYPES: [TimestampType; 3] =
    [TimestampType::CreateTime, TimestampType::LogAppendTime, TimestampType::NotAvailable];

/// A record that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    offset: i64,
    timestamp: i64,
    timestamp_type: TimestampType,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Owned {
    fn of(record: Record<'_>) -> Self {
        Self {
            offset: record.offset,
            timestamp: record.timestamp,
            timestamp_type: record.timestamp_type,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.iter().map(|h| (h.name.to_vec(), h.value.map(<[u8]>::to_vec))).collect(),
        }
    }

    fn push_to(&self, batch: &mut RecordBatch) {
        let headers = self.headers.iter().map(|(name, value)| RecordHeader { name, value: value.as_deref() });
        let timestamp = (self.timestamp, self.timestamp_type);
        batch.push(self.offset, timestamp, self.key.as_deref(), self.value.as_deref(), headers);
    }

    /// As the crate holds it.
    fn to_avro(&self, topic: &str, partition: i32) -> Value {
        let nullable = |bytes: &Option<Vec<u8>>| match bytes {
            None => Value::Union(0, Box::new(Value::Null)),
            Some(bytes) => Value::Union(1, Box::new(Value::Bytes(bytes.clone()))),
        };
        let field = |name: &str, value| (name.to_owned(), value);
        let header = |(name, value): &(Vec<u8>, Option<Vec<u8>>)| {
            let name = String::from_utf8(name::escape(name).into_owned()).expect("UTF-8");
            Value::Record(vec![field("key", Value::String(name)), field("value", nullable(value))])
        };
        let kind = self.timestamp_type as usize;
        Value::Record(vec![
            field("topic", Value::String(topic.to_owned())),
            field("partition", Value::Int(partition)),
            field("offset", Value::Long(self.offset)),
            field("timestamp", Value::TimestampMillis(self.timestamp)),
            field("timestamp_type", Value::Enum(kind as u32, SYMBOLS[kind].to_owned())),
            field("key", nullable(&self.key)),
            field("value", nullable(&self.value)),
            field("headers", Value::Array(self.headers.iter().map(header).collect())),
        ])
    }
}

fn batch_of(records: &[Owned]) -> RecordBatch {
    let mut batch = RecordBatch::default();
    records.iter().for_each(|record| record.push_to(&mut batch));
    batch
}

/// An object with `per_block` records in each block.
fn write(codec: Codec, metadata: &Metadata, records: &[Owned], per_block: usize) -> Vec<u8> {
    let mut compressor = Compressor::new(codec).expect("compressor");
    let mut builder = BlockBuilder::new("orders", 3);
    let mut object = write_header(codec, &SYNC, metadata);
    for records in records.chunks(per_block) {
        batch_of(records).iter().for_each(|record| builder.append(&record));
        let block = builder.finish(&mut compressor, &SYNC).expect("block");
        object.extend_from_slice(&block);
    }
    object
}

/// All records of an object that comes in pieces of `piece` bytes.
fn read(object: &[u8], piece: usize) -> Result<Vec<Owned>, DecodeError> {
    let mut reader = ObjectReader::with_max_block_bytes(64 << 20);
    let (mut batch, mut records) = (RecordBatch::default(), Vec::new());
    for piece in object.chunks(piece) {
        reader.push(Bytes::copy_from_slice(piece));
        while reader.next_batch(&mut batch)? {
            records.extend(batch.iter().map(Owned::of));
        }
    }
    let summary = reader.finish()?;
    assert_eq!((summary.records, summary.bytes), (records.len() as u64, object.len() as u64));
    assert!(records.is_empty() || reader.source() == Some(("orders", 3)));
    Ok(records)
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![prop::collection::vec(any::<u8>(), 0..40), Just(vec![b'x'; 700]), Just(b"{\"id\":1}".to_vec())]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![any::<String>().prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..8)]
}

prop_compose! {
    fn record()(
        offset: i64,
        timestamp: i64,
        kind in 0..3usize,
        key in prop::option::of(blob()),
        value in prop::option::of(blob()),
        headers in prop::collection::vec((name(), prop::option::of(blob())), 0..4),
    ) -> Owned {
        Owned { offset, timestamp, timestamp_type: TYPES[kind], key, value, headers }
    }
}

fn codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(&CODECS)
}

fn records() -> impl Strategy<Value = Vec<Owned>> {
    prop::collection::vec(record(), 0..20)
}

proptest! {
    #[test]
    fn our_datum_is_the_crates_datum(record in record(), topic: String, partition: i32) {
        let schema = apache_avro::Schema::parse_str(SCHEMA).expect("schema");
        let batch = batch_of(std::slice::from_ref(&record));
        let mut ours = Vec::new();
        put_record(&mut ours, &prefix(&topic, partition), &batch.first().expect("record"));
        let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&schema).build().expect("writer");
        let theirs = writer.write_value_to_vec(record.to_avro(&topic, partition)).expect("datum");
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn the_crate_reads_our_objects(records in records(), codec in codec(), per_block in 1..8usize, metadata: Metadata) {
        let object = write(codec, &metadata, &records, per_block);
        let reader = apache_avro::Reader::new(&object[..]).expect("header");
        prop_assert_eq!(reader.user_metadata().len(), metadata.len());
        for (key, value) in &metadata {
            let key = format!("{}{key}", crate::model::object::AVRO_PREFIX);
            prop_assert_eq!(reader.user_metadata().get(&key).map(Vec::as_slice), Some(value.as_bytes()));
        }
        let read: Vec<Value> = reader.map(|value| value.expect("record")).collect();
        let written: Vec<Value> = records.iter().map(|record| record.to_avro("orders", 3)).collect();
        prop_assert_eq!(read, written);
    }

    #[test]
    fn we_read_our_objects(records in records(), codec in codec(), per_block in 1..8usize, piece in 1..3000usize) {
        let object = write(codec, &Metadata::new(), &records, per_block);
        prop_assert_eq!(read(&object, piece), Ok(records));
    }

    /// Another writer with our schema: other blocks, no checksum, arrays in parts.
    #[test]
    fn we_read_what_the_crate_writes(records in records(), codec in 0..4usize, block in 1..4000usize, part in 1..99usize) {
        let schema = apache_avro::Schema::parse_str(SCHEMA).expect("schema");
        let codec = [
            apache_avro::Codec::Zstandard(apache_avro::ZstandardSettings::default()),
            apache_avro::Codec::Snappy,
            apache_avro::Codec::Deflate(apache_avro::DeflateSettings::default()),
            apache_avro::Codec::Null,
        ][codec];
        let writer = apache_avro::Writer::builder().schema(&schema).writer(Vec::new()).codec(codec).block_size(block);
        let mut writer = writer.map_array_target_block_size(part).build().expect("writer");
        for record in &records {
            writer.append_value(record.to_avro("orders", 3)).expect("append");
        }
        let object = writer.into_inner().expect("object");
        prop_assert_eq!(read(&object, 1000), Ok(records));
    }

    #[test]
    fn a_cut_off_object_is_an_error_or_ends_at_a_block(
        records in records(), codec in codec(), cut: prop::sample::Index
    ) {
        let object = write(codec, &Metadata::new(), &records, 3);
        let cut = cut.index(object.len());
        match read(&object[..cut], 500) {
            Ok(read) => prop_assert!(records.starts_with(&read) && object[..cut].ends_with(&SYNC)),
            Err(error) => prop_assert!(matches!(error.problem, Problem::Truncated(_)), "{error}"),
        }
    }

    /// zstd and snappy blocks have checksums. The header has none: what it says of the object may change, but not how
    /// the records read.
    #[test]
    fn a_flipped_bit_is_an_error_or_changes_no_record(
        records in records(), codec in prop::sample::select(&CODECS[..2]), place: prop::sample::Index, bit in 0..8u8
    ) {
        let mut object = write(codec, &Metadata::new(), &records, 5);
        let place = place.index(object.len());
        object[place] ^= 1 << bit;
        if let Ok(read) = read(&object, 700) {
            prop_assert_eq!(read, records, "flip at {}", place);
        }
    }

    #[test]
    fn damage_never_panics(
        records in records(), codec in codec(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9)
    ) {
        let mut object = write(codec, &Metadata::new(), &records, 5);
        for (place, byte) in damage {
            let place = place.index(object.len());
            object[place] = byte;
        }
        let _ = read(&object, 333);
    }

    #[test]
    fn any_bytes_behind_a_header_end(bytes: Vec<u8>, codec in codec(), framed: bool) {
        let mut object = write_header(codec, &SYNC, &Metadata::new());
        if framed {
            put_long(&mut object, 1);
            put_bytes(&mut object, &bytes);
            object.extend_from_slice(&SYNC);
        } else {
            object.extend_from_slice(&bytes);
        }
        let _ = read(&object, 100);
    }

    #[test]
    fn any_bytes_end(bytes: Vec<u8>) {
        let _ = read(&bytes, 10);
    }
}

fn simple(offset: i64) -> Owned {
    let (key, value) = (Some(b"k".to_vec()), Some(vec![b'v'; 100]));
    Owned { offset, timestamp: 5, timestamp_type: TimestampType::CreateTime, key, value, headers: Vec::new() }
}

/// A framed block with the given decompressed content, in an object without compression.
fn object_with(count: i64, content: &[u8]) -> Vec<u8> {
    let mut object = write_header(Codec::Null, &SYNC, &Metadata::new());
    put_long(&mut object, count);
    put_bytes(&mut object, content);
    object.extend_from_slice(&SYNC);
    object
}

fn datum(topic: &str, partition: i32) -> Vec<u8> {
    let (batch, mut out) = (batch_of(&[simple(1)]), Vec::new());
    put_record(&mut out, &prefix(topic, partition), &batch.first().expect("record"));
    out
}

#[test]
fn the_format_does_not_drift() {
    let metadata = Metadata::from([("job".to_owned(), "j".to_owned())]);
    let object = write(Codec::Null, &metadata, &[simple(1)], 1);
    let expected = [
        b"Obj\x01\x06\x14avro.codec\x08null\x16avro.schema\xE2\x0A".as_slice(),
        SCHEMA.as_bytes(),
        b"\x20kafka-backup.job\x02j\0".as_slice(),
        &SYNC,
        b"\x02\xEC\x01\x0Corders\x06\x02\x0A\0\x02\x02k\x02\xC8\x01".as_slice(),
        &[b'v'; 100],
        b"\0",
        &SYNC,
    ];
    assert_eq!(String::from_utf8_lossy(&object), String::from_utf8_lossy(&expected.concat()));
}

#[test]
fn a_gap_link_is_a_header() {
    let object = write(Codec::Zstandard(3), &Metadata::new(), &[], 1);
    assert_eq!(read(&object, 100), Ok(vec![]));
}

#[test]
fn a_block_of_other_writers_may_be_empty() {
    assert_eq!(read(&object_with(0, b""), 100), Ok(vec![]));
}

#[rstest]
#[case::too_few(2, datum("orders", 3), Some(1), "the data end in the middle of a value")]
#[case::too_many(0, datum("orders", 3), None, "are left behind the last record of the block")]
#[case::garbage(1, vec![0x0C, b'o'], Some(0), "the data end in the middle of a value")]
#[case::other_topic(2, [datum("orders", 3), datum("other", 3)].concat(), Some(1), "a record of other/3 in an object of orders/3")]
#[case::other_partition(2, [datum("orders", 3), datum("orders", 4)].concat(), Some(1), "a record of orders/4 in an object of orders/3")]
#[case::topic_not_text(1, vec![2, 0xFF, 0], Some(0), "the topic is not UTF-8")]
#[case::partition_too_large(1, [&[0][..], &[0xFF; 9], &[1]].concat(), Some(0), "is not a 32-bit number")]
#[case::enum_out_of_range(1, vec![0, 0, 0, 0, 6], Some(0), "choice 3 of 3")]
fn damaged_blocks(#[case] count: i64, #[case] content: Vec<u8>, #[case] record: Option<u64>, #[case] text: &str) {
    let object = object_with(count, &content);
    let header_len = write_header(Codec::Null, &SYNC, &Metadata::new()).len() as u64;
    let error = read(&object, 100).expect_err("damaged");
    assert_eq!((error.position, error.record), (header_len, record));
    assert!(error.to_string().contains(text), "{error}");
}

#[rstest]
#[case::negative_count(-1, 0, "impossible number of records in a block: -1")]
#[case::negative_size(1, -7, "impossible size in a block: -7")]
#[case::too_large(1, i64::MAX, "a block of more than 67108864 bytes")]
#[case::size_behind_the_end(1, 5000, "the object is cut off: it ends in the middle of a block")]
#[case::size_too_small(1, 3, "no sync marker behind the block")]
fn damaged_frames(#[case] count: i64, #[case] size: i64, #[case] text: &str) {
    let mut object = write_header(Codec::Null, &SYNC, &Metadata::new());
    put_long(&mut object, count);
    put_long(&mut object, size);
    object.extend_from_slice(&[b'x'; 100]);
    let error = read(&object, 64).expect_err("damaged");
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn errors_say_where_and_stay() {
    let records: Vec<Owned> = (0..10).map(simple).collect();
    let mut object = write(Codec::Zstandard(3), &Metadata::new(), &records, 5);
    let place = object.len() - 30;
    object[place] ^= 1;
    let mut reader = ObjectReader::new();
    let mut batch = RecordBatch::default();
    reader.push(object.clone().into());
    assert!(reader.header().expect("header").is_some());
    assert_eq!(reader.next_batch(&mut batch), Ok(true));
    assert_eq!((batch.len(), batch.next_offset), (5, -1));
    let error = reader.next_batch(&mut batch).expect_err("damaged");
    assert!(error.position == 821 && error.position < place as u64, "{error}");
    assert!(error.to_string().contains("zstandard cannot decompress the block"), "{error}");
    assert!(batch.is_empty());
    assert_eq!(reader.next_batch(&mut batch), Err(error.clone()));
    assert_eq!(reader.finish(), Err(error));
}

#[test]
fn garbage_behind_the_last_block() {
    let mut object = write(Codec::Snappy, &Metadata::new(), &[simple(1)], 1);
    object.extend_from_slice(b"\x02\x02");
    let error = read(&object, 100).expect_err("garbage");
    assert_eq!(error.problem, Problem::Truncated("a block"));
}

#[test]
fn a_batch_is_reused_without_taking_more_memory() {
    let records: Vec<Owned> = (0..2000).map(simple).collect();
    let object = write(Codec::Zstandard(3), &Metadata::new(), &records, 100);
    let mut reader = ObjectReader::new();
    let mut batch = RecordBatch::default();
    reader.push(object.into());
    assert!(reader.next_batch(&mut batch).expect("first"));
    let memory = batch.memory_bytes();
    while reader.next_batch(&mut batch).expect("block") {
        assert!(batch.memory_bytes() <= memory + 1024);
    }
}

#[test]
fn they_may_be_moved_between_threads() {
    fn movable<T: Send + 'static>() {}
    movable::<(BlockBuilder, Compressor, ObjectReader, EncodeError, DecodeError)>();
}
