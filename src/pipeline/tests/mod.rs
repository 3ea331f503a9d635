//! The whole pipeline with fake ends: librdkafka's mock cluster on one side, a folder that fails on demand on the
//! other, real actors in between. What came out is read with `apache-avro`, not with our own reader.

mod lane;
#[cfg(debug_assertions)]
mod recovery;
mod supervision;
mod whole;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use apache_avro::types::Value;

use crate::config::{
    Codec, Config, Isolation, Job, KafkaConfig, Lifecycle, LogFormat, OnRecreate, Place, Property, Retention, Start,
    StorageConfig, TopicSelection,
};
use crate::kafka::TopicPartition;
use crate::kafka::mock::MockKafka;
use crate::kafka::producer::{ProducerSettings, RestoreProducer};
use crate::model::batch::{RecordBatch, TimestampType};
use crate::model::key::PartitionPath;
use crate::model::object::ObjectMeta;
use crate::process::Process;
use crate::storage::fault::FaultStore;
use crate::storage::file::FileStore;
use crate::supervisor::OpenJob;

/// How long anything here may take before the test has failed.
const SOON: Duration = Duration::from_secs(40);
/// Enough for a handful of lanes.
const BUDGET: u64 = 32 << 20;

/// A job of one topic, with a cluster and a store that are nowhere.
pub(crate) fn any_job(id: &str, topic: &str) -> Job {
    let place = Place::File { path: PathBuf::new(), prefix: String::new() };
    let kafka = KafkaConfig { name: "none".to_owned(), bootstrap_servers: Vec::new(), properties: BTreeMap::new() };
    Job {
        id: id.to_owned(),
        path: PathBuf::from("test.toml"),
        kafka: Arc::new(kafka),
        storage: Arc::new(StorageConfig { name: "none".to_owned(), place, single_writer: false }),
        topics: TopicSelection { literal: vec![topic.to_owned()], ..TopicSelection::default() },
        tasks_max: 1,
        group_id: format!("group-{id}"),
        group_instance_id: String::new(),
        flush_size: 1000,
        flush_bytes: 64 << 20,
        rotate_interval: Duration::from_secs(600),
        codec: Codec::Null,
        isolation: Isolation::ReadCommitted,
        start: Start::Earliest,
        on_recreate: OnRecreate::NewGeneration,
        adopt: false,
        allow_compacted: false,
        rate_limit: None,
        rpo_target: Duration::from_secs(900),
        paused: false,
        groups: crate::config::GroupSelection {
            include: crate::model::restore::Pattern(regex::Regex::new(".*").expect("a pattern")),
            exclude: None,
        },
        groups_interval: Duration::from_secs(60),
        retention: Retention::Keep,
        lifecycle: Lifecycle::Manage,
        compacted: None,
    }
}

/// Servers and folders of one test.
struct Bed {
    _mock: MockKafka,
    kafka: Arc<KafkaConfig>,
    dir: tempfile::TempDir,
    store: Arc<FaultStore>,
    io: Option<tokio::runtime::Runtime>,
    /// Processes so far: each has a state of its own.
    processes: AtomicU32,
}

impl Drop for Bed {
    fn drop(&mut self) {
        // Tests end inside of a runtime, where another one must not be waited for.
        self.io.take().unwrap().shutdown_background();
    }
}

impl Bed {
    fn new(topics: &[(&str, i32)]) -> Self {
        let mock = MockKafka::start(topics).unwrap();
        let bootstrap_servers = vec![mock.bootstrap()];
        let kafka = KafkaConfig { name: "mock".to_owned(), bootstrap_servers, properties: BTreeMap::new() };
        let dir = tempfile::tempdir().unwrap();
        let io = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let inner = FileStore::open(&dir.path().join("bucket"), "", io.handle().clone()).unwrap();
        let store = Arc::new(FaultStore::new(Arc::new(inner)));
        Self { _mock: mock, kafka: Arc::new(kafka), dir, store, io: Some(io), processes: AtomicU32::new(0) }
    }

    fn io(&self) -> tokio::runtime::Handle {
        self.io.as_ref().unwrap().handle().clone()
    }

    /// A job of topic `t`, edited.
    fn job(&self, id: &str, edit: impl FnOnce(&mut Job)) -> Arc<Job> {
        let place = Place::File { path: self.dir.path().join("bucket"), prefix: String::new() };
        let mut job = any_job(id, "t");
        job.kafka = self.kafka.clone();
        job.storage = Arc::new(StorageConfig { name: "test".to_owned(), place, single_writer: false });
        edit(&mut job);
        Arc::new(job)
    }

    fn config(&self, budget: u64, spool_max: u64) -> Config {
        let n = self.processes.fetch_add(1, Ordering::Relaxed);
        Config {
            path: PathBuf::from("test.toml"),
            state_dir: self.dir.path().join(format!("state-{n}")),
            jobs_dir: PathBuf::new(),
            strict_reload: false,
            watch: false,
            watch_settle: SOON,
            drain_timeout: SOON,
            memory_budget: budget,
            http_listen: None,
            http: crate::config::HttpProtection::default(),
            heartbeat: None,
            max_partition_series: 10_000,
            control_socket: PathBuf::new(),
            log_level: String::new(),
            log_format: LogFormat::Auto,
            spool_dir: self.dir.path().join(format!("spool-{n}")),
            spool_max,
            kafka: BTreeMap::new(),
            storage: BTreeMap::new(),
            jobs: Vec::new(),
            warnings: Vec::new(),
            unusable: BTreeMap::new(),
        }
    }

