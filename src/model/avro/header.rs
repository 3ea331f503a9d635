//! The header of an object: schema, codec, sync marker, and what is known of the object.

use super::SYNC_BYTES;
use super::codec::Compression;
use super::error::{DecodeError, Fault, Problem};
use super::limits::MAX_HEADER_BYTES;
use super::schema::SCHEMA;
use super::wire::{Cursor, put_bytes, put_long};
use crate::model::object::{AVRO_PREFIX, Metadata};

/// The first bytes of every Avro object container file.
const MAGIC: [u8; 4] = *b"Obj\x01";

/// What stands at the beginning of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The schema the records were written with, JSON.
    pub schema_json: String,
    /// How the blocks are compressed.
    pub codec: Compression,
    /// What follows every block.
    pub sync: [u8; SYNC_BYTES],
    /// Our metadata, names without their prefix; empty in objects that are not ours.
    pub metadata: Metadata,
    /// Bytes of the header: where the first block begins.
    pub len: usize,
}

/// The header of an object of ours. The same arguments give the same bytes.
pub fn write_header(codec: impl Into<Compression>, sync: &[u8; SYNC_BYTES], metadata: &Metadata) -> Vec<u8> {
    let mut out = Vec::with_capacity(SCHEMA.len() + 256 + metadata.len() * 64);
    out.extend_from_slice(&MAGIC);
    put_long(&mut out, metadata.len() as i64 + 2);
    put_bytes(&mut out, b"avro.codec");
    put_bytes(&mut out, codec.into().name().as_bytes());
    put_bytes(&mut out, b"avro.schema");
    put_bytes(&mut out, SCHEMA.as_bytes());
    for (key, value) in metadata {
        put_long(&mut out, (AVRO_PREFIX.len() + key.len()) as i64);
        out.extend_from_slice(AVRO_PREFIX.as_bytes());
        out.extend_from_slice(key.as_bytes());
        put_bytes(&mut out, value.as_bytes());
    }
    put_long(&mut out, 0); // the end of the map
    out.extend_from_slice(sync);
    out
}

/// Reads the header at the beginning of `data`; `None` when it goes on behind the data.
///
/// # Errors
/// When this is no header, or not one of at most [`MAX_HEADER_BYTES`].
pub fn read_header(data: &[u8]) -> Result<Option<Header>, DecodeError> {
    let data = &data[..data.len().min(MAX_HEADER_BYTES)];
    match parse(data) {
        Ok(header) => Ok(Some(header)),
        Err(Fault { problem: Problem::DataEnd, .. }) if data.len() < MAX_HEADER_BYTES => Ok(None),
        Err(Fault { problem: Problem::DataEnd, at }) => Err(error(Fault { at, problem: Problem::HeaderTooLong })),
        Err(fault) => Err(error(fault)),
    }
}

fn error(fault: Fault) -> DecodeError {
    DecodeError { position: fault.at as u64, record: None, problem: fault.problem }
}

fn parse(data: &[u8]) -> Result<Header, Fault> {
    if !MAGIC.starts_with(&data[..data.len().min(MAGIC.len())]) {
        return Err(Fault { at: 0, problem: Problem::NotAvro });
    }
    let mut cursor = Cursor::new(data);
    cursor.fixed::<4>()?;
    let (mut schema_json, mut codec, mut metadata) = (None, Compression::Null, Metadata::new());
    loop {
        let entries = cursor.items()?;
        if entries == 0 {
            break;
        }
        for _ in 0..entries {
            let key_at = cursor.position();
            let key = cursor.bytes()?;
            let value_at = cursor.position();
            let value = cursor.bytes()?;
            match key {
                b"avro.schema" => schema_json = Some(text(value, "avro.schema", value_at)?),
                b"avro.codec" => codec = parse_codec(value, value_at)?,
                _ => {
                    // Other programs' keys may hold anything.
                    if let Some(name) = key.strip_prefix(AVRO_PREFIX.as_bytes()) {
                        let name = text(name, "a metadata key", key_at)?;
                        let value = text(value, &name, value_at)?;
                        metadata.insert(name, value);
                    }
                }
            }
        }
    }
    let sync = cursor.fixed()?;
    let Some(schema_json) = schema_json else { return cursor.fault(Problem::NoSchema) };
    Ok(Header { schema_json, codec, sync, metadata, len: cursor.position() })
}

