//! Kafka's protocol by hand: writes and reads records that no client library lets through as they are (timestamps 0 and
//! -1, NUL in the names of headers). One broker, which leads everything; batches without compression.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::record::{Header, Rec};

const PRODUCE: (i16, i16) = (0, 3);
const FETCH: (i16, i16) = (1, 4);

/// Produces `records` (their offsets are ignored) as one batch.
pub fn produce(bootstrap: &str, topic: &str, partition: i32, records: &[Rec]) {
    let mut body = Writer::default();
    body.i16(-1); // no transaction
    body.i16(-1); // acks: all
    body.i32(30_000);
    body.partition(topic, partition);
    body.bytes32(&batch(records));
    let answer = ask(bootstrap, PRODUCE, &body.0);
    let mut answer = Reader(&answer);
    answer.skip_to_partition();
    assert_eq!((answer.i32(), answer.i16()), (partition, 0), "partition and error code");
}

/// The records of a partition from its beginning on, as far as one fetch goes.
pub fn read(bootstrap: &str, topic: &str, partition: i32) -> Vec<Rec> {
    let mut body = Writer::default();
    body.i32(-1); // a consumer
    body.i32(0); // does not wait
    body.i32(0);
    body.i32(10_000_000);
    body.i8(0); // uncommitted, too
    body.partition(topic, partition);
    body.i64(0);
    body.i32(10_000_000);
    let answer = ask(bootstrap, FETCH, &body.0);
    let mut answer = Reader(&answer);
    answer.i32(); // throttle
    answer.skip_to_partition();
    assert_eq!((answer.i32(), answer.i16()), (partition, 0), "partition and error code");
    answer.take(16); // high watermark, last stable offset
    let aborted = answer.i32();
    assert!(aborted <= 0, "{aborted} aborted transactions");
    let length = answer.i32() as usize;
    let mut batches = Reader(answer.take(length));
    let mut records = Vec::new();
    while !batches.0.is_empty() {
        records.extend(batches.batch());
    }
    records
}

fn ask(bootstrap: &str, (key, version): (i16, i16), body: &[u8]) -> Vec<u8> {
    let mut request = Writer::default();
    request.i16(key);
    request.i16(version);
    request.i32(7); // correlation id
    request.text("by hand");
    request.0.extend_from_slice(body);
    let mut framed = Writer::default();
    framed.bytes32(&request.0);
    let mut stream = TcpStream::connect(bootstrap).expect("the broker answers");
    stream.write_all(&framed.0).expect("a request is sent");
    let mut size = [0; 4];
    stream.read_exact(&mut size).expect("an answer, not a closed connection");
    let mut answer = vec![0; i32::from_be_bytes(size) as usize];
    stream.read_exact(&mut answer).expect("a whole answer");
    assert_eq!(answer[..4], 7i32.to_be_bytes());
    answer.split_off(4)
}

/// A record batch, version 2.
fn batch(records: &[Rec]) -> Vec<u8> {
    let base = records[0].timestamp;
    let mut tail = Writer::default(); // what the checksum covers
    tail.i16(0); // no compression, CreateTime
    tail.i32(records.len() as i32 - 1);
    tail.i64(base);
    tail.i64(records.iter().map(|record| record.timestamp).max().unwrap());
    tail.i64(-1); // no producer id, epoch, sequence
    tail.i16(-1);
    tail.i32(-1);
    tail.i32(records.len() as i32);
    for (i, record) in records.iter().enumerate() {
        let mut one = Writer::default();
        one.i8(0);
        one.varint(record.timestamp - base);
        one.varint(i as i64);
        one.bytes(record.key.as_deref());
        one.bytes(record.value.as_deref());
        one.varint(record.headers.len() as i64);
        for (name, value) in &record.headers {
            one.bytes(Some(name));
            one.bytes(value.as_deref());
        }
        tail.varint(one.0.len() as i64);
        tail.0.extend_from_slice(&one.0);
    }
    let mut batch = Writer::default();
    batch.i64(0); // base offset
    batch.i32(9 + tail.0.len() as i32);
    batch.i32(-1); // leader epoch
    batch.i8(2);
    batch.i32(crc32c(&tail.0) as i32);
    batch.0.extend_from_slice(&tail.0);
    batch.0
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn i8(&mut self, n: i8) {
        self.0.extend_from_slice(&n.to_be_bytes());
    }

    fn i16(&mut self, n: i16) {
        self.0.extend_from_slice(&n.to_be_bytes());
    }

    fn i32(&mut self, n: i32) {
        self.0.extend_from_slice(&n.to_be_bytes());
    }

    fn i64(&mut self, n: i64) {
        self.0.extend_from_slice(&n.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.i16(text.len() as i16);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn bytes32(&mut self, bytes: &[u8]) {
        self.i32(bytes.len() as i32);
        self.0.extend_from_slice(bytes);
    }

    /// One topic with one partition.
    fn partition(&mut self, topic: &str, partition: i32) {
        self.i32(1);
        self.text(topic);
        self.i32(1);
        self.i32(partition);
    }

    fn varint(&mut self, n: i64) {
        let mut zigzag = (n << 1 ^ n >> 63) as u64;
        while zigzag > 0x7f {
            self.0.push(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        self.0.push(zigzag as u8);
    }

    fn bytes(&mut self, bytes: Option<&[u8]>) {
        self.varint(bytes.map_or(-1, |bytes| bytes.len() as i64));
        self.0.extend_from_slice(bytes.unwrap_or_default());
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn i64(&mut self) -> i64 {
        i64::from_be_bytes(self.take(8).try_into().unwrap())
    }

    fn varint(&mut self) -> i64 {
        let (mut zigzag, mut shift) = (0, 0);
        loop {
            let byte = self.take(1)[0];
            zigzag |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
            }
        }
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.varint()).ok()?;
        Some(self.take(length).to_vec())
    }

    /// To what is said of the only partition of the only topic.
    fn skip_to_partition(&mut self) {
        assert_eq!(self.i32(), 1, "topics");
        let name = self.i16() as usize;
        self.take(name);
        assert_eq!(self.i32(), 1, "partitions");
    }

    fn batch(&mut self) -> Vec<Rec> {
        let base_offset = self.i64();
        let length = self.i32() as usize;
        let mut batch = Reader(self.take(length));
        batch.take(4); // leader epoch
        assert_eq!(batch.take(1), [2], "magic");
        let crc = batch.i32() as u32;
        assert_eq!(crc, crc32c(batch.0), "checksum");
        let attributes = batch.i16();
        assert_eq!(attributes & 0b10_1111, 0, "compression, LogAppendTime or control batch");
        batch.i32(); // last offset
        let base = batch.i64();
        batch.take(22); // largest timestamp, producer
        let count = batch.i32();
        (0..count).map(|_| batch.record(base_offset, base)).collect()
    }

    fn record(&mut self, base_offset: i64, base: i64) -> Rec {
        let length = self.varint() as usize;
        let mut one = Reader(self.take(length));
        one.take(1);
        let timestamp = base + one.varint();
        let offset = base_offset + one.varint();
        let (key, value) = (one.bytes(), one.bytes());
        let headers = (0..one.varint()).map(|_| -> Header { (one.bytes().expect("a name"), one.bytes()) }).collect();
        Rec { offset, timestamp, timestamp_type: "CREATE_TIME", key, value, headers }
    }
}
