//! Looks a backup over: which topics, generations, partitions and objects a store holds.
//!
//! Nothing is believed because of its name alone: every object is asked (HEAD) what it is, many at a time. An object
//! that says nothing of itself in its metadata, because it was copied from elsewhere or is of the older layout, is
//! asked again through its Avro header.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, TryStreamExt, stream};

use super::header;
use crate::clock::now_ms;
use crate::error::{Error, Exit, Result};
use crate::model::catalog::{self, Branch, Facts, Known, StoredObject, TopicBackup};
use crate::model::chain::{GenerationError, GenerationRecord};
use crate::model::key::{self, ObjectKey, PartitionPath};
use crate::model::lifecycle::head::HeadRecord;
use crate::model::lifecycle::record::RecordError;
use crate::model::verify::Expiry;
use crate::model::verify::aging::Aging;
use crate::model::verify::tails::{Tails, TailsError};
use crate::pipeline::expiry;
use crate::storage::retry::retry;
use crate::storage::{Entry, Head, Kind, Metadata, Store, StoreError};

/// How many objects are asked at the same time.
const HEADS: usize = 48;

/// How many partitions are listed at the same time, when each has few objects.
const LISTINGS: usize = 8;

/// Keys of one listing request, the most S3 gives.
const PAGE: usize = 1000;

/// How long a store may be out of reach before a look at it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// The topics a store has a backup of, in lexical order.
pub async fn topics(store: &Arc<dyn Store>) -> Result<Vec<String>> {
    let system = format!("{}/topics/", key::SYSTEM);
    let (folders, recorded) = futures_util::try_join!(folders(store, ""), folders(store, &system))?;
    let names = folders.iter().map(|f| f.trim_end_matches('/')).filter(|name| *name != key::SYSTEM);
    let recorded = recorded.iter().filter_map(|f| f.strip_prefix(&system)).map(|f| f.trim_end_matches('/'));
    let names: BTreeSet<String> = names.chain(recorded).map(str::to_owned).collect();
    Ok(names.into_iter().collect())
}

/// The generation records of a topic, and its branches with their partitions, which hold no objects yet; `None` when
/// there is nothing of it.
pub async fn outline(store: &Arc<dyn Store>, topic: &str) -> Result<Option<TopicBackup>> {
    let mut backup = TopicBackup { records: records(store, topic).await?, ..TopicBackup::default() };
    let top = format!("{topic}/");
    let is_partition = |name: &str| name.bytes().all(|b| b.is_ascii_digit()) && name.parse::<i32>().is_ok();
    for folder in folders(store, &top).await? {
        let name = folder[top.len()..].trim_end_matches('/');
        if is_partition(name) {
            let partitions = backup.branches.entry(Branch::Generation(1)).or_default();
            partitions.entry(name.parse().unwrap_or_default()).or_default();
            continue;
        }
        let inside = folders(store, &folder).await?;
        let inside = inside.iter().map(|f| f[folder.len()..].trim_end_matches('/')).filter(|name| is_partition(name));
        let inside: BTreeMap<i32, _> = inside.filter_map(|name| Some((name.parse().ok()?, Vec::new()))).collect();
        if !inside.is_empty() {
            backup.branches.insert(Branch::of(Some(name)), inside);
        }
    }
    Ok((!backup.records.is_empty() || !backup.branches.is_empty()).then_some(backup))
}

/// What is known of the age at which the objects of a topic go; where nothing ever expired, `unrecorded`. The inner error is
/// a record of it that cannot be understood.
pub async fn aging(
    store: &Arc<dyn Store>,
    topic: &str,
    unrecorded: Expiry,
) -> Result<std::result::Result<Aging, RecordError>> {
    let record = expiry::record_of(store, topic).await.map_err(failed)?;
    Ok(record.map(|record| match record.last() {
        None => Aging::Unrecorded(unrecorded),
        Some(_) => Aging::Recorded { record, now_ms: now_ms(), day_ms: expiry::day_ms() },
    }))
}

/// Fills in how far the lists of a topic must reach, and how they age: a list does not say where it ends, but head records
/// and earlier verifications do. Where nothing ever expired as far as records say, `unrecorded` holds.
pub async fn fill_reaches(
    store: &Arc<dyn Store>,
    topic: &str,
    backup: &mut TopicBackup,
    unrecorded: Expiry,
) -> Result<()> {
    let (heads, tails) = futures_util::try_join!(heads(store, topic), tails(store, topic))?;
    backup.aging = aging(store, topic, unrecorded).await?.unwrap_or_else(|error| {
        tracing::warn!("{error}; what is missing is not known to have expired");
        Aging::default()
    });
    let tails = tails.unwrap_or_else(|error| {
        tracing::warn!("{error}; what earlier verifications have seen is not known");
        Tails::new(topic)
    });
    for (n, record) in backup.records.iter().filter(|(_, record)| !record.is_adopted()) {
        for partition in 0..backup.partitions(*n) as i32 {
            let path = PartitionPath::normal(topic, *n, partition);
            let head = heads.get(&partition).filter(|head| head.generation == record.uuid);
            let head = head.map(|head| Known { until: head.next_offset, written_ms: None });
            let before = tails.reach(&path, &record.uuid);
            let before = before.map(|reach| Known { until: reach.until, written_ms: reach.written_ms });
            if let Some(known) = before.max(head) {
                backup.reaches.insert((*n, partition), known);
            }
        }
    }
    Ok(())
}

