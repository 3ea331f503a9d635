//! A folder with the same layout and the same create-once rule as a bucket.
//!
//! An object is written to a temporary file in its own folder, flushed to disk, and given its final name by a hard
//! link, which fails if the name is taken. Names of temporary files begin with `.~`, which no topic can.
//!
//! Crash consistency: a create that was answered is on disk, with every folder above it; "exists" too, because it may
//! be the answer to a second attempt whose first one got as far as the link. A crash in the middle leaves
//! a temporary file, which no listing shows and which a later open removes once it is a day old.

mod listing;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use super::buffer::Buffer;
use super::{Body, Create, Head, Kind, Metadata, Page, Store, StoreError, payload};
use crate::model::avro::{MAX_HEADER_BYTES, read_header};
use crate::model::hex::hex;

/// How the names of temporary files begin.
const TEMPORARY: &str = ".~";

/// A temporary file older than this belongs to nobody any more.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// How much of an Avro file is read for its header: nearly always the first is enough.
const HEADER_BYTES: [u64; 2] = [16 * 1024, MAX_HEADER_BYTES as u64];

/// A folder.
pub struct FileStore {
    url: String,
    folder: Folder,
    runtime: Handle,
}

impl FileStore {
    /// A store in `path/prefix`, which is created if need be. Files are read and written on blocking threads of
    /// `runtime`.
    pub fn open(path: &Path, prefix: &str, runtime: Handle) -> Result<Self, StoreError> {
        let (url, folder) = Self::place(path, prefix);
        folder.make(&folder.root).map_err(|e| error("open", &url, "", e.into()))?;
        let cleaner = folder.clone();
        runtime.spawn_blocking(move || cleaner.remove_abandoned(&cleaner.root, SystemTime::now()));
        Ok(Self { url, folder, runtime })
    }

    /// The same for readers: nothing is created, nothing tidied up, and a folder that is not there is an error, not an
    /// empty store.
    pub fn open_existing(path: &Path, prefix: &str, runtime: Handle) -> Result<Self, StoreError> {
        let (url, folder) = Self::place(path, prefix);
        folder.check_root().map_err(|e| error("open", &url, "", folder.explain(e)))?;
        Ok(Self { url, folder, runtime })
    }

    fn place(path: &Path, prefix: &str) -> (String, Folder) {
        let root = if prefix.is_empty() { path.to_owned() } else { path.join(prefix) };
        (format!("file://{}", root.display()), Folder { root, flushed: Arc::default() })
    }

    async fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce(&Folder) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, StoreError> {
        let folder = self.folder.clone();
        let result = self.runtime.spawn_blocking(move || work(&folder).map_err(|e| folder.explain(e))).await;
        let ended = |e| Err(Failed { kind: Kind::Other, message: format!("the call's thread ended early: {e}") });
        result.unwrap_or_else(ended).map_err(|failed| error(operation, &self.url, key, failed))
    }
}

fn error(operation: &'static str, url: &str, key: &str, failed: Failed) -> StoreError {
    let Failed { kind, message } = failed;
    StoreError { operation, url: url.to_owned(), key: key.to_owned(), kind, message }
}

/// A call that failed, before it is known to whom to tell it.
#[derive(Debug)]
struct Failed {
    kind: Kind,
    message: String,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Disk,
            io::ErrorKind::PermissionDenied => Kind::Auth,
            io::ErrorKind::TimedOut | io::ErrorKind::StaleNetworkFileHandle => Kind::Unavailable,
            _ => Kind::Other,
        };
        Self { kind, message: error.to_string() }
    }
}

#[async_trait]
impl Store for FileStore {
    fn url(&self) -> &str {
        &self.url
    }

    async fn create(&self, key: &str, body: &Body, metadata: &Metadata) -> Result<Create, StoreError> {
        let (name, body, sha256) = (key.to_owned(), body.clone(), metadata.get(payload::SHA256_KEY).cloned());
        self.call("create", key, move |folder| folder.create(&name, &body, sha256.as_deref())).await
    }

