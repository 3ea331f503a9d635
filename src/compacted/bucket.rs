//! What the bucket says of one compacted topic, and what is written there: records, never data.
//!
//! Records are created once and never changed, and so are objects under one entity tag: both are read once and kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, MutexGuard, PoisonError};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::model::compacted::look::{ObjectFacts, Seen, SeenObject, newest, newest_does_not_count};
use crate::model::compacted::record::{self, Pin, Record, RecordName, RunRecord, TaintMark, TermRecord};
use crate::model::compacted::{Name, TermAnswer};
use crate::model::key;
use crate::model::object::{Metadata, ObjectMeta};
use crate::model::verify::terms::Runs;
use crate::storage::retry::{PATIENCE, retry};
use crate::storage::{Body, Create, Entry, Store, StoreError};

/// Keys of one listing request, the most S3 gives.
const PAGE: usize = 1000;
/// Objects asked for their facts, or deleted, at the same time.
pub(super) const AT_ONCE: usize = 32;
/// With more objects than this a look that is no proof takes the listing of the last one.
const LISTED_EACH_TIME: usize = 5_000;

/// The bucket, as far as one compacted topic is concerned.
pub struct Bucket {
    store: Arc<dyn Store>,
    topic: String,
    /// Whose run records matter, and whose objects are all asked; `None` for a restore, which owns nothing.
    own: Option<Name>,
    known: Mutex<Known>,
    /// Records of own runs; never held while something is waited for.
    runs: std::sync::Mutex<BTreeMap<u64, RunRecord>>,
}

/// What was read before.
#[derive(Default)]
struct Known {
    terms: BTreeMap<u64, Option<TermRecord>>,
    facts: HashMap<(String, String), Option<ObjectFacts>>,
    last: Option<Seen>,
}

/// A record that cannot be read, or a store that does not answer.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record that something depends on.
    #[error(transparent)]
    Record(#[from] record::RecordError),
}

impl Bucket {
    /// The bucket as `own` sees it.
    pub fn new(store: Arc<dyn Store>, topic: &str, own: Option<Name>) -> Self {
        Self { store, topic: topic.to_owned(), own, known: Mutex::default(), runs: std::sync::Mutex::default() }
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Reads everything anew: TERM records first, then the folders of the instances that they name, the own one last,
    /// then the pins. Whoever pins something reads the TERMs again afterwards, so that either the one or the other is
    /// seen. `fresh = false` may take what was listed last when no new TERM is there and the listing is long.
    ///
    /// # Errors
    /// The store does not answer, or the record of an own run cannot be understood.
    pub async fn look(&self, fresh: bool) -> Result<Seen, BucketError> {
        let mut known = self.known.lock().await;
        let mut seen = Seen::default();
        self.read_records(&mut known, &mut seen).await?;
        let reusable = known.last.take().filter(|last| {
            let listed: usize = last.objects.values().map(Vec::len).sum();
            !fresh && last.terms.len() == seen.terms.len() && listed > LISTED_EACH_TIME
        });
        match reusable {
            Some(last) => seen.objects = last.objects,
            None => {
                for instance in self.instances(&seen) {
                    let objects = self.read_objects(&mut known, &seen, &instance).await?;
                    seen.objects.insert(instance, objects);
                }
            }
        }
        seen.pins = self.pins().await?;
        known.last = Some(seen.clone());
        Ok(seen)
    }

    /// Reads everything anew, as it is at one time: for whoever takes no part in the turns, and is not to mistake the end of
    /// one for damage.
    ///
    /// # Errors
    /// Those of [`Self::look`].
    pub async fn look_from_outside(&self) -> Result<Seen, BucketError> {
        let mut seen = self.look(true).await?;
        while newest_does_not_count(&seen) {
            let again = self.look(true).await?;
            let turned = again.terms.keys().next_back() > seen.terms.keys().next_back();
            seen = again;
            if !turned {
                break;
            }
        }
        Ok(seen)
    }

    /// The records of all runs of all instances by their keys, each with what is wrong with it; `None` where the topic has
    /// no records at all.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn all_runs(&self) -> Result<Option<Runs>, StoreError> {
        let listed = list(&*self.store, &record::folder(&self.topic)).await?;
        if listed.is_empty() {
            return Ok(None);
        }
        let is_run = |key: &str| matches!(record::parse(&self.topic, key), Some(RecordName::Run { .. }));
        let runs = listed.into_iter().map(|entry| entry.key).filter(|key| is_run(key));
        let read = stream::iter(runs).map(|key| async move {
            let run = self.read::<RunRecord>(&key).await?;
            Ok((key, run))
        });
        Ok(Some(read.buffer_unordered(AT_ONCE).try_collect().await?))
    }

