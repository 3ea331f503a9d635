//! The file in which a plan is written down, and the lock that keeps two restores from running the same plan.
//!
//! The file is replaced as a whole, so that a crash leaves the old one or the new one. The lock is held on a file
//! beside it (`PLAN.lock`), which stays: removing it would let two processes lock two files of the same name.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Exit, Result};
use crate::model::restore::saved::{PLAN_FORMAT_VERSION, SavedPlan};

/// A plan file, locked until it is dropped or the process ends, however it does.
#[derive(Debug)]
pub struct PlanFile {
    path: PathBuf,
    _lock: File,
}

impl PlanFile {
    /// Locks a plan file, which need not be there yet.
    ///
    /// # Errors
    /// [`Exit::Locked`] when another process holds it.
    pub fn lock(path: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| {
            Error::new(Exit::Failed, format!("plan {}", path.display()))
                .because(error)
                .hint("name a file that can be written with --plan FILE")
        };
        let folder = folder(path);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        // Plans hold names, not records; still nobody else's business.
        let lock = private(OpenOptions::new().create(true).truncate(false).write(true)).open(name).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(Errno::WOULDBLOCK) => {
                let what = format!("another restore runs the plan {}", path.display());
                Err(Error::new(Exit::Locked, what).hint("wait for it, or stop it"))
            }
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces what is in it, durably.
    pub fn write(&self, plan: &SavedPlan) -> Result<()> {
        let write = || {
            let mut file = tempfile::Builder::new().prefix(".plan-").tempfile_in(folder(&self.path))?;
            let mut text = BufWriter::new(&mut file);
            serde_json::to_writer(&mut text, plan)?;
            text.write_all(b"\n")?;
            text.flush()?;
            drop(text);
            file.as_file().sync_all()?;
            file.persist(&self.path).map_err(|error| error.error)?;
            File::open(folder(&self.path))?.sync_all()
        };
        write().map_err(|error: std::io::Error| {
            Error::new(Exit::Failed, format!("cannot write the plan {}", self.path.display())).because(error)
        })
    }
}

/// What is written in a plan file; `None` when there is none.
pub fn read(path: &Path) -> Result<Option<SavedPlan>> {
    let unusable = |why: String| {
        let what = format!("plan {} cannot be used: {why}", path.display());
        Error::new(Exit::Failed, what)
            .hint("it is needed to go on with its restore; to begin that anew, delete the target topics and this file")
    };
    match std::fs::metadata(path) {
        // A device may have no end.
        Ok(metadata) if !metadata.is_file() => return Err(unusable("it is not a regular file".to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        _ => {}
    }
    let text = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    // Another version may have other fields, so that it is asked for by itself.
    let version = serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
    match version {
        Version { format_version: PLAN_FORMAT_VERSION } => {}
        Version { format_version } => {
            return Err(unusable(format!("version {format_version} is not one this program understands")));
        }
    }
    serde_json::from_slice(&text).map(Some).map_err(|error| unusable(error.to_string()))
}

/// What every version of a plan says.
#[derive(serde::Deserialize)]
struct Version {
    format_version: u32,
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600)
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::model::restore::Plan;

    fn plan() -> SavedPlan {
        SavedPlan {
            format_version: PLAN_FORMAT_VERSION,
            id: "0011223344556677".to_owned(),
            written: "2026-01-01T00:00:00Z".to_owned(),
            finished: None,
            store: "file:///x".to_owned(),
            cluster_id: "c".to_owned(),
            request: Map::new(),
            plan: Plan { topics: Vec::new(), warnings: Vec::new() },
            groups: None,
            groups_done: Default::default(),
        }
    }

    #[test]
    fn one_restore_at_a_time_has_the_plan() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("restores/1.json");
        assert_eq!(read(&path).unwrap(), None);
        let file = PlanFile::lock(&path).unwrap();
        assert_eq!(PlanFile::lock(&path).unwrap_err().exit, Exit::Locked);
        file.write(&plan()).unwrap();
        file.write(&SavedPlan { finished: Some("2026-01-02T00:00:00Z".to_owned()), ..plan() }).unwrap();
        assert_eq!(PlanFile::lock(&path).unwrap_err().exit, Exit::Locked, "a new file is no new lock");
        assert!(read(&path).unwrap().unwrap().finished.is_some());
        drop(file);
        assert!(PlanFile::lock(&path).is_ok());
    }

    #[test]
    fn a_plan_that_cannot_be_understood_is_not_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.json");
        std::fs::write(&path, b"{").unwrap();
        assert_eq!(read(&path).unwrap_err().exit, Exit::Failed);
        std::fs::write(&path, serde_json::to_vec(&SavedPlan { format_version: 9, ..plan() }).unwrap()).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("version 9"));
        std::fs::write(&path, b"{\"format_version\": 9}").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("version 9"), "whatever else it has");
        for what in [folder.path(), Path::new("/dev/zero")] {
            assert!(read(what).unwrap_err().to_string().contains("not a regular file"));
        }
    }
}
