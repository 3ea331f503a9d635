//! The bucket: a small contract, and the stores that keep it.
//!
//! Keys are relative to the store's own prefix and contain no leading slash. Every call is one attempt: who calls
//! decides whether and how long to try again, with [`StoreError::kind`] in hand. (Two things are no new attempt and
//! happen inside: a refused request is repeated once with credentials loaded anew, and a read once on a new connection
//! when the old one turned out dead.) A create or put that fails with [`Kind::Timeout`] or [`Kind::Unavailable`] may
//! have taken effect: HEAD tells.
//!
//! "Absent" is only ever concluded from the server's own word (`Ok(None)`), never from an error.

mod buffer;
pub mod check;
pub mod fault;
pub mod file;
pub mod payload;
pub mod retry;
pub mod s3;
pub mod stores;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::runtime::Handle;

use crate::config::{Place, StorageConfig};
use crate::error::{Error, Exit};

pub use crate::model::object::Metadata;

/// Opens the store of a configuration. No request is made yet: an unreachable server or missing credentials show with
/// the first call. All work is done on `runtime`, which must be multi-threaded and outlive the store.
pub fn open(config: &StorageConfig, runtime: Handle) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match &config.place {
        Place::S3 { .. } => Arc::new(s3::S3Store::open(config, runtime)?),
        Place::File { path, prefix } => Arc::new(file::FileStore::open(path, prefix, runtime)?),
    })
}

/// The same for commands that only read: a folder that is not there is an error, and is not made.
pub fn open_existing(config: &StorageConfig, runtime: Handle) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match &config.place {
        Place::S3 { .. } => Arc::new(s3::S3Store::open(config, runtime)?),
        Place::File { path, prefix } => Arc::new(file::FileStore::open_existing(path, prefix, runtime)?),
    })
}

/// What a store can do. Implementations are cheap to share (`Arc`) and may be called from any runtime.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Names the place, for people and as part of keys of local state: `s3://bucket/prefix`, `file:///path`.
    fn url(&self) -> &str;

    /// Creates `key` if and only if nothing is there (`If-None-Match: *`). Never replaces. The store checks that the
    /// bytes arrived as sent before it answers [`Create::Created`].
    async fn create(&self, key: &str, body: &Body, metadata: &Metadata) -> Result<Create, StoreError>;

    /// Writes `key` whatever is there. Only for bookkeeping under `_kafka_backup/` that is meant to be replaced.
    async fn put(&self, key: &str, body: &Body, metadata: &Metadata) -> Result<(), StoreError>;

    /// Size, etag and metadata; `None` when the server says that there is no such object.
    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError>;

    /// The whole object; for small ones (records, not data).
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError>;

    /// A part of the object, shorter than asked where the object ends. With `etag` the object must still be that one
    /// ([`Kind::Changed`] otherwise). A missing object is [`Kind::NotFound`].
    async fn get_range(&self, key: &str, range: Range<u64>, etag: Option<&str>) -> Result<Bytes, StoreError>;

    /// The first `limit` (1 to 1000) keys that begin with `prefix` and sort after `start_after`, in lexical order of
    /// their bytes. Fewer only where there are no more; [`Page::more`] says whether there are.
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Page, StoreError>;

    /// Names of the folders directly under `prefix` (which is empty or ends in a slash), each with its final slash and
    /// with the prefix, all of them, in lexical order.
    async fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError>;

    /// Removes `key` (with versioning: hides it); removing what is not there is no error. One attempt, never repeated inside.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// The rules by which the store itself removes old objects; `None` where a store has no such thing, and who uses it
    /// removes them.
    fn lifecycle(&self) -> Option<&dyn Lifecycle> {
        None
    }
}

/// The lifecycle rules of a bucket, which all of its users share: one document, replaced as a whole and without a
/// condition, so that of two who change it at once one is overwritten. Every call is one attempt.
#[async_trait]
pub trait Lifecycle: Send + Sync {
    /// What the store's keys begin with in the bucket: empty, or with a slash at its end.
    fn prefix(&self) -> &str;

    /// The document as the server gives it; `None` when it says that there is none.
    async fn document(&self) -> Result<Option<String>, StoreError>;

    /// Replaces the document.
    async fn put_document(&self, document: &str) -> Result<(), StoreError>;

