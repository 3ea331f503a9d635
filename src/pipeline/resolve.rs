//! Where a partition goes on: asks the bucket, the brokers and the local hints, and lets [`crate::model::resume`] decide.

use super::generations::recorded;
use super::open_object::gap_link;
use super::resolver::{Asked, Resolved, Resolver, Unresolved};
use super::tail::Found;
use super::{expiry, heads};
use crate::clock::now_ms;
use crate::config::{Lifecycle, OnRecreate, Retention};
use crate::kafka::TopicPartition;
use crate::metrics;
use crate::model::chain::GenerationRecord;
use crate::model::object::ObjectMeta;
use crate::model::resume::{Note, Refusal, Resume, Root, Seen, Tail, resume};
use crate::state::{self};
use crate::storage::Create;
use crate::storage::retry::{PATIENCE, retry};

/// Decisions in a row that change the bucket (new generation, gap link) before something must be wrong.
const MAX_STEPS: u32 = 8;

/// Where the list is said to end by something else than its objects.
#[derive(Debug, Clone, Copy)]
struct Hint {
    next_offset: i64,
    /// -1 when unknown.
    leader_epoch: i32,
}

impl Resolver {
    /// Decides where `partition` goes on and writes what the decision needs (generation record, gap link).
    pub async fn resolve(&self, partition: &TopicPartition, mut asked: Asked) -> Result<Resolved, Unresolved> {
        if let Some(run) = &self.run {
            return self.resolve_in_run(run, partition, asked).await;
        }
        for _ in 0..MAX_STEPS {
            let generation = self.generation(&partition.topic).await?;
            self.check_isolation(generation.as_deref())?;
            let found = match &generation {
                Some(generation) => self.complete_tail(partition, generation, asked.log.hi).await?,
                None => None,
            };
            let hint = match &generation {
                Some(generation) => self.best_hint(partition, generation, found.as_ref(), &asked).await?,
                None => None,
            };
            let decision = self.decide(partition, generation.as_deref(), found.as_ref(), hint, &asked).await?;
            let (position, gap) = match decision {
                Resume::NewGeneration { number, why } => {
                    self.begin_generation(partition, number, why).await?;
                    asked.log = self.log_range(partition).await?;
                    continue;
                }
                Resume::Refuse(refusal) => return Err(self.refused(&partition.topic, &refusal)),
                Resume::Wait { next_offset, hi } => {
                    let why =
                        format!("{partition}: the backup ends at {next_offset}, but the log already at {hi}; waiting");
                    return Err(Unresolved::Later { why });
                }
                Resume::Begin { at, note } => {
                    self.say(partition, note);
                    (at, 0)
                }
                Resume::Gap { from, to, note } => {
                    self.say(partition, note);
                    let Some(generation) = &generation else { continue };
                    // A gap stands for ever: the log that it is taken from must be this topic's.
                    let (id, _) = self.topic_after(&partition.topic, asked.log.at).await?;
                    let another = !id.is_empty() && !generation.topic_id.is_empty() && id != generation.topic_id;
                    if another {
                        asked.log = self.log_range(partition).await?;
                        continue;
                    }
                    if !self.write_gap(partition, generation, from, to).await? {
                        continue;
                    }
                    (to, to - from)
                }
            };
            let Some(generation) = generation else { continue };
            let leader_epoch = match &found {
                // It is the epoch of the record in front of the position, or it means nothing.
                Some(found) if found.meta.next_offset == position => found.meta.leader_epoch,
                _ if hint.is_some_and(|hint| hint.next_offset == position) => hint.map_or(-1, |hint| hint.leader_epoch),
                Some(_) => -1,
                None => self.parents_epoch(partition, &generation, position, asked.log.hi).await?,
            };
            let tail_start = match gap {
                0 => found.as_ref().map(|f| f.meta.range_start),
                _ => Some(position - gap),
            };
            let tail = match (&found, gap) {
                (_, 1..) => Some((now_ms(), -1)),
                (Some(found), _) if found.meta.next_offset == position => Some((found.written_ms, leader_epoch)),
                (None, _) if position == generation.origin(partition.partition) => None,
                // The objects that were there have expired: nothing but a head record says where the list goes on.
                _ => Some((0, leader_epoch)),
            };
            return Ok(Resolved { generation, position, leader_epoch, tail_start, tail, gap });
        }
        Err(Unresolved::Later { why: format!("{partition}: the list in the bucket keeps changing") })
    }

