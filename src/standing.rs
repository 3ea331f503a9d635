//! How the configuration stands: which generation runs, how the last reload ended, and whether the files have been
//! edited since. Written by the daemon, read by everybody.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::clock::now_ms;

/// The configuration of a process, as it stands.
#[derive(Debug)]
pub struct Standing(Mutex<ConfigStanding>);

/// The same, at one moment; part of the status document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStanding {
    /// The main file.
    pub path: PathBuf,
    /// Where the job files are.
    pub jobs_dir: PathBuf,
    /// Counts what was applied since the start, from 1.
    pub generation: u64,
    /// When it was applied, in milliseconds since 1970-01-01 UTC.
    pub applied_ms: i64,
    /// When it was applied, or last found unchanged.
    pub confirmed_ms: i64,
    /// How the last reload ended; none has been asked for while this is absent.
    pub last_reload: Option<LastReload>,
    /// How the files differ from what runs.
    pub drift: Option<Drift>,
}

/// How a reload ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReload {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
    /// How.
    pub result: ReloadResult,
    /// What was said: the plan, or every error.
    pub text: String,
}

/// In which way a reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReloadResult {
    /// Something changed, and runs now.
    Applied,
    /// Nothing had changed.
    Unchanged,
    /// Something was wrong; what ran goes on running.
    Rejected,
}

impl ReloadResult {
    /// As in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Rejected => "rejected",
        }
    }
}

/// Files that differ from what runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// Which.
    pub files: Vec<PathBuf>,
    /// Since when, as far as the files tell, in milliseconds since 1970-01-01 UTC.
    pub since_ms: i64,
}

impl Standing {
    /// The first configuration, applied now.
    pub fn new(path: &Path, jobs_dir: &Path) -> Self {
        let now = now_ms();
        Self(Mutex::new(ConfigStanding {
            path: path.to_owned(),
            jobs_dir: jobs_dir.to_owned(),
            generation: 1,
            applied_ms: now,
            confirmed_ms: now,
            last_reload: None,
            drift: None,
        }))
    }

    fn inner(&self) -> MutexGuard<'_, ConfigStanding> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was loaded runs now; returns which generation that is. Not a new one where nothing was `changed`.
    pub fn applied(&self, changed: bool, jobs_dir: &Path) -> u64 {
        let mut inner = self.inner();
        let now = now_ms();
        if changed {
            inner.generation += 1;
            inner.applied_ms = now;
            jobs_dir.clone_into(&mut inner.jobs_dir);
        }
        inner.confirmed_ms = now;
        inner.generation
    }

    /// A reload has ended, and this was said.
    pub fn reloaded(&self, result: ReloadResult, text: &str) {
        let text = text.to_owned();
        self.inner().last_reload = Some(LastReload { at_ms: now_ms(), result, text });
    }

    /// The files differ from what runs, or do not. Where they are `watched`, they are loaded without anybody's doing.
    pub fn drifted(&self, drift: Option<Drift>, watched: bool) {
        let mut inner = self.inner();
        if let Some(new) = drift.as_ref().filter(|_| inner.drift.is_none()) {
            let files: Vec<_> = new.files.iter().map(|file| file.display().to_string()).collect();
            let files = files.join(", ");
            if watched {
                tracing::info!(files, "files were edited; they are loaded when they have held still");
            } else {
                tracing::warn!(files, "files were edited and not loaded; kafka-backup reload loads them");
            }
        }
        inner.drift = drift;
    }

    /// How it is now.
    pub fn get(&self) -> ConfigStanding {
        self.inner().clone()
    }
}
