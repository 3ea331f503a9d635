//! The four codecs of Avro blocks, with contexts that are made once and used for every block.

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use zstd::zstd_safe::{CParameter, DCtx, InBuffer, OutBuffer, ResetDirective};

use super::error::Problem;

/// Bytes of records in a block, before compression: enough for zstd to find what repeats, little enough to hold one
/// per partition and, for a few partitions, in the processor's cache. Such blocks compress twice as fast as Avro's
/// customary 16 kB. Not 256 KiB: there zstd's table (`ZSTD_defaultCParameters`) looks for matches of 4 bytes at level 3
/// instead of 5, which on JSON takes a tenth more time for objects that are 6 % larger.
pub const TARGET_BLOCK_BYTES: usize = 128 * 1024;

/// Compression of Avro blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// zstd at a level (1 to 22).
    Zstandard(i32),
    /// Snappy.
    Snappy,
    /// Deflate at a level (1 to 9).
    Deflate(u32),
    /// None.
    Null,
}

/// How the blocks of an object are compressed, as far as a reader must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// zstd, with a content checksum where we write it.
    Zstandard,
    /// Snappy, followed by the CRC-32 of the decompressed data.
    Snappy,
    /// Deflate (RFC 1951), which has no checksum.
    Deflate,
    /// None, and no checksum.
    Null,
}

impl Compression {
    /// Whether a block that we have written says by itself that it is whole.
    pub fn has_checksum(self) -> bool {
        matches!(self, Self::Zstandard | Self::Snappy)
    }

    /// Its name in `avro.codec`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstandard => "zstandard",
            Self::Snappy => "snappy",
            Self::Deflate => "deflate",
            Self::Null => "null",
        }
    }

    /// By its name in `avro.codec`.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Zstandard, Self::Snappy, Self::Deflate, Self::Null].into_iter().find(|codec| codec.name() == name)
    }
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::Zstandard(_) => Self::Zstandard,
            Codec::Snappy => Self::Snappy,
            Codec::Deflate(_) => Self::Deflate,
            Codec::Null => Self::Null,
        }
    }
}

/// A block that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The codec failed, which means memory, or a level it does not have.
    #[error("{codec} cannot compress a block of {bytes} bytes: {why}")]
    Compress {
        /// Which codec.
        codec: &'static str,
        /// Size of the block.
        bytes: usize,
        /// What it says.
        why: String,
    },
    /// Larger than any reader takes. Kafka's records are not, unless many header names had to be escaped.
    #[error("a block of {bytes} bytes in {records} records is more than {} bytes", super::MAX_BLOCK_BYTES)]
    BlockTooLarge {
        /// Size of the block.
        bytes: usize,
        /// Records in it.
        records: u64,
    },
}

enum Encoder {
    Zstandard(Box<zstd::bulk::Compressor<'static>>),
    Snappy(Box<snap::raw::Encoder>),
    Deflate(Box<Compress>),
    Null,
}

/// Compresses blocks, one after another: one per thread, for any number of partitions.
pub struct Compressor {
    encoder: Encoder,
    compression: Compression,
    scratch: Vec<u8>,
}

impl Compressor {
    /// With a codec and its level.
    ///
    /// # Errors
    /// When zstd does not get its memory.
    pub fn new(codec: Codec) -> Result<Self, EncodeError> {
        let encoder = match codec {
            Codec::Zstandard(level) => {
                let zstd = zstd::bulk::Compressor::new(level).and_then(|mut zstd| {
                    // A reader finds a flipped bit by it, wherever the object was copied since.
                    zstd.set_parameter(CParameter::ChecksumFlag(true)).map(|()| zstd)
                });
                Encoder::Zstandard(Box::new(zstd.map_err(|e| failed(codec, 0, e))?))
            }
            Codec::Snappy => Encoder::Snappy(Box::new(snap::raw::Encoder::new())),
            Codec::Deflate(level) => Encoder::Deflate(Box::new(Compress::new(flate2::Compression::new(level), false))),
            Codec::Null => Encoder::Null,
        };
        Ok(Self { encoder, compression: codec.into(), scratch: Vec::new() })
    }

