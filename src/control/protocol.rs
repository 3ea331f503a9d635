//! What can be asked of a running daemon, and what it answers: one JSON object a line.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Exit};

/// A request is never longer, in bytes with its newline.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;

/// An answer is never longer, in bytes with its newline: the status of a daemon with many partitions is the largest.
pub const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How everything is: a [`super::document::StatusDocument`].
    Status {
        /// Only this job.
        job: Option<String>,
    },
    /// All metrics, as `/metrics` has them: a text.
    Metrics,
    /// Make durable what a job has read so far: a [`Flushed`].
    Flush {
        /// Which job.
        job: String,
        /// Answer when that is so, not when it has been ordered.
        wait: bool,
    },
    /// Pause a job, over restarts. No value.
    Pause {
        /// Which job.
        job: String,
        /// Why.
        reason: Option<String>,
        /// When it ends by itself, in milliseconds since 1970-01-01 UTC.
        until_ms: Option<i64>,
    },
    /// Start a turn of a job's compacted topics: by topic an [`crate::compacted::Ordered`].
    Swap {
        /// Which job.
        job: String,
    },
    /// End a pause. No value.
    Resume {
        /// Which job.
        job: String,
    },
    /// Load the configuration again: a [`crate::reload::Report`].
    Reload {
        /// Say what would be done.
        dry_run: bool,
        /// Also when most jobs go.
        allow_removals: bool,
    },
    /// What the last reload said: a [`crate::standing::LastReload`], or nothing.
    LastReload,
}

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever may open the socket: root, the daemon's user and its group.
    Read,
    /// Root and the daemon's user.
    Change,
}

impl Request {
    /// Who may ask this.
    pub fn access(&self) -> Access {
        match self {
            Self::Status { .. } | Self::LastReload | Self::Metrics => Access::Read,
            Self::Flush { .. } | Self::Pause { .. } | Self::Resume { .. } | Self::Reload { .. } | Self::Swap { .. } => {
                Access::Change
            }
        }
    }
}

/// One line of an answer. The first that is not a note is the last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// It takes its time; this is for a person who waits.
    Note {
        /// What is going on.
        text: String,
    },
    /// It was done.
    Done {
        /// What came of it; its shape depends on the request.
        value: Value,
    },
    /// It was not done.
    Failed {
        /// The code the asking command exits with.
        exit: u8,
        /// What happened and where.
        what: String,
        /// What to do next.
        hint: Option<String>,
    },
}

impl From<Error> for Answer {
    fn from(error: Error) -> Self {
        let what = match &error.source {
            Some(source) => format!("{}: {source}", error.what),
            None => error.what.clone(),
        };
        Self::Failed { exit: error.exit as u8, what, hint: error.hint }
    }
}

/// The error a command ends with that was told so.
pub(super) fn error(exit: u8, what: String, hint: Option<String>) -> Error {
    let error = Error::new(Exit::from_code(exit), what);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// What came of a flush.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// Which job.
    pub job: String,
    /// Everything it had read is durable; `false` where it was not waited for.
    pub durable: bool,
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(r#"{"request":"status"}"#, Request::Status { job: None })]
    #[case(r#"{"request":"status","job":"a"}"#, Request::Status { job: Some("a".to_owned()) })]
    #[case(r#"{"request":"flush","job":"a","wait":true}"#, Request::Flush { job: "a".to_owned(), wait: true })]
    #[case(
        r#"{"request":"pause","job":"a","reason":"r"}"#,
        Request::Pause { job: "a".to_owned(), reason: Some("r".to_owned()), until_ms: None }
    )]
    #[case(r#"{"request":"resume","job":"a"}"#, Request::Resume { job: "a".to_owned() })]
    fn requests_as_written(#[case] line: &str, #[case] request: Request) {
        assert_eq!(serde_json::from_str::<Request>(line).unwrap(), request);
        assert_eq!(serde_json::from_str::<Request>(&serde_json::to_string(&request).unwrap()).unwrap(), request);
    }

    #[rstest]
    #[case::unknown_request(r#"{"request":"quit"}"#)]
    #[case::unknown_field(r#"{"request":"resume","job":"a","until":1}"#)]
    #[case::missing_field(r#"{"request":"resume"}"#)]
    #[case::not_an_object(r#""resume""#)]
    fn what_is_not_understood_is_refused(#[case] line: &str) {
        assert!(serde_json::from_str::<Request>(line).is_err());
    }

    #[test]
    fn an_error_arrives_as_it_was() {
        let sent = Error::new(Exit::NotFound, "there is no job \"a\"").hint("the jobs are b");
        let Answer::Failed { exit, what, hint } = Answer::from(sent) else { panic!("not an error") };
        let got = error(exit, what, hint);
        assert_eq!(
            (got.exit, got.to_string().as_str()),
            (Exit::NotFound, "there is no job \"a\"\n  hint: the jobs are b")
        );
    }
}
