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
    load_with(|| inspect(main, &Jobs::All), known)
}

fn load_with(mut read: impl FnMut() -> Inspection, known: BTreeSet<PathBuf>) -> Result<Loaded> {
    let mut before = Snapshot::of(known);
    for _ in 0..=ATTEMPTS {
        let inspection = read();
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
    use std::fs;

    use rstest::rstest;

    use super::*;

    /// A main file and jobs `a` and `b` of version 0.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            fs::create_dir(tree.path("jobs.d")).unwrap();
            let main = "jobs_dir = \"jobs.d\"\n[kafka.main]\nbootstrap_servers = [\"k:1\"]\n\
                        [storage.main]\nbucket = \"b\"\nregion = \"r\"\n";
            fs::write(tree.path("main.toml"), main).unwrap();
            ["a", "b"].iter().for_each(|job| tree.edit(job, 0));
            tree
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn job(&self, id: &str) -> PathBuf {
            self.path(&format!("jobs.d/{id}.toml"))
        }

        fn edit(&self, job: &str, version: u64) {
            let text = format!("topics = [\"{job}\"]\nrpo_target = \"{}s\"\n", 1000 + version);
            fs::write(self.job(job), text).unwrap();
        }

        /// The files a daemon would know from before.
        fn known(&self) -> BTreeSet<PathBuf> {
            [self.path("main.toml"), self.job("a"), self.job("b")].into()
        }

        /// Loads, and does `meanwhile` between the reading and the look at what was read, with the number of the reading.
        fn load(&self, mut meanwhile: impl FnMut(u32)) -> (Result<Loaded>, u32) {
            let (main, mut readings) = (self.path("main.toml"), 0);
            let read = || {
                readings += 1;
                let inspection = inspect(Some(&main), &Jobs::All);
                meanwhile(readings);
                inspection
            };
            (load_with(read, self.known()), readings)
        }
    }

    /// The version of each job.
    fn versions(loaded: &Loaded) -> Vec<(String, u64)> {
        loaded.config.jobs.iter().map(|job| (job.id.clone(), job.rpo_target.as_secs() - 1000)).collect()
    }

    #[rstest]
    #[case::edited(|tree: &Tree| tree.edit("a", 7), &[("a", 7), ("b", 0)], 2)]
    #[case::written_again_as_it_was(|tree: &Tree| tree.edit("a", 0), &[("a", 0), ("b", 0)], 2)]
    #[case::replaced(|tree: &Tree| { tree.edit("new", 7); fs::rename(tree.job("new"), tree.job("b")).unwrap() }, &[("a", 0), ("b", 7)], 2)]
    #[case::another_and_back_again(|tree: &Tree| {
        fs::rename(tree.job("a"), tree.path("aside")).unwrap();
        fs::rename(tree.path("aside"), tree.job("a")).unwrap();
    }, &[("a", 0), ("b", 0)], 2)]
    #[case::gone(|tree: &Tree| fs::remove_file(tree.job("b")).unwrap(), &[("a", 0)], 3)]
    fn files_that_move_once_while_they_are_read_are_read_again(
        #[case] meanwhile: fn(&Tree),
        #[case] expected: &[(&str, u64)],
        #[case] expected_readings: u32,
    ) {
        let tree = Tree::new();
        let (loaded, readings) = tree.load(|reading| {
            if reading == 1 {
                meanwhile(&tree)
            }
        });
        let expected: Vec<_> = expected.iter().map(|(job, version)| ((*job).to_owned(), *version)).collect();
        assert_eq!((versions(&loaded.unwrap()), readings), (expected, expected_readings));
    }

    /// A file is there, but not whole yet: what is wrong with its first half is not said.
    #[test]
    fn a_file_that_is_still_being_written_is_read_again() {
        let tree = Tree::new();
        fs::write(tree.job("b"), "topics = [\"b\"").unwrap();
        let (loaded, readings) = tree.load(|reading| {
            if reading == 1 {
                tree.edit("b", 3)
            }
        });
        let expected = [("a".to_owned(), 0), ("b".to_owned(), 3)];
        assert_eq!((versions(&loaded.unwrap()), readings), (expected.to_vec(), 2));
    }

    /// A file that nobody knew of before: whether it moved can only be told from the second reading on.
    #[test]
    fn a_new_file_is_read_until_it_holds_still() {
        let tree = Tree::new();
        tree.edit("c", 1);
        let (loaded, readings) = tree.load(|reading| {
            if reading == 2 {
                tree.edit("c", 2)
            }
        });
        assert_eq!((versions(&loaded.unwrap()).pop(), readings), (Some(("c".to_owned(), 2)), 3));
    }

    /// What a job refers to counts like the job.
    #[test]
    fn a_secret_that_changes_while_it_is_read_is_read_again() {
        let tree = Tree::new();
        let secret = tree.path("password");
        fs::write(&secret, "old").unwrap();
        fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let main = fs::read_to_string(tree.path("main.toml")).unwrap();
        let main = main + "[kafka.main.properties]\n\"sasl.password_file\" = \"password\"\n";
        fs::write(tree.path("main.toml"), main).unwrap();
        // Unknown before the first reading, so that it takes a second one; it changes during that one.
        let (loaded, readings) = tree.load(|reading| {
            if reading == 2 {
                fs::write(&secret, "new").unwrap()
            }
        });
        let loaded = loaded.unwrap();
        assert_eq!((loaded.config.jobs[0].kafka.properties["sasl.password"].value.as_str(), readings), ("new", 3));
        assert!(loaded.files.paths().contains(&secret));
    }

    #[test]
    fn files_that_never_hold_still_are_refused() {
        let tree = Tree::new();
        let (refused, readings) = tree.load(|reading| tree.edit("a", u64::from(reading)));
        let error = refused.unwrap_err();
        assert_eq!((error.exit, readings), (Exit::Busy, 1 + ATTEMPTS));
        assert!(error.to_string().contains("change while they are read"), "{error}");
    }

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
