//! Where the list of a partition ends in the bucket: its last object, found in a bounded number of requests
//! ([`crate::model::tail`]).

use std::sync::Arc;

use super::kept;
use super::resolver::{Resolver, Unresolved};
use crate::kafka::TopicPartition;
use crate::model::chain::GenerationRecord;
use crate::model::key::{self, PartitionPath};
use crate::model::object::ObjectMeta;
use crate::model::tail::{PAGE, TailSearch};
use crate::storage::Store;
use crate::storage::retry::{PATIENCE, retry};

/// The last object of a partition's list.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub meta: ObjectMeta,
    /// When it was written, in milliseconds since 1970-01-01 UTC.
    pub written_ms: i64,
}

impl Resolver {
    /// The last object of the partition: warm by the local hint (two requests), cold by a search.
    pub(super) async fn find_tail(
        &self,
        partition: &TopicPartition,
        generation: &GenerationRecord,
        hi: i64,
    ) -> Result<Option<Found>, Unresolved> {
        let path = self.path(partition, generation);
        let mut found = None;
        if let Some(hint) = self.hint(partition, generation) {
            found = self.look(&path, generation, hint.tail_start).await?;
        }
        if found.is_none()
            && let Some(start) = search_tail(&self.store, &path, generation.origin(partition.partition), hi).await?
        {
            found = self.look(&path, generation, start).await?;
            if found.is_none() {
                let why = format!("{partition}: the last object has just gone from the bucket");
                return Err(Unresolved::Later { why });
            }
        }
        // The list may have grown since: follow it to its end.
        while let Some(last) = &found {
            match self.look(&path, generation, last.meta.next_offset).await? {
                Some(next) => found = Some(next),
                None => break,
            }
        }
        Ok(found)
    }

    /// The last object of the partition, with what waited on disk for its turn stored before.
    pub(super) async fn complete_tail(
        &self,
        partition: &TopicPartition,
        generation: &GenerationRecord,
        hi: i64,
    ) -> Result<Option<Found>, Unresolved> {
        let mut found = self.find_tail(partition, generation, hi).await?;
        loop {
            let end = found.as_ref().map_or(generation.origin(partition.partition), |f| f.meta.next_offset);
            let stored = match &self.local.spool {
                Some(spool) => kept::store_next(spool, &*self.store, &self.job.id, partition, generation, end).await?,
                None => false,
            };
            if !stored {
                return Ok(found);
            }
            found = match self.find_tail(partition, generation, hi).await? {
                Some(longer) if longer.meta.next_offset > end => Some(longer),
                found => return Ok(found),
            };
        }
    }

    pub(super) async fn look(
        &self,
        path: &PartitionPath,
        generation: &GenerationRecord,
        offset: i64,
    ) -> Result<Option<Found>, Unresolved> {
        let key = path.object(offset);
        let Some(head) = retry(PATIENCE, || self.store.head(&key)).await? else { return Ok(None) };
        let foreign = |why: String| Unresolved::Foreign { key: key.clone(), why };
        let meta = ObjectMeta::from_metadata(&head.metadata).map_err(|e| foreign(e.to_string()))?;
        if meta.generation != generation.uuid {
            return Err(foreign(format!("it belongs to generation {}", meta.generation)));
        }
        if meta.range_start != offset {
            return Err(foreign(format!("its range starts at {}", meta.range_start)));
        }
        Ok(Some(Found { meta, written_ms: head.modified_ms }))
    }

    /// Where the list of a partition ends: its tail's next offset, or its origin.
    pub(super) async fn end_of_list(
        &self,
        partition: &TopicPartition,
        generation: &GenerationRecord,
    ) -> Result<i64, Unresolved> {
        let log = self.log_range(partition).await?;
        let found = self.find_tail(partition, generation, log.hi).await?;
        Ok(found.map_or(generation.origin(partition.partition), |f| f.meta.next_offset))
    }

    /// A generation that forked from another has no object of its own at first: the epoch of the parent's tail counts.
    pub(super) async fn parents_epoch(
        &self,
        partition: &TopicPartition,
        generation: &GenerationRecord,
        position: i64,
        hi: i64,
    ) -> Result<i32, Unresolved> {
        let Some(parent) = generation.parent.filter(|_| generation.fork(partition.partition) == Some(position)) else {
            return Ok(-1);
        };
        let path = PartitionPath::normal(&partition.topic, parent, partition.partition);
        let Some(start) = search_tail(&self.store, &path, 0, hi).await? else { return Ok(-1) };
        let key = path.object(start);
        let head = retry(PATIENCE, || self.store.head(&key)).await?;
        let meta = head.and_then(|head| ObjectMeta::from_metadata(&head.metadata).ok());
        // Only where the parent's list ends at the fork does its last epoch belong to the position.
        Ok(meta.filter(|meta| meta.next_offset == position).map_or(-1, |meta| meta.leader_epoch))
    }
}

/// The largest name of a list that begins at `origin`, of a partition whose log ends at `hi`; `None` where there is none.
pub async fn search_tail(
    store: &Arc<dyn Store>,
    path: &PartitionPath,
    origin: i64,
    hi: i64,
) -> Result<Option<i64>, Unresolved> {
    let mut search = TailSearch::new(origin, hi);
    let folder = path.folder();
    while let Some(from) = search.wants() {
        let after = path.just_before(from);
        let page = retry(PATIENCE, || store.list(&folder, Some(&after), PAGE)).await?;
        let last = page.entries.last();
        let offset = last.map(|entry| match key::parse(&entry.key) {
            Some(parsed) if parsed.path == *path => Ok(parsed.offset),
            _ => Err(Unresolved::Foreign { key: entry.key.clone(), why: "not an object's name".to_owned() }),
        });
        search.answer(offset.transpose()?, page.more);
    }
    Ok(search.tail())
}
