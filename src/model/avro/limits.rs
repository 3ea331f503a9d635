//! The most that is written and read.

/// The most a block may take, decompressed. Kafka's own limit for a batch of records is the same.
pub const MAX_BLOCK_BYTES: usize = i32::MAX as usize;

/// The longest header that is read. Ours take about 2 KiB.
pub const MAX_HEADER_BYTES: usize = 1024 * 1024;
