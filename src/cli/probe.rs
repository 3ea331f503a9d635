//! What the brokers and stores of a valid configuration say, asked once: the network part of `config check`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, Finding, Job, Layer, Origin, Severity};
use crate::error::{Error, Result};
use crate::kafka::admin::Cluster;
use crate::storage::check::{StoreCheck, store_check};

/// How long one peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks every cluster and every store that a job uses: reachable, permitted, topics there, conditional writes honoured.
pub fn probe(config: &Config) -> Result<Vec<Finding>> {
    let runtime = super::runtime()?;
    let io = runtime.handle().clone();
    let mut clusters: BTreeMap<&str, Vec<&Arc<Job>>> = BTreeMap::new();
    let mut stores: BTreeMap<&str, Vec<&Arc<Job>>> = BTreeMap::new();
    for job in &config.jobs {
        clusters.entry(&job.kafka.name).or_default().push(job);
        stores.entry(&job.storage.name).or_default().push(job);
    }
    let findings = runtime.block_on(async {
        let clusters = futures_util::future::join_all(clusters.values().map(|jobs| cluster(jobs)));
        let stores = futures_util::future::join_all(stores.values().map(|jobs| store(jobs, io.clone())));
        let (clusters, stores) = futures_util::future::join(clusters, stores).await;
        clusters.into_iter().flatten().chain(stores.into_iter().flatten()).collect()
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(findings)
}

/// Asks the cluster that these jobs share.
async fn cluster(jobs: &[&Arc<Job>]) -> Vec<Finding> {
    let Some(first) = jobs.first() else { return Vec::new() };
    let topics = async {
        let cluster = Cluster::connect(&first.kafka)?;
        cluster.cluster_id(PATIENCE).await?;
        cluster.topics(PATIENCE).await
    };
    let topics = match topics.await.map_err(Error::from) {
        Ok(topics) => topics,
        Err(error) => return vec![unreachable(&first.path, "kafka", &error)],
    };
    let missing = jobs.iter().flat_map(|job| job.topics.literal.iter().map(move |name| (job, name)));
    missing
        .filter(|(_, name)| !topics.iter().any(|topic| topic.name == **name))
        .map(|(job, name)| Finding {
            severity: Severity::Warning,
            layer: Layer::Environment,
            origin: Origin::start(&job.path),
            key: "topics".to_owned(),
            what: format!("topic {name} does not exist, or this user may not see it"),
            remedy: "create it, permit DESCRIBE on it, or take it out".to_owned(),
        })
        .collect()
}

/// Asks the store that these jobs share.
async fn store(jobs: &[&Arc<Job>], io: tokio::runtime::Handle) -> Option<Finding> {
    let first = jobs.first()?;
    let checked = async {
        let store = crate::storage::open(&first.storage, io)?;
        store_check(&*store, &first.id, &uuid::Uuid::new_v4().to_string()).await
    };
    let checked = match tokio::time::timeout(PATIENCE, checked).await {
        Ok(checked) => checked.map_err(Error::from),
        Err(_) => {
            Err(Error::new(crate::error::Exit::Unavailable, "no answer").hint("check the endpoint and the network"))
        }
    };
    match checked {
        Err(error) => Some(unreachable(&first.path, "storage", &error)),
        Ok(StoreCheck::Ignored { why }) if !first.storage.single_writer => Some(Finding {
            severity: Severity::Error,
            layer: Layer::Environment,
            origin: Origin::start(&first.path),
            key: "storage".to_owned(),
            what: format!("the store cannot be used safely: {why}"),
            remedy: "use a bucket without versioning on a store that honours If-None-Match".to_owned(),
        }),
        Ok(_) => None,
    }
}

fn unreachable(path: &Path, key: &str, error: &Error) -> Finding {
    let source = error.source.as_ref().map(|source| format!(": {source}")).unwrap_or_default();
    Finding {
        severity: Severity::Error,
        layer: Layer::Environment,
        origin: Origin::start(path),
        key: key.to_owned(),
        what: format!("{}{source}", error.what),
        remedy: error.hint.clone().unwrap_or_else(|| "see the message".to_owned()),
    }
}