    fn process(&self, budget: u64, spool_max: u64, jobs: &[Arc<Job>]) -> Process {
        if std::env::var("RUST_LOG").is_ok() {
            let filter = tracing_subscriber::EnvFilter::from_default_env();
            let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        }
        Process::start(&self.config(budget, spool_max), jobs, self.io()).unwrap()
    }

    async fn open(&self, process: &Process, job: &Arc<Job>, until_caught_up: bool) -> OpenJob {
        process.open_on(job, self.store.clone(), until_caught_up).await.unwrap()
    }

    /// Runs `job` until it has caught up, and ends it; says whether everything became durable.
    async fn catch_up(&self, job: &Arc<Job>) -> bool {
        // The mock cluster lets a group rest for long after its last member has left.
        let mut job = Job::clone(job);
        job.group_id = format!("{}-{}", job.id, self.processes.load(Ordering::Relaxed));
        let job = &Arc::new(job);
        let process = self.process(BUDGET, 64 << 20, std::slice::from_ref(job));
        let mut open = self.open(&process, job, true).await;
        let reached = open.reached.take().unwrap();
        tokio::time::timeout(SOON, reached).await.expect("it catches up").unwrap().unwrap();
        let drained = open.end(SOON).await;
        process.stop();
        drained
    }

    /// Appends `count` records of about `bytes` bytes each; the value begins with the record's offset.
    fn produce(&self, topic: &str, partition: i32, count: usize, bytes: usize) {
        let failed = Arc::new(Mutex::new(None));
        let kept = failed.clone();
        let on_delivery = move |_: &_, _, offset: Result<i64, _>| {
            if let Err(error) = offset {
                kept.lock().unwrap().get_or_insert(error);
            }
        };
        // Uncompressed, so that a size is a size.
        let mut kafka = KafkaConfig::clone(&self.kafka);
        let none = Property { value: "none".to_owned(), secret_from: None };
        kafka.properties.insert("compression.type".to_owned(), none);
        let producer =
            RestoreProducer::new(&kafka, &ProducerSettings::default(), Box::new(move |a, b, c| on_delivery(&a, b, c)))
                .unwrap();
        let handle = producer.topic(topic).unwrap();
        let mut batch = RecordBatch::default();
        batch.push(0, (1_700_000_000_000, TimestampType::CreateTime), Some(b"key"), Some(&vec![b'v'; bytes]), []);
        for n in 0..count {
            while producer.send(&handle, partition, &batch.first().unwrap(), n as u64).is_err() {
                producer.poll(Duration::from_millis(10));
            }
        }
        producer.flush(SOON).unwrap();
        assert!(failed.lock().unwrap().is_none(), "{:?}", failed.lock().unwrap());
    }

    /// The objects of a partition in the order of their names.
    fn objects(&self, topic: &str, generation: u32, partition: i32) -> Vec<Object> {
        let folder = PartitionPath::normal(topic, generation, partition).folder();
        let folder = self.dir.path().join("bucket").join(folder);
        let Ok(entries) = std::fs::read_dir(&folder) else { return Vec::new() };
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.ends_with(".avro")).collect();
        names.sort();
        names.into_iter().map(|name| Object::read(&std::fs::read(folder.join(&name)).unwrap(), &name)).collect()
    }

    /// Checks that a partition's objects are a list without holes or doubles from `origin` on, and returns where each
    /// ends and the offsets of all records.
    fn chain(&self, topic: &str, generation: u32, partition: i32, origin: i64) -> (Vec<i64>, Vec<i64>) {
        let (mut next, mut ends, mut offsets) = (origin, Vec::new(), Vec::new());
        for object in self.objects(topic, generation, partition) {
            assert_eq!(object.meta.range_start, next, "the list goes on where it ended: {object:?}");
            assert_eq!(object.meta.records, object.offsets.len() as u64, "{object:?}");
            next = object.meta.next_offset;
            ends.push(next);
            offsets.extend(object.offsets);
        }
        assert!(offsets.windows(2).all(|w| w[0] < w[1]), "each offset once, in order");
        (ends, offsets)
    }
}

/// One object, as an independent reader sees it.
#[derive(Debug)]
struct Object {
    meta: ObjectMeta,
    offsets: Vec<i64>,
}

impl Object {
    fn read(bytes: &[u8], name: &str) -> Self {
        let reader = apache_avro::Reader::new(bytes).unwrap();
        let facts = reader.user_metadata().iter().filter_map(|(name, value)| {
            Some((name.strip_prefix("kafka-backup.")?.to_owned(), String::from_utf8(value.clone()).unwrap()))
        });
        let meta = ObjectMeta::from_metadata(&facts.collect()).unwrap();
        assert!(name.ends_with(&format!("-{:020}.avro", meta.range_start)), "{name}");
        let offsets: Vec<i64> = reader.map(|record| offset(record.unwrap())).collect();
        assert_eq!(meta.offsets, offsets.first().copied().zip(offsets.last().copied()), "{name}");
        Self { meta, offsets }
    }
}

fn offset(record: Value) -> i64 {
    let Value::Record(fields) = record else { panic!("{record:?}") };
    let offset = fields.into_iter().find(|(name, _)| name == "offset").unwrap().1;
    let Value::Long(offset) = offset else { panic!("{offset:?}") };
    offset
}

/// Waits until `what` holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < SOON, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Makes sure for a while that `what` does not come.
async fn never(what: &str, during: Duration, mut comes: impl FnMut() -> bool) {
    let began = Instant::now();
    while began.elapsed() < during {
        assert!(!comes(), "came: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}
