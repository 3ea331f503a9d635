//! What is restored of a compacted topic: one snapshot, up to the last moment at which it was a state that the topic had
//! (C6), under a pin that keeps it from being deleted meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::gather;
use crate::clock::{millis, now_ms};
use crate::compacted::bucket::{Bucket, BucketError};
use crate::error::{Error, Exit, Result};
use crate::model::catalog::{Branch, Facts, StoredObject, TopicBackup};
use crate::model::compacted::look::newest;
use crate::model::compacted::record::{self, COMPACTED_FORMAT_VERSION, Pin, Record};
use crate::model::compacted::{Name, Offsets, look};
use crate::model::key::PartitionPath;
use crate::model::object::Metadata;
use crate::storage::retry::retry;
use crate::storage::{Body, Kind, Store};

/// How long a pin lasts that is not renewed.
const LIFE: Duration = Duration::from_secs(15 * 60);
/// How long one write of a pin is repeated.
const PATIENCE: Duration = Duration::from_secs(60);
/// So often the owner may change while a pin is being written.
const ATTEMPTS: u32 = 5;

/// One snapshot of a compacted topic, in the form of a backup with one generation.
#[derive(Debug)]
pub struct Snapshot {
    /// Its objects.
    pub backup: TopicBackup,
    /// Below which offset each partition is restored.
    pub limits: Offsets,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Pins that are held while their objects are read.
pub struct Pins {
    store: Arc<dyn Store>,
    held: Vec<Pin>,
    /// Whether pins are written at all: a dry run changes nothing.
    write: bool,
}

impl Pins {
    /// No pins as yet.
    pub fn new(store: Arc<dyn Store>, write: bool) -> Self {
        Self { store, held: Vec::new(), write }
    }

    /// Pins the objects of an instance. The answer says what is to be warned of.
    async fn pin(&mut self, topic: &str, instance: &Name, run: &Name) -> Result<Option<String>> {
        if !self.write {
            return Ok(None);
        }
        let id = uuid::Uuid::new_v4().to_string();
        let pin = Pin {
            format_version: COMPACTED_FORMAT_VERSION,
            id,
            topic: topic.to_owned(),
            instance: instance.clone(),
            run: run.clone(),
            renewed_ms: 0,
            expires_ms: 0,
        };
        match self.renew_one(&pin).await {
            Ok(()) => {
                self.held.push(pin);
                Ok(None)
            }
            Err(error) if error.kind == Kind::Auth => Ok(Some(format!(
                "topic {topic}: no pin can be written ({error}): when a turn ends meanwhile, these objects may be deleted, \
                 and the restore stops"
            ))),
            Err(error) => Err(gather::failed(error)),
        }
    }

    /// Pins the objects of an instance again, for a restore that goes on with its plan.
    pub async fn pin_again(&mut self, topic: &str, instance: &Name) -> Result<Option<String>> {
        self.pin(topic, instance, &"".into()).await
    }

    async fn renew_one(&self, pin: &Pin) -> std::result::Result<(), crate::storage::StoreError> {
        let now = now_ms();
        let life = millis(LIFE);
        let pin = Pin { renewed_ms: now, expires_ms: now + life, ..pin.clone() };
        let (key, body, metadata) = (pin.key(), Body::from(pin.to_json()), Metadata::new());
        retry(PATIENCE, || self.store.put(&key, &body, &metadata)).await
    }

    /// Renews the pins for as long as it is waited for.
    pub async fn keep(&self) {
        loop {
            tokio::time::sleep(LIFE / 3).await;
            for pin in &self.held {
                if let Err(error) = self.renew_one(pin).await {
                    tracing::warn!(topic = pin.topic, %error, "the pin was not renewed");
                }
            }
        }
    }