/// Fills in the objects of `generation` and its parents, in the order in which they are read; only `partitions`, where
/// given.
pub async fn fill(
    store: &Arc<dyn Store>,
    topic: &str,
    backup: &mut TopicBackup,
    generation: u32,
    partitions: Option<&BTreeSet<i32>>,
) -> Result<()> {
    let mut wanted = Vec::new();
    for n in backup.lineage(generation) {
        let uuid = backup.records.get(&n).map(|record| record.uuid.clone());
        let there = backup.branches.get(&Branch::Generation(n)).into_iter().flat_map(BTreeMap::keys);
        let there = there.filter(|p| partitions.is_none_or(|wanted| wanted.contains(p)));
        wanted.extend(there.map(|p| (n, PartitionPath::normal(topic, n, *p), uuid.clone())));
    }
    let mut found = stream::iter(wanted)
        .map(|(n, path, uuid)| async move {
            let mut objects = Vec::new();
            each_object(store, &path, uuid.as_deref(), |object| objects.push(object)).await?;
            catalog::sort(&mut objects);
            Result::<_, Error>::Ok((n, path.partition, objects))
        })
        .buffer_unordered(LISTINGS);
    while let Some((n, partition, objects)) = found.try_next().await? {
        backup.branches.entry(Branch::Generation(n)).or_default().insert(partition, objects);
    }
    Ok(())
}

/// Gives every object of a partition's folder to `take`, in the order of their names, asked what they are. `uuid` is
/// that of the generation's record.
pub async fn each_object(
    store: &Arc<dyn Store>,
    path: &PartitionPath,
    uuid: Option<&str>,
    mut take: impl FnMut(StoredObject),
) -> Result<()> {
    let folder = path.folder();
    let mut after: Option<String> = None;
    loop {
        let page = retry(PATIENCE, || store.list(&folder, after.as_deref(), PAGE)).await.map_err(failed)?;
        after = page.entries.last().map(|entry| entry.key.clone());
        let named = page.entries.into_iter().filter_map(|entry| {
            let name = key::parse(&entry.key).filter(|name| name.path == *path);
            // Folders that a console has made are nothing.
            if name.is_none() && !(entry.size == 0 && entry.key.ends_with('/')) {
                tracing::warn!("{} is not an object of this backup: left alone", entry.key);
            }
            Some((name?, entry))
        });
        let mut objects =
            stream::iter(named).map(|(name, entry)| ask(store, name, entry, uuid)).buffered(HEADS).boxed();
        while let Some(object) = objects.try_next().await? {
            take(object);
        }
        if !page.more || after.is_none() {
            return Ok(());
        }
    }
}

/// Everything under a prefix in lexical order, a page at a time: one is asked for when the one before has been used.
pub fn entries(store: &Arc<dyn Store>, prefix: String) -> impl Stream<Item = Result<Entry, StoreError>> + use<> {
    let store = store.clone();
    let pages = stream::try_unfold(Some(None::<String>), move |after| {
        let (store, prefix) = (store.clone(), prefix.clone());
        async move {
            let Some(after) = after else { return Ok(None) };
            let page = retry(PATIENCE, || store.list(&prefix, after.as_deref(), PAGE)).await?;
            let last = page.entries.last().map(|entry| entry.key.clone()).filter(|_| page.more);
            Ok(Some((stream::iter(page.entries.into_iter().map(Ok)), last.map(Some))))
        }
    });
    pages.try_flatten()
}

/// Asks one object what it is.
async fn ask(store: &Arc<dyn Store>, name: ObjectKey, entry: Entry, uuid: Option<&str>) -> Result<StoredObject> {
    let offset = name.offset;
    let Some((head, word)) = word(store, &entry.key).await.map_err(failed)? else {
        let facts = Facts::Bad("it was listed, and is not there".to_owned());
        let (size, etag, modified_ms) = (entry.size, entry.etag, entry.modified_ms);
        return Ok(StoredObject { key: entry.key, offset, size, etag, modified_ms, facts });
    };
    let facts = match word {
        Ok(metadata) => Facts::from_metadata(&name, &metadata, uuid).unwrap_or(Facts::Older),
        Err(why) => Facts::Bad(why),
    };
    let (size, etag, modified_ms) = (head.size, head.etag, entry.modified_ms);
    Ok(StoredObject { key: entry.key, offset, size, etag, modified_ms, facts })
}

