//! The coordination topic: there is one, with one partition, and compacted.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{CompactedJob, Job};
use crate::error::{Error, Exit, Result};
use crate::kafka::Kind;
use crate::kafka::admin::{Cluster, TIMEOUT};
use crate::kafka::create::NewTopic;
use crate::kafka::patience::patiently;

/// How often a topic that was just created is looked for: brokers learn of it one after another.
const LOOKS: u32 = 50;
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Sees to it that the topic is there and is what it must be; creates it where it is missing.
///
/// # Errors
/// [`Exit::Config`]: there is one with another policy or more partitions. Otherwise the brokers do not answer.
pub async fn ensure(job: &Job, one: &CompactedJob) -> Result<()> {
    let (name, cluster) = (&one.coordination_topic, Cluster::connect(&one.coordination_kafka)?);
    let mut created = false;
    for _ in 0..LOOKS {
        let found = patiently(|| cluster.topics(TIMEOUT)).await?;
        let Some(found) = found.into_iter().find(|topic| topic.name == *name && topic.partitions > 0) else {
            if !created {
                create(&cluster, name).await?;
                created = true;
            }
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        };
        let wrong = |what: String| {
            let what = format!("job {}: coordination topic {name} {what}", job.id);
            Err(Error::new(Exit::Config, what).hint("name another one: it is created as it must be"))
        };
        if found.partitions != 1 {
            return wrong(format!("has {} partitions instead of 1", found.partitions));
        }
        let configs = patiently(|| cluster.topic_configs(std::slice::from_ref(name), TIMEOUT)).await?;
        let policy = configs.get(name).and_then(|config| config.get("cleanup.policy")?.value.clone());
        return match policy.as_deref() {
            // Only the mock cluster has no settings at all.
            None if configs.get(name).is_none_or(BTreeMap::is_empty) => Ok(()),
            Some("compact") => Ok(()),
            other => wrong(format!("has cleanup.policy={} instead of compact", other.unwrap_or("(unknown)"))),
        };
    }
    Err(Error::new(Exit::Unavailable, format!("job {}: coordination topic {name} does not appear", job.id)))
}

async fn create(cluster: &Cluster, name: &str) -> Result<()> {
    let topic = NewTopic {
        name: name.to_owned(),
        partitions: 1,
        replication_factor: None,
        configs: BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]),
    };
    match cluster.create_topic(&topic, TIMEOUT).await {
        Ok(()) => {
            tracing::info!(topic = name, "coordination topic created");
            Ok(())
        }
        Err(error) if error.kind == Kind::Exists => Ok(()),
        Err(error) => Err(Error::from(error)),
    }
}
