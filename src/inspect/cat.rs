//! `cat`: the records of one object, for a person or, as JSON lines, for `jq`.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::error::{Error, Exit, Result};
use crate::model::avro::ObjectReader;
use crate::model::batch::{Record, RecordBatch, TimestampType};
use crate::model::hex::hex;
use crate::model::object::Metadata;
use crate::restore::gather::failed;
use crate::storage::Store;

/// Bytes read at a time.
const PIECE_BYTES: u64 = 4 * 1024 * 1024;

/// Where an object is.
#[derive(Clone)]
pub enum Object {
    /// A file.
    File(PathBuf),
    /// A key in a store.
    Stored(Arc<dyn Store>, String),
}

/// Prints the records of `object` to stdout.
pub async fn run(object: Object, json: bool) -> Result<Exit> {
    // Not locked across the awaits of a download; nobody else writes to stdout meanwhile.
    let mut printer = Printer { out: BufWriter::new(std::io::stdout()), json };
    let result = match object {
        Object::File(path) => print_file(&path, &mut printer),
        Object::Stored(store, key) => print_stored(&store, &key, &mut printer).await,
    };
    match result.and_then(|()| printer.out.flush().map_err(Stop::Write)) {
        Ok(()) => Ok(Exit::Ok),
        // `cat ... | head` has seen enough.
        Err(Stop::Write(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Ok),
        Err(Stop::Write(error)) => Err(Error::new(Exit::Failed, "cannot write to stdout").because(error)),
        Err(Stop::Read(error)) => Err(error),
    }
}

/// Why printing ended early.
enum Stop {
    Read(Error),
    Write(std::io::Error),
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Write(error)
    }
}

fn print_file(path: &PathBuf, printer: &mut Printer<impl Write>) -> Result<(), Stop> {
    let unreadable = |error: std::io::Error| {
        let exit = if error.kind() == ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
        Stop::Read(Error::new(exit, format!("cannot read {}", path.display())).because(error))
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut object = Printed::new(path.display().to_string());
    loop {
        let mut piece = Vec::new();
        let read = (&mut file).take(PIECE_BYTES).read_to_end(&mut piece).map_err(unreadable)?;
        if read == 0 {
            return object.end(printer);
        }
        object.feed(piece.into(), printer)?;
    }
}

async fn print_stored(store: &Arc<dyn Store>, key: &str, printer: &mut Printer<impl Write>) -> Result<(), Stop> {
    let name = format!("{}/{key}", store.url().trim_end_matches('/'));
    let head = store.head(key).await.map_err(|error| Stop::Read(failed(error)))?;
    let absent = || Stop::Read(Error::new(Exit::NotFound, format!("{name} does not exist")));
    let head = head.ok_or_else(absent)?;
    let (mut object, mut at) = (Printed::new(name), 0);
    while at < head.size {
        let range = at..(at + PIECE_BYTES).min(head.size);
        let piece = store.get_range(key, range, Some(&head.etag)).await.map_err(|e| Stop::Read(failed(e)))?;
        if piece.is_empty() {
            break;
        }
        at += piece.len() as u64;
        object.feed(piece, printer)?;
    }
    object.end(printer)
}

/// The object that is being printed.
struct Printed {
    name: String,
    reader: ObjectReader,
    batch: RecordBatch,
    begun: bool,
}

impl Printed {
    fn new(name: String) -> Self {
        Self { name, reader: ObjectReader::new(), batch: RecordBatch::default(), begun: false }
    }

    fn feed(&mut self, piece: Bytes, printer: &mut Printer<impl Write>) -> Result<(), Stop> {
        self.reader.push(piece);
        if !self.begun
            && let Some(header) = self.reader.header().map_err(|error| damaged(&self.name, error))?
        {
            self.begun = true;
            printer.gap(&header.metadata)?;
        }
        while self.reader.next_batch(&mut self.batch).map_err(|error| damaged(&self.name, error))? {
            for record in self.batch.iter() {
                printer.record(&record)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, printer: &mut Printer<impl Write>) -> Result<(), Stop> {
        // What could be read is shown before what is wrong with the rest.
        printer.out.flush()?;
        self.reader.finish().map_err(|error| damaged(&self.name, error)).map(drop)
    }
}

fn damaged(name: &str, error: impl std::error::Error + Send + Sync + 'static) -> Stop {
    Stop::Read(Error::new(Exit::ProblemFound, format!("cannot read {name}")).because(error))
}

/// Writes records in one of the two forms.
struct Printer<W> {
    out: W,
    json: bool,
}

impl<W: Write> Printer<W> {
    /// Says so when the object is a gap link, which has no records to show.
    fn gap(&mut self, metadata: &Metadata) -> std::io::Result<()> {
        let Some(why) = metadata.get("gap") else { return Ok(()) };
        let offset = |key: &str| metadata.get(key).and_then(|text| text.parse::<i64>().ok());
        let (from, next) = (offset("range-start"), offset("next-offset"));
        if self.json {
            return writeln!(self.out, "{}", json!({"gap": why, "range_start": from, "next_offset": next}));
        }
        let show = |offset: Option<i64>| offset.map_or("?".to_owned(), |o| o.to_string());
        writeln!(self.out, "gap from offset {} up to {}: {why}", show(from), show(next))
    }

    fn record(&mut self, record: &Record<'_>) -> std::io::Result<()> {
        if self.json { writeln!(self.out, "{}", as_json(record)) } else { writeln!(self.out, "{}", as_text(record)) }
    }
}

/// One line: offset, time, key, value, headers.
fn as_text(record: &Record<'_>) -> String {
    let time = match record.timestamp_type {
        TimestampType::CreateTime => rfc3339(record.timestamp),
        TimestampType::LogAppendTime => format!("{} (log append)", rfc3339(record.timestamp)),
        TimestampType::NotAvailable => "-".to_owned(),
    };
    let value = record.value.map_or("null (tombstone)".to_owned(), bytes_as_text);
    let mut line = format!("{}  {time}  {} => {value}", record.offset, nullable_as_text(record.key));
    if !record.headers.is_empty() {
        let headers = record.headers.iter();
        let headers = headers.map(|h| format!("{}: {}", name_as_text(h.name), nullable_as_text(h.value)));
        line += &format!("  [{}]", headers.collect::<Vec<_>>().join(", "));
    }
    line
}

fn nullable_as_text(bytes: Option<&[u8]>) -> String {
    bytes.map_or("null".to_owned(), bytes_as_text)
}

/// Text in quotes with control characters escaped, so that a record stays one line; anything else in hex.
fn bytes_as_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("0x{}", hex(bytes)),
    }
}

fn name_as_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()) => text.to_owned(),
        _ => bytes_as_text(bytes),
    }
}

