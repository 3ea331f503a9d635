//! One Kafka record as an Avro datum.

use super::name;
use super::wire::{put_bytes, put_long};
use crate::model::batch::Record;

/// Bytes of a datum besides topic, key, value and headers, at most: six numbers, three lengths, two branches.
const DATUM_OVERHEAD: usize = 48;
/// The same for one header.
const HEADER_OVERHEAD: usize = 12;

/// What every datum of a partition begins with.
pub(super) fn prefix(topic: &str, partition: i32) -> Vec<u8> {
    let mut out = Vec::with_capacity(topic.len() + 8);
    put_bytes(&mut out, topic.as_bytes());
    put_long(&mut out, i64::from(partition));
    out
}

/// Room that a datum needs, as long as no header name has to be escaped (which makes it four times as long).
pub(super) fn datum_bound(prefix: &[u8], record: &Record<'_>) -> usize {
    let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let headers: usize = record.headers.iter().map(|h| h.name.len() + len(h.value) + HEADER_OVERHEAD).sum();
    prefix.len() + len(record.key) + len(record.value) + headers + DATUM_OVERHEAD
}

/// Appends a record as a datum of [`super::SCHEMA`]; `prefix` is that of its partition.
pub(super) fn put_record(out: &mut Vec<u8>, prefix: &[u8], record: &Record<'_>) {
    out.extend_from_slice(prefix);
    put_long(out, record.offset);
    put_long(out, record.timestamp);
    put_long(out, record.timestamp_type as i64);
    put_nullable(out, record.key);
    put_nullable(out, record.value);
    if !record.headers.is_empty() {
        put_long(out, record.headers.len() as i64);
        for header in record.headers.iter() {
            put_bytes(out, &name::escape(header.name));
            put_nullable(out, header.value);
        }
    }
    put_long(out, 0); // the end of the array
}

/// Appends a `[null, bytes]`.
fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_long(out, 0),
        Some(bytes) => {
            put_long(out, 1);
            put_bytes(out, bytes);
        }
    }
}
