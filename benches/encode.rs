//! What one core encodes, compresses, decompresses and decodes: records of 900 bytes that look like JSON.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kafka_backup::config::Codec;
use kafka_backup::model::avro::{BlockBuilder, Compressor, ObjectReader, write_header};
use kafka_backup::model::batch::{Header, RecordBatch, TimestampType};
use kafka_backup::model::object::Metadata;

const RECORDS: usize = 20_000;
const SYNC: [u8; 16] = *b"0123456789abcdef";
const CODECS: [(&str, Codec); 5] = [
    ("zstandard-3", Codec::Zstandard(3)),
    ("zstandard-1", Codec::Zstandard(1)),
    ("snappy", Codec::Snappy),
    ("deflate-6", Codec::Deflate(6)),
    ("null", Codec::Null),
];

/// Orders as a shop might write them: repeated field names, ids and amounts that do not repeat.
fn records() -> RecordBatch {
    let mut random = fastrand::Rng::with_seed(7);
    let mut batch = RecordBatch::with_capacity(RECORDS * 960);
    for i in 0..RECORDS {
        let mut value = format!(r#"{{"order_id":"{:016x}","customer":{},"lines":["#, random.u64(..), random.u32(..));
        while value.len() < 820 {
            let (sku, price) = (random.u32(..100_000), random.f64() * 500.0);
            value += &format!(r#"{{"sku":"SKU-{sku:06}","quantity":{},"price":{price:.2}}},"#, random.u8(1..9));
        }
        value += &format!(r#"{{}}],"currency":"EUR","status":"paid","hash":"{:08x}"}}"#, random.u32(..));
        let (key, trace) = (format!("{:016x}", random.u64(..)), format!("{:032x}", random.u128(..)));
        let timestamp = (1_700_000_000_000 + i as i64, TimestampType::CreateTime);
        let headers = [Header { name: b"trace-id", value: Some(trace.as_bytes()) }];
        batch.push(i as i64, timestamp, Some(key.as_bytes()), Some(value.as_bytes()), headers);
    }
    batch
}

/// The blocks of an object; their bytes are given to `out` and forgotten.
fn encode(batch: &RecordBatch, block: &mut BlockBuilder, compressor: &mut Compressor, mut out: impl FnMut(Bytes)) {
    for record in batch.iter() {
        if !block.fits(&record) {
            out(block.finish(compressor, &SYNC).expect("block"));
        }
        block.append(&record);
    }
    out(block.finish(compressor, &SYNC).expect("block"));
}

fn object(batch: &RecordBatch, codec: Codec) -> Bytes {
    let mut object = write_header(codec, &SYNC, &Metadata::new());
    let mut compressor = Compressor::new(codec).expect("compressor");
    encode(batch, &mut BlockBuilder::new("orders", 3), &mut compressor, |block| object.extend_from_slice(&block));
    object.into()
}

fn encoding(c: &mut Criterion) {
    let batch = records();
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Bytes(batch.content_bytes() as u64)).sample_size(20);
    for (name, codec) in CODECS {
        let (mut block, mut compressor) = (BlockBuilder::new("orders", 3), Compressor::new(codec).expect("compressor"));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| encode(&batch, &mut block, &mut compressor, |block| drop(black_box(block))));
        });
    }
    group.finish();
}

/// Decompression and decoding together.
fn decoding(c: &mut Criterion) {
    let records = records();
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Bytes(records.content_bytes() as u64)).sample_size(20);
    for (name, codec) in CODECS {
        let (object, mut batch) = (object(&records, codec), RecordBatch::default());
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                let mut reader = ObjectReader::new();
                let mut bytes = 0;
                for start in (0..object.len()).step_by(1 << 20) {
                    reader.push(object.slice(start..object.len().min(start + (1 << 20))));
                    while reader.next_batch(&mut batch).expect("block") {
                        bytes += batch.iter().map(|r| r.value.map_or(0, <[u8]>::len)).sum::<usize>();
                    }
                }
                (bytes, reader.finish().expect("end"))
            });
        });
    }
    group.finish();
}

/// The same blocks through zstd alone, its checksum included: what decoding cannot be faster than.
fn decompressing(c: &mut Criterion) {
    let records = records();
    let mut group = c.benchmark_group("decompress-only");
    group.throughput(Throughput::Bytes(records.content_bytes() as u64)).sample_size(20);
    for level in [3, 1] {
        let mut compressor = Compressor::new(Codec::Zstandard(level)).expect("compressor");
        let mut blocks = Vec::new();
        encode(&records, &mut BlockBuilder::new("orders", 3), &mut compressor, |block| {
            let data = |block: &Bytes| block.iter().position(|byte| byte & 0x80 == 0).expect("a number") + 1;
            let block = block.slice(data(&block)..block.len() - SYNC.len());
            blocks.push(block.slice(data(&block)..));
        });
        let (mut zstd, mut out) = (zstd::bulk::Decompressor::new().expect("zstd"), Vec::with_capacity(300_000));
        group.bench_function(BenchmarkId::from_parameter(format!("zstandard-{level}")), |b| {
            b.iter(|| blocks.iter().map(|b| zstd.decompress_to_buffer(b, &mut out).expect("zstd")).sum::<usize>());
        });
    }
    group.finish();
}

criterion_group!(benches, encoding, decoding, decompressing);
criterion_main!(benches);
