//! The one error a command ends with, and the exit codes it maps to.
//!
//! Modules have typed errors of their own ([`crate::storage::StoreError`], [`crate::kafka::KafkaError`], ...). Where a
//! command ends they become an [`Error`]: what happened and where, why, and what to do next.

use std::fmt;

/// Exit codes, the same for every command. A script must treat an unknown code as a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Success, healthy.
    Ok = 0,
    /// Failed, not otherwise classified.
    Failed = 1,
    /// Wrong use of the command line.
    Usage = 2,
    /// Completed, but incomplete or with warnings.
    Incomplete = 3,
    /// A check found a problem: damage, a gap, over the recovery point objective.
    ProblemFound = 4,
    /// Job, backup, topic or restore point not found.
    NotFound = 10,
    /// Another instance or restore owns it.
    Locked = 11,
    /// Authentication or authorisation refused by Kafka or the store.
    Auth = 12,
    /// A peer (broker, store, daemon) cannot be reached; trying again may help.
    Unavailable = 69,
    /// Timed out or busy; try again.
    Busy = 75,
    /// The configuration is invalid.
    Config = 78,
    /// Interrupted by SIGINT.
    Interrupted = 130,
    /// Ended by SIGTERM.
    Terminated = 143,
}

impl Exit {
    const ALL: [Self; 13] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::Incomplete,
        Self::ProblemFound,
        Self::NotFound,
        Self::Locked,
        Self::Auth,
        Self::Unavailable,
        Self::Busy,
        Self::Config,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// The code with this number; an unknown one is a failure.
    pub fn from_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|exit| *exit as u8 == code).unwrap_or(Self::Failed)
    }
}

/// What a command ends with when it does not succeed.
#[derive(Debug)]
pub struct Error {
    /// The code the process exits with.
    pub exit: Exit,
    /// What happened and where: short, lower case, no full stop.
    pub what: String,
    /// What to do next, where we know it.
    pub hint: Option<String>,
    /// The cause.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a cause.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), hint: None, source: None }
    }

    /// The same error with advice on what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

/// The error for a job that is not there.
pub fn no_such_job<'i>(id: &str, ids: impl Iterator<Item = &'i str>) -> Error {
    let hint = match ids.collect::<Vec<_>>().join(", ").as_str() {
        "" => format!("there are no jobs at all; a file is named with its path, for example ./{id}.toml"),
        ids => format!("the jobs are {ids}"),
    };
    Error::new(Exit::NotFound, format!("there is no job {id:?}")).hint(hint)
}

/// What most of the crate's commands return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
