//! Loading until the files hold still, and building what a configuration asks for, to see that it can be.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::config::{Config, ConfigErrors, Inspection, Job, Jobs, inspect};
use crate::error::{Error, Exit, Result};
use crate::kafka::admin::Cluster;

/// Files that change while they are read are read again so often.
const ATTEMPTS: u32 = 3;

/// A configuration, and the files it was loaded from.
#[derive(Debug)]
pub struct Loaded {
    /// What they come to.
    pub config: Config,
    /// As they were.
    pub files: Snapshot,
}

/// Loads the main file and all jobs. What is loaded stood in the files all at the same time: they are looked at before
/// and after (which files that is, is only known after; `known` are those of the last time).
///
/// # Errors
/// Everything that is wrong, over all files; [`Exit::Busy`] where they do not hold still.
pub fn load(main: Option<&Path>, known: BTreeSet<PathBuf>) -> Result<Loaded> {
    let mut before = Snapshot::of(known);
    for _ in 0..=ATTEMPTS {
        let inspection = inspect(main, &Jobs::All);
        let after = Snapshot::of(files_of(&inspection));
        if before != after {
            before = after;
            continue;
        }
        let config = inspection.into_result().map_err(|errors: ConfigErrors| Error::from(errors))?;
        return Ok(Loaded { config, files: after });
    }
    Err(Error::new(Exit::Busy, "the files of the configuration change while they are read")
        .hint("reload when whoever writes them is done"))
}

fn files_of(inspection: &Inspection) -> BTreeSet<PathBuf> {
    let mut files: BTreeSet<PathBuf> = inspection.files.iter().cloned().collect();
    files.extend(inspection.config.iter().flat_map(Config::references));
    files
}

/// The files as they are now: those that run (`known`, and jobs in `jobs_dir`), and those that would be loaded.
pub fn look(main: Option<&Path>, known: &Snapshot, jobs_dir: &Path) -> Snapshot {
    let mut paths = known.paths();
    paths.extend(crate::config::job_files(jobs_dir).unwrap_or_default());
    let now = Snapshot::of(paths);
    if known.edited(&now).0.is_empty() {
        return now;
    }
    // Edited, they may refer to other files, or name another folder.
    let mut paths = now.paths();
    paths.extend(files_of(&inspect(main, &Jobs::All)));
    Snapshot::of(paths)
}

/// Builds the clients of `jobs` and drops them again: certificates are parsed, addresses understood. Nobody is asked
/// over the network; a store that is down must not keep a mistake from being mended.
///
/// # Errors
/// Everything that cannot be built.
pub fn build(jobs: &[Arc<Job>], io: &tokio::runtime::Handle) -> Result<()> {
    let mut all = Vec::new();
    for job in jobs {
        let store = crate::storage::open(&job.storage, io.clone()).map_err(Error::from).err();
        let cluster = Cluster::connect(&job.kafka).map_err(Error::from).err();
        all.extend(store.into_iter().chain(cluster).map(|error| format!("{}: {error}", job.path.display())));
    }
    if all.is_empty() { Ok(()) } else { Err(Error::new(Exit::Config, all.join("\n"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_loaded_is_what_stands_there() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("main.toml");
        std::fs::create_dir(dir.path().join("jobs.d")).unwrap();
        std::fs::write(&main, "jobs_dir = \"jobs.d\"\n[kafka.main]\nbootstrap_servers = [\"a:1\"]\n").unwrap();
        let first = load(Some(&main), BTreeSet::new()).unwrap();
        assert!(first.files.paths().contains(&main));
        let again = load(Some(&main), first.files.paths()).unwrap();
        assert_eq!((&first.files, first.config.picture()), (&again.files, again.config.picture()));
        std::fs::write(dir.path().join("jobs.d/a.toml"), "topcs = []\n").unwrap();
        std::fs::write(dir.path().join("jobs.d/b.toml"), "topcs = []\n").unwrap();
        let error = load(Some(&main), first.files.paths()).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.exit, Exit::Config);
        assert!(text.contains("a.toml:1:1: topcs") && text.contains("b.toml:1:1: topcs"), "{text}");
    }
}
