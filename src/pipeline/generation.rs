//! The generation a topic is in: finding its record, and beginning a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::generations::{KNOWN_FOR, recorded};
use super::resolver::{Resolver, Unresolved};
use crate::clock::now_ms;
use crate::config::Start;
use crate::kafka::TopicPartition;
use crate::kafka::admin::End;
use crate::model::chain::{GENERATION_FORMAT_VERSION, GenerationRecord};
use crate::model::key;
use crate::model::object::Metadata;
use crate::model::resume::NewGeneration;
use crate::storage::retry::{PATIENCE, retry};
use crate::storage::{Body, Create};

impl Resolver {
    /// The newest generation of `topic`; `None` when there is no record.
    pub(super) async fn generation(&self, topic: &str) -> Result<Option<Arc<GenerationRecord>>, Unresolved> {
        let slot = self.generations.slot(topic).await;
        let mut known = slot.lock().await;
        if let Some((since, record)) = &*known
            && since.elapsed() < KNOWN_FOR
        {
            return Ok(Some(record.clone()));
        }
        let since = Instant::now();
        *known = self.load_generation(topic).await?.map(|record| (since, Arc::new(record)));
        Ok(known.as_ref().map(|(_, record)| record.clone()))
    }

    async fn load_generation(&self, topic: &str) -> Result<Option<GenerationRecord>, Unresolved> {
        let folder = key::generation_folder(topic);
        let page = retry(PATIENCE, || self.store.list(&folder, None, 1000)).await?;
        let number = |key: &str| key.strip_prefix(&folder)?.strip_suffix(".json")?.parse::<u32>().ok();
        let Some(newest) = page.entries.iter().filter_map(|entry| number(&entry.key)).max() else { return Ok(None) };
        let name = key::generation_record(topic, newest);
        let Some(bytes) = retry(PATIENCE, || self.store.get(&name)).await? else {
            return Err(Unresolved::Foreign { key: name, why: "listed, but not there".to_owned() });
        };
        let record = GenerationRecord::from_json(&name, &bytes);
        record.map(Some).map_err(|e| Unresolved::Foreign { key: name, why: e.why })
    }

    /// The uuids of all generations of `topic` that this store has a record of.
    pub(super) async fn generation_uuids(&self, topic: &str) -> Result<BTreeSet<String>, Unresolved> {
        let folder = key::generation_folder(topic);
        let page = retry(PATIENCE, || self.store.list(&folder, None, 1000)).await?;
        let mut uuids = BTreeSet::new();
        for entry in page.entries {
            let Some(bytes) = retry(PATIENCE, || self.store.get(&entry.key)).await? else { continue };
            // What is no record says nothing; who needs it complains.
            uuids.extend(GenerationRecord::from_json(&entry.key, &bytes).map(|record| record.uuid));
        }
        Ok(uuids)
    }

    /// Begins generation `number`, unless somebody else was faster, which is as good.
    pub(super) async fn begin_generation(
        &self,
        partition: &TopicPartition,
        number: u32,
        why: NewGeneration,
    ) -> Result<(), Unresolved> {
        let topic = &*partition.topic;
        let (topic_id, partitions) = self.topic(topic).await?;
        let all: Vec<_> = (0..partitions).map(|p| TopicPartition::new(partition.topic.clone(), p)).collect();
        let which = match (why, self.job.start) {
            (NewGeneration::First | NewGeneration::Adopted, Start::Latest) => End::Latest,
            _ => End::Earliest,
        };
        let mut origins = self.log_offsets(&all, which).await?;
        let mut record = GenerationRecord {
            format_version: GENERATION_FORMAT_VERSION,
            generation: number,
            uuid: uuid::Uuid::new_v4().to_string(),
            cluster_id: self.cluster_id.clone(),
            topic: topic.to_owned(),
            topic_id,
            job: self.job.id.clone(),
            isolation: recorded(self.job.isolation),
            created_ms: now_ms(),
            partitions: partitions.max(0) as u32,
            origins: BTreeMap::new(),
            parent: None,
            forks: BTreeMap::new(),
            topic_config: self.topic_config(topic).await?,
        };
        if let NewGeneration::Truncated { at } = why {
            let old = self.generation(topic).await?;
            let old = old.ok_or_else(|| Unresolved::Later { why: "the generation record has gone".to_owned() })?;
            for p in &all {
                let end = if p == partition { at } else { self.end_of_list(p, &old).await? };
                origins.insert(p.clone(), end);
                record.forks.insert(p.partition.to_string(), end);
            }
            record.parent = Some(old.generation);
        }
        record.origins = origins.iter().map(|(p, offset)| (p.partition.to_string(), *offset)).collect();
        if why == NewGeneration::Adopted {
            self.adopt_first(&record).await?;
            record.forks.clone_from(&record.origins);
            record.parent = Some(1);
        }
        self.create_record(&record, why).await?;
        self.generations.forget(topic).await;
        Ok(())
    }

    /// What lies there and is not ours becomes generation 1, which is only read.
    async fn adopt_first(&self, ours: &GenerationRecord) -> Result<(), Unresolved> {
        let adopted = GenerationRecord {
            generation: 1,
            uuid: uuid::Uuid::new_v4().to_string(),
            job: "adopted".to_owned(),
            origins: BTreeMap::new(),
            ..ours.clone()
        };
        self.create_record(&adopted, NewGeneration::Adopted).await
    }

    async fn create_record(&self, record: &GenerationRecord, why: NewGeneration) -> Result<(), Unresolved> {
        let name = key::generation_record(&record.topic, record.generation);
        let json = serde_json::to_vec_pretty(record).map_err(|e| Unresolved::Later { why: e.to_string() })?;
        let body = Body::from(json);
        let metadata = Metadata::new();
        let created = retry(PATIENCE, || self.store.create(&name, &body, &metadata)).await?;
        if created == Create::Created {
            self.forks.forget(&record.topic);
            tracing::info!(job = %self.job.id, topic = %record.topic, generation = record.generation, ?why, "new generation");
        }
        Ok(())
    }
}
