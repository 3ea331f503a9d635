//! Whether a file is still the one that was read.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What changes when a file is written or replaced: device, inode, size, and times of content and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp([i64; 7]);

impl FileStamp {
    /// The stamp of the file at `path`; `None` where there is none to be seen.
    pub fn of(path: &Path) -> Option<Self> {
        let m = std::fs::metadata(path).ok()?;
        let (device, inode, size) = (m.dev() as i64, m.ino() as i64, m.size() as i64);
        Some(Self([device, inode, size, m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()]))
    }
}