    /// What stands in the header of the objects it writes.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The data of a block, compressed; valid until the next call.
    pub(super) fn compress<'a>(&'a mut self, data: &'a [u8]) -> Result<&'a [u8], EncodeError> {
        let scratch = &mut self.scratch;
        scratch.clear();
        scratch.shrink_to(2 * TARGET_BLOCK_BYTES); // a giant record must not cost memory for ever
        let failed = |why: String| EncodeError::Compress { codec: self.compression.name(), bytes: data.len(), why };
        match &mut self.encoder {
            Encoder::Null => return Ok(data),
            Encoder::Zstandard(zstd) => {
                scratch.reserve(zstd::zstd_safe::compress_bound(data.len()));
                zstd.compress_to_buffer(data, scratch).map_err(|e| failed(e.to_string()))?;
            }
            Encoder::Snappy(snappy) => {
                scratch.resize(snap::raw::max_compress_len(data.len()), 0);
                let len = snappy.compress(data, scratch).map_err(|e| failed(e.to_string()))?;
                scratch.truncate(len);
                scratch.extend_from_slice(&crc32fast::hash(data).to_be_bytes());
            }
            Encoder::Deflate(deflate) => {
                deflate.reset();
                scratch.reserve(data.len() / 2 + 64);
                loop {
                    let rest = &data[deflate.total_in() as usize..];
                    let status = deflate.compress_vec(rest, scratch, FlushCompress::Finish);
                    match status.map_err(|e| failed(e.to_string()))? {
                        Status::StreamEnd => break,
                        _ => scratch.reserve(scratch.capacity().max(64)),
                    }
                }
            }
        }
        Ok(&self.scratch)
    }
}

fn failed(codec: Codec, bytes: usize, why: impl ToString) -> EncodeError {
    EncodeError::Compress { codec: Compression::from(codec).name(), bytes, why: why.to_string() }
}

/// Decompresses blocks, one after another.
pub(super) struct Decompressor {
    zstd: DCtx<'static>,
    snappy: snap::raw::Decoder,
    deflate: Decompress,
    max: usize,
}

impl Decompressor {
    /// For blocks of at most `max` bytes, decompressed.
    pub(super) fn new(max: usize) -> Self {
        let (zstd, snappy) = (DCtx::create(), snap::raw::Decoder::new());
        Self { zstd, snappy, deflate: Decompress::new(false), max }
    }

    /// The most bytes a block may have.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Replaces the content of `out` by that of a block. What is in `out` after an error is of no use.
    pub(super) fn decompress(&mut self, codec: Compression, data: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
        match codec {
            Compression::Zstandard => self.zstandard(data, out),
            Compression::Snappy => self.snappy(data, out),
            Compression::Deflate => self.deflate(data, out),
            Compression::Null => {
                self.check(data.len())?;
                out.clear();
                out.extend_from_slice(data);
                Ok(())
            }
        }
    }

    fn check(&self, bytes: usize) -> Result<(), Problem> {
        match bytes <= self.max {
            true => Ok(()),
            false => Err(Problem::BlockTooLarge { max: self.max as u64 }),
        }
    }

    /// Room for `expected` bytes, which the data claim: no more of it at once than they can be trusted with. The
    /// loops below take more when it is really filled.
    fn room(&self, out: &mut Vec<u8>, expected: usize, data: &[u8]) {
        out.clear();
        out.reserve_exact(expected.min(data.len().saturating_mul(64).max(1 << 20)));
    }

    /// More room for an output that has filled what it had, or the news that there is too much of it.
    fn grow(&self, out: &mut Vec<u8>) -> Result<(), Problem> {
        self.check(out.len())?;
        // One byte over the limit, so that an output of exactly the limit can still end.
        let more = out.len().clamp(4096, (self.max - out.len()).saturating_add(1).max(4096));
        out.reserve_exact(more);
        Ok(())
    }

    fn zstandard(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
        let failed =
            |code| Problem::Decompress { codec: "zstandard", why: zstd::zstd_safe::get_error_name(code).to_owned() };
        let claimed = zstd::zstd_safe::get_frame_content_size(data).ok().flatten();
        let expected = claimed.map_or(data.len().saturating_mul(4), |n| usize::try_from(n).unwrap_or(usize::MAX));
        self.room(out, expected.min(self.max), data);
        self.zstd.reset(ResetDirective::SessionOnly).map_err(failed)?;
        let mut input = InBuffer::around(data);
        loop {
            let (before, filled) = (input.pos(), out.len());
            // With the whole frame at hand and room for all of it zstd takes its single-pass path.
            let mut output = OutBuffer::around_pos(out, filled);
            let pending = self.zstd.decompress_stream(&mut output, &mut input).map_err(failed)?;
            if pending == 0 && input.pos() == data.len() {
                return self.check(out.len());
            }
            if out.len() == out.capacity() {
                self.grow(out)?;
            } else if input.pos() == before && out.len() == filled || input.pos() == data.len() {
                let why = "the data end before the frame does".to_owned();
                return Err(Problem::Decompress { codec: "zstandard", why });
            }
        }
    }

