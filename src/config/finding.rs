//! What is wrong with a configuration: where exactly, why, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Exit};

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// In a file.
    File {
        /// Which file.
        path: PathBuf,
        /// From 1; 0 is the file as a whole.
        line: usize,
        /// In characters, from 1.
        column: usize,
    },
    /// Elsewhere: a default, an environment variable, an option of the command line.
    Named(String),
}

impl Origin {
    /// A file as a whole.
    pub fn file(path: &Path) -> Self {
        Self::File { path: path.to_owned(), line: 0, column: 0 }
    }

    /// The beginning of a file, for what is missing in it.
    pub fn start(path: &Path) -> Self {
        Self::File { path: path.to_owned(), line: 1, column: 1 }
    }

    /// Reads back what [`fmt::Display`] wrote; this is the form in which origins travel through the `config` crate.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.rsplitn(3, ':');
        let (column, line, path) = (parts.next(), parts.next(), parts.next());
        match (path, line.map(str::parse), column.map(str::parse)) {
            (Some(path), Some(Ok(line)), Some(Ok(column))) => Self::File { path: path.into(), line, column },
            _ => Self::Named(text.to_owned()),
        }
    }

    /// The folder relative paths are relative to: that of the file, or the working directory.
    pub fn folder(&self) -> &Path {
        match self {
            Self::File { path, .. } => path.parent().unwrap_or(Path::new("")),
            Self::Named(_) => Path::new(""),
        }
    }

    /// The file, where there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } => Some(path),
            Self::Named(_) => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: 0, .. } => write!(f, "{}", path.display()),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// Whether a finding stops the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, unless asked to (`--deny-warnings`).
    Warning,
}

/// Which question a finding answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Is it TOML, are the keys known, do the values have the right type, unit and range?
    Syntax,
    /// Does it make sense together?
    Semantics,
    /// Does this machine, and what it can reach, play along (secrets, folders, brokers, buckets)?
    Environment,
}

impl Layer {
    /// All of them, in the order in which they are checked.
    pub const ALL: [Self; 3] = [Self::Syntax, Self::Semantics, Self::Environment];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Semantics => "semantics",
            Self::Environment => "environment",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it stops the program.
    pub severity: Severity,
    /// Which question it answers.
    pub layer: Layer,
    /// Where.
    pub origin: Origin,
    /// Which key; empty for a file or a machine as a whole.
    pub key: String,
    /// What is wrong: short, lower case, no full stop; never a secret.
    pub what: String,
    /// What to do next.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}\n  hint: {}", self.what, self.remedy)
    }
}

/// What is wrong with a value, before it is known where the value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    /// What is wrong.
    pub what: String,
    /// What to do next.
    pub remedy: String,
}

impl Complaint {
    /// A complaint.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

/// Findings as they come in, from all files.
#[derive(Debug, Default)]
pub(super) struct Findings(pub Vec<Finding>);

impl Findings {
    /// Notes a mistake in a single file or value.
    pub fn syntax(&mut self, origin: &Origin, key: &str, complaint: Complaint) {
        self.push(Severity::Error, Layer::Syntax, origin, key, complaint);
    }

    /// Notes values that do not go together.
    pub fn semantics(&mut self, origin: &Origin, key: &str, complaint: Complaint) {
        self.push(Severity::Error, Layer::Semantics, origin, key, complaint);
    }

    /// Notes values that go together but hardly as intended.
    pub fn warning(&mut self, origin: &Origin, key: &str, complaint: Complaint) {
        self.push(Severity::Warning, Layer::Semantics, origin, key, complaint);
    }

    /// Notes what this machine does not have.
    pub fn environment(&mut self, severity: Severity, origin: &Origin, key: &str, complaint: Complaint) {
        self.push(severity, Layer::Environment, origin, key, complaint);
    }

    fn push(&mut self, severity: Severity, layer: Layer, origin: &Origin, key: &str, complaint: Complaint) {
        let Complaint { what, remedy } = complaint;
        self.0.push(Finding { severity, layer, origin: origin.clone(), key: key.to_owned(), what, remedy });
    }

    /// All of them, each once, in the order of files and lines.
    pub fn sorted(mut self) -> Vec<Finding> {
        self.0.sort_by(|a, b| (&a.origin, &a.key, &a.what).cmp(&(&b.origin, &b.key, &b.what)));
        self.0.dedup();
        self.0
    }
}

/// Everything that is wrong with a configuration that cannot be used, over all its files, errors and warnings.
#[derive(Debug, Clone)]
pub struct ConfigErrors(pub Vec<Finding>);

impl ConfigErrors {
    /// Only what stops the program.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter().filter(|finding| finding.severity == Severity::Error)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors: Vec<&Finding> = self.errors().collect();
        match errors.as_slice() {
            [only] => write!(f, "{only}"),
            errors => {
                write!(f, "the configuration has {} errors", errors.len())?;
                errors.iter().try_for_each(|finding| write!(f, "\n{finding}"))
            }
        }
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigErrors> for Error {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(Exit::Config, errors.to_string())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/etc/a b.toml:3:14", Origin::File { path: "/etc/a b.toml".into(), line: 3, column: 14 })]
    #[case("/etc/a:b.toml:3:14", Origin::File { path: "/etc/a:b.toml".into(), line: 3, column: 14 })]
    #[case("environment variable X", Origin::Named("environment variable X".into()))]
    #[case("default", Origin::Named("default".into()))]
    fn origins_survive_their_text_form(#[case] text: &str, #[case] origin: Origin) {
        assert_eq!(Origin::parse(text), origin);
        assert_eq!(origin.to_string(), text);
    }
}