    /// The latest run of every instance: what each made last.
    ///
    /// # Errors
    /// The store does not answer. A record that cannot be understood is left out.
    pub async fn latest_runs(&self) -> Result<Vec<RunRecord>, StoreError> {
        let mut latest = BTreeMap::new();
        for entry in list(&*self.store, &record::folder(&self.topic)).await? {
            if let Some(RecordName::Run { instance, number }) = record::parse(&self.topic, &entry.key) {
                let known = latest.entry(instance).or_insert((number, entry.key.clone()));
                if number > known.0 {
                    *known = (number, entry.key);
                }
            }
        }
        let mut runs = Vec::new();
        for (_, key) in latest.into_values() {
            runs.extend(self.read::<RunRecord>(&key).await?.ok());
        }
        Ok(runs)
    }

    /// The run of the highest valid TERM, as the last look found it.
    pub async fn newest_run(&self) -> Option<Name> {
        let known = self.known.lock().await;
        known.last.as_ref().and_then(newest).map(|owner| owner.run)
    }

    /// The record of the own run with this id, as far as it was read.
    pub fn run(&self, run: &Name) -> Option<RunRecord> {
        self.runs().values().find(|record| record.run == *run).cloned()
    }

    /// How long the scan of this TERM took, in seconds, as far as that was read.
    pub fn scan_seconds(&self, term: u64) -> Option<f64> {
        // Held only by a look, and the next one brings the same.
        let known = self.known.try_lock().ok()?;
        let term = known.terms.get(&term)?.as_ref()?;
        Some((term.scan_ended_ms - term.scan_started_ms) as f64 / 1000.0)
    }

    fn runs(&self) -> MutexGuard<'_, BTreeMap<u64, RunRecord>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The objects of the own folder that the last look listed, with the facts that are known.
    pub async fn last_listed(&self) -> Vec<SeenObject> {
        let known = self.known.lock().await;
        let own = self.own.as_ref().and_then(|own| known.last.as_ref()?.objects.get(own));
        own.cloned().unwrap_or_default()
    }

