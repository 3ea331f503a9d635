//! Which jobs are paused, kept in `STATE_DIR/paused.json`: a pause outlives the process. Not in the database beside it,
//! which is a cache that may be begun anew.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock::now_ms;
use crate::error::{Error, Exit, Result};
use crate::pipeline::status::Paused;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    format_version: u32,
    jobs: BTreeMap<String, Paused>,
}

const VERSION: u32 = 1;

/// Paused jobs, in memory as on disk.
#[derive(Debug)]
pub struct Pauses {
    path: PathBuf,
    jobs: BTreeMap<String, Paused>,
}

impl Pauses {
    /// Reads them. A file that is not understood is moved aside, and said: its jobs run then.
    ///
    /// # Errors
    /// The file cannot be read at all: nobody knows what is paused, and a job somebody has paused must not run.
    pub fn open(state_dir: &Path) -> Result<Self> {
        let path = state_dir.join("paused.json");
        let failed = |e: std::io::Error| {
            let hint = "it says which jobs are paused; make it readable for this user";
            Error::new(Exit::Failed, format!("cannot read {}", path.display())).because(e).hint(hint)
        };
        let jobs = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(failed(error)),
            Ok(bytes) => match serde_json::from_slice::<Document>(&bytes) {
                Ok(document) if document.format_version == VERSION => document.jobs,
                damaged => {
                    let aside = path.with_file_name(format!("paused.json.corrupt-{}", now_ms() / 1000));
                    std::fs::rename(&path, &aside).map_err(failed)?;
                    let why = damaged.map_or_else(|e| e.to_string(), |d| format!("format {}", d.format_version));
                    tracing::error!(moved_to = %aside.display(), why, "paused.json is damaged; its jobs run");
                    BTreeMap::new()
                }
            },
        };
        Ok(Self { path, jobs })
    }

    /// Whether and why `job` is paused.
    pub fn get(&self, job: &str) -> Option<&Paused> {
        self.jobs.get(job)
    }

    /// Notes that `job` is paused, or not any more, and makes that durable.
    ///
    /// # Errors
    /// The file cannot be written; nothing has changed then.
    pub fn set(&mut self, job: &str, paused: Option<Paused>) -> Result<()> {
        let mut jobs = self.jobs.clone();
        match paused {
            Some(paused) => jobs.insert(job.to_owned(), paused),
            None => jobs.remove(job),
        };
        if jobs != self.jobs {
            self.write(&jobs).map_err(|e| {
                let hint = "is the disk full? without it a pause would end with the process";
                Error::new(Exit::Failed, format!("cannot write {}", self.path.display())).because(e).hint(hint)
            })?;
            self.jobs = jobs;
        }
        Ok(())
    }

    fn write(&self, jobs: &BTreeMap<String, Paused>) -> std::io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        let document = Document { format_version: VERSION, jobs: jobs.clone() };
        file.write_all(serde_json::to_string_pretty(&document)?.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        std::fs::File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paused() -> Paused {
        Paused { since_ms: 5, reason: Some("broker move".to_owned()), by_file: false, until_ms: Some(7) }
    }

    #[test]
    fn a_pause_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut pauses = Pauses::open(dir.path()).unwrap();
        pauses.set("a", Some(paused())).unwrap();
        pauses.set("b", Some(paused())).unwrap();
        pauses.set("b", None).unwrap();
        let again = Pauses::open(dir.path()).unwrap();
        assert_eq!((again.get("a"), again.get("b")), (Some(&paused()), None));
    }

    #[test]
    fn a_damaged_file_is_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("paused.json"), "{").unwrap();
        let mut pauses = Pauses::open(dir.path()).unwrap();
        assert_eq!(pauses.get("a"), None);
        pauses.set("a", Some(paused())).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_cannot_be_written_has_not_happened() {
        let dir = tempfile::tempdir().unwrap();
        let mut pauses = Pauses::open(dir.path()).unwrap();
        drop(dir);
        assert!(pauses.set("a", Some(paused())).is_err());
        assert_eq!(pauses.get("a"), None);
    }

    #[test]
    fn one_that_an_earlier_version_kept_has_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"format_version":1,"jobs":{"a":{"since_ms":5,"reason":"broker move","by_file":false}}}"#;
        std::fs::write(dir.path().join("paused.json"), text).unwrap();
        let pauses = Pauses::open(dir.path()).unwrap();
        assert_eq!(pauses.get("a"), Some(&Paused { until_ms: None, ..paused() }));
    }

    #[rstest::rstest]
    #[case::for_ever(None, false, false)]
    #[case::not_yet(Some(101), false, false)]
    #[case::now(Some(100), false, true)]
    #[case::long_ago(Some(1), false, true)]
    #[case::the_file_says_so(Some(1), true, false)]
    fn a_pause_ends(#[case] until_ms: Option<i64>, #[case] by_file: bool, #[case] over: bool) {
        assert_eq!(Paused { until_ms, by_file, ..paused() }.is_over(100), over);
    }
}