    async fn decide(
        &self,
        partition: &TopicPartition,
        generation: Option<&GenerationRecord>,
        found: Option<&Found>,
        hint: Option<Hint>,
        asked: &Asked,
    ) -> Result<Resume, Unresolved> {
        let (topic_id, _) = self.topic(&partition.topic).await?;
        let strangers = generation.is_none() && {
            let prefix = format!("{}/", partition.topic);
            !retry(PATIENCE, || self.store.list(&prefix, None, 1)).await?.entries.is_empty()
        };
        let is_of = |uuid: &String| generation.is_some_and(|g| g.uuid == *uuid);
        let hint = hint.map(|hint| hint.next_offset);
        let ahead = hint.is_some_and(|hint| found.is_none_or(|found| hint > found.meta.next_offset));
        let retention_ms = if ahead { self.retention_ms(&partition.topic, found).await? } else { None };
        let truncation = asked.truncation.as_ref().filter(|t| is_of(&t.generation));
        Ok(resume(&Seen {
            cluster_id: &self.cluster_id,
            topic_id: &topic_id,
            lo: asked.log.lo,
            hi: asked.log.hi,
            generation: generation.map(|g| Root {
                number: g.generation,
                cluster_id: &g.cluster_id,
                topic_id: &g.topic_id,
                origin: g.origin(partition.partition),
                adopted: g.is_adopted(),
            }),
            strangers,
            tail: found.map(|f| Tail { next_offset: f.meta.next_offset, written_ms: f.written_ms }),
            hint,
            truncated_at: truncation.map(|t| t.at),
            retention_ms,
            now_ms: now_ms(),
            adopt: self.job.adopt,
            stop_on_recreate: self.job.on_recreate == OnRecreate::Stop,
        }))
    }

    /// The furthest that local state, the group's commit and, where no object is left, the head record go.
    async fn best_hint(
        &self,
        partition: &TopicPartition,
        generation: &GenerationRecord,
        found: Option<&Found>,
        asked: &Asked,
    ) -> Result<Option<Hint>, Unresolved> {
        let local = self.hint(partition, generation);
        let local = local.map(|k| Hint { next_offset: k.next_offset, leader_epoch: k.leader_epoch });
        // A hint with another generation's uuid does not exist.
        let group = asked.group.as_ref().filter(|(_, uuid)| *uuid == generation.uuid);
        let group = group.map(|(next_offset, _)| Hint { next_offset: *next_offset, leader_epoch: -1 });
        let head = match found {
            Some(_) => None,
            None => heads::read(&self.store, partition, &generation.uuid).await?,
        };
        let head = head.map(|h| Hint { next_offset: h.next_offset, leader_epoch: h.leader_epoch });
        // Of equal ones the one that knows its epoch.
        Ok([local, head, group].into_iter().flatten().max_by_key(|hint| (hint.next_offset, hint.leader_epoch)))
    }

    /// How long objects of `topic` that are missing behind `found` were kept at the least; `None` is for ever.
    async fn retention_ms(&self, topic: &str, found: Option<&Found>) -> Result<Option<i64>, Unresolved> {
        let recorded = expiry::shortest_since(&self.store, topic, found.map(|found| found.written_ms)).await?;
        // Whoever looks after the bucket does what the job says of it.
        let said = match (self.job.lifecycle, self.job.retention) {
            (Lifecycle::Off, Retention::Days(days)) => Some(days),
            _ => None,
        };
        let days = [recorded, said].into_iter().flatten().min();
        Ok(days.map(|days| i64::from(days).saturating_mul(expiry::day_ms())))
    }

