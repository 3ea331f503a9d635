//! What an earlier process kept in the spool.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

/// What the name of a kept object ends in.
pub(super) const EXTENSION: &str = "closed";
/// While it is written.
pub(super) const UNFINISHED: &str = "part";
/// The partition went to another process long ago, or its generation is over.
const FORGOTTEN: Duration = Duration::from_secs(7 * 86_400);

/// Counts what an earlier process kept in `dir`, and removes what nobody wants any more.
pub(super) fn take_stock(dir: &Path) -> io::Result<u64> {
    let (mut bytes, mut files) = (0, 0);
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if extension == UNFINISHED {
            fs::remove_file(&path)?;
        } else if extension == EXTENSION {
            let facts = fs::metadata(&path)?;
            if facts.modified()?.elapsed().is_ok_and(|age| age > FORGOTTEN) {
                tracing::warn!(path = %path.display(), "nobody has asked for this object for a week; it is removed");
                fs::remove_file(&path)?;
            } else {
                (bytes, files) = (bytes + facts.len(), files + 1);
            }
        }
    }
    if files > 0 {
        tracing::info!(files, bytes, "objects that the bucket did not take wait on disk for their partitions");
    }
    Ok(bytes)
}
