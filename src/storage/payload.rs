//! A [`Body`] cut into chunks that are read one at a time, for sending, writing and hashing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Body, Piece};
use crate::model::hex::hex;

/// The most bytes of one chunk: large enough that a chunk costs nothing beside its bytes, small enough that what a
/// request holds of a spool file, and what TLS buffers of it, stays small.
const CHUNK: u64 = 256 * 1024;

/// The metadata key under which a caller that has hashed the whole body says so (SHA-256, hex).
pub const SHA256_KEY: &str = "sha256";

/// A chunk of a body: bytes at hand, or where to read them.
pub enum Chunk {
    /// In memory, shared with the body.
    Memory(Bytes),
    /// In a file.
    File {
        /// Which file.
        path: Arc<PathBuf>,
        /// Where in it.
        at: u64,
        /// How many bytes.
        len: usize,
    },
}

impl Chunk {
    /// The bytes. A file chunk is read here, and blocks. Opening the file anew for each chunk keeps this free of state
    /// and costs microseconds; a file that vanished or shrank is an error, so nothing short is ever sent as whole.
    pub fn read(self) -> io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => Ok(bytes),
            Self::File { path, at, len } => {
                let read = || {
                    let mut buffer = vec![0; len];
                    File::open(path.as_path())?.read_exact_at(&mut buffer, at)?;
                    Ok(Bytes::from(buffer))
                };
                read().map_err(|e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
            }
        }
    }
}

/// The chunks of a body in order; memory pieces are sliced, not copied.
pub fn chunks(body: &Body) -> impl Iterator<Item = Chunk> + Send + use<> {
    body.pieces().to_vec().into_iter().flat_map(|piece| {
        let len = piece.len();
        (0..len.div_ceil(CHUNK)).map(move |n| {
            let (from, until) = (n * CHUNK, len.min((n + 1) * CHUNK));
            match &piece {
                Piece::Memory(bytes) => Chunk::Memory(bytes.slice(from as usize..until as usize)),
                Piece::File { path, range } => {
                    Chunk::File { path: path.clone(), at: range.start + from, len: (until - from) as usize }
                }
            }
        })
    })
}

/// SHA-256 of the whole body in hex. Reads all of it, and blocks.
pub fn sha256(body: &Body) -> io::Result<String> {
    let mut hash = Sha256::new();
    for chunk in chunks(body) {
        hash.update(chunk.read()?);
    }
    Ok(hex(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn joined(body: &Body) -> io::Result<Vec<u8>> {
        chunks(body).try_fold(Vec::new(), |mut all, chunk| {
            all.extend_from_slice(&chunk.read()?);
            Ok(all)
        })
    }

    #[test]
    fn chunks_are_the_body_in_order() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..600_000_u32).map(|n| n as u8).collect();
        file.write_all(&content).unwrap();
        let mut body = Body::from(vec![7; 300_000]);
        body.push(Piece::File { path: Arc::new(file.path().to_owned()), range: 5..550_000 });
        body.push(Piece::Memory(Bytes::new()));
        body.push(Piece::Memory(Bytes::from_static(b"end")));
        let expected = [&vec![7; 300_000][..], &content[5..550_000], b"end"].concat();
        assert_eq!(chunks(&body).count(), 2 + 3 + 1);
        assert_eq!(joined(&body).unwrap(), expected);
        assert_eq!(sha256(&body).unwrap(), hex(&Sha256::digest(&expected)));
    }

    #[test]
    fn empty_body_has_no_chunks_and_the_hash_of_nothing() {
        assert_eq!(chunks(&Body::new()).count(), 0);
        let hash = sha256(&Body::new()).unwrap();
        assert_eq!(hash, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn a_file_that_shrank_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"short").unwrap();
        let mut body = Body::new();
        body.push(Piece::File { path: Arc::new(file.path().to_owned()), range: 0..6 });
        assert_eq!(joined(&body).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
