//! Requests of the machine, carried out: each ends in exactly one event, also when it fails.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::bucket::{Bucket, BucketError};
use super::deletions::{Batch, Deletions};
use super::lanes::LaneParts;
use crate::clock::now_ms;
use crate::config::Isolation;
use crate::kafka::admin::{End, TIMEOUT};
use crate::kafka::coordination::Coordination;
use crate::kafka::{KafkaError, Kind, TopicPartition};
use crate::model::compacted::look::SeenObject;
use crate::model::compacted::record::{COMPACTED_FORMAT_VERSION, RunRecord};
use crate::model::compacted::title::{Scan, title, void};
use crate::model::compacted::{Claim, Event, Message, MessageKey, Name, Offsets, TermAnswer, look};
use crate::pipeline::generations::recorded;
use crate::pipeline::recreated;
use crate::pipeline::topics::Sight;
use crate::storage::{self, StoreError};

/// Objects deleted at most under one proof: the next batch looks again.
const BATCH_OBJECTS: usize = 1000;

/// What a request needs.
#[derive(Clone)]
pub(super) struct Hands {
    pub parts: LaneParts,
    pub bucket: Arc<Bucket>,
    pub coordination: Option<Arc<Coordination>>,
    pub key: MessageKey,
    pub instance: Name,
    pub deletions: Arc<Deletions>,
    /// Those of the job.
    pub topics: Arc<BTreeSet<String>>,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The bucket.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The brokers of the topic, or of the coordination topic.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// Objects of the own folder that were to go.
    #[error("objects in {folder} were not deleted: {error}{}", what_helps(folder, error))]
    Undeleted {
        /// The folder.
        folder: String,
        /// Why the first of them was not.
        error: StoreError,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// How a request has ended.
pub(super) struct Outcome {
    pub event: Event,
    /// What people should know of it.
    pub trouble: Option<Trouble>,
}

impl From<Event> for Outcome {
    fn from(event: Event) -> Self {
        Self { event, trouble: None }
    }
}

impl Trouble {
    /// Another process is this instance now.
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Kafka(error) if error.kind == Kind::Fenced)
    }
}

impl Hands {
    /// Looks at the bucket.
    pub async fn look(&self, fresh: bool) -> Result<Event, Trouble> {
        let seen = self.bucket.look(fresh).await?;
        Ok(Event::Bucket(look(&seen, &self.instance)))
    }

    /// Creates the record of a run before anything of it is read, when this process is the instance.
    pub async fn create_run(&self, number: u64, after_term: u64, state: &Message) -> Result<Event, Trouble> {
        let parts = &self.parts;
        let Sight::There { id, partitions } = parts.shared.topics.sight_after(&parts.topic, Instant::now()).await
        else {
            return Err(Trouble::Other(format!("topic {} does not exist", parts.topic)));
        };
        let id = id.unwrap_or_default();
        self.is_the_same_topic(&id).await?;
        // Before the offsets are asked for: the scan may not have begun later than it says.
        let started_ms = now_ms();
        let all: Vec<_> = (0..partitions).map(|p| TopicPartition::new(parts.topic.as_str(), p)).collect();
        let asked = parts.cluster.cluster.offsets(&all, End::Earliest, Isolation::ReadUncommitted, TIMEOUT).await?;
        let mut origins = Offsets::new();
        for (at, offset) in asked {
            origins.insert(at.partition, offset?);
        }
        let record = RunRecord {
            format_version: COMPACTED_FORMAT_VERSION,
            number,
            run: uuid::Uuid::new_v4().to_string().into(),
            topic: parts.topic.clone(),
            instance: self.instance.clone(),
            job: parts.job.id.clone(),
            cluster_id: parts.cluster_id.clone(),
            topic_id: id,
            isolation: recorded(parts.job.isolation),
            started_ms,
            after_term,
            partitions: u32::try_from(partitions).unwrap_or(0),
            origins,
        };
        self.prove(state).await?;
        let run = self.bucket.create_run(&record).await?;
        Ok(Event::RunCreated { run: run.run, started_ms: run.started_ms })
    }

    /// A topic that was deleted by mistake may have been created again, and be empty: a snapshot of that would take the
    /// place of what is backed up.
    async fn is_the_same_topic(&self, id: &str) -> Result<(), Trouble> {
        let Some(newest) = self.bucket.newest_run().await else { return Ok(()) };
        let runs = self.bucket.latest_runs().await.map_err(BucketError::from)?;
        let of = runs.into_iter().find(|run| run.run == newest).map(|run| run.topic_id).unwrap_or_default();
        if of.is_empty() || id.is_empty() || of == id {
            return Ok(());
        }
        Err(Trouble::Other(recreated(&self.parts.topic, self.bucket.store().url())))
    }

