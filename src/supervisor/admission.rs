//! What is asked of a job's store and cluster before it is opened: what cannot work is said before anything is read.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{Job, Place};
use crate::error::{Error, Exit, Result};
use crate::kafka::admin::{Cluster, End, TIMEOUT};
use crate::kafka::patience::patiently;
use crate::kafka::{KafkaError, TopicPartition};
use crate::metrics;
use crate::model::departure::Departure;
use crate::model::key::PartitionPath;
use crate::storage::Store;
use crate::storage::check::{StoreCheck, store_check};
use crate::storage::retry::{PATIENCE, retry};

/// A partition needs at least so much of the budget.
const PARTITION_BYTES: u64 = 4 * 1024;
/// The budget must hold so many of the largest messages.
const LARGEST_MESSAGES: u64 = 4;

/// A broker lets those who are the first in a group wait so long for others, at most twice, and some time is lost on the
/// way.
const REBALANCE_DELAY: Duration = Duration::from_secs(8);

/// The longest name of a file that the usual file systems take, in bytes.
const FILE_NAME_MAX: usize = 255;

/// The store keeps the rules that exactly-once needs.
pub async fn check_store(job: &Job, store: &dyn Store) -> Result<()> {
    let check =
        retry(PATIENCE, || async { store_check(store, &job.id, &uuid::Uuid::new_v4().to_string()).await }).await;
    // A job that cannot begin has no uploads that would count it.
    match check.inspect_err(|error| metrics::error("s3", error.kind.label()))? {
        StoreCheck::Conditional => Ok(()),
        StoreCheck::Ignored { why } if job.storage.single_writer => {
            tracing::warn!(job = %job.id, store = store.url(), why, "the store has no conditional writes; single_writer = true");
            Ok(())
        }
        StoreCheck::Ignored { why } => {
            let what = format!("job {}: {} cannot be used safely: {why}", job.id, store.url());
            Err(Error::new(Exit::Config, what).hint(
                "use a bucket without versioning on a store that honours If-None-Match, or set single_writer = true \
                 for the storage and make sure yourself that one process only ever writes to it",
            ))
        }
    }
}

/// Whether the objects of a topic can have names where they are to be stored.
fn check_name(job: &Job, topic: &str, partitions: i32) -> Result<()> {
    let longest = PartitionPath::normal(topic, 1, partitions.max(1) - 1).object(0);
    let file = longest.rsplit('/').next().unwrap_or_default();
    if matches!(job.storage.place, Place::File { .. }) && file.len() > FILE_NAME_MAX {
        let (length, what) = (topic.len(), format!("job {}: topic {topic} cannot be stored in a folder", job.id));
        return Err(Error::new(Exit::Config, what).hint(format!(
            "its name of {length} characters makes file names of {}, and file systems take {FILE_NAME_MAX}: \
             leave it out, or back it up to S3",
            file.len()
        )));
    }
    Ok(())
}

/// The topics a job takes now, with their partition counts. A one-shot run needs all its literal topics.
pub async fn select_topics(job: &Job, cluster: &Cluster, all_needed: bool) -> Result<BTreeMap<String, i32>> {
    let topics = patiently(|| cluster.topics(TIMEOUT)).await?;
    let selected: BTreeMap<_, _> =
        topics.into_iter().filter(|t| job.topics.takes(&t.name)).map(|t| (t.name, t.partitions)).collect();
    let missing: Vec<_> = job.topics.literal.iter().filter(|name| !selected.contains_key(*name)).collect();
    if all_needed && let Some(topic) = missing.first() {
        return Err(Error::new(Exit::NotFound, format!("job {}: topic {topic} does not exist", job.id))
            .hint("create it, or take it out of `topics`"));
    }
    Ok(selected)
}