    /// Removes the document: a server takes none without rules.
    async fn delete_document(&self) -> Result<(), StoreError>;

    /// Whether objects that are removed stay as noncurrent versions.
    async fn versioned(&self) -> Result<bool, StoreError>;
}

/// What came of a create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Create {
    /// It is there now and it is ours.
    Created,
    /// Something was there before; nothing changed.
    Exists,
}

/// Facts of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Bytes.
    pub size: u64,
    /// The entity tag, without quotes.
    pub etag: String,
    /// Free metadata, names in lower case without prefix. The file store reads that of `.avro` objects from the Avro
    /// header and has none for others.
    pub metadata: Metadata,
    /// When it was written, in milliseconds since 1970-01-01 UTC, by the store's clock.
    pub modified_ms: i64,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key, relative to the store's prefix.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// The entity tag, without quotes; empty where a listing does not tell.
    pub etag: String,
    /// When it was written, in milliseconds since 1970-01-01 UTC.
    pub modified_ms: i64,
}

/// A part of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In lexical order of their keys.
    pub entries: Vec<Entry>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// Bytes to store: pieces in memory and on disk, sent one after another without being joined.
#[derive(Debug, Clone, Default)]
pub struct Body {
    pieces: Vec<Piece>,
    len: u64,
}

/// A piece of a [`Body`].
#[derive(Debug, Clone)]
pub enum Piece {
    /// In memory.
    Memory(Bytes),
    /// A range of a file, read when it is sent.
    File {
        /// Which file.
        path: Arc<PathBuf>,
        /// Which bytes of it.
        range: Range<u64>,
    },
}

impl Body {
    /// An empty body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a piece; empty ones are left out.
    pub fn push(&mut self, piece: Piece) {
        let len = piece.len();
        if len > 0 {
            self.len += len;
            self.pieces.push(piece);
        }
    }

    /// Total bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
}

impl Piece {
    /// Bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { range, .. } => range.end - range.start,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<B: Into<Bytes>> From<B> for Body {
    fn from(bytes: B) -> Self {
        let mut body = Self::new();
        body.push(Piece::Memory(bytes.into()));
        body
    }
}

/// Why a call to a store failed, as far as what to do next depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Credentials are missing, wrong or expired, or the permission is not there.
    Auth,
    /// No answer in time.
    Timeout,
    /// Asked to slow down.
    Throttle,
    /// Not reachable, connection lost, or the server's own fault (5xx).
    Unavailable,
    /// Another request for the same key is under way (409): ask again.
    Conflict,
    /// The object is not there (where it must be).
    NotFound,
    /// The bucket or the root folder is not there.
    NoBucket,
    /// The object is not the one that was asked for (etag).
    Changed,
    /// Our clock and the server's are too far apart.
    ClockSkew,
    /// The disk is full (file store, or a spool piece of a body).
    Disk,
    /// Anything else: asking again will not help by itself.
    Other,
}

impl Kind {
    /// The value of the label `kind` in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Timeout => "timeout",
            Self::Throttle => "throttle",
            Self::Disk => "disk",
            _ => "other",
        }
    }
}

/// A failed call to a store.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} {url}{slash}{key}: {message}", slash = if .url.ends_with('/') { "" } else { "/" })]
pub struct StoreError {
    /// Which call.
    pub operation: &'static str,
    /// Which store.
    pub url: String,
    /// Which key (or prefix).
    pub key: String,
    /// What kind of failure.
    pub kind: Kind,
    /// What the server or the system said; never a secret.
    pub message: String,
}

impl StoreError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Timeout | Kind::Throttle | Kind::Unavailable | Kind::Conflict | Kind::Disk)
    }
}

/// A failed call as what a command ends with.
impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let (exit, hint) = match error.kind {
            Kind::Auth => (Exit::Auth, "check the credentials and the bucket's policy"),
            Kind::NoBucket => (Exit::Config, "create the bucket, or correct its name"),
            Kind::ClockSkew => (Exit::Failed, "set this machine's clock"),
            Kind::Throttle => (Exit::Busy, "the store asks for fewer requests: try again later"),
            Kind::Timeout | Kind::Unavailable => (Exit::Unavailable, "check the endpoint and the network"),
            _ => return Error::new(Exit::Failed, error.to_string()),
        };
        Error::new(exit, error.to_string()).hint(hint)
    }
}