    /// The objects of the own folder as they are now.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn list_own(&self) -> Result<Vec<SeenObject>, BucketError> {
        let Some(own) = self.own.clone() else { return Ok(Vec::new()) };
        self.read_objects(&mut *self.known.lock().await, &Seen::default(), &own).await
    }

    /// The key of an object in the own folder.
    pub fn own_key(&self, object: &SeenObject) -> Option<String> {
        let own = self.own.as_ref()?;
        Some(key::PartitionPath::of_instance(&self.topic, own, object.partition).object(object.offset))
    }

    /// Whose folders are listed: those that TERMs name, then the own one.
    fn instances(&self, seen: &Seen) -> Vec<Name> {
        let named: BTreeSet<Name> = seen.terms.values().flatten().map(|term| term.instance.clone()).collect();
        let others = named.into_iter().filter(|name| Some(name) != self.own.as_ref());
        others.chain(self.own.clone()).collect()
    }

    async fn read_records(&self, known: &mut Known, seen: &mut Seen) -> Result<(), BucketError> {
        let folder = record::folder(&self.topic);
        for entry in list(&*self.store, &folder).await? {
            match record::parse(&self.topic, &entry.key) {
                Some(RecordName::Taint(n)) => _ = seen.taints.insert(n),
                Some(RecordName::Term(n)) => {
                    if known.terms.get(&n).is_none_or(Option::is_none) {
                        let term = self.read::<TermRecord>(&entry.key).await?;
                        if let Err(error) = &term {
                            tracing::error!(topic = %self.topic, %error, "a TERM that counts for nobody");
                        }
                        known.terms.insert(n, term.ok());
                    }
                    seen.terms.insert(n, known.terms.get(&n).cloned().flatten());
                }
                Some(RecordName::Run { instance, number }) if self.own.as_deref() == Some(&*instance) => {
                    if !self.runs().contains_key(&number) {
                        let run = self.read::<RunRecord>(&entry.key).await??;
                        self.runs().insert(number, run);
                    }
                }
                Some(RecordName::Run { .. }) | None => {}
            }
        }
        seen.runs = self.runs().clone();
        Ok(())
    }

    async fn read<R: Record>(&self, key: &str) -> Result<Result<R, record::RecordError>, StoreError> {
        let gone = || record::RecordError { key: key.to_owned(), why: "listed, but not there".to_owned() };
        let bytes = retry(PATIENCE, || self.store.get(key)).await?;
        Ok(bytes.ok_or_else(gone).and_then(|bytes| R::from_json(key, &bytes)))
    }

    /// Lists the folder of an instance. Its own objects are all asked what they are, those of others only behind what
    /// their newest TERM lists: that TERM vouches for the rest.
    async fn read_objects(
        &self,
        known: &mut Known,
        seen: &Seen,
        instance: &Name,
    ) -> Result<Vec<SeenObject>, BucketError> {
        let newest = seen.terms.values().rev().flatten().find(|term| term.instance == *instance && !term.void);
        let vouched = |partition: i32, offset: i64| {
            let listed = newest.filter(|_| self.own.as_ref() != Some(instance));
            let last = listed.and_then(|term| term.partitions.get(&partition)?.objects.last());
            last.is_some_and(|last| offset <= last.offset)
        };
        let folder = format!("{}/{instance}/", self.topic);
        let entries = list(&*self.store, &folder).await?;
        let mut facts = HashMap::new();
        let mut objects = Vec::new();
        let mut unknown = Vec::new();
        for entry in entries {
            let Some(name) = key::parse(&entry.key).filter(|n| n.path.branch.as_deref() == Some(&**instance)) else {
                continue;
            };
            let id = (entry.key.clone(), entry.etag.clone());
            match known.facts.remove(&id) {
                Some(found) => _ = facts.insert(id, found),
                None if vouched(name.path.partition, name.offset) => {}
                None => unknown.push(entry.clone()),
            }
            objects.push((name, entry));
        }
        let asked = stream::iter(unknown).map(|entry| self.ask(entry)).buffer_unordered(AT_ONCE);
        facts.extend(asked.try_collect::<Vec<_>>().await?);
        let seen_object = |(name, entry): (key::ObjectKey, Entry)| SeenObject {
            partition: name.path.partition,
            offset: name.offset,
            size: entry.size,
            facts: facts.get(&(entry.key, entry.etag.clone())).cloned().flatten(),
            etag: entry.etag.into(),
        };
        let objects = objects.into_iter().map(seen_object).collect();
        // What is gone from this folder is forgotten.
        known.facts.retain(|(key, _), _| !key.starts_with(&folder));
        known.facts.extend(facts);
        Ok(objects)
    }

    /// Asks one object what it is; `None` for one that cannot say it.
    async fn ask(&self, entry: Entry) -> Result<((String, String), Option<ObjectFacts>), StoreError> {
        let head = retry(PATIENCE, || self.store.head(&entry.key)).await?;
        let meta = head.and_then(|head| ObjectMeta::from_metadata(&head.metadata).ok());
        let facts = meta.filter(|meta| !meta.run.is_empty()).map(|meta| ObjectFacts {
            run: meta.run.into(),
            next_offset: meta.next_offset,
            at_eof: meta.at_eof,
            gap: !meta.gap.is_empty(),
            written_ms: entry.modified_ms,
        });
        Ok(((entry.key, entry.etag), facts))
    }

    /// The pins on this topic. One that cannot be read protects whatever there is, for as long as it lies there.
    async fn pins(&self) -> Result<Vec<Pin>, BucketError> {
        let mut pins = Vec::new();
        for entry in list(&*self.store, &record::pin_folder()).await? {
            let Some(bytes) = retry(PATIENCE, || self.store.get(&entry.key)).await? else { continue };
            match Pin::from_json(&entry.key, &bytes) {
                Ok(pin) => pins.push(pin),
                Err(error) => {
                    tracing::warn!(topic = %self.topic, %error, "a pin that cannot be read: nothing is deleted");
                    let topic = topic_of(&bytes).unwrap_or_else(|| self.topic.clone());
                    pins.extend(self.own.iter().map(|own| Pin {
                        format_version: record::COMPACTED_FORMAT_VERSION,
                        id: String::new(),
                        topic: topic.clone(),
                        instance: own.clone(),
                        run: "".into(),
                        renewed_ms: 0,
                        expires_ms: i64::MAX,
                    }));
                }
            }
        }
        pins.retain(|pin| pin.topic == self.topic);
        Ok(pins)
    }

    /// Creates the record of a run, or reads the one that is there under its number.
    ///
    /// # Errors
    /// The store does not answer, or what is there cannot be understood.
    pub async fn create_run(&self, record: &RunRecord) -> Result<RunRecord, BucketError> {
        let key = record.key();
        let (body, metadata) = (Body::from(record.to_json()), Metadata::new());
        let created = retry(PATIENCE, || self.store.create(&key, &body, &metadata)).await?;
        let run = match created {
            Create::Created => record.clone(),
            Create::Exists => self.read::<RunRecord>(&key).await??,
        };
        self.runs().insert(run.number, run.clone());
        Ok(run)
    }

    /// Creates a TERM, in one attempt.
    ///
    /// # Errors
    /// It is not known whether it was created, unless the store has refused it.
    pub async fn create_term(&self, term: &TermRecord) -> Result<TermAnswer, StoreError> {
        let (key, json) = (term.key(), term.to_json());
        match self.store.create(&key, &Body::from(json.clone()), &Metadata::new()).await? {
            Create::Created => Ok(TermAnswer::Created),
            Create::Exists => Ok(match self.store.get(&key).await {
                Ok(Some(found)) if found == json => TermAnswer::Created,
                Ok(Some(_)) => TermAnswer::Taken,
                _ => TermAnswer::Unknown,
            }),
        }
    }

    /// Creates the mark that a TERM is tainted; one that is there is as good.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn mark_tainted(&self, mark: &TaintMark) -> Result<(), BucketError> {
        let (key, body, metadata) = (mark.key(), Body::from(mark.to_json()), Metadata::new());
        retry(PATIENCE, || self.store.create(&key, &body, &metadata)).await?;
        Ok(())
    }
}