/// A one-shot run is alone in its group: it waits for dead members to go, and refuses live ones.
pub async fn await_empty_group(job: &Job, cluster: &Cluster) -> Result<()> {
    let mut departure = Departure::new(job.kafka.session_timeout() + REBALANCE_DELAY);
    let began = tokio::time::Instant::now();
    loop {
        let members = patiently(|| cluster.group_members(&job.group_id, TIMEOUT)).await?;
        if members.is_empty() {
            return Ok(());
        }
        if !departure.may_go_on(members.len(), began.elapsed()) {
            let what = format!("job {}: group {} has live members: {}", job.id, job.group_id, members.join(", "));
            return Err(Error::new(Exit::Locked, what).hint(
                "a daemon runs this job; stop it, or give this run another group_id; members that were killed in the \
                       middle of a rebalance may take minutes to go: then run it again",
            ));
        }
        tracing::info!(job = %job.id, members = members.len(), "waiting for members of an earlier run to leave the group");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// What cannot work is said before anything is read.
pub async fn check_topics(
    job: &Job,
    cluster: &Cluster,
    selected: &BTreeMap<String, i32>,
    budget_bytes: u64,
) -> Result<()> {
    let names: Vec<String> = selected.keys().cloned().collect();
    let configs = patiently(|| cluster.topic_configs(&names, TIMEOUT)).await?;
    let setting = |topic: &str, key: &str| configs.get(topic)?.get(key)?.value.clone();
    for (topic, partitions) in selected {
        check_name(job, topic, *partitions)?;
        let policy = setting(topic, "cleanup.policy").unwrap_or_default();
        let is_compacted = policy.split(',').any(|p| p.trim() == "compact");
        // Only the mock cluster has no settings at all.
        if job.compacted.is_some() && !is_compacted && !policy.is_empty() {
            let what = format!("job {}: topic {topic} is not compacted (cleanup.policy={policy})", job.id);
            return Err(Error::new(Exit::Config, what).hint("back it up with type = \"backup\""));
        }
        if is_compacted && job.compacted.is_none() && !job.allow_compacted {
            return Err(Error::new(Exit::Config, format!("job {}: topic {topic} is compacted", job.id)).hint(
                "a record-by-record backup of it grows for ever; write type = \"compacted\" to have one complete copy, or \
                 set allow_compacted = true to have every record all the same",
            ));
        }
        let largest: u64 = setting(topic, "max.message.bytes").and_then(|v| v.parse().ok()).unwrap_or(1024 * 1024);
        if largest.saturating_mul(LARGEST_MESSAGES) > budget_bytes {
            let what = format!(
                "job {}: memory.budget is {} bytes, but topic {topic} takes messages of {largest} bytes",
                job.id, budget_bytes
            );
            let needed = largest.saturating_mul(LARGEST_MESSAGES).div_ceil(1024 * 1024);
            return Err(Error::new(Exit::Config, what).hint(format!("set memory.budget to at least {needed}MiB")));
        }
    }
    let partitions: u64 = selected.values().map(|n| (*n).max(0) as u64).sum();
    if partitions * PARTITION_BYTES > budget_bytes {
        let what =
            format!("job {}: memory.budget is {} bytes, too little for {partitions} partitions", job.id, budget_bytes);
        let needed = (partitions * PARTITION_BYTES).div_ceil(1024 * 1024);
        return Err(Error::new(Exit::Config, what).hint(format!("set memory.budget to at least {needed}MiB")));
    }
    Ok(())
}

/// Where all partitions end now.
pub async fn goal(
    job: &Job,
    cluster: &Cluster,
    selected: &BTreeMap<String, i32>,
) -> Result<BTreeMap<TopicPartition, i64>> {
    let all: Vec<_> =
        selected.iter().flat_map(|(topic, n)| (0..*n).map(|p| TopicPartition::new(topic.as_str(), p))).collect();
    // A topic that was created a moment ago has no leaders yet: one that cannot be asked is asked again.
    let ask = || async {
        let ends = cluster.offsets(&all, End::Latest, job.isolation, TIMEOUT).await?;
        ends.into_iter().map(|(p, end)| Ok((p, end?))).collect::<Result<BTreeMap<_, _>, KafkaError>>()
    };
    if all.is_empty() { Ok(BTreeMap::new()) } else { Ok(patiently(ask).await?) }
}
