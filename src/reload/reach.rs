//! Whether the clusters and stores that a reload brings can be reached.
//!
//! A store that is down must not keep a mistake from being mended, so that this is a warning; with `strict_reload` it is
//! the end of the reload. What some running job uses already is not asked: how it does is in its status.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::config::{self, Job, KafkaConfig, StorageConfig};
use crate::error::{Error, Exit, Result};
use crate::kafka::admin::Cluster;

/// How long a target may take to answer. They are asked all at the same time, and a reload takes no longer for it.
const PATIENCE: Duration = Duration::from_secs(4);

/// A cluster or a store.
#[derive(Debug, Clone)]
enum Place {
    Kafka(Arc<KafkaConfig>),
    Storage(Arc<StorageConfig>),
}

impl Place {
    /// Whether both are reached in the same way; the names do not tell.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Kafka(a), Self::Kafka(b)) => {
                a.bootstrap_servers == b.bootstrap_servers && a.properties == b.properties
            }
            (Self::Storage(a), Self::Storage(b)) => a.place == b.place,
            _ => false,
        }
    }

    /// Where it is, for people.
    fn address(&self) -> String {
        match self {
            Self::Kafka(kafka) => kafka.bootstrap_servers.join(","),
            Self::Storage(storage) => match &storage.place {
                config::Place::S3 { endpoint: Some(endpoint), .. } => endpoint.clone(),
                config::Place::S3 { bucket, .. } => format!("bucket {bucket}"),
                config::Place::File { path, .. } => path.display().to_string(),
            },
        }
    }

    /// The key that names it.
    fn key(&self) -> &'static str {
        match self {
            Self::Kafka(_) => "kafka",
            Self::Storage(_) => "storage",
        }
    }
}

/// A place that no running job uses, and the file of a job that wants it.
#[derive(Debug, Clone)]
pub struct Target {
    place: Place,
    file: PathBuf,
}

fn places(job: &Job) -> impl Iterator<Item = Place> {
    let coordination = job.compacted.as_ref().map(|compacted| Place::Kafka(compacted.coordination_kafka.clone()));
    [Place::Kafka(job.kafka.clone()), Place::Storage(job.storage.clone())].into_iter().chain(coordination)
}

/// What the `new` jobs use that none of the `running` ones does, each once.
pub fn new_targets(running: &[Arc<Job>], new: &[Arc<Job>]) -> Vec<Target> {
    let known: Vec<Place> = running.iter().flat_map(|job| places(job)).collect();
    let mut targets: Vec<Target> = Vec::new();
    for job in new {
        for place in places(job) {
            let seen = known.iter().chain(targets.iter().map(|target| &target.place)).any(|other| other.is(&place));
            if !seen {
                targets.push(Target { place, file: job.path.clone() });
            }
        }
    }
    targets
}