    fn snappy(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
        let failed = |e: snap::Error| Problem::Decompress { codec: "snappy", why: e.to_string() };
        let Some((data, crc)) = data.split_last_chunk() else { return Err(Problem::DataEnd) };
        let len = snap::raw::decompress_len(data).map_err(failed)?;
        self.check(len)?;
        // Snappy's elements make at most 64 bytes out of 3: a length beyond that is damage, and must not cost memory.
        if len / 22 > data.len() {
            return Err(Problem::Decompress { codec: "snappy", why: format!("a length of {len} bytes") });
        }
        out.resize(len, 0); // without clearing first: all of it is written over
        self.snappy.decompress(data, out).map_err(failed)?;
        match crc32fast::hash(out) == u32::from_be_bytes(*crc) {
            true => Ok(()),
            false => Err(Problem::Checksum),
        }
    }

    fn deflate(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
        let failed = |why: &str| Problem::Decompress { codec: "deflate", why: why.to_owned() };
        self.room(out, data.len().saturating_mul(4).min(self.max), data);
        self.deflate.reset(false);
        loop {
            let (used, filled) = (self.deflate.total_in(), out.len());
            let status = self.deflate.decompress_vec(&data[used as usize..], out, FlushDecompress::None);
            match status.map_err(|e| failed(&e.to_string()))? {
                Status::StreamEnd if self.deflate.total_in() == data.len() as u64 => return self.check(out.len()),
                Status::StreamEnd => return Err(failed("something follows the end of the stream")),
                _ if out.len() == out.capacity() => self.grow(out)?,
                _ if self.deflate.total_in() > used || out.len() > filled => {}
                _ => return Err(failed("the data end before the stream does")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const CODECS: [Codec; 4] = [Codec::Zstandard(3), Codec::Snappy, Codec::Deflate(6), Codec::Null];

    fn compressed(codec: Codec, data: &[u8]) -> Vec<u8> {
        Compressor::new(codec).and_then(|mut c| c.compress(data).map(<[u8]>::to_vec)).expect("compress")
    }

    #[rstest]
    fn more_than_allowed_is_refused(#[values(0, 1, 2, 3)] codec: usize) {
        let codec = CODECS[codec];
        for (bytes, max, good) in [(100_000, 100_000, true), (100_001, 100_000, false), (50_000_000, 100_000, false)] {
            let data = compressed(codec, &vec![b'x'; bytes]);
            let mut out = Vec::new();
            let result = Decompressor::new(max).decompress(codec.into(), &data, &mut out);
            let expected = if good { Ok(()) } else { Err(Problem::BlockTooLarge { max: max as u64 }) };
            assert_eq!(result, expected, "{codec:?}, {bytes} bytes");
            assert!(codec == Codec::Null || out.capacity() < 10_000_000, "{codec:?} took {}", out.capacity());
        }
    }

    /// What a streaming writer makes: frames that do not say how long they are, several of them.
    #[test]
    fn zstd_frames_of_unknown_size() {
        let part = |bytes: &[u8]| {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("encoder");
            std::io::copy(&mut &bytes[..], &mut encoder).expect("write");
            encoder.finish().expect("finish")
        };
        let data: Vec<u8> = (0..2_000_000u32).map(|i| (i / 7) as u8).collect();
        let file = [part(&data[..1_500_000]), part(&data[1_500_000..])].concat();
        let mut out = Vec::new();
        Decompressor::new(2_000_000).decompress(Compression::Zstandard, &file, &mut out).expect("decompress");
        assert!(out == data);
        let result = Decompressor::new(1_999_999).decompress(Compression::Zstandard, &file, &mut out);
        assert_eq!(result, Err(Problem::BlockTooLarge { max: 1_999_999 }));
    }

    proptest! {
        #[test]
        fn any_data_come_back(pieces: Vec<Vec<u8>>, codec in 0..4usize) {
            let codec = CODECS[codec];
            let mut compressor = Compressor::new(codec).expect("compressor");
            let mut decompressor = Decompressor::new(1 << 20);
            let mut out = Vec::new();
            for data in pieces {
                let block = compressor.compress(&data).expect("compress").to_vec();
                prop_assert_eq!(decompressor.decompress(codec.into(), &block, &mut out), Ok(()));
                prop_assert_eq!(&out, &data);
            }
        }

        #[test]
        fn any_bytes_end(data: Vec<u8>, codec in 0..4usize) {
            let mut out = Vec::new();
            let _ = Decompressor::new(1 << 20).decompress(CODECS[codec].into(), &data, &mut out);
        }
    }
}
