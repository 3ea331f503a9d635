//! The records of a decompressed block, found where they lie.
//!
//! A batch takes the whole block as its arena; decoding only notes where keys, values and headers are.

use super::error::{DecodeError, Fault, Problem};
use super::header::Header;
use super::legacy::LegacyPlan;
use super::name;
use super::schema::{CANONICAL, SCHEMA};
use super::source::Source;
use super::wire::Cursor;
use crate::model::batch::{RecordBatch, Span, TimestampType};

/// How the records of an object are laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// As this program writes them.
    Ours,
    /// The older layout of the same data.
    Legacy(LegacyPlan),
}

/// Which layout an object has, by the schema in its header.
///
/// # Errors
/// When it is neither ours nor the older one.
pub fn open(header: &Header) -> Result<Layout, DecodeError> {
    layout(&header.schema_json).map_err(|problem| DecodeError { position: 0, record: None, problem })
}

fn layout(schema_json: &str) -> Result<Layout, Problem> {
    if schema_json == SCHEMA {
        return Ok(Layout::Ours);
    }
    let schema = apache_avro::Schema::parse_str(schema_json).map_err(|e| Problem::Schema(e.to_string()))?;
    if schema.canonical_form() == *CANONICAL {
        return Ok(Layout::Ours);
    }
    LegacyPlan::new(&schema).map(Layout::Legacy).map_err(Problem::ForeignSchema)
}

/// Decodes the block of `records` records that is the content of `arena` into `batch`, whose arena it becomes.
///
/// An error says at which record of the block it happened, if at one. The batch is of no use then.
pub(super) fn decode_block(
    layout: &Layout,
    source: &mut Source,
    arena: Vec<u8>,
    records: u64,
    batch: &mut RecordBatch,
) -> Result<(), (Option<u64>, Fault)> {
    let mut cursor = Cursor::new(&arena);
    let mut names = Names { base: arena.len(), bytes: Vec::new() };
    let result = (0..records)
        .try_for_each(|record| {
            let decoded = match layout {
                Layout::Ours => read_record(&mut cursor, source, &mut names, batch),
                Layout::Legacy(plan) => plan.read_record(&mut cursor, source, batch),
            };
            decoded.map_err(|fault| (Some(record), fault))
        })
        .and_then(|()| match cursor.remaining() {
            0 => Ok(()),
            left => Err((None, Fault { at: cursor.position(), problem: Problem::Leftover(left) })),
        });
    let mut arena = arena;
    arena.extend_from_slice(&names.bytes);
    batch.put_arena(arena);
    result
}

/// Header names that do not stand in the block as they are. They go behind it.
struct Names {
    base: usize,
    bytes: Vec<u8>,
}

impl Names {
    fn span(&mut self, cursor: &Cursor<'_>, span: Span) -> Span {
        match name::unescape(cursor.of(span)) {
            std::borrow::Cow::Borrowed(_) => span,
            std::borrow::Cow::Owned(name) => {
                let start = self.base + self.bytes.len();
                self.bytes.extend_from_slice(&name);
                Span::new(start, name.len())
            }
        }
    }
}

/// One datum of [`SCHEMA`].
fn read_record(
    cursor: &mut Cursor<'_>,
    source: &mut Source,
    names: &mut Names,
    batch: &mut RecordBatch,
) -> Result<(), Fault> {
    source.read(cursor)?;
    let offset = cursor.long()?;
    let timestamp = cursor.long()?;
    let timestamp_type = match cursor.index(3)? {
        0 => TimestampType::CreateTime,
        1 => TimestampType::LogAppendTime,
        _ => TimestampType::NotAvailable,
    };
    let key = read_nullable(cursor)?;
    let value = read_nullable(cursor)?;
    let first_header = batch.header_count();
    loop {
        let items = cursor.items()?;
        if items == 0 {
            break;
        }
        for _ in 0..items {
            let name = cursor.span()?;
            let name = names.span(cursor, name);
            let value = read_nullable(cursor)?;
            batch.push_header_at(name, value);
        }
    }
    batch.push_at(offset, (timestamp, timestamp_type), key, value, first_header);
    Ok(())
}

/// A `[null, bytes]`.
#[inline]
fn read_nullable(cursor: &mut Cursor<'_>) -> Result<Option<Span>, Fault> {
    match cursor.index(2)? {
        0 => Ok(None),
        _ => cursor.span().map(Some),
    }
}
