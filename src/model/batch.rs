//! Kafka records in one contiguous arena: what travels from the consumer to the encoder.
//!
//! A batch holds the bytes of all its records in one allocation and an index beside it, so that taking a record over
//! from Kafka is one copy and no allocation.

/// Who set a record's timestamp, as Kafka reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TimestampType {
    /// The producer (`CreateTime`).
    CreateTime = 0,
    /// The broker (`LogAppendTime`).
    LogAppendTime = 1,
    /// The record has none (message format 0); its `timestamp` is -1.
    NotAvailable = 2,
}

/// One header: the name is bytes, because Kafka does not promise UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name, any bytes.
    pub name: &'a [u8],
    /// The value; `None` is null, which is not the same as empty.
    pub value: Option<&'a [u8]>,
}

/// One record, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Offset in the source partition.
    pub offset: i64,
    /// Milliseconds since 1970-01-01 UTC, or -1 with [`TimestampType::NotAvailable`].
    pub timestamp: i64,
    /// Who set the timestamp.
    pub timestamp_type: TimestampType,
    /// The key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null (a tombstone in a compacted topic).
    pub value: Option<&'a [u8]>,
    /// The headers in their order, duplicates included.
    pub headers: Headers<'a>,
}

/// The headers of one record.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    arena: &'a [u8],
    spans: &'a [HeaderSpan],
}

impl<'a> Headers<'a> {
    /// No headers at all.
    pub const NONE: Headers<'static> = Headers { arena: &[], spans: &[] };

    /// The number of headers.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The headers in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Header<'a>> + use<'a> {
        let arena = self.arena;
        self.spans.iter().map(move |span| Header { name: span.name.of(arena), value: span.value.map(|v| v.of(arena)) })
    }
}

impl PartialEq for Headers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}
impl Eq for Headers<'_> {}

/// Where something lies in an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// `len` bytes from `start` on.
    ///
    /// # Panics
    /// When the end is beyond 4 GiB: a span that wrapped round would be another record's bytes.
    pub(in crate::model) fn new(start: usize, len: usize) -> Self {
        assert!(start.saturating_add(len) <= u32::MAX as usize, "an arena is at most 4 GiB");
        Self { start: start as u32, len: len as u32 }
    }

    /// The bytes.
    pub(in crate::model) fn of<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        &arena[self.start as usize..][..self.len as usize]
    }
}

#[derive(Debug, Clone, Copy)]
struct HeaderSpan {
    name: Span,
    value: Option<Span>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: i64,
    timestamp: i64,
    key: Option<Span>,
    value: Option<Span>,
    first_header: u32,
    headers: u32,
    timestamp_type: TimestampType,
}

/// Records of one partition in the order of their offsets, in one arena.
///
/// The arena is at most 4 GiB: Kafka's own limit for one record is 2 GiB, and a batch that holds anything takes no
/// more than its target size besides.
#[derive(Debug)]
pub struct RecordBatch {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    headers: Vec<HeaderSpan>,
    /// Where the consumer stands after this batch: larger than the last record's offset by more than one where
    /// transaction markers, aborted or compacted records follow it. Only the consumer sets it.
    pub next_offset: i64,
    /// Leader epoch of the last record, -1 when unknown.
    pub leader_epoch: i32,
}

impl Default for RecordBatch {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl RecordBatch {
    /// An empty batch with room for `bytes` of record content.
    pub fn with_capacity(bytes: usize) -> Self {
        let (entries, headers) = (Vec::new(), Vec::new());
        Self { arena: Vec::with_capacity(bytes), entries, headers, next_offset: -1, leader_epoch: -1 }
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes in the arena: keys, values and headers, and in a batch read from an object the rest of its block.
    pub fn content_bytes(&self) -> usize {
        self.arena.len()
    }

    /// Bytes of memory held, content and index, by capacity.
    pub fn memory_bytes(&self) -> usize {
        self.arena.capacity()
            + self.entries.capacity() * size_of::<Entry>()
            + self.headers.capacity() * size_of::<HeaderSpan>()
    }

    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
        self.headers.clear();
        self.next_offset = -1;
        self.leader_epoch = -1;
    }

    /// Copies one record in. Headers are given as an iterator, so that they can come straight from Kafka's memory.
    pub fn push<'h>(
        &mut self,
        offset: i64,
        timestamp: (i64, TimestampType),
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = Header<'h>>,
    ) {
        let key = key.map(|bytes| self.copy(bytes));
        let value = value.map(|bytes| self.copy(bytes));
        let first_header = self.headers.len();
        for header in headers {
            let span = HeaderSpan { name: self.copy(header.name), value: header.value.map(|v| self.copy(v)) };
            self.headers.push(span);
        }
        self.push_at(offset, timestamp, key, value, first_header);
    }

    fn copy(&mut self, bytes: &[u8]) -> Span {
        let span = Span::new(self.arena.len(), bytes.len());
        self.arena.extend_from_slice(bytes);
        span
    }

    /// Takes the arena out, with whatever was in it, and forgets the records. For who fills an arena with more than
    /// record content (a decoded block) and then says where in it the records are.
    pub(in crate::model) fn take_arena(&mut self) -> Vec<u8> {
        let arena = std::mem::take(&mut self.arena);
        self.clear();
        arena
    }