fn as_json(record: &Record<'_>) -> Value {
    let headers = record.headers.iter();
    let headers: Vec<_> = headers
        .map(|h| json!({"key": bytes_as_json(h.name), "value": h.value.map_or(Value::Null, bytes_as_json)}))
        .collect();
    let timestamp_type = match record.timestamp_type {
        TimestampType::CreateTime => "CREATE_TIME",
        TimestampType::LogAppendTime => "LOG_APPEND_TIME",
        TimestampType::NotAvailable => "NOT_AVAILABLE",
    };
    json!({
        "offset": record.offset,
        "timestamp": record.timestamp,
        "timestamp_type": timestamp_type,
        "key": record.key.map_or(Value::Null, bytes_as_json),
        "value": record.value.map_or(Value::Null, bytes_as_json),
        "headers": headers,
    })
}

/// A string, or `{"base64": ...}` for what is not UTF-8.
fn bytes_as_json(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| json!({"base64": base64(bytes)}), Value::from)
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let padded = [0, 1, 2].map(|i| chunk.get(i).copied().unwrap_or(0));
        let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        for digit in 0..4 {
            let character = DIGITS[(bits >> (18 - 6 * digit)) as usize & 63];
            text.push(if digit <= chunk.len() { character as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::model::batch::Header;

    #[rstest]
    #[case(b"", "")]
    #[case(b"f", "Zg==")]
    #[case(b"fo", "Zm8=")]
    #[case(b"foo", "Zm9v")]
    #[case(b"foobar", "Zm9vYmFy")]
    #[case(b"\xff\xfe\xfd", "//79")]
    fn base64_of_rfc_4648(#[case] bytes: &[u8], #[case] text: &str) {
        assert_eq!(base64(bytes), text);
    }

    fn batch() -> RecordBatch {
        let mut batch = RecordBatch::default();
        let headers = [
            Header { name: b"a", value: Some(b"1") },
            Header { name: b"a", value: None },
            Header { name: b"\xff", value: Some(b"") },
        ];
        batch.push(7, (0, TimestampType::CreateTime), Some(b"k\n"), Some(b"\xff\x00"), headers);
        batch.push(8, (-1, TimestampType::NotAvailable), None, None, []);
        batch.push(9, (1, TimestampType::LogAppendTime), Some(b""), Some(b""), []);
        batch
    }

    #[test]
    fn lines_for_people() {
        let lines: Vec<_> = batch().iter().map(|record| as_text(&record)).collect();
        assert_eq!(
            lines,
            [
                r#"7  1970-01-01T00:00:00Z  "k\n" => 0xff00  [a: "1", a: null, 0xff: ""]"#,
                "8  -  null => null (tombstone)",
                r#"9  1970-01-01T00:00:00.001Z (log append)  "" => """#,
            ]
        );
    }

    #[test]
    fn json_keeps_null_and_empty_apart() {
        let values: Vec<_> = batch().iter().map(|record| as_json(&record)).collect();
        assert_eq!(values[0]["value"], json!({"base64": "/wA="}));
        assert_eq!(values[0]["headers"][1], json!({"key": "a", "value": null}));
        assert_eq!(values[0]["headers"][2], json!({"key": {"base64": "/w=="}, "value": ""}));
        assert_eq!((&values[1]["key"], &values[1]["value"]), (&Value::Null, &Value::Null));
        assert_eq!((&values[2]["key"], &values[2]["value"]), (&json!(""), &json!("")));
    }
}