/// Which topic a pin of an unknown layout is about.
fn topic_of(json: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Topic {
        topic: String,
    }
    serde_json::from_slice::<Topic>(json).ok().map(|pin| pin.topic)
}

/// All keys under a prefix.
async fn list(store: &dyn Store, prefix: &str) -> Result<Vec<Entry>, StoreError> {
    let (mut all, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = retry(PATIENCE, || store.list(prefix, after.as_deref(), PAGE)).await?;
        after = page.entries.last().map(|entry| entry.key.clone());
        all.extend(page.entries);
        if !page.more || after.is_none() {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::compacted::record::{COMPACTED_FORMAT_VERSION, TermObject, TermPartition};
    use crate::model::key::PartitionPath;
    use crate::storage::fault::{Fault, FaultStore};
    use crate::storage::file::FileStore;

    /// Stores one object of `instance` and the TERM that names it. Returns the object's key.
    async fn own(store: &dyn Store, term: u64, instance: &str) -> String {
        let path = PartitionPath::of_instance("t", instance, 0);
        let key = path.object(0);
        store.create(&key, &Body::from(b"data".to_vec()), &Metadata::new()).await.unwrap();
        let entry = store.list(&format!("t/{instance}/"), None, 1).await.unwrap().entries.remove(0);
        let object = TermObject { offset: 0, next_offset: 5, size: entry.size, etag: entry.etag.into() };
        let record = TermRecord {
            format_version: COMPACTED_FORMAT_VERSION,
            term,
            topic: "t".to_owned(),
            instance: instance.into(),
            run: format!("run-{instance}").as_str().into(),
            void: false,
            created_ms: 0,
            scan_started_ms: 0,
            scan_ended_ms: 0,
            partitions: BTreeMap::from([(0, TermPartition { from: 0, to: 5, objects: vec![object] })]),
            objects: 1,
            bytes: entry.size,
        };
        store.create(&record.key(), &Body::from(record.to_json()), &Metadata::new()).await.unwrap();
        key
    }

    #[tokio::test]
    async fn a_turn_that_ends_during_a_look_from_outside_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let file = FileStore::open(dir.path(), "", tokio::runtime::Handle::current()).unwrap();
        let store = Arc::new(FaultStore::new(Arc::new(file)));
        let of_a = own(&*store, 1, "a").await;
        let bucket = Bucket::new(store.clone(), "t", None);
        assert_eq!(newest(&bucket.look_from_outside().await.unwrap()).unwrap().number, 1);

        // The records have been listed; before the objects are, the other one takes over, and the first clears its folder.
        store.add(Fault::delay("list", Duration::from_millis(300)).under("t/a/"));
        let listed = store.calls("list");
        let (seen, ()) = tokio::join!(bucket.look_from_outside(), async {
            while store.calls("list") < listed + 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            own(&*store, 2, "b").await;
            store.delete(&of_a).await.unwrap();
        });
        assert_eq!(newest(&seen.unwrap()).unwrap().number, 2);

        let of_b = PartitionPath::of_instance("t", "b", 0).object(0);
        store.delete(&of_b).await.unwrap();
        let seen = bucket.look_from_outside().await.unwrap();
        assert_eq!(newest(&seen), None, "that is damage");
    }
}