    pub(super) fn hint(&self, partition: &TopicPartition, generation: &GenerationRecord) -> Option<state::Committed> {
        let key = state::key(&self.state_url(), &partition.topic, partition.partition);
        let known = self.local.state.as_ref()?.get(&key)?;
        // A hint with another generation's uuid does not exist.
        (known.generation.to_string() == generation.uuid).then_some(known)
    }

    /// Writes the gap link [from, to); `false` when somebody else appended first.
    pub(super) async fn write_gap(
        &self,
        partition: &TopicPartition,
        generation: &GenerationRecord,
        from: i64,
        to: i64,
    ) -> Result<bool, Unresolved> {
        let path = self.path(partition, generation);
        let (body, metadata) = gap_link(ObjectMeta {
            generation: generation.uuid.clone(),
            job: self.job.id.clone(),
            topic: partition.topic.to_string(),
            topic_id: generation.topic_id.clone(),
            partition: partition.partition,
            range_start: from,
            next_offset: to,
            offsets: None,
            records: 0,
            timestamps: None,
            max_record_bytes: 0,
            null_keys: None,
            leader_epoch: -1,
            sha256: String::new(),
            nonce: String::new(),
            at_eof: false,
            run: self.run.as_ref().map_or_else(String::new, |run| run.root.uuid.clone()),
            gap: "retention".to_owned(),
        });
        let key = path.object(from);
        let created = retry(PATIENCE, || self.store.create(&key, &body, &metadata)).await?;
        if created == Create::Exists {
            return Ok(false);
        }
        metrics::gap(&self.job.id, &partition.topic, "retention", to - from);
        tracing::error!(job = %self.job.id, partition = %partition, from, to,
            "records were deleted by Kafka before they were backed up; the gap is recorded in the bucket");
        Ok(true)
    }

    fn check_isolation(&self, generation: Option<&GenerationRecord>) -> Result<(), Unresolved> {
        let Some(generation) = generation else { return Ok(()) };
        let ours = recorded(self.job.isolation);
        if generation.isolation == ours {
            return Ok(());
        }
        let what = format!(
            "topic {}: isolation is {ours:?}, but the backup was begun with {:?}; set isolation back, or give the job another prefix",
            generation.topic, generation.isolation
        );
        Err(Unresolved::Refused { what })
    }

    fn refused(&self, topic: &str, refusal: &Refusal) -> Unresolved {
        let url = self.store.url();
        let what = match refusal {
            Refusal::Strangers => format!(
                "topic {topic}: {url} already holds objects under {topic}/ that this program did not write, or the record of \
                 whose generation was deleted (under _kafka_backup/topics/{topic}/: put it back); \
                 give the job another prefix, or set adopt = true to keep them as a read-only generation"
            ),
            Refusal::OtherCluster { backed_up, seen } => format!(
                "topic {topic}: the backup in {url} is of cluster {backed_up}, but the brokers belong to cluster {seen}; \
                 correct bootstrap_servers, or give the job another prefix"
            ),
            Refusal::Recreated => format!(
                "topic {topic} was deleted and created again, and on_recreate is \"stop\"; \
                 set on_recreate = \"new-generation\" to go on with the new topic beside the old backup"
            ),
        };
        Unresolved::Refused { what }
    }

    fn say(&self, partition: &TopicPartition, note: Option<Note>) {
        let job = &self.job.id;
        match note {
            None => {}
            Some(Note::DeletedBySomebody { hint }) => {
                metrics::error("s3", "other");
                tracing::error!(job = %job, partition = %partition, backed_up_to = hint,
                    "objects of this partition were deleted by somebody; what Kafka still holds is backed up again");
            }
            Some(Note::Expired { up_to }) => {
                tracing::info!(job = %job, partition = %partition, up_to, "earlier objects have expired");
            }
            Some(Note::NothingBelow { origin, to }) => {
                tracing::warn!(job = %job, partition = %partition, origin, to, "no objects below: expired or lost");
            }
        }
    }
}

impl Resolver {
    /// Looks the generation of `topic` up anew the next time.
    pub async fn forget_generation(&self, topic: &str) {
        self.generations.forget(topic).await;
    }
}
