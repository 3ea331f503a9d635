//! The whole path but Kafka: objects in a folder, records in a list.

mod kafka;
mod resume;
mod window;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use super::act::Act;
use super::failure::Failure;
use super::fetch::Throttle;
use super::fingerprint::Resumed;
use super::gather;
use super::progress::Progress;
use super::report::Report;
use super::stop::Stop;
use super::write::{Ledger, Sink, Sinks};
use crate::config::Codec;
use crate::error::Exit;
use crate::kafka::{KafkaError, Kind};
use crate::model::avro::{BlockBuilder, Compressor, write_header};
use crate::model::batch::{Header, Record, RecordBatch, TimestampType};
use crate::model::catalog::Catalog;
use crate::model::chain::{GenerationRecord, RecordedIsolation};
use crate::model::key::{self, PartitionPath};
use crate::model::object::ObjectMeta;
use crate::model::restore::window::{Offsets, Times};
use crate::model::restore::{self as model, Mapping, Plan, Refusal, Request, Target};
use crate::model::verify::{Expiry, ExpiryOf};
use crate::storage::fault::{Fault, FaultStore};
use crate::storage::file::FileStore;
use crate::storage::{Body, Store};

pub(crate) const UUID: &str = "5f3d0001-0000-4000-8000-000000000001";

/// What a record is, owned, to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl From<&Record<'_>> for Owned {
    fn from(record: &Record<'_>) -> Self {
        let headers = record.headers.iter().map(|h| (h.name.to_vec(), h.value.map(<[u8]>::to_vec))).collect();
        let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
        Self { timestamp: record.timestamp, key, value, headers }
    }
}

/// The record that stands at `offset` of every partition in these tests: all combinations of null and empty come by.
fn put(batch: &mut RecordBatch, offset: i64) {
    let value = format!("value-{offset}").repeat(50);
    let value = [None, Some(&b""[..]), Some(value.as_bytes())][(offset % 3) as usize];
    let key = [None, Some(&b""[..]), Some(b"k".as_slice())][(offset / 3 % 3) as usize];
    let headers = [
        Header { name: b"b", value: Some(b"1") },
        Header { name: b"a", value: None },
        Header { name: b"b", value: Some(b"") },
        Header { name: b"\xff", value: Some(b"\x00") },
    ];
    let headers = headers.into_iter().take((offset % 5) as usize);
    batch.push(offset, (1_700_000_000_000 + offset, TimestampType::CreateTime), key, value, headers);
}

fn expected(offsets: impl IntoIterator<Item = i64>) -> Vec<Owned> {
    let mut batch = RecordBatch::default();
    offsets.into_iter().for_each(|offset| put(&mut batch, offset));
    batch.iter().map(|record| Owned::from(&record)).collect()
}

/// An object of ours that covers `[start, next)`, with a record at each of `offsets`.
pub(crate) fn object(partition: i32, start: i64, next: i64, offsets: &[i64]) -> (ObjectMeta, Vec<u8>) {
    let mut meta = ObjectMeta {
        generation: UUID.to_owned(),
        job: "orders".to_owned(),
        topic: "t".to_owned(),
        topic_id: String::new(),
        partition,
        range_start: start,
        next_offset: next,
        offsets: offsets.first().map(|first| (*first, offsets[offsets.len() - 1])),
        records: offsets.len() as u64,
        timestamps: offsets.first().map(|first| (1_700_000_000_000 + first, 1_700_000_000_000 + next)),
        max_record_bytes: 1000,
        null_keys: None,
        leader_epoch: 0,
        sha256: String::new(),
        nonce: "n".to_owned(),
        at_eof: false,
        run: String::new(),
        gap: if offsets.is_empty() { "retention".to_owned() } else { String::new() },
    };
    let mut batch = RecordBatch::default();
    offsets.iter().for_each(|offset| put(&mut batch, *offset));
    let bytes = encode(&meta, &batch);
    meta.sha256 = hash(&bytes);
    (meta, bytes)
}