    /// Proves that no newer process is this instance, by writing its state in a transaction.
    async fn prove(&self, state: &Message) -> Result<(), Trouble> {
        let coordination = self.coordination.as_ref();
        let coordination = coordination.ok_or_else(|| Trouble::Other("the coordination topic is away".to_owned()))?;
        self.write(coordination, state).await
    }

    async fn write(&self, coordination: &Coordination, state: &Message) -> Result<(), Trouble> {
        let bytes = self.key.to_bytes().and_then(|key| Ok((key, state.to_bytes(&self.topics)?)));
        let (key, value) = bytes.map_err(|error| Trouble::Other(error.to_string()))?;
        Ok(coordination.write(key, value).await?)
    }

    /// Announces the own state.
    pub async fn publish(&self, state: &Message) -> Result<(), Trouble> {
        self.prove(state).await
    }

    /// Creates a TERM, when this process is the instance and the bucket holds what is claimed. `stored` is where the
    /// lanes know the objects to end.
    pub async fn create_term(
        &self,
        number: u64,
        claim: Claim,
        state: &Message,
        stored: &Offsets,
    ) -> Result<Outcome, Trouble> {
        self.prove(state).await?;
        let unknown = |run: &Name| Trouble::Other(format!("the record of run {run} was not read"));
        let record = |run: &Name| self.bucket.run(run).ok_or_else(|| unknown(run));
        let term = match claim {
            Claim::Title { run, started_ms, ended_ms, ends } => {
                let record = record(&run)?;
                let objects = self.bucket.list_own().await?;
                title(&record, number, Scan { started_ms, ended_ms }, &ends, stored, &objects)
                    .ok_or_else(|| Trouble::Other("the bucket does not hold what the lanes have stored".to_owned()))?
            }
            Claim::Void { run } => void(&record(&run)?, number, now_ms()),
        };
        match self.bucket.create_term(&term).await {
            Ok(answer) => Ok(Event::Term(answer).into()),
            Err(error) if is_refusal(&error) => Err(BucketError::from(error).into()),
            Err(error) => {
                let trouble = Some(BucketError::from(error).into());
                Ok(Outcome { event: Event::Term(TermAnswer::Unknown), trouble })
            }
        }
    }

    /// Deletes objects of the own folder that the last look listed, but those of the run `keep`: one attempt each, none
    /// after `good_until_boot_ms`.
    pub async fn delete(
        &self,
        keep: Option<Name>,
        good_until_boot_ms: i64,
        state: &Message,
    ) -> Result<Outcome, Trouble> {
        self.prove(state).await?;
        let kept = |object: &SeenObject| {
            keep.as_ref().is_some_and(|keep| object.facts.as_ref().is_some_and(|facts| facts.run == *keep))
        };
        let listed = self.bucket.last_listed().await;
        let keys: Vec<String> =
            listed.iter().filter(|object| !kept(object)).filter_map(|object| self.bucket.own_key(object)).collect();
        let keys = keys.into_iter().take(BATCH_OBJECTS).collect();
        let batch = self.deletions.batch(self.bucket.store(), keys, good_until_boot_ms).await;
        let Batch { deleted, failed, unanswered } = batch;
        if deleted > 0 {
            tracing::info!(topic = %self.parts.topic, instance = %self.instance, objects = deleted, "objects deleted");
        }
        let folder = format!("{}/{}/", self.parts.topic, self.instance);
        let trouble = failed.map(|error| Trouble::Undeleted { folder, error });
        match trouble {
            // The server's own word leaves nothing on its way. It would be the same at once.
            Some(trouble) if !unanswered => Err(trouble),
            trouble => Ok(Outcome { event: Event::Deleted { all_answered: !unanswered }, trouble }),
        }
    }
}

fn what_helps(folder: &str, error: &StoreError) -> String {
    match error.kind {
        storage::Kind::Auth => format!("; they go when s3:DeleteObject is allowed on {folder}*"),
        _ => "; it is tried again".to_owned(),
    }
}

/// Whether the store's answer is certain to leave nothing behind, now or later.
fn is_refusal(error: &StoreError) -> bool {
    use storage::Kind::{Auth, ClockSkew, NoBucket};
    matches!(error.kind, Auth | NoBucket | ClockSkew)
}

/// What an answer of a TERM means for people.
pub(super) fn term_text(answer: &Event) -> Option<&'static str> {
    match answer {
        Event::Term(TermAnswer::Taken) => Some("the other instance was first"),
        Event::Term(TermAnswer::Unknown) => Some("it is not known whether the TERM was created; the bucket will tell"),
        _ => None,
    }
}