    async fn put(&self, key: &str, body: &Body, metadata: &Metadata) -> Result<(), StoreError> {
        let (name, body, sha256) = (key.to_owned(), body.clone(), metadata.get(payload::SHA256_KEY).cloned());
        self.call("put", key, move |folder| folder.put(&name, &body, sha256.as_deref())).await
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        let name = key.to_owned();
        self.call("head", key, move |folder| present(folder.head(&name))).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let name = key.to_owned();
        self.call("get", key, move |folder| present(folder.get(&name))).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>, etag: Option<&str>) -> Result<Bytes, StoreError> {
        let (name, etag) = (key.to_owned(), etag.map(str::to_owned));
        self.call("get", key, move |folder| folder.get_range(&name, range, etag.as_deref())).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let (from, after) = (prefix.to_owned(), start_after.unwrap_or_default().to_owned());
        self.call("list", prefix, move |folder| folder.list(&from, &after, limit.clamp(1, 1000))).await
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let from = prefix.to_owned();
        self.call("list", prefix, move |folder| folder.folders(&from)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let name = key.to_owned();
        self.call("delete", key, move |folder| folder.delete(&name)).await
    }
}

/// `None` for what is not there.
fn present<T>(result: Result<T, Failed>) -> Result<Option<T>, Failed> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(failed) if failed.kind == Kind::NotFound => Ok(None),
        Err(failed) => Err(failed),
    }
}