    /// Ends the pins. One that cannot be removed expires.
    pub async fn release(self) {
        for pin in self.held {
            if let Err(error) = self.store.delete(&pin.key()).await {
                tracing::debug!(topic = pin.topic, %error, "the pin was not removed; it expires");
            }
        }
    }
}

/// The snapshot to restore of `topic`: the highest valid TERM, or what `instance` has. `None` when it was never backed up
/// as a compacted topic.
///
/// # Errors
/// There is no such snapshot, or the store does not answer.
pub async fn snapshot(
    store: &Arc<dyn Store>,
    topic: &str,
    instance: Option<&str>,
    pins: &mut Pins,
) -> Result<Option<Snapshot>> {
    let seen = Bucket::new(store.clone(), topic, None).look_from_outside().await.map_err(failed)?;
    if seen.terms.is_empty() && instance.is_none() {
        return Ok(None);
    }
    let mut chosen: Name = match (instance, newest(&seen)) {
        (Some(instance), _) => instance.into(),
        (None, Some(owner)) => owner.instance,
        (None, None) => return Err(missing(topic)),
    };
    let mut warnings = Vec::new();
    for _ in 0..ATTEMPTS {
        warnings.extend(pins.pin(topic, &chosen, &"".into()).await?);
        // Read again behind the pin: a deletion that does not see the pin needs a TERM that is seen here.
        let bucket = Bucket::new(store.clone(), topic, Some(chosen.clone()));
        let seen = bucket.look_from_outside().await.map_err(failed)?;
        let owner = newest(&seen);
        match &owner {
            Some(owner) if instance.is_none() && owner.instance != chosen => {
                chosen = owner.instance.clone();
                continue;
            }
            // Nobody has asked for what is not complete.
            None if instance.is_none() => return Err(missing(topic)),
            _ => {}
        }
        let view = look(&seen, &chosen);
        let (run, limits) = match owner.filter(|owner| owner.instance == chosen) {
            Some(owner) => {
                warnings.extend(owner.is_tainted().then(|| tainted(topic, &owner.instance)));
                (owner.run, owner.reached)
            }
            None => {
                let Some(run) = view.own.run else { return Err(none(topic, &chosen)) };
                warnings.push(format!(
                    "topic {topic}: what instance {chosen} has is not complete: keys may be missing, or be older than in the \
                     snapshot of the other instance",
                ));
                (run.run, run.stored)
            }
        };
        let Some(record) = seen.runs.values().find(|record| record.run == run) else {
            let what = format!(
                "topic {topic}: the record of run {run} of instance {chosen} is missing; without it nobody knows where its \
                 lists begin"
            );
            let hint = format!("put {}RUN-{chosen}-N.json back, or name the other instance", record::folder(topic));
            return Err(Error::new(Exit::ProblemFound, what).hint(hint));
        };
        let number = limits.keys().next_back().map_or(0, |last| last.unsigned_abs() + 1);
        let root = crate::compacted::root(record);
        let partitions = root.partitions.max(number);
        let mut objects = BTreeMap::new();
        for (partition, limit) in &limits {
            let path = PartitionPath::of_instance(topic, &chosen, *partition);
            let mut all = Vec::new();
            gather::each_object(store, &path, Some(&run), |object| all.push(object)).await?;
            objects.insert(*partition, list(all, record.origin(*partition), *limit));
        }
        let backup = TopicBackup {
            records: BTreeMap::from([(1, crate::model::chain::GenerationRecord { partitions, ..root })]),
            branches: BTreeMap::from([(Branch::Generation(1), objects)]),
            ..TopicBackup::default()
        };
        return Ok(Some(Snapshot { backup, limits, warnings }));
    }
    let what = format!("topic {topic}: its owner changes faster than it can be pinned");
    Err(Error::new(Exit::Failed, what).hint("try again"))
}

/// The unbroken list of a run's objects from its origin up to `limit`.
fn list(mut all: Vec<StoredObject>, origin: i64, limit: i64) -> Vec<StoredObject> {
    all.sort_by_key(|object| object.offset);
    let mut next = origin;
    all.retain(|object| match &object.facts {
        Facts::Ours(facts) if object.offset == next && next < limit => {
            next = facts.next_offset;
            true
        }
        _ => false,
    });
    all
}

fn tainted(topic: &str, instance: &Name) -> String {
    format!(
        "topic {topic}: the snapshot of instance {instance} is tainted: keys that were deleted, or old values of keys that \
         are gone, may have survived in it; a successor is asked for, whose snapshot will be clean"
    )
}

fn missing(topic: &str) -> Error {
    let what = format!("topic {topic}: objects of every complete snapshot are missing");
    Error::new(Exit::ProblemFound, what).hint("kafka-backup info shows what is left; name an instance to restore that")
}

fn none(topic: &str, instance: &Name) -> Error {
    Error::new(Exit::NotFound, format!("topic {topic}: instance {instance} has nothing"))
        .hint("kafka-backup info shows the instances that there are")
}

/// A look at the bucket that failed, as the end of a command.
pub fn failed(error: BucketError) -> Error {
    match error {
        BucketError::Store(error) => gather::failed(error),
        BucketError::Record(error) => Error::new(Exit::ProblemFound, error.to_string()),
    }
}
