//! The object format: an Avro object container file, written and read by hand for our one fixed schema.
//!
//! ```text
//! object   header block*                                    header alone: a gap link
//! header   "Obj" 1, map {avro.codec, avro.schema, kafka-backup.*}, sync marker (16 bytes)
//! block    count (long), size (long), SIZE bytes of compressed data, the same sync marker
//! ```
//!
//! Writing goes record by record into a [`BlockBuilder`], which a [`Compressor`] turns into framed blocks;
//! [`write_header`] is put in front of them last, because it says what they contain. Reading feeds bytes as they come
//! to an [`ObjectReader`] and takes out one [`RecordBatch`](super::batch::RecordBatch) per block, whose arena *is* the
//! decompressed block: no payload is copied.
//!
//! `apache-avro` parses foreign schemas and is what the tests compare with; the hot path does not use it. Its writer
//! builds a compression context per block, its reader a `HashMap` for headers (which loses their order) and takes data
//! that end too early for nulls.
//!
//! Nothing here panics on damaged or hostile bytes: every length is checked before it is believed, and memory grows
//! with the bytes that are really there.

mod block;
mod codec;
mod decode;
mod encode;
mod error;
mod header;
mod legacy;
mod limits;
pub mod name;
mod reader;
mod schema;
mod source;
mod wire;

#[cfg(test)]
mod tests;

pub use block::BlockBuilder;
pub use codec::{Codec, Compression, Compressor, EncodeError, TARGET_BLOCK_BYTES};
pub use decode::{Layout, open};
pub use error::{DecodeError, Problem};
pub use header::{Header, read_header, write_header};
pub use legacy::LegacyPlan;
pub use limits::{MAX_BLOCK_BYTES, MAX_HEADER_BYTES};
pub use reader::{ObjectReader, Summary};
pub use schema::SCHEMA;

/// Bytes of a sync marker.
pub const SYNC_BYTES: usize = 16;