/// What an object says of itself in its metadata or, where those are not ours, in its Avro header; the inner error says
/// why that is not one. `None` when it is not there.
pub async fn word(
    store: &Arc<dyn Store>,
    key: &str,
) -> std::result::Result<Option<(Head, std::result::Result<Metadata, String>)>, StoreError> {
    let Some(head) = retry(PATIENCE, || store.head(key)).await? else { return Ok(None) };
    if head.metadata.contains_key("format-version") {
        let metadata = head.metadata.clone();
        return Ok(Some((head, Ok(metadata))));
    }
    let header = header::read(store, key, &head).await?;
    Ok(Some((head, header.map(|header| header.metadata))))
}

async fn records(store: &Arc<dyn Store>, topic: &str) -> Result<BTreeMap<u32, GenerationRecord>> {
    let mut records = BTreeMap::new();
    for (_, record) in each_record(store, topic).await? {
        let record = record.map_err(|error| {
            Error::new(Exit::ProblemFound, error.to_string())
                .hint("nothing is restored without it, because the order of generations hangs on it")
        })?;
        records.insert(record.generation, record);
    }
    Ok(records)
}

/// The generation records of a topic by their keys, each with what is wrong with it.
pub async fn each_record(
    store: &Arc<dyn Store>,
    topic: &str,
) -> Result<Vec<(String, std::result::Result<GenerationRecord, GenerationError>)>> {
    let folder = key::generation_folder(topic);
    let (mut records, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = retry(PATIENCE, || store.list(&folder, after.as_deref(), PAGE)).await.map_err(failed)?;
        after = page.entries.last().map(|entry| entry.key.clone());
        for entry in page.entries.into_iter().filter(|entry| entry.key.ends_with(".json")) {
            let body = retry(PATIENCE, || store.get(&entry.key)).await.map_err(failed)?;
            let gone = || Error::new(Exit::Failed, format!("{} vanished while it was read", entry.key));
            let record = GenerationRecord::from_json(&entry.key, &body.ok_or_else(gone)?);
            records.push((entry.key, record));
        }
        if !page.more || after.is_none() {
            return Ok(records);
        }
    }
}

/// Where quiet lists of a topic end, by partition, as its head records say. One that cannot be read is only a hint less.
pub async fn heads(store: &Arc<dyn Store>, topic: &str) -> Result<BTreeMap<i32, HeadRecord>> {
    let folder = key::head_folder(topic);
    let listed: Vec<Entry> = entries(store, folder.clone()).try_collect().await.map_err(failed)?;
    let named = listed.into_iter().filter_map(|entry| Some((entry.key[folder.len()..].parse().ok()?, entry.key)));
    let read = stream::iter(named).map(|(partition, key)| async move {
        let json = small(store, &key).await?;
        Result::<_, Error>::Ok((partition, json.and_then(|json| HeadRecord::from_json(&json))))
    });
    let read: Vec<(i32, Option<HeadRecord>)> = read.buffer_unordered(HEADS).try_collect().await?;
    Ok(read.into_iter().filter_map(|(partition, head)| Some((partition, head?))).collect())
}

/// How far the lists of a topic reached when they were last verified; nothing where they never were. The inner error is
/// a record that cannot be understood.
pub async fn tails(store: &Arc<dyn Store>, topic: &str) -> Result<std::result::Result<Tails, TailsError>> {
    let json = small(store, &key::tails_record(topic)).await?;
    Ok(json.map_or_else(|| Ok(Tails::new(topic)), |json| Tails::from_json(topic, &json)))
}

/// A small object; `None` when the store says that there is none.
pub async fn small(store: &Arc<dyn Store>, key: &str) -> Result<Option<bytes::Bytes>> {
    retry(PATIENCE, || store.get(key)).await.map_err(failed)
}

async fn folders(store: &Arc<dyn Store>, prefix: &str) -> Result<Vec<String>> {
    retry(PATIENCE, || store.folders(prefix)).await.map_err(failed)
}

/// A failed call to a store as the end of a command.
pub fn failed(error: StoreError) -> Error {
    let (exit, hint) = match error.kind {
        Kind::Auth => (Exit::Auth, "check the credentials and the permissions s3:ListBucket and s3:GetObject"),
        Kind::NoBucket => (Exit::NotFound, "check the bucket (or path) and the prefix of the storage"),
        Kind::NotFound => (Exit::NotFound, "the object was there a moment ago: does somebody delete objects?"),
        Kind::Changed => (Exit::ProblemFound, "somebody replaced the object, which this program never does"),
        Kind::ClockSkew => (Exit::Failed, "set this machine's clock"),
        Kind::Throttle => (Exit::Busy, "the store asks for fewer requests: try again later"),
        _ if error.is_transient() => (Exit::Unavailable, "try again when the store can be reached"),
        _ => return Error::new(Exit::Failed, error.to_string()),
    };
    Error::new(exit, error.to_string()).hint(hint)
}
