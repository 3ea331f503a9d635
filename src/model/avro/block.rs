//! Records packed into blocks.

use bytes::Bytes;

use super::SYNC_BYTES;
use super::codec::{Compressor, EncodeError, TARGET_BLOCK_BYTES};
use super::encode::{datum_bound, prefix, put_record};
use super::limits::MAX_BLOCK_BYTES;
use super::wire::put_long;
use crate::model::batch::Record;

/// The records of the block that is being filled, encoded.
///
/// ```ignore
/// if !block.fits(&record) {
///     body.push(block.finish(&mut compressor, &sync)?);
/// }
/// block.append(&record);
/// ```
///
/// Used like this a block is at most [`TARGET_BLOCK_BYTES`], or one larger record by itself. Memory is taken with the
/// first record and kept for the next block; [`release`](Self::release) gives it back.
#[derive(Debug)]
pub struct BlockBuilder {
    prefix: Box<[u8]>,
    data: Vec<u8>,
    records: u64,
}

impl BlockBuilder {
    /// For the records of one partition.
    pub fn new(topic: &str, partition: i32) -> Self {
        Self { prefix: prefix(topic, partition).into(), data: Vec::new(), records: 0 }
    }

    /// Encoded bytes in the block.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there is no record in it.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Records in the block.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of memory held, by capacity.
    pub fn memory_bytes(&self) -> usize {
        self.data.capacity() + self.prefix.len()
    }

    /// Whether the block has its size and should be finished.
    pub fn is_full(&self) -> bool {
        self.data.len() >= TARGET_BLOCK_BYTES
    }

    /// Whether the record belongs into this block; if not, the block is to be finished first. An empty block takes any.
    pub fn fits(&self, record: &Record<'_>) -> bool {
        self.is_empty() || self.data.len() + datum_bound(&self.prefix, record) <= TARGET_BLOCK_BYTES
    }

    /// Encodes a record of this partition into the block.
    pub fn append(&mut self, record: &Record<'_>) {
        self.reserve(datum_bound(&self.prefix, record));
        put_record(&mut self.data, &self.prefix, record);
        self.records += 1;
    }

    /// Compresses and frames the block (count, size, data, sync marker) into a buffer of exactly its size, and begins
    /// the next one. Without records there is no block and no bytes.
    ///
    /// # Errors
    /// When the codec fails, or the block is larger than [`MAX_BLOCK_BYTES`]. The records stay in the builder.
    pub fn finish(&mut self, compressor: &mut Compressor, sync: &[u8; SYNC_BYTES]) -> Result<Bytes, EncodeError> {
        if self.is_empty() {
            return Ok(Bytes::new());
        }
        if self.data.len() > MAX_BLOCK_BYTES {
            return Err(EncodeError::BlockTooLarge { bytes: self.data.len(), records: self.records });
        }
        let data = compressor.compress(&self.data)?;
        let mut frame = Vec::with_capacity(20);
        put_long(&mut frame, self.records as i64);
        put_long(&mut frame, data.len() as i64);
        let mut block = Vec::with_capacity(frame.len() + data.len() + sync.len());
        block.extend_from_slice(&frame);
        block.extend_from_slice(data);
        block.extend_from_slice(sync);
        self.data.clear();
        self.data.shrink_to(TARGET_BLOCK_BYTES);
        self.records = 0;
        Ok(block.into())
    }

    /// Forgets the records and gives the memory back.
    pub fn release(&mut self) {
        self.data = Vec::new();
        self.records = 0;
    }

    /// Doubles up to the target size and no further, so that a full block holds no more memory than it needs.
    fn reserve(&mut self, more: usize) {
        let (len, capacity) = (self.data.len(), self.data.capacity());
        if len + more <= capacity {
            return;
        }
        if len == 0 {
            self.data.reserve_exact(more);
        } else if len + more <= TARGET_BLOCK_BYTES {
            self.data.reserve_exact((capacity * 2).clamp(len + more, TARGET_BLOCK_BYTES) - len);
        } else {
            self.data.reserve(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::avro::Codec;
    use crate::model::batch::{Headers, TimestampType};

    fn record(value: &[u8]) -> Record<'_> {
        let (timestamp_type, headers) = (TimestampType::CreateTime, Headers::NONE);
        Record { offset: 7, timestamp: 1, timestamp_type, key: None, value: Some(value), headers }
    }

    #[test]
    fn no_records_no_block() {
        let mut compressor = Compressor::new(Codec::Null).expect("null");
        let mut block = BlockBuilder::new("t", 0);
        assert!(block.finish(&mut compressor, &[0; 16]).expect("finish").is_empty());
        assert_eq!(block.memory_bytes(), block.prefix.len(), "nothing is allocated before the first record");
    }

    #[test]
    fn blocks_keep_to_the_target() {
        let mut compressor = Compressor::new(Codec::Null).expect("null");
        let mut block = BlockBuilder::new("t", 0);
        let value = vec![b'x'; 1000];
        while block.fits(&record(&value)) {
            block.append(&record(&value));
            assert!(block.memory_bytes() <= TARGET_BLOCK_BYTES + block.prefix.len());
        }
        assert!(block.len() > TARGET_BLOCK_BYTES - 1100 && !block.is_full());
        let framed = block.finish(&mut compressor, &[9; 16]).expect("finish");
        assert!(framed.ends_with(&[9; 16]));
        assert_eq!((block.len(), block.records()), (0, 0));
    }

    #[test]
    fn a_large_record_gets_a_block_of_its_own_and_its_memory_goes() {
        let mut compressor = Compressor::new(Codec::Zstandard(1)).expect("zstd");
        let mut block = BlockBuilder::new("t", 0);
        let large = vec![b'x'; 3 * TARGET_BLOCK_BYTES];
        assert!(block.fits(&record(&large)), "an empty block takes any record");
        block.append(&record(b"small"));
        assert!(!block.fits(&record(&large)));
        block.finish(&mut compressor, &[0; 16]).expect("finish");
        block.append(&record(&large));
        assert!(block.is_full() && !block.fits(&record(b"small")));
        block.finish(&mut compressor, &[0; 16]).expect("finish");
        assert!(block.memory_bytes() <= TARGET_BLOCK_BYTES + block.prefix.len());
        block.release();
        assert_eq!(block.memory_bytes(), block.prefix.len());
    }
}
