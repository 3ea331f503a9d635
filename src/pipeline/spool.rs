//! Where open objects go when memory is short: files that nobody but this process needs.
//!
//! Crash consistency: a spool file holds the blocks of one object that is still open or not yet acknowledged. Nothing in
//! it is committed, so after a crash the records are read from Kafka again; files left over are deleted at start. Closed
//! objects that the bucket does not take are another matter, see [`super::kept`].

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

/// The spool folder and how much of it is in use.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    max: u64,
    used: AtomicU64,
    complained: Mutex<Option<Instant>>,
}

/// The same complaint is made so often, however many objects there are to spill.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Why something could not be spooled.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// `spool.max`, or half of what was free, is in use.
    #[error("the spool is full ({used} of {max} bytes in use)")]
    Full {
        /// Bytes in use.
        used: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// The disk said no.
    #[error("spool {path}: {source}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Spool {
    /// Opens the folder, deletes what an earlier process left, and takes at most `max` bytes and half of what is free.
    pub fn open(dir: &Path, max: u64) -> std::io::Result<Arc<Self>> {
        std::fs::create_dir_all(dir)?;
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "spool") {
                std::fs::remove_file(path)?;
            }
        }
        let kept = super::stock::take_stock(dir)?;
        let free = rustix::fs::statvfs(dir).map(|s| s.f_bavail.saturating_mul(s.f_frsize))?;
        Ok(Arc::new(Self {
            dir: dir.to_owned(),
            max: max.min(free / 2),
            used: AtomicU64::new(kept),
            complained: Mutex::default(),
        }))
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether one more failure is worth telling: a full spool is back-pressure and comes up many times a second.
    pub fn is_news(&self) -> bool {
        let mut last = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        let news = last.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY);
        if news {
            *last = Some(Instant::now());
        }
        news
    }

    /// The folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Gives back what was reserved.
    pub(super) fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Takes so much of the spool, or nothing.
    fn reserve(&self, bytes: u64) -> Result<(), SpoolError> {
        self.reserve_below(bytes, self.max)
    }

    /// The same, for what must leave half of the spool to open objects.
    pub(super) fn reserve_in_half(&self, bytes: u64) -> Result<(), SpoolError> {
        self.reserve_below(bytes, self.max / 2)
    }

    fn reserve_below(&self, bytes: u64, max: u64) -> Result<(), SpoolError> {
        let reserve = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= max);
        let full = |used| SpoolError::Full { used, max };
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, reserve).map(drop).map_err(full)
    }
}

/// The spooled part of one object; the file goes with it.
#[derive(Debug)]
pub struct SpoolFile {
    spool: Arc<Spool>,
    path: Arc<PathBuf>,
    len: AtomicU64,
}

impl SpoolFile {
    /// A new file, empty.
    pub fn create(spool: &Arc<Spool>, lane: u64, offset: i64) -> Self {
        let path = Arc::new(spool.dir.join(format!("{lane}-{offset}.spool")));
        Self { spool: spool.clone(), path, len: AtomicU64::new(0) }
    }

    /// Appends blocks: all of them, or none that count.
    pub fn append(&self, blocks: &[Bytes]) -> Result<(), SpoolError> {
        let bytes: u64 = blocks.iter().map(|b| b.len() as u64).sum();
        self.spool.reserve(bytes)?;
        let at = self.len.load(Ordering::Acquire);
        let write = || {
            let mut file = File::options().create(true).append(true).open(&*self.path)?;
            // What a failed attempt left behind the last good byte.
            file.set_len(at)?;
            blocks.iter().try_for_each(|block| file.write_all(block))
        };
        match write() {
            Ok(()) => {
                self.len.store(at + bytes, Ordering::Release);
                Ok(())
            }
            Err(source) => {
                self.spool.used.fetch_sub(bytes, Ordering::AcqRel);
                Err(SpoolError::Disk { path: (*self.path).clone(), source })
            }
        }
    }

    /// Its path.
    pub fn path(&self) -> &Arc<PathBuf> {
        &self.path
    }

    /// Its good bytes.
    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Whether nothing was spooled.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        // Also an empty one may be there, from an attempt that failed.
        match std::fs::remove_file(&*self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), error = %error, "spool file cannot be removed");
            }
            _ => {}
        }
        self.spool.used.fetch_sub(self.len(), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_count_and_cleans_up() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("old.spool"), b"x").unwrap();
        let spool = Spool::open(dir.path(), 10).unwrap();
        let file = SpoolFile::create(&spool, 1, 5);
        file.append(&[Bytes::from_static(b"abc"), Bytes::from_static(b"def")]).unwrap();
        assert!(matches!(file.append(&[Bytes::from_static(b"12345")]), Err(SpoolError::Full { .. })));
        assert_eq!(std::fs::read(&**file.path()).unwrap(), b"abcdef");
        drop(file);
        assert_eq!((spool.used(), std::fs::read_dir(dir.path()).unwrap().count()), (0, 0));
    }
}