/// The bytes of an object with a record at every offset of its range.
pub(crate) fn encode_like(meta: &ObjectMeta) -> Vec<u8> {
    let mut batch = RecordBatch::default();
    (meta.range_start..meta.next_offset).for_each(|offset| put(&mut batch, offset));
    encode(meta, &batch)
}

fn encode(meta: &ObjectMeta, batch: &RecordBatch) -> Vec<u8> {
    let (sync, codec) = ([7; 16], Codec::Zstandard(1));
    let mut bytes = write_header(codec, &sync, &meta.to_metadata());
    let (mut block, mut compressor) = (BlockBuilder::new("t", meta.partition), Compressor::new(codec).unwrap());
    for (i, record) in batch.iter().enumerate() {
        // Blocks of a few records, so that there are several in an object.
        if i % 7 == 6 {
            bytes.extend_from_slice(&block.finish(&mut compressor, &sync).unwrap());
        }
        block.append(&record);
    }
    if !block.is_empty() {
        bytes.extend_from_slice(&block.finish(&mut compressor, &sync).unwrap());
    }
    bytes
}

pub(crate) fn hash(bytes: &[u8]) -> String {
    crate::model::hex::hex(&Sha256::digest(bytes))
}

pub(crate) struct Bed {
    _folder: tempfile::TempDir,
    plans: tempfile::TempDir,
    pub(crate) store: Arc<dyn Store>,
    times: Times,
    offsets: BTreeMap<(String, i32), Offsets>,
}

impl Bed {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(FileStore::open(folder.path(), "", Handle::current()).unwrap());
        let record = GenerationRecord {
            format_version: 1,
            generation: 1,
            uuid: UUID.to_owned(),
            cluster_id: "source".to_owned(),
            topic: "t".to_owned(),
            topic_id: String::new(),
            job: "orders".to_owned(),
            isolation: RecordedIsolation::ReadCommitted,
            created_ms: 0,
            partitions: 3,
            origins: BTreeMap::new(),
            parent: None,
            forks: BTreeMap::new(),
            topic_config: BTreeMap::new(),
        };
        let json = serde_json::to_vec(&record).unwrap();
        store.put(&key::generation_record("t", 1), &Body::from(json), &BTreeMap::new()).await.unwrap();
        Self {
            _folder: folder,
            plans: tempfile::tempdir().unwrap(),
            store,
            times: Times::default(),
            offsets: BTreeMap::new(),
        }
    }

    pub(crate) async fn add(&self, partition: i32, start: i64, next: i64, offsets: &[i64]) {
        let (meta, bytes) = object(partition, start, next, offsets);
        let name = PartitionPath::normal("t", 1, partition).object(start);
        self.store.create(&name, &Body::from(bytes), &meta.to_metadata()).await.unwrap();
    }

    async fn plan(&self) -> Result<Plan, Vec<Refusal>> {
        self.plan_for(&Target::default()).await
    }

    /// The plan of restoring `t` as `copy`.
    async fn plan_for(&self, target: &Target) -> Result<Plan, Vec<Refusal>> {
        assert_eq!(gather::topics(&self.store).await.unwrap(), ["t"]);
        let mut backup = gather::outline(&self.store, "t").await.unwrap().unwrap();
        gather::fill(&self.store, "t", &mut backup, 1, None).await.unwrap();
        let request = Request {
            topics: vec![Mapping { source: "t".to_owned(), target: "copy".to_owned() }],
            generation: None,
            partitions: None,
            times: self.times,
            offsets: self.offsets.clone(),
            create_topics: true,
            replication_factor: None,
            append: false,
            in_place: false,
            apply_topic_config: false,
            now_ms: 1_800_000_000_000,
        };
        let catalog = Catalog { topics: BTreeMap::from([("t".to_owned(), backup)]) };
        model::plan(&request, &catalog, target)
    }
}