/// The same calls, blocking.
#[derive(Clone)]
struct Folder {
    root: PathBuf,
    /// Folders that are known to be on disk.
    flushed: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Folder {
    /// A missing root is another failure than a missing object.
    fn explain(&self, failed: Failed) -> Failed {
        if failed.kind == Kind::NotFound && !self.root.is_dir() {
            return Failed { kind: Kind::NoBucket, message: "the folder is not there".to_owned() };
        }
        failed
    }

    /// The root must be there for an answer that something is not: an unmounted disk holds no objects either.
    fn check_root(&self) -> Result<(), Failed> {
        fs::metadata(&self.root)?;
        Ok(())
    }

    fn path(&self, key: &str) -> Result<PathBuf, Failed> {
        let bad = |part: &str| matches!(part, "" | "." | "..") || part.starts_with(TEMPORARY) || part.contains('\0');
        if key.split('/').any(bad) {
            return Err(Failed { kind: Kind::Other, message: "the key cannot be a file name".to_owned() });
        }
        self.check_root()?;
        Ok(self.root.join(key))
    }

    /// Makes a folder and those above it, and flushes each into the one that holds it. That is also done once for
    /// folders found: another writer may have made one and not have flushed it yet.
    fn make(&self, path: &Path) -> io::Result<()> {
        let found = path.is_dir();
        if found && self.flushed().contains(path) {
            return Ok(());
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // What was above the root before us is not ours to flush, nor perhaps to read.
        if !found || (path != self.root && path.starts_with(&self.root)) {
            if parent != path {
                self.make(parent)?;
            }
            match fs::create_dir(path) {
                Err(e) if !(e.kind() == io::ErrorKind::AlreadyExists && path.is_dir()) => return Err(e),
                _ => sync_folder(parent)?,
            }
        }
        self.flushed().insert(path.to_owned());
        Ok(())
    }

    fn flushed(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.flushed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn create(&self, key: &str, body: &Body, sha256: Option<&str>) -> Result<Create, Failed> {
        let path = self.path(key)?;
        let folder = path.parent().unwrap_or(&self.root);
        // Looking first spares the writing; the link decides.
        let create = match fs::symlink_metadata(&path).is_ok() {
            true => Create::Exists,
            false => self.link(folder, &path, body, sha256)?,
        };
        self.make(folder)?;
        sync_folder(folder)?;
        Ok(create)
    }

    /// Gives a body its name, if nothing has it.
    fn link(&self, folder: &Path, path: &Path, body: &Body, sha256: Option<&str>) -> Result<Create, Failed> {
        let temporary = self.write_temporary(folder, body, sha256)?;
        match fs::hard_link(temporary.path(), path) {
            Ok(()) => Ok(Create::Created),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(Create::Exists),
            Err(e) => {
                let failed = Failed::from(e);
                let message = format!("{} (hard links are needed to create once)", failed.message);
                Err(Failed { message, ..failed })
            }
        }
    }

    fn put(&self, key: &str, body: &Body, sha256: Option<&str>) -> Result<(), Failed> {
        let path = self.path(key)?;
        let folder = path.parent().unwrap_or(&self.root);
        let temporary = self.write_temporary(folder, body, sha256)?;
        temporary.persist(&path).map_err(|e| e.error)?;
        Ok(sync_folder(folder)?)
    }

    /// Writes a body to a temporary file in `folder` and flushes it to disk. With a hash, the bytes must have it.
    fn write_temporary(
        &self,
        folder: &Path,
        body: &Body,
        sha256: Option<&str>,
    ) -> Result<tempfile::NamedTempFile, Failed> {
        self.make(folder)?;
        let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder)?;
        let mut hash = Sha256::new();
        for chunk in payload::chunks(body) {
            let unreadable = |e| Failed { kind: Kind::Other, message: format!("the bytes cannot be read: {e}") };
            let bytes = chunk.read().map_err(unreadable)?;
            if sha256.is_some() {
                hash.update(&bytes);
            }
            file.write_all(&bytes)?;
        }
        if sha256.is_some_and(|expected| expected != hex(&hash.finalize())) {
            let message = "the bytes do not have the hash that the metadata says".to_owned();
            return Err(Failed { kind: Kind::Other, message });
        }
        let readable = fs::Permissions::from_mode(0o644);
        file.as_file().set_permissions(readable)?;
        file.as_file().sync_all()?;
        Ok(file)
    }

    fn head(&self, key: &str) -> Result<Head, Failed> {
        let file = open(&self.path(key)?)?;
        let facts = file.metadata()?;
        let mut metadata = None;
        for limit in HEADER_BYTES.into_iter().filter(|_| key.ends_with(".avro")) {
            let mut start = vec![0; limit.min(facts.len()) as usize];
            file.read_exact_at(&mut start, 0)?;
            metadata = read_header(&start).ok().flatten().map(|header| header.metadata);
            if metadata.is_some() || limit >= facts.len() {
                break;
            }
        }
        let metadata = metadata.unwrap_or_default();
        Ok(Head { size: facts.len(), etag: etag(&facts), metadata, modified_ms: modified_ms(&facts) })
    }

    fn get(&self, key: &str) -> Result<Bytes, Failed> {
        let mut bytes = Vec::new();
        open(&self.path(key)?)?.read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    fn get_range(&self, key: &str, range: Range<u64>, expected: Option<&str>) -> Result<Bytes, Failed> {
        let file = open(&self.path(key)?)?;
        let facts = file.metadata()?;
        let found = etag(&facts);
        if expected.is_some_and(|expected| expected != found) {
            let message = format!("the object changed: etag {found}, expected {}", expected.unwrap_or_default());
            return Err(Failed { kind: Kind::Changed, message });
        }
        let len = range.end.min(facts.len()).saturating_sub(range.start);
        let mut bytes = Buffer::zeroed(len as usize);
        file.read_exact_at(bytes.as_mut_slice(), range.start)?;
        Ok(bytes.freeze())
    }

    fn delete(&self, key: &str) -> Result<(), Failed> {
        let path = self.path(key)?;
        match fs::remove_file(&path).map_err(missing) {
            Ok(()) => Ok(sync_folder(path.parent().unwrap_or(&self.root))?),
            Err(failed) if failed.kind == Kind::NotFound => Ok(()),
            Err(failed) => Err(failed),
        }
    }

    /// Removes temporary files that nobody writes any more; what cannot be removed stays for the next time.
    fn remove_abandoned(&self, folder: &Path, now: SystemTime) {
        let Ok(listing) = fs::read_dir(folder) else { return };
        for item in listing.flatten() {
            let Ok(kind) = item.file_type() else { continue };
            if kind.is_dir() {
                self.remove_abandoned(&item.path(), now);
            } else if item.file_name().to_string_lossy().starts_with(TEMPORARY) {
                let age = item.metadata().and_then(|facts| facts.modified()).map(|at| now.duration_since(at));
                if matches!(age, Ok(Ok(age)) if age > ABANDONED) && fs::remove_file(item.path()).is_ok() {
                    tracing::info!(path = %item.path().display(), "abandoned temporary file removed");
                }
            }
        }
    }
}

/// Opens a file that is an object; a folder is none.
fn open(path: &Path) -> Result<File, Failed> {
    let file = File::open(path).map_err(missing)?;
    if file.metadata()?.is_dir() {
        return Err(missing(io::ErrorKind::IsADirectory.into()));
    }
    Ok(file)
}

/// An object is missing, too, where its name is a folder's, or leads through a file.
fn missing(error: io::Error) -> Failed {
    match error.kind() {
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
            Failed { kind: Kind::NotFound, message: error.to_string() }
        }
        _ => error.into(),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn modified_ms(facts: &fs::Metadata) -> i64 {
    facts.mtime().saturating_mul(1000).saturating_add(facts.mtime_nsec() / 1_000_000)
}

fn etag(facts: &fs::Metadata) -> String {
    let modified = i128::from(facts.mtime()) * 1_000_000_000 + i128::from(facts.mtime_nsec());
    format!("{modified}-{}", facts.len())
}

#[cfg(test)]
mod tests;