    /// Gives the batch the arena in which the records lie that were pushed by place.
    pub(in crate::model) fn put_arena(&mut self, arena: Vec<u8>) {
        self.arena = arena;
    }

    /// Headers so far, of all records.
    pub(in crate::model) fn header_count(&self) -> usize {
        self.headers.len()
    }

    /// A header of the record that is pushed next, by its place in the arena.
    pub(in crate::model) fn push_header_at(&mut self, name: Span, value: Option<Span>) {
        self.headers.push(HeaderSpan { name, value });
    }

    /// A record by its place in the arena, with all headers from number `first_header` on.
    pub(in crate::model) fn push_at(
        &mut self,
        offset: i64,
        (timestamp, timestamp_type): (i64, TimestampType),
        key: Option<Span>,
        value: Option<Span>,
        first_header: usize,
    ) {
        // Each header has taken bytes of an arena of at most 4 GiB; only nameless ones without value take none.
        let headers = self.headers.len();
        assert!(headers <= u32::MAX as usize, "more than 4 billion headers in a batch");
        let (first_header, headers) = (first_header as u32, (headers - first_header) as u32);
        self.entries.push(Entry { offset, timestamp, timestamp_type, key, value, first_header, headers });
    }

    /// Record `i`.
    pub fn get(&self, i: usize) -> Option<Record<'_>> {
        self.entries.get(i).map(|entry| self.record(entry))
    }

    /// The first record.
    pub fn first(&self) -> Option<Record<'_>> {
        self.get(0)
    }

    /// The last record.
    pub fn last(&self) -> Option<Record<'_>> {
        self.entries.last().map(|entry| self.record(entry))
    }

    /// The records in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        self.entries.iter().map(|entry| self.record(entry))
    }

    fn record(&self, entry: &Entry) -> Record<'_> {
        let spans = &self.headers[entry.first_header as usize..][..entry.headers as usize];
        Record {
            offset: entry.offset,
            timestamp: entry.timestamp,
            timestamp_type: entry.timestamp_type,
            key: entry.key.map(|span| span.of(&self.arena)),
            value: entry.value.map(|span| span.of(&self.arena)),
            headers: Headers { arena: &self.arena, spans },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Spec = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

    fn push(batch: &mut RecordBatch, (offset, timestamp, key, value, headers): &Spec) {
        let headers = headers.iter().map(|(name, value)| Header { name, value: value.as_deref() });
        let timestamp = (*timestamp, TimestampType::LogAppendTime);
        batch.push(*offset, timestamp, key.as_deref(), value.as_deref(), headers);
    }

    fn spec(record: Record<'_>) -> Spec {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let headers = record.headers.iter().map(|header| (header.name.to_vec(), owned(header.value))).collect();
        assert_eq!(record.timestamp_type, TimestampType::LogAppendTime);
        (record.offset, record.timestamp, owned(record.key), owned(record.value), headers)
    }

    fn records() -> impl Strategy<Value = Vec<Spec>> {
        let blob = || prop::option::of(prop::collection::vec(any::<u8>(), 0..16));
        let header = (prop::collection::vec(any::<u8>(), 0..8), blob());
        let record = (any::<i64>(), any::<i64>(), blob(), blob(), prop::collection::vec(header, 0..4));
        prop::collection::vec(record, 0..12)
    }

    #[test]
    fn null_is_not_empty() {
        let mut batch = RecordBatch::default();
        let headers = [Header { name: b"h", value: None }, Header { name: b"h", value: Some(b"") }];
        batch.push(0, (0, TimestampType::CreateTime), None, Some(b""), headers);
        let record = batch.first().expect("record");
        assert_eq!((record.key, record.value), (None, Some(&b""[..])));
        assert_eq!(record.headers.iter().collect::<Vec<_>>(), headers);
    }

    #[test]
    fn nothing_is_known_of_an_empty_batch() {
        let mut batch = RecordBatch::default();
        assert_eq!((batch.next_offset, batch.leader_epoch, batch.memory_bytes()), (-1, -1, 0));
        assert!(batch.is_empty() && batch.first().is_none() && batch.last().is_none());
        (batch.next_offset, batch.leader_epoch) = (7, 7);
        batch.clear();
        assert_eq!((batch.next_offset, batch.leader_epoch), (-1, -1));
    }

    #[test]
    #[should_panic(expected = "an arena is at most 4 GiB")]
    fn a_place_beyond_the_arena_does_not_wrap_round() {
        Span::new(u32::MAX as usize, 1);
    }

    proptest! {
        #[test]
        fn records_come_back(first in records(), second in records()) {
            let mut batch = RecordBatch::with_capacity(16);
            first.iter().for_each(|record| push(&mut batch, record));
            let memory = batch.memory_bytes();
            batch.clear();
            prop_assert_eq!((batch.len(), batch.content_bytes(), batch.memory_bytes()), (0, 0, memory));
            second.iter().for_each(|record| push(&mut batch, record));
            prop_assert_eq!(batch.len(), second.len());
            prop_assert_eq!(batch.iter().map(spec).collect::<Vec<_>>(), second.clone());
            prop_assert_eq!(batch.last().map(spec), second.last().cloned());
            prop_assert!(batch.get(second.len()).is_none());
        }
    }
}