/// Takes records as a broker would, with a queue of three.
#[derive(Default)]
struct Lists {
    records: Mutex<BTreeMap<i32, Vec<Owned>>>,
    /// After so many records another producer slips one in.
    intruder_after: Option<i64>,
    /// After so many records the broker refuses the next.
    refuse_after: Option<i64>,
    /// After so many records the operator presses Ctrl-C.
    stop_after: Option<(i64, Stop)>,
}

struct List {
    all: Arc<Lists>,
    partition: i32,
    queue: Vec<Owned>,
    next: i64,
    ledger: Arc<Ledger>,
}

#[derive(Clone)]
struct Shared(Arc<Lists>);

impl Sinks for Shared {
    fn open(&self, topic: &str, partition: i32, ledger: Arc<Ledger>) -> Result<Box<dyn Sink>, KafkaError> {
        assert_eq!(topic, "copy");
        let next = self.0.records.lock().unwrap().get(&partition).map_or(0, Vec::len) as i64;
        Ok(Box::new(List { all: self.0.clone(), partition, queue: Vec::new(), next, ledger }))
    }
}

impl Sink for List {
    fn send(&mut self, record: &Record<'_>) -> Result<bool, KafkaError> {
        let room = self.queue.len() < 3;
        if room {
            self.queue.push(record.into());
        }
        Ok(room)
    }

    fn poll(&mut self, _wait: Duration) {
        for record in self.queue.drain(..) {
            if self.all.refuse_after == Some(self.next) {
                let (operation, message) = ("produce".to_owned(), "too large".to_owned());
                self.ledger.report(Err(KafkaError { operation, kind: Kind::TooLarge, message }));
                return;
            }
            if let Some((after, stop)) = &self.all.stop_after
                && self.next == *after
            {
                stop.now(Exit::Terminated);
            }
            let intruder = i64::from(self.all.intruder_after.is_some_and(|after| self.next >= after));
            self.all.records.lock().unwrap().entry(self.partition).or_default().push(record);
            self.ledger.report(Ok(self.next + intruder));
            self.next += 1;
        }
    }
}

async fn act(bed: &Bed, plan: &Plan, lists: Lists, stop: &Stop) -> (Report, BTreeMap<i32, Vec<Owned>>) {
    act_resumed(bed, plan, lists, stop, BTreeMap::new()).await
}

