//! Where a partition of a compacted topic goes on in a run of an instance.
//!
//! Simpler than for a normal topic: the run's record is the root of the list, there are no generations and no hints to
//! judge, and what the list does not hold is read again from Kafka.
//!
//! | seen | do |
//! |---|---|
//! | topic id differs from the run's | refuse: the run is of a topic that is gone |
//! | log truncated below the end of the list | refuse: the snapshot holds records that never were |
//! | an object of another run where ours goes on | wait until it was deleted (C1), never adopt it |
//! | the list ends at S > hi | wait and ask again |
//! | the list ends at S, lo <= S | S |
//! | the list ends at S < lo | gap link [S, lo), then lo; the snapshot is tainted, unless nothing was read before |

use std::sync::atomic::Ordering;

use super::resolver::{Asked, Resolved, Resolver, Run, Unresolved};
use super::tail::Found;
use crate::kafka::TopicPartition;
use crate::model::chain::GenerationRecord;

/// What to do when `url` holds a snapshot of a topic that was there before `topic`, under the same name.
pub fn recreated(topic: &str, url: &str) -> String {
    format!(
        "topic {topic} was deleted and created again: what {url} holds is of the topic before; restore it under another \
         name if it is needed, then give the job another prefix"
    )
}

impl Resolver {
    /// Decides where `partition` goes on in `run`.
    pub(super) async fn resolve_in_run(
        &self,
        run: &Run,
        partition: &TopicPartition,
        asked: Asked,
    ) -> Result<Resolved, Unresolved> {
        let root = &run.root;
        let (id, _) = self.topic_after(&partition.topic, asked.log.at).await?;
        if !id.is_empty() && !root.topic_id.is_empty() && id != root.topic_id {
            let what = recreated(&partition.topic, self.store.url());
            return Err(Unresolved::Refused { what });
        }
        if let Some(truncation) = asked.truncation.filter(|t| t.generation == root.uuid) {
            let what = format!(
                "{partition}: the log was truncated to {}, below what is backed up: the snapshot holds records that the \
                 topic has lost; give the job another prefix to have a new one",
                truncation.at
            );
            return Err(Unresolved::Refused { what });
        }
        let found = match self.find_tail(partition, root, asked.log.hi).await {
            Err(Unresolved::Foreign { .. }) => self.walk(partition, root).await?,
            found => found?,
        };
        let next = found.as_ref().map_or(root.origin(partition.partition), |found| found.meta.next_offset);
        if next > asked.log.hi {
            let why =
                format!("{partition}: the backup ends at {next}, but the log already at {}; waiting", asked.log.hi);
            return Err(Unresolved::Later { why });
        }
        let mut resolved = Resolved {
            generation: root.clone(),
            position: next,
            leader_epoch: found.as_ref().map_or(-1, |found| found.meta.leader_epoch),
            tail_start: found.map(|found| found.meta.range_start),
            // Nothing of a run expires: there is no need of head records.
            tail: None,
            gap: 0,
        };
        if next < asked.log.lo {
            if !self.write_gap(partition, root, next, asked.log.lo).await? {
                let why = format!("{partition}: the list in the bucket has just changed");
                return Err(Unresolved::Later { why });
            }
            // Where nothing was read before, nothing that was read can have become wrong.
            if next > root.origin(partition.partition) {
                run.lost.store(true, Ordering::Release);
            }
            resolved.tail_start = Some(next);
            resolved.gap = asked.log.lo - next;
            resolved.position = asked.log.lo;
            resolved.leader_epoch = -1;
        }
        Ok(resolved)
    }

    /// The last object of the list, found by walking it from its beginning: where other runs have left objects behind,
    /// the largest name says nothing.
    async fn walk(&self, partition: &TopicPartition, root: &GenerationRecord) -> Result<Option<Found>, Unresolved> {
        let path = self.path(partition, root);
        let (mut found, mut next) = (None, root.origin(partition.partition));
        while let Some(one) = self.look(&path, root, next).await? {
            next = one.meta.next_offset;
            found = Some(one);
        }
        Ok(found)
    }
}
