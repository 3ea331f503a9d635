//! Reads an object whose bytes come in pieces of any size.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::SYNC_BYTES;
use super::codec::Decompressor;
use super::decode::{Layout, decode_block, open};
use super::error::{DecodeError, Fault, Problem};
use super::header::{Header, read_header};
use super::limits::{MAX_BLOCK_BYTES, MAX_HEADER_BYTES};
use super::source::Source;
use super::wire::Cursor;
use crate::model::batch::RecordBatch;

/// The longest beginning of a block: two numbers.
const MAX_FRAME_BYTES: usize = 20;

/// Bytes that codecs may add to what they cannot compress, at most: snappy's sixth is the largest.
const fn compressed_bound(bytes: usize) -> usize {
    bytes.saturating_add(bytes / 6).saturating_add(1024)
}

/// What was in an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Records.
    pub records: u64,
    /// Blocks.
    pub blocks: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Takes an object apart: bytes in, one batch of records per block out.
///
/// ```ignore
/// for chunk in object {
///     reader.push(chunk);
///     while reader.next_batch(&mut batch)? {
///         batch.iter().for_each(produce);
///     }
/// }
/// let summary = reader.finish()?;
/// ```
///
/// After an error the object is given up: every later call returns the same error.
pub struct ObjectReader {
    input: Input,
    opened: Option<(Header, Layout)>,
    source: Source,
    decompressor: Decompressor,
    records: u64,
    blocks: u64,
    failed: Option<DecodeError>,
}

impl Default for ObjectReader {
    fn default() -> Self {
        Self::new()
    }
}

impl ObjectReader {
    /// At the beginning of an object.
    pub fn new() -> Self {
        Self::with_max_block_bytes(MAX_BLOCK_BYTES)
    }

    /// The same, refusing blocks of more than `bytes` decompressed (at most [`MAX_BLOCK_BYTES`], the default).
    pub fn with_max_block_bytes(bytes: usize) -> Self {
        Self {
            input: Input::default(),
            opened: None,
            source: Source::default(),
            decompressor: Decompressor::new(bytes.min(MAX_BLOCK_BYTES)),
            records: 0,
            blocks: 0,
            failed: None,
        }
    }

    /// The next bytes of the object. Kept without being copied until [`next_batch`](Self::next_batch) has used them.
    pub fn push(&mut self, bytes: Bytes) {
        self.input.push(bytes);
    }

    /// The header, once enough bytes are there.
    pub fn header(&mut self) -> Result<Option<&Header>, DecodeError> {
        self.guarded(Self::open)?;
        Ok(self.opened.as_ref().map(|(header, _)| header))
    }

    /// Topic and partition of the records, once there was one.
    pub fn source(&self) -> Option<(&str, i32)> {
        self.source.get()
    }

    /// Replaces the content of `batch` by the records of the next block, reusing its memory. `false`: more bytes are
    /// needed, or this was the end; the batch is empty then.
    ///
    /// The batch's `next_offset` is not set: what a reader knows is in the object's metadata.
    ///
    /// # Errors
    /// When the object is damaged; the batch is empty then.
    pub fn next_batch(&mut self, batch: &mut RecordBatch) -> Result<bool, DecodeError> {
        let result = self.guarded(|reader| reader.next(batch));
        if !matches!(result, Ok(true)) {
            batch.clear();
        }
        result
    }

    /// At the end of the object: that it ends where a block does.
    pub fn finish(&mut self) -> Result<Summary, DecodeError> {
        self.guarded(|reader| {
            let what = match (&reader.opened, reader.input.len) {
                (None, _) => "its header",
                (Some(_), 0) => {
                    let bytes = reader.input.position;
                    return Ok(Summary { records: reader.records, blocks: reader.blocks, bytes });
                }
                (Some(_), _) => "a block",
            };
            Err(reader.error(None, Problem::Truncated(what)))
        })
    }

