//! Listing a folder the way a bucket is listed.

use std::{fs, io};

use super::{Failed, Folder, TEMPORARY, etag, modified_ms};
use crate::storage::{Entry, Page};

impl Folder {
    pub(super) fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Page, Failed> {
        self.check_root()?;
        let mut walk = Walk { folder: self, prefix, after, limit: limit + 1, entries: Vec::new() };
        walk.visit(folder_of(prefix))?;
        let mut entries = walk.entries;
        let more = entries.len() > limit;
        entries.truncate(limit);
        Ok(Page { entries, more })
    }

    pub(super) fn folders(&self, prefix: &str) -> Result<Vec<String>, Failed> {
        self.check_root()?;
        let mut folders: Vec<String> = self.names(prefix)?.into_iter().filter(|key| key.ends_with('/')).collect();
        folders.sort_unstable();
        // In a bucket a folder is there when something is in it.
        let mut kept = Vec::new();
        for folder in folders {
            if !self.list(&folder, "", 1)?.entries.is_empty() {
                kept.push(folder);
            }
        }
        Ok(kept)
    }

    /// Keys of the files, and of the folders with a slash at their end, directly under `folder` (empty, or with its
    /// final slash); nothing if it is not there.
    fn names(&self, folder: &str) -> Result<Vec<String>, Failed> {
        // No key has such a part, and as a path it would lead out of the root.
        if folder.split_terminator('/').any(|part| matches!(part, "" | "." | "..")) {
            return Ok(vec![]);
        }
        let listing = match fs::read_dir(self.root.join(folder)) {
            Ok(listing) => listing,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(vec![]),
            Err(e) => return Err(e.into()),
        };
        let mut keys = Vec::new();
        for item in listing {
            let item = item?;
            let name = item.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with(TEMPORARY)) else { continue };
            match item.file_type()? {
                kind if kind.is_dir() => keys.push(format!("{folder}{name}/")),
                kind if kind.is_file() => keys.push(format!("{folder}{name}")),
                _ => {}
            }
        }
        Ok(keys)
    }
}

/// Collects keys in the order of a bucket's listing: the order of whole keys as bytes. A folder's keys all begin with
/// its name and a slash, so siblings sort as a bucket's keys do when folders are compared with that slash.
struct Walk<'a> {
    folder: &'a Folder,
    prefix: &'a str,
    after: &'a str,
    limit: usize,
    entries: Vec<Entry>,
}

impl Walk<'_> {
    fn visit(&mut self, folder: &str) -> Result<(), Failed> {
        let mut keys = self.folder.names(folder)?;
        keys.retain(|key| self.may_hold(key));
        keys.sort_unstable();
        for key in keys {
            if self.entries.len() == self.limit {
                break;
            }
            if key.ends_with('/') {
                self.visit(&key)?;
                continue;
            }
            match fs::metadata(self.folder.root.join(&key)) {
                Ok(facts) => self.entries.push(Entry {
                    key,
                    size: facts.len(),
                    etag: etag(&facts),
                    modified_ms: modified_ms(&facts),
                }),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {} // deleted since
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Whether `key` is wanted, or a folder that may hold wanted keys.
    fn may_hold(&self, key: &str) -> bool {
        if key.ends_with('/') {
            let related = key.starts_with(self.prefix) || self.prefix.starts_with(key);
            return related && (key > self.after || self.after.starts_with(key));
        }
        key.starts_with(self.prefix) && key > self.after
    }
}

/// The folder part of a prefix, with its final slash; empty for the root.
fn folder_of(prefix: &str) -> &str {
    prefix.rfind('/').map_or("", |slash| &prefix[..=slash])
}