async fn act_resumed(
    bed: &Bed,
    plan: &Plan,
    lists: Lists,
    stop: &Stop,
    resumed: BTreeMap<(String, i32), Resumed>,
) -> (Report, BTreeMap<i32, Vec<Owned>>) {
    let before = resumed.values().map(|resumed| resumed.done).sum();
    let lists = Arc::new(lists);
    let act = Act {
        store: bed.store.clone(),
        sinks: Arc::new(Shared(lists.clone())),
        tasks_max: 2,
        throttle: Arc::new(Throttle::new(None)),
        resumed,
        stop: stop.clone(),
    };
    let progress = Arc::new(Progress::new(plan, before));
    let report = act.run(plan, &progress).await.unwrap();
    assert_eq!(progress.records.load(Ordering::Relaxed), report.produced());
    let records = lists.records.lock().unwrap().clone();
    (report, records)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_backed_up_is_what_is_produced() {
    let bed = Bed::new().await;
    let even: Vec<i64> = (0..100).filter(|o| o % 2 == 0).collect();
    bed.add(0, 0, 100, &even).await;
    bed.add(0, 100, 150, &(100..150).collect::<Vec<_>>()).await;
    bed.add(0, 150, 160, &[]).await;
    bed.add(0, 160, 165, &[164]).await;
    bed.add(2, 3, 10, &[5, 6]).await;
    let plan = bed.plan().await.unwrap();
    assert_eq!((plan.totals().records, plan.totals().holes, plan.totals().partitions), (103, 2, 2));
    let (report, records) = act(&bed, &plan, Lists::default(), &Stop::default()).await;
    assert_eq!((report.exit(), report.planned(), report.produced()), (Exit::Ok, 103, 103), "{}", report.text());
    assert_eq!(records[&0], expected(even.into_iter().chain(100..150).chain([164])));
    assert_eq!(records[&2], expected([5, 6]));
    let summary: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(summary["message_type"], "summary");
    assert_eq!((&summary["records_planned"], &summary["records_produced"]), (&103.into(), &103.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_objects_are_restored_once() {
    let bed = Bed::new().await;
    bed.add(0, 0, 30, &(0..30).collect::<Vec<_>>()).await;
    bed.add(0, 20, 40, &(20..40).collect::<Vec<_>>()).await;
    bed.add(0, 25, 35, &(25..35).collect::<Vec<_>>()).await;
    let plan = bed.plan().await.unwrap();
    assert_eq!((plan.totals().records, plan.totals().uncounted_objects), (30, 1));
    let (report, records) = act(&bed, &plan, Lists::default(), &Stop::default()).await;
    assert_eq!((report.exit(), report.planned(), report.produced()), (Exit::Ok, 40, 40));
    assert_eq!(records[&0], expected(0..40));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_producer_stops_the_partition() {
    let bed = Bed::new().await;
    bed.add(0, 0, 30, &(0..30).collect::<Vec<_>>()).await;
    let plan = bed.plan().await.unwrap();
    let lists = Lists { intruder_after: Some(10), ..Lists::default() };
    let (report, _) = act(&bed, &plan, lists, &Stop::default()).await;
    assert_eq!((report.exit(), report.planned(), report.produced()), (Exit::Incomplete, 30, 10));
    assert!(matches!(report.partitions[0].failure, Some(Failure::Offset { expected: 10, offset: 11 })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_record_stops_its_partition_alone() {
    let bed = Bed::new().await;
    bed.add(0, 0, 30, &(0..30).collect::<Vec<_>>()).await;
    bed.add(1, 0, 5, &(0..5).collect::<Vec<_>>()).await;
    let plan = bed.plan().await.unwrap();
    let lists = Lists { refuse_after: Some(10), ..Lists::default() };
    let (report, records) = act(&bed, &plan, lists, &Stop::default()).await;
    assert_eq!((report.exit(), report.produced(), records[&1].len()), (Exit::Incomplete, 15, 5));
    assert!(report.json().lines().next().unwrap().contains("too large"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_says_where_it_stands() {
    let bed = Bed::new().await;
    bed.add(0, 0, 3000, &(0..3000).collect::<Vec<_>>()).await;
    bed.add(1, 0, 5, &(0..5).collect::<Vec<_>>()).await;
    let plan = bed.plan().await.unwrap();
    let stop = Stop::default();
    let lists = Lists { stop_after: Some((10, stop.clone())), ..Lists::default() };
    let (report, records) = act(&bed, &plan, lists, &stop).await;
    assert_eq!(report.exit(), Exit::Terminated);
    let stopped = &report.partitions[0];
    assert!(stopped.produced >= 10 && stopped.produced < 3000, "{}", stopped.produced);
    assert_eq!(stopped.next_source_offset, Some(stopped.produced as i64), "everything sent was waited for");
    assert_eq!(records[&0], expected(0..stopped.produced as i64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_block_is_found_before_any_record_of_the_object_is_produced() {
    let bed = Bed::new().await;
    bed.add(0, 0, 30, &(0..30).collect::<Vec<_>>()).await;
    let (mut meta, mut bytes) = object(0, 30, 60, &(30..60).collect::<Vec<_>>());
    // In the last block, before the sync marker. Without a hash in the metadata only the block's own checksum tells.
    let at = bytes.len() - 30;
    bytes[at] ^= 1;
    meta.sha256.clear();
    let name = PartitionPath::normal("t", 1, 0).object(30);
    bed.store.create(&name, &Body::from(bytes), &meta.to_metadata()).await.unwrap();
    let plan = bed.plan().await.unwrap();
    let (report, records) = act(&bed, &plan, Lists::default(), &Stop::default()).await;
    assert_eq!((report.exit(), report.planned()), (Exit::Incomplete, 60));
    assert!(matches!(&report.partitions[0].failure, Some(Failure::Damaged { key, .. }) if *key == name));
    assert_eq!(report.produced(), 30);
    assert_eq!(records[&0], expected(0..30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_hash_is_found_before_any_record_of_the_object_is_produced() {
    let bed = Bed::new().await;
    bed.add(0, 0, 30, &(0..30).collect::<Vec<_>>()).await;
    bed.add(0, 30, 60, &(30..60).collect::<Vec<_>>()).await;
    let mut plan = bed.plan().await.unwrap();
    let objects = &mut plan.topics[0].partitions[0].objects;
    objects[0].sha256 = object(0, 0, 30, &(0..30).collect::<Vec<_>>()).0.sha256;
    objects[1].sha256 = objects[0].sha256.clone();
    let (report, records) = act(&bed, &plan, Lists::default(), &Stop::default()).await;
    assert_eq!((report.exit(), report.planned(), report.produced()), (Exit::Incomplete, 60, 30));
    assert!(matches!(&report.partitions[0].failure, Some(Failure::Damaged { produced: 0, .. })));
    assert_eq!(records[&0], expected(0..30));
}

#[tokio::test(flavor = "multi_thread")]
async fn misnamed_objects_are_named_before_anything_is_produced() {
    let bed = Bed::new().await;
    bed.add(0, 0, 30, &(0..30).collect::<Vec<_>>()).await;
    let (meta, bytes) = object(0, 30, 60, &(30..60).collect::<Vec<_>>());
    let name = PartitionPath::normal("t", 1, 0).object(31);
    bed.store.create(&name, &Body::from(bytes), &meta.to_metadata()).await.unwrap();
    let refusals = bed.plan().await.unwrap_err();
    assert!(matches!(&refusals[..], [Refusal::BadObject { key, .. }] if *key == name), "{refusals:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_comes_back_does_no_harm() {
    let mut bed = Bed::new().await;
    bed.add(0, 0, 30, &(0..30).collect::<Vec<_>>()).await;
    let plan = bed.plan().await.unwrap();
    let faulty = FaultStore::new(bed.store.clone());
    faulty.add(Fault::before("get_range", crate::storage::Kind::Unavailable));
    bed.store = Arc::new(faulty);
    let (report, records) = act(&bed, &plan, Lists::default(), &Stop::default()).await;
    assert_eq!((report.exit(), &records[&0]), (Exit::Ok, &expected(0..30)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_was_replaced_is_not_read() {
    let bed = Bed::new().await;
    bed.add(0, 0, 30, &(0..30).collect::<Vec<_>>()).await;
    let plan = bed.plan().await.unwrap();
    let name = PartitionPath::normal("t", 1, 0).object(0);
    bed.store.delete(&name).await.unwrap();
    bed.add(0, 0, 30, &(0..29).collect::<Vec<_>>()).await;
    let (report, records) = act(&bed, &plan, Lists::default(), &Stop::default()).await;
    assert_eq!((report.exit(), report.produced(), records.len()), (Exit::Incomplete, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_object_comes_in_pieces() {
    let bed = Bed::new().await;
    let (mut meta, mut batch) = (meta_of_large(), RecordBatch::default());
    let mut random = fastrand::Rng::with_seed(7);
    for offset in 0..30 {
        let mut value = vec![0; 700_000];
        random.fill(&mut value);
        batch.push(offset, (1_700_000_000_000, TimestampType::CreateTime), None, Some(&value), []);
    }
    let bytes = encode(&meta, &batch);
    assert!(bytes.len() as u64 > 4 * super::fetch::PIECE_BYTES);
    meta.sha256 = hash(&bytes);
    let name = PartitionPath::normal("t", 1, 0).object(0);
    bed.store.create(&name, &Body::from(bytes), &meta.to_metadata()).await.unwrap();
    let mut plan = bed.plan().await.unwrap();
    plan.topics[0].partitions[0].objects[0].sha256 = meta.sha256;
    let (report, records) = act(&bed, &plan, Lists::default(), &Stop::default()).await;
    assert_eq!(report.exit(), Exit::Ok, "{}", report.text());
    assert_eq!(records[&0], batch.iter().map(|record| Owned::from(&record)).collect::<Vec<_>>());

    plan.topics[0].partitions[0].objects[0].sha256 = "00".to_owned();
    let (report, records) = act(&bed, &plan, Lists::default(), &Stop::default()).await;
    assert_eq!((report.exit(), report.produced(), records.len()), (Exit::Incomplete, 0, 0));

    // Without a hash every block is looked at: here the last one is damaged, and here the end is missing.
    let flip = |bytes: &mut Vec<u8>| *bytes.iter_mut().rev().nth(100_000).unwrap() ^= 1;
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(20_000_000);
    for damage in [flip as fn(&mut Vec<u8>), cut] {
        let mut bytes = encode(&meta_of_large(), &batch);
        damage(&mut bytes);
        bed.store.delete(&name).await.unwrap();
        bed.store.create(&name, &Body::from(bytes), &meta_of_large().to_metadata()).await.unwrap();
        let plan = bed.plan().await.unwrap();
        let (report, records) = act(&bed, &plan, Lists::default(), &Stop::default()).await;
        let failure = &report.partitions[0].failure;
        assert!(matches!(failure, Some(Failure::Damaged { key, produced: 0, .. }) if *key == name), "{failure:?}");
        assert_eq!((report.exit(), report.produced(), records.len()), (Exit::Incomplete, 0, 0));
    }
}

/// Of an object without a hash.
fn meta_of_large() -> ObjectMeta {
    let (mut meta, _) = object(0, 0, 30, &(0..30).collect::<Vec<_>>());
    meta.sha256.clear();
    meta
}

#[tokio::test(flavor = "multi_thread")]
async fn info_tells_what_is_there() {
    let bed = Bed::new().await;
    bed.add(0, 0, 30, &(0..30).collect::<Vec<_>>()).await;
    bed.add(0, 30, 40, &[]).await;
    bed.add(0, 45, 50, &[46]).await;
    let any: ExpiryOf = Arc::new(|_| Expiry::Possible);
    let info = crate::inspect::info::collect(&bed.store, None, &any).await.unwrap();
    let partition = &info.topics[0].branches[0].partitions[0];
    assert_eq!((partition.records, partition.next_offset, partition.objects), (31, Some(50), 3));
    let holes: Vec<String> = partition.holes.iter().map(ToString::to_string).collect();
    assert_eq!(
        holes,
        [
            "gap: offsets 30 to 39 were never read from Kafka (retention)",
            "gap: offsets 40 to 44 are in no object: one was deleted",
        ]
    );
    let unknown = crate::inspect::info::collect(&bed.store, Some("nothing"), &any).await.unwrap_err();
    assert_eq!(unknown.exit, Exit::NotFound);

    // One topic that is damaged hides nothing of the others.
    let (torn, nothing) = (key::generation_record("torn", 1), Default::default());
    bed.store.create(&torn, &Body::from(b"{".to_vec()), &nothing).await.unwrap();
    let info = crate::inspect::info::collect(&bed.store, None, &any).await.unwrap();
    assert_eq!((info.topics.len(), info.unreadable.len(), info.unreadable[0].topic.as_str()), (1, 1, "torn"));
    assert!(info.unreadable[0].why.contains(&torn), "{}", info.unreadable[0].why);
    let damaged = crate::inspect::info::collect(&bed.store, Some("torn"), &any).await.unwrap_err();
    assert_eq!(damaged.exit, Exit::ProblemFound);
}