fn text(bytes: &[u8], what: &str, at: usize) -> Result<String, Fault> {
    let text = std::str::from_utf8(bytes).map(str::to_owned);
    text.map_err(|_| Fault { at, problem: Problem::HeaderNotText(what.to_owned()) })
}

fn parse_codec(name: &[u8], at: usize) -> Result<Compression, Fault> {
    let name = String::from_utf8_lossy(name);
    Compression::from_name(&name).ok_or_else(|| Fault { at, problem: Problem::UnknownCodec(name.into_owned()) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::model::avro::Codec;

    fn map(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put_long(&mut out, entries.len() as i64);
        for (key, value) in entries {
            put_bytes(&mut out, key.as_bytes());
            put_bytes(&mut out, value);
        }
        out.push(0);
        out.extend_from_slice(&[7; SYNC_BYTES]);
        out
    }

    #[rstest]
    #[case::not_avro(b"PAR1".to_vec(), 0, Problem::NotAvro)]
    #[case::not_avro_however_short(b"P".to_vec(), 0, Problem::NotAvro)]
    #[case::no_schema(map(&[("avro.codec", b"null"), ("a", b"")]), 41, Problem::NoSchema)]
    #[case::unknown_codec(map(&[("avro.codec", b"xz")]), 16, Problem::UnknownCodec("xz".to_owned()))]
    #[case::not_text(map(&[("kafka-backup.job", b"\xFF")]), 22, Problem::HeaderNotText("job".to_owned()))]
    fn refused(#[case] data: Vec<u8>, #[case] position: u64, #[case] problem: Problem) {
        assert_eq!(read_header(&data), Err(DecodeError { position, record: None, problem }));
    }

    #[test]
    fn other_writers() {
        let codec_default = map(&[("avro.schema", b"x"), ("other", b"\xFF\xFE")]);
        let header = read_header(&codec_default).expect("header").expect("whole");
        assert_eq!((header.codec, header.schema_json.as_str()), (Compression::Null, "x"));
        // A map in parts, one of them with its size in bytes.
        let mut parts = MAGIC.to_vec();
        put_long(&mut parts, -1);
        put_long(&mut parts, 14);
        put_bytes(&mut parts, b"avro.schema");
        put_bytes(&mut parts, b"y");
        put_long(&mut parts, 1);
        put_bytes(&mut parts, b"avro.codec");
        put_bytes(&mut parts, b"snappy");
        parts.push(0);
        parts.extend_from_slice(&[7; SYNC_BYTES]);
        let header = read_header(&parts).expect("header").expect("whole");
        assert_eq!((header.codec, header.schema_json.as_str(), header.len), (Compression::Snappy, "y", parts.len()));
    }

    #[test]
    fn a_header_without_end() {
        let mut data = MAGIC.to_vec();
        put_long(&mut data, 1);
        put_long(&mut data, 2 * MAX_HEADER_BYTES as i64);
        data.resize(MAX_HEADER_BYTES - 1, b'x');
        assert_eq!(read_header(&data), Ok(None));
        data.resize(2 * MAX_HEADER_BYTES, b'x');
        assert_eq!(read_header(&data).map_err(|e| e.problem), Err(Problem::HeaderTooLong));
    }

    proptest! {
        #[test]
        fn comes_back(
            sync: [u8; SYNC_BYTES], metadata: Metadata, codec in 0..4usize, behind: Vec<u8>, cut: prop::sample::Index
        ) {
            let codec = [Codec::Zstandard(1), Codec::Snappy, Codec::Deflate(1), Codec::Null][codec];
            let mut data = write_header(codec, &sync, &metadata);
            let len = data.len();
            prop_assert_eq!(&data, &write_header(codec, &sync, &metadata));
            prop_assert_eq!(read_header(&data[..cut.index(len)]), Ok(None));
            data.extend(behind);
            let header = Header { schema_json: SCHEMA.to_owned(), codec: codec.into(), sync, metadata, len };
            prop_assert_eq!(read_header(&data), Ok(Some(header)));
        }

        #[test]
        fn any_bytes_end(mut data: Vec<u8>, magic: bool) {
            if magic {
                data.splice(..0, MAGIC);
            }
            let _ = read_header(&data);
        }
    }
}
