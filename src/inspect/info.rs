//! `info`: what a store holds, from the store alone.
//!
//! Every object is asked what it is (one HEAD each), partition by partition, so that memory is bounded by the number of
//! objects of the largest partition, about a hundred bytes each, and not by the size of the backup.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

pub use super::branch::{BranchInfo, PartitionInfo};
use super::compacted::CompactedInfo;
use crate::clock::rfc3339;
use crate::error::{Error, Exit, Result};
use crate::model::catalog::{self, Branch, Facts, Hole, Known, StoredObject, TopicBackup, Walk};
use crate::model::key::PartitionPath;
use crate::model::restore::limits::union;
use crate::model::verify::aging::Aging;
use crate::model::verify::{Expiry, ExpiryOf};
use crate::restore::gather;
use crate::restore::text::{size, table};
use crate::storage::Store;

/// What is asked for.
#[derive(Clone)]
pub struct Info {
    /// Where the backup is.
    pub store: Arc<dyn Store>,
    /// Only this topic.
    pub topic: Option<String>,
    /// Of which topics the oldest objects may be gone, where no record of anything that expired says more.
    pub expiry: ExpiryOf,
    /// JSON instead of text.
    pub json: bool,
}

/// What a store holds.
#[derive(Debug, Serialize)]
pub struct StoreInfo {
    /// Where it is.
    pub store: String,
    /// Topic by topic.
    pub topics: Vec<TopicInfo>,
    /// Topics of which nothing can be said, because a record that says how to read them is damaged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<Unreadable>,
}

/// A topic of which nothing can be said.
#[derive(Debug, Serialize)]
pub struct Unreadable {
    /// Its name.
    pub topic: String,
    /// What is damaged.
    pub why: String,
}

/// One topic.
#[derive(Debug, Serialize)]
pub struct TopicInfo {
    /// Its name.
    pub topic: String,
    /// The smallest timestamp of a record that can be restored, where objects say so.
    pub oldest: Option<String>,
    /// The largest.
    pub newest: Option<String>,
    /// From when on all partitions are there, where the oldest objects have expired or were lost: the largest of their
    /// oldest timestamps.
    pub complete_from: Option<String>,
    /// Generations, then instances of a compacted topic.
    pub branches: Vec<BranchInfo>,
    /// Of a compacted topic: whose snapshot is the newest complete one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compacted: Option<CompactedInfo>,
}

/// Prints what the store holds.
pub async fn run(info: Info) -> Result<Exit> {
    let found = collect(&info.store, info.topic.as_deref(), &info.expiry).await?;
    let text = if info.json {
        let json = serde_json::to_string(&found);
        json.map_err(|error| Error::new(Exit::Failed, "cannot write JSON").because(error))?
    } else {
        text(&found)
    };
    crate::restore::text::print(&text)?;
    Ok(if found.unreadable.is_empty() { Exit::Ok } else { Exit::ProblemFound })
}

