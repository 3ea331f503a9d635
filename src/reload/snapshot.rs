//! The files of a configuration as they were at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// The same of what nobody can set: a file that was away for a moment comes back with everything else as it was.
    changed: (i64, i64),
    bytes: u64,
    sha256: [u8; 32],
}

/// The files, by path; `None` where there was none, or none that could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, Option<Stamp>>);

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    // Folders have no content, and pipes and devices may have no end.
    let bytes = if metadata.is_file() { std::fs::read(path).ok()? } else { Vec::new() };
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        bytes: metadata.size(),
        sha256: Sha256::digest(&bytes).into(),
    })
}

impl Snapshot {
    /// These files as they are now.
    pub fn of(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let stamped = |path: PathBuf| (path.clone(), stamp(&path));
        Self(paths.into_iter().map(stamped).collect())
    }

    /// Which files there are.
    pub fn paths(&self) -> BTreeSet<PathBuf> {
        self.0.keys().cloned().collect()
    }

    /// Files that have another content in `now`, and since when as far as they tell, in milliseconds since 1970-01-01 UTC.
    pub fn edited(&self, now: &Self) -> (Vec<PathBuf>, Option<i64>) {
        let all: BTreeSet<&PathBuf> = self.0.keys().chain(now.0.keys()).collect();
        fn content(of: Option<&Option<Stamp>>) -> Option<[u8; 32]> {
            of.and_then(Option::as_ref).map(|stamp| stamp.sha256)
        }
        let differ = all.into_iter().filter(|path| content(self.0.get(*path)) != content(now.0.get(*path)));
        let files: Vec<PathBuf> = differ.cloned().collect();
        let modified = files.iter().filter_map(|file| now.0.get(file)?.as_ref().map(|stamp| stamp.modified));
        let since = modified.map(|(seconds, nanos)| seconds * 1000 + nanos / 1_000_000).max();
        (files, since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let all = || Snapshot::of(["a", "b", "c"].map(file));
        std::fs::write(file("a"), "1").unwrap();
        std::fs::write(file("b"), "1").unwrap();
        let before = all();
        assert_eq!(before.edited(&all()), (vec![], None));
        // Written again with the same content: another file, but not edited.
        std::fs::remove_file(file("a")).unwrap();
        std::fs::write(file("x"), "1").unwrap();
        std::fs::rename(file("x"), file("a")).unwrap();
        assert_ne!(before, all());
        assert_eq!(before.edited(&all()).0, Vec::<PathBuf>::new());
        std::fs::write(file("b"), "2").unwrap();
        std::fs::write(file("c"), "new").unwrap();
        let (files, since) = before.edited(&all());
        assert_eq!(files, [file("b"), file("c")]);
        assert!(since.is_some());
        std::fs::remove_file(file("a")).unwrap();
        assert_eq!(before.edited(&all()).0.len(), 3);
    }
}