/// Asks all targets at once; returns what those said that cannot be reached.
pub async fn unreached(targets: &[Target], io: &tokio::runtime::Handle) -> Vec<String> {
    let asked = targets.iter().map(|target| async move {
        let error = ask(&target.place, io.clone()).await.err()?;
        let Target { place, file } = target;
        Some(format!("{}: {}: {}: {error}", file.display(), place.key(), place.address()))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

async fn ask(place: &Place, io: tokio::runtime::Handle) -> Result<()> {
    let answer = async {
        match place {
            Place::Kafka(kafka) => Cluster::connect(kafka)?.cluster_id(PATIENCE).await.map(drop).map_err(Error::from),
            Place::Storage(storage) => {
                let store = crate::storage::open(storage, io)?;
                store.list(&format!("{}/", crate::model::key::SYSTEM), None, 1).await.map(drop).map_err(Error::from)
            }
        }
    };
    // A client may take a moment longer than it was given.
    let answer = tokio::time::timeout(PATIENCE + Duration::from_secs(1), answer).await;
    answer.unwrap_or_else(|_| {
        let hint = "check the address and the network";
        Err(Error::new(Exit::Unavailable, format!("no answer within {} s", PATIENCE.as_secs())).hint(hint))
    })
}

/// What comes of targets that cannot be reached: warnings.
///
/// # Errors
/// All of them, where the configuration is `strict`.
pub fn judge(strict: bool, unreached: Vec<String>) -> Result<Vec<String>> {
    if strict && !unreached.is_empty() {
        let hint = "strict_reload = true in the main file makes this an error; without it, it is a warning";
        return Err(Error::new(Exit::Config, unreached.join("\n")).hint(hint));
    }
    Ok(unreached)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::config::Config;

    const MAIN: &str = "[kafka.main]\nbootstrap_servers = [\"a:1\"]\n[kafka.same]\nbootstrap_servers = [\"a:1\"]\n\
                        [kafka.dr]\nbootstrap_servers = [\"a:1\"]\nproperties = { \"client.id\" = \"x\" }\n\
                        [storage.main]\nbucket = \"one\"\n[storage.two]\nbucket = \"two\"\n";

    fn jobs(files: &[(&str, &str)]) -> Vec<Arc<Job>> {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("main.toml");
        std::fs::create_dir(dir.path().join("jobs.d")).unwrap();
        std::fs::write(&main, format!("jobs_dir = \"jobs.d\"\n{MAIN}")).unwrap();
        for (id, lines) in files {
            let text = format!("topics = [\"{id}\"]\n{lines}");
            std::fs::write(dir.path().join(format!("jobs.d/{id}.toml")), text).unwrap();
        }
        let config: Config = crate::config::load(Some(&main)).unwrap();
        config.jobs
    }

    #[rstest]
    #[case::nothing_new("", &[])]
    #[case::another_name_of_the_same("kafka = \"same\"", &[])]
    #[case::other_properties("kafka = \"dr\"", &["b kafka"])]
    #[case::other_servers("kafka = { bootstrap_servers = [\"c:1\"] }", &["b kafka"])]
    #[case::another_bucket("storage = \"two\"", &["b storage"])]
    #[case::both("kafka = \"dr\"\nstorage = \"two\"", &["b kafka", "b storage"])]
    #[case::other_risk_same_place("storage = { bucket = \"one\", single_writer = true }", &[])]
    #[case::coordination(
        "type = \"compacted\"\ninstance = \"a\"\ninitial_status = \"ACTIVATE\"\ncoordination_kafka = \"dr\"",
        &["b kafka"]
    )]
    fn what_is_new(#[case] lines: &str, #[case] expected: &[&str]) {
        let (running, new) = (jobs(&[("a", "")]), jobs(&[("b", lines), ("c", lines)]));
        let told =
            |target: &Target| format!("{} {}", target.file.file_stem().unwrap().to_string_lossy(), target.place.key());
        let targets: Vec<String> = new_targets(&running, &new).iter().map(told).collect();
        assert_eq!(targets, expected, "each once, though two jobs want it");
    }

    #[test]
    fn at_first_everything_is_new() {
        assert_eq!(new_targets(&[], &jobs(&[("a", ""), ("b", "")])).len(), 2);
        assert_eq!(new_targets(&jobs(&[("a", "")]), &[]).len(), 0);
    }

    #[rstest]
    #[case::all_reached(false, &[], Ok(0))]
    #[case::all_reached_strictly(true, &[], Ok(0))]
    #[case::warned(false, &["x", "y"], Ok(2))]
    #[case::refused(true, &["x", "y"], Err("x\ny\n  hint: strict_reload = true"))]
    fn verdict(#[case] strict: bool, #[case] unreached: &[&str], #[case] expected: Result<usize, &str>) {
        match (judge(strict, unreached.iter().map(ToString::to_string).collect()), expected) {
            (Ok(warnings), Ok(count)) => assert_eq!(warnings.len(), count),
            (Err(error), Err(text)) => {
                assert_eq!(error.exit, Exit::Config);
                assert!(error.to_string().starts_with(text), "{error}");
            }
            (judged, _) => panic!("{judged:?}"),
        }
    }
}