    fn guarded<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T, DecodeError>) -> Result<T, DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = step(self);
        self.failed = result.as_ref().err().cloned();
        result
    }

    /// An error at the header or block that is being read.
    fn error(&self, record: Option<u64>, problem: Problem) -> DecodeError {
        DecodeError { position: self.input.position, record, problem }
    }

    fn open(&mut self) -> Result<(), DecodeError> {
        if self.opened.is_none()
            && let Some(header) = read_header(self.input.peek(MAX_HEADER_BYTES))?
        {
            let layout = open(&header)?;
            self.input.take(header.len);
            self.opened = Some((header, layout));
        }
        Ok(())
    }

    fn next(&mut self, batch: &mut RecordBatch) -> Result<bool, DecodeError> {
        self.open()?;
        let Some(frame) = self.frame()? else { return Ok(false) };
        let Some((header, layout)) = &self.opened else { return Ok(false) };
        if self.input.len < frame.whole() {
            return Ok(false);
        }
        let position = self.input.position;
        let error = |record, problem| DecodeError { position, record, problem };
        let block = self.input.take(frame.whole());
        let (data, sync) = block[frame.len..].split_at(frame.size);
        // The marker first: a wrong size would otherwise be reported as whatever the codec makes of it.
        if *sync != header.sync {
            return Err(error(None, Problem::Sync));
        }
        let mut arena = batch.take_arena();
        match frame.size {
            0 => arena.clear(),
            _ => {
                let result = self.decompressor.decompress(header.codec, data, &mut arena);
                result.map_err(|problem| error(None, problem))?;
            }
        }
        drop(block);
        let decoded = decode_block(layout, &mut self.source, arena, frame.records, batch);
        decoded.map_err(|(record, Fault { at, problem })| {
            error(record.map(|n| self.records + n), Problem::Inside { at, problem: problem.into() })
        })?;
        self.records += frame.records;
        self.blocks += 1;
        Ok(true)
    }

    /// The beginning of the next block, once it is there.
    fn frame(&mut self) -> Result<Option<Frame>, DecodeError> {
        if self.opened.is_none() {
            return Ok(None);
        }
        let mut cursor = Cursor::new(self.input.peek(MAX_FRAME_BYTES));
        let numbers = cursor.long().and_then(|records| Ok((records, cursor.long()?)));
        let len = cursor.position();
        let (records, size) = match numbers {
            Ok(numbers) => numbers,
            Err(Fault { problem: Problem::DataEnd, .. }) => return Ok(None),
            Err(Fault { problem, .. }) => return Err(self.error(None, problem)),
        };
        let impossible = |what, value| Err(self.error(None, Problem::BlockNumber { what, value }));
        let max = self.decompressor.max();
        let Ok(bytes) = usize::try_from(size) else { return impossible("size", size) };
        if bytes > compressed_bound(max) {
            return Err(self.error(None, Problem::BlockTooLarge { max: max as u64 }));
        }
        match u64::try_from(records) {
            Ok(records) => Ok(Some(Frame { records, size: bytes, len })),
            Err(_) => impossible("number of records", records),
        }
    }
}

/// The beginning of a block.
struct Frame {
    records: u64,
    /// Bytes of compressed data.
    size: usize,
    /// Bytes of the two numbers themselves.
    len: usize,
}

impl Frame {
    /// Bytes of the block with all that belongs to it.
    fn whole(&self) -> usize {
        self.len + self.size + SYNC_BYTES
    }
}

/// Bytes that have been pushed and not used. They are copied only where something lies across two pieces.
#[derive(Default)]
struct Input {
    pieces: VecDeque<Bytes>,
    /// Bytes held.
    len: usize,
    /// Byte of the object at which they begin.
    position: u64,
}

impl Input {
    fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.len += bytes.len();
            self.pieces.push_back(bytes);
        }
    }

    /// The next `n` bytes, fewer if there are not as many, or more; in one piece.
    fn peek(&mut self, n: usize) -> &[u8] {
        let wanted = n.min(self.len);
        if self.pieces.front().is_some_and(|front| front.len() < wanted) {
            let joined = self.join(wanted);
            self.pieces.push_front(joined);
        }
        self.pieces.front().map_or(&[], |front| front)
    }

    /// The next `n` bytes, which must be there.
    fn take(&mut self, n: usize) -> Bytes {
        debug_assert!(n <= self.len);
        let taken = match self.pieces.front_mut() {
            Some(front) if front.len() > n => front.split_to(n),
            Some(front) if front.len() == n => self.pieces.pop_front().unwrap_or_default(),
            _ => self.join(n),
        };
        self.len -= taken.len();
        self.position += taken.len() as u64;
        taken
    }

    /// Takes `n` bytes out of the pieces and joins them.
    fn join(&mut self, n: usize) -> Bytes {
        let mut joined = BytesMut::with_capacity(n);
        while joined.len() < n
            && let Some(mut front) = self.pieces.pop_front()
        {
            let part = front.split_to(front.len().min(n - joined.len()));
            joined.extend_from_slice(&part);
            if !front.is_empty() {
                self.pieces.push_front(front);
            }
        }
        joined.freeze()
    }
}
