//! What `demo` says and shows.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use crate::error::{Error, Exit, Result};

/// One line for whoever looks on.
pub(super) fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").map_err(|e| Error::new(Exit::Failed, "stdout").because(e))
}

/// All objects with their sizes, in order.
pub(super) fn objects(root: &Path) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    let failed = |e| Error::new(Exit::Failed, format!("folder {}", root.display())).because(e);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let facts = entry.metadata().map_err(failed)?;
            if facts.is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path();
                let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                found.insert(name, facts.len());
            }
        }
    }
    Ok(found)
}