/// Looks at the whole store, or at one topic. What is damaged of one topic keeps nobody from seeing the others.
///
/// # Errors
/// The store cannot be read; the topic that was asked for is not there, or damaged.
pub async fn collect(store: &Arc<dyn Store>, topic: Option<&str>, expiry: &ExpiryOf) -> Result<StoreInfo> {
    let names = match topic {
        Some(topic) => vec![topic.to_owned()],
        None => gather::topics(store).await?,
    };
    let (mut topics, mut unreadable) = (Vec::with_capacity(names.len()), Vec::new());
    for name in names {
        match look(store, &name, expiry(&name)).await {
            Ok(info) => topics.push(info),
            Err(error) if topic.is_none() && error.exit == Exit::ProblemFound => {
                unreadable.push(Unreadable { topic: name, why: error.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(StoreInfo { store: store.url().to_owned(), topics, unreadable })
}

async fn look(store: &Arc<dyn Store>, topic: &str, unrecorded: Expiry) -> Result<TopicInfo> {
    let Some(mut backup) = gather::outline(store, topic).await? else {
        let hint = "kafka-backup info without --topic shows what there is";
        return Err(Error::new(Exit::NotFound, format!("topic {topic} is not in {}", store.url())).hint(hint));
    };
    gather::fill_reaches(store, topic, &mut backup, unrecorded).await?;
    topic_info(store, topic.to_owned(), &backup).await
}

async fn topic_info(store: &Arc<dyn Store>, topic: String, backup: &TopicBackup) -> Result<TopicInfo> {
    // Generations that have a record and no objects yet count too.
    let mut all: BTreeMap<Branch, Vec<i32>> =
        backup.records.keys().map(|n| (Branch::Generation(*n), Vec::new())).collect();
    for (branch, partitions) in &backup.branches {
        all.insert(branch.clone(), partitions.keys().copied().collect());
    }
    let mut branches = Vec::new();
    for (branch, partitions) in all {
        let mut info = BranchInfo::default();
        let (mut uuid, mut folder) = (None, None);
        match branch {
            Branch::Instance(name) => {
                folder = Some(name.clone());
                info.instance = Some(name);
            }
            Branch::Generation(n) => {
                info.generation = Some(n);
                folder = folder.or((n > 1).then(|| format!("gen-{n}")));
                if let Some(record) = backup.records.get(&n) {
                    uuid = Some(record.uuid.as_str());
                    info.cluster_id = Some(record.cluster_id.clone());
                    info.created = Some(rfc3339(record.created_ms));
                    info.parent = record.parent;
                }
            }
        }
        for partition in partitions {
            let path = PartitionPath { topic: topic.clone(), branch: folder.clone(), partition };
            let record = info.generation.and_then(|n| backup.records.get(&n));
            let origin = record.map(|r| r.fork(partition).unwrap_or_else(|| r.origin(partition)));
            let reach = info.generation.and_then(|n| backup.reaches.get(&(n, partition)).copied());
            let head = info.generation.map_or(Expiry::Possible, |n| backup.head_expiry(n));
            info.partitions.extend(partition_info(store, &path, uuid, (origin, reach), (&backup.aging, head)).await?);
        }
        branches.push(info);
    }
    let compacted = super::compacted::look(store, &topic, &branches).await?;
    Ok(TopicInfo { compacted, ..TopicInfo::new(topic, branches) })
}

impl TopicInfo {
    /// With what follows from the partitions for the topic as a whole.
    fn new(topic: String, branches: Vec<BranchInfo>) -> Self {
        let partitions = || branches.iter().flat_map(|branch| &branch.partitions);
        let all = partitions().fold(None, |all, partition| union(all, partition.timestamps));
        let complete_from = partitions().filter_map(|partition| partition.complete_from_ms).max();
        let (oldest, newest) = (all.map(|(oldest, _)| rfc3339(oldest)), all.map(|(_, newest)| rfc3339(newest)));
        Self { topic, oldest, newest, complete_from: complete_from.map(rfc3339), branches, compacted: None }
    }

    /// From when to when it can be restored, for a person; `None` where objects do not say.
    fn range(&self) -> Option<String> {
        let (oldest, newest) = self.oldest.as_ref().zip(self.newest.as_ref())?;
        let cut = self.complete_from.as_ref().map(|from| format!("; complete from {from} on, older objects are gone"));
        Some(format!("{}: restorable from {oldest} to {newest}{}\n", self.topic, cut.unwrap_or_default()))
    }
}

async fn partition_info(
    store: &Arc<dyn Store>,
    path: &PartitionPath,
    uuid: Option<&str>,
    ends: (Option<i64>, Option<Known>),
    aging: (&Aging, Expiry),
) -> Result<Option<PartitionInfo>> {
    let mut objects = Vec::new();
    gather::each_object(store, path, uuid, |object| objects.push(slim(object))).await?;
    catalog::sort(&mut objects);
    Ok(summarise(path.partition, &objects, ends, aging))
}

/// The object without what takes memory and is not shown.
fn slim(mut object: StoredObject) -> StoredObject {
    object.etag = String::new();
    match &mut object.facts {
        Facts::Ours(facts) => {
            facts.sha256 = String::new();
            object.key = String::new();
        }
        Facts::Older => object.key = String::new(),
        Facts::Bad(_) => {}
    }
    object
}

/// The partition that these objects, in order, are; `None` when there are none. Its list begins at `origin` and must go
/// as far as `reach`, where that is known.
fn summarise(
    partition: i32,
    objects: &[StoredObject],
    (origin, reach): (Option<i64>, Option<Known>),
    (aging, head): (&Aging, Expiry),
) -> Option<PartitionInfo> {
    let from_offset = objects.first()?.offset;
    let (mut walk, mut timestamps) = (Walk::new(origin.unwrap_or(from_offset), aging, head), None);
    let (mut is_cut, mut behind) = (false, None);
    let mut info = PartitionInfo {
        partition,
        from_offset,
        next_offset: None,
        records: 0,
        objects: objects.len() as u64,
        uncounted_objects: 0,
        bytes: objects.iter().map(|object| object.size).sum(),
        oldest: None,
        newest: None,
        timestamps: None,
        complete_from_ms: None,
        overlaps: 0,
        holes: Vec::new(),
        bad: Vec::new(),
    };
    for object in objects {
        let known = walk.holes.len();
        walk.add(object);
        if walk.holes[known..].iter().any(Hole::is_expired) {
            (is_cut, behind) = (true, None);
        }
        match &object.facts {
            Facts::Ours(facts) => {
                info.records += facts.records;
                info.next_offset = info.next_offset.max(Some(facts.next_offset));
                timestamps = union(timestamps, facts.timestamps);
                behind = union(behind, facts.timestamps);
            }
            Facts::Older => {
                info.uncounted_objects += 1;
                info.next_offset = None;
            }
            Facts::Bad(why) => info.bad.push(format!("{}: {why}", object.key)),
        }
    }
    let walk = walk.finish(reach);
    (info.overlaps, info.holes) = (walk.overlaps, walk.holes);
    info.timestamps = timestamps;
    info.complete_from_ms = behind.filter(|_| is_cut).map(|(oldest, _)| oldest);
    (info.oldest, info.newest) = (timestamps.map(|t| rfc3339(t.0)), timestamps.map(|t| rfc3339(t.1)));
    Some(info)
}

fn text(info: &StoreInfo) -> String {
    let header = ["PARTITION", "GENERATION", "FROM", "NEXT", "RECORDS", "OBJECTS", "SIZE", "OLDEST", "NEWEST", "GAPS"];
    let mut rows = vec![header.map(str::to_owned)];
    let mut notes = String::new();
    for topic in &info.topics {
        notes.extend(topic.range());
        if topic.branches.iter().all(|branch| branch.partitions.is_empty()) {
            let why = "no object of it is there: nothing was backed up yet, or all of it has expired or was deleted";
            notes.push_str(&format!("{}: {why}\n", topic.topic));
        }
        notes.extend(topic.compacted.as_ref().map(|compacted| compacted.text(&topic.topic)));
        for branch in &topic.branches {
            let name = match (&branch.generation, &branch.instance) {
                (Some(n), _) => n.to_string(),
                (None, instance) => instance.clone().unwrap_or_default(),
            };
            for p in &branch.partitions {
                let place = format!("{}/{}", topic.topic, p.partition);
                let holes = p.holes.iter().map(|hole| format!("{place}: {hole}\n"));
                notes.extend(holes.chain(p.bad.iter().map(|bad| format!("{place}: {bad}\n"))));
                rows.push([
                    place,
                    name.clone(),
                    p.from_offset.to_string(),
                    p.next_offset.map_or("?".to_owned(), |next| next.to_string()),
                    format!("{}{}", p.records, if p.uncounted_objects > 0 { "+" } else { "" }),
                    p.objects.to_string(),
                    size(p.bytes),
                    p.oldest.clone().unwrap_or("-".to_owned()),
                    p.newest.clone().unwrap_or("-".to_owned()),
                    p.holes.len().to_string(),
                ]);
            }
        }
    }
    notes.extend(info.unreadable.iter().map(|topic| format!("{}: DAMAGED: {}\n", topic.topic, topic.why)));
    let partitions = rows.len() - 1;
    table(&rows) + &notes + &format!("{}: {} topics, {partitions} partitions", info.store, info.topics.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalog::OurFacts;
    use crate::model::lifecycle::record::RetentionRecord;

    #[test]
    fn a_topic_of_which_nothing_is_left_is_said() {
        let branch = BranchInfo { generation: Some(1), ..BranchInfo::default() };
        let topics = vec![TopicInfo::new("gone".to_owned(), vec![branch])];
        let info = StoreInfo { store: "s3://b".to_owned(), topics, unreadable: Vec::new() };
        assert!(text(&info).contains("gone: no object of it is there"), "{}", text(&info));
    }

    #[test]
    fn a_partition_in_numbers() {
        let object = |offset, next_offset, records, gap: &str| {
            let timestamps = (records > 0).then_some((offset, next_offset));
            let (sha256, gap) = (String::new(), gap.to_owned());
            let facts =
                OurFacts { next_offset, records, timestamps, max_record_bytes: 1, null_keys: None, sha256, gap };
            StoredObject {
                key: "k".to_owned(),
                offset,
                size: 10,
                etag: String::new(),
                modified_ms: 0,
                facts: Facts::Ours(facts),
            }
        };
        let objects = [object(5, 10, 4, ""), object(10, 20, 0, "retention"), object(20, 30, 10, "")];
        let known = |until| Some(Known { until, written_ms: None });
        let info = summarise(3, &objects, (Some(0), known(32)), (&Aging::default(), Expiry::Possible)).unwrap();
        assert_eq!((info.from_offset, info.next_offset, info.records, info.objects), (5, Some(30), 14, 3));
        assert_eq!(info.oldest.as_deref(), Some("1970-01-01T00:00:00.005Z"));
        let holes: Vec<_> = info.holes.iter().map(|h| (h.from, h.until)).collect();
        assert_eq!(holes, [(0, 5), (10, 20), (30, 32)]);
        assert!(summarise(3, &[], (Some(0), None), (&Aging::default(), Expiry::Possible)).is_none());

        // What expired last lies in the middle: stores remove in any order.
        let mut record = RetentionRecord::new("t");
        record.begin(Some(3), 0, "j");
        let aging = Aging::Recorded { record, now_ms: 100, day_ms: 10 };
        let torn = summarise(
            5,
            &[object(0, 10, 4, ""), object(20, 30, 10, "")],
            (Some(0), known(30)),
            (&aging, Expiry::Possible),
        )
        .unwrap();
        assert_eq!((torn.timestamps, torn.complete_from_ms), (Some((0, 30)), Some(20)));

        let later = summarise(4, &objects, (Some(5), known(30)), (&Aging::default(), Expiry::Possible)).unwrap();
        let branch = BranchInfo { generation: Some(1), partitions: vec![info, later], ..BranchInfo::default() };
        let topic = TopicInfo::new("t".to_owned(), vec![branch]);
        let (oldest, newest) = ("1970-01-01T00:00:00.005Z", "1970-01-01T00:00:00.03Z");
        let said =
            format!("t: restorable from {oldest} to {newest}; complete from {oldest} on, older objects are gone\n");
        assert_eq!(topic.range(), Some(said));
    }
}
