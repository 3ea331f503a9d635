//! One lane without Kafka: whatever comes in which order, the objects are a list without holes or doubles, each cut
//! where it should be.

use std::sync::Arc;

use actix::prelude::*;
use proptest::prelude::*;
use tokio::sync::Semaphore;

use super::*;
use crate::kafka::admin::Cluster;
use crate::model::chain::{GenerationRecord, RecordedIsolation};
use crate::model::key;
use crate::model::object::Metadata;
use crate::pipeline::budget::Budget;
use crate::pipeline::budget::Spill;
use crate::pipeline::committer::Committer;
use crate::pipeline::encoder::Encoder;
use crate::pipeline::lane::{Lane, LaneEvent, Progress};
use crate::pipeline::message::{Barrier, Records};
use crate::pipeline::spool::Spool;
use crate::pipeline::topics::TopicWatch;
use crate::pipeline::{Beginning, Shared, Threads, lane_number, spawn_far_end};
use crate::storage::fault::Fault;
use crate::storage::{Body, Store};

/// What happens to a lane.
#[derive(Debug, Clone)]
enum Step {
    /// Records come, with so many offsets missing before each; then so many more are passed over.
    Records(Vec<u8>, u8),
    /// The end of the partition, so many offsets further on.
    Eof(u8),
    /// A batch comes a second time.
    Again,
    /// Memory is short.
    Spill,
    /// Everything is to be made durable.
    Barrier,
    /// The bucket is slow for a call.
    Slow,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let holes = prop::collection::vec(prop_oneof![4 => Just(0u8), 1 => 1..9u8], 1..40);
    let step = prop_oneof![
        8 => (holes, prop_oneof![Just(0u8), 1..5u8]).prop_map(|(holes, behind)| Step::Records(holes, behind)),
        2 => (0..4u8).prop_map(Step::Eof),
        1 => Just(Step::Again),
        1 => Just(Step::Spill),
        1 => Just(Step::Barrier),
        2 => Just(Step::Slow),
    ];
    prop::collection::vec(step, 1..30)
}

struct Nobody;
impl Actor for Nobody {
    type Context = Context<Self>;
}
impl Handler<LaneEvent> for Nobody {
    type Result = ();
    fn handle(&mut self, event: LaneEvent, _: &mut Self::Context) {
        panic!("{event:?}");
    }
}

/// A lane and where its input stands.
struct Feed {
    encoder: Addr<Encoder>,
    shared: Shared,
    next: i64,
    sent: Vec<i64>,
    credits: Arc<Semaphore>,
}

impl Feed {
    async fn start(bed: &Bed, origin: i64, flush_size: u64) -> (Self, Arc<Lane>) {
        let job = bed.job("lane", |job| job.flush_size = flush_size);
        let generation = GenerationRecord {
            format_version: 1,
            generation: 1,
            uuid: uuid::Uuid::new_v4().to_string(),
            cluster_id: String::new(),
            topic: "t".to_owned(),
            topic_id: String::new(),
            job: "lane".to_owned(),
            isolation: RecordedIsolation::ReadCommitted,
            created_ms: 0,
            partitions: 1,
            origins: BTreeMap::new(),
            parent: None,
            forks: BTreeMap::new(),
            topic_config: BTreeMap::new(),
        };
        let record = Body::from(serde_json::to_vec(&generation).unwrap());
        bed.store.put(&key::generation_record("t", 1), &record, &Metadata::new()).await.unwrap();
        let threads = Arc::new(Threads::start());
        let topics = {
            let (_in_runtime, io) = (bed.io(), bed.io());
            let _entered = io.enter();
            TopicWatch::start(Cluster::connect(&bed.kafka).unwrap())
        };
        topics.add(["t"]);
        let shared = Shared {
            store: bed.store.clone(),
            budget: Budget::new(64 << 20, 1).job(),
            pool: Arc::default(),
            rate: Arc::new(crate::pipeline::rate::RateLimit::new(None)),
            spool: Spool::open(&bed.dir.path().join("spool"), 1 << 20).unwrap(),
            topics,
            forks: Arc::default(),
            committer: Committer::start_in_arbiter(&threads.commit(), |_| Committer::new(None)),
            threads,
        };
        let events = Nobody.start().recipient();
        let lane = Lane::new(lane_number(), at(0), job, Arc::new(generation), Progress::new(origin), events);
        let encoder = spawn_far_end(&shared, &lane, &Beginning { position: origin, tail_start: None, stop_at: None });
        let credits = Arc::new(Semaphore::new(1000));
        (Self { encoder, shared, next: origin, sent: Vec::new(), credits }, lane)
    }

    async fn send(&mut self, batch: RecordBatch, at_eof: bool) {
        let permit = self.shared.budget.acquire(1 << 10).await;
        let credit = self.credits.clone().acquire_owned().await.unwrap();
        // Long ago, so that no upload waits for another look at the topic.
        let fetched = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        self.encoder.do_send(Records { batch, at_eof, fetched, permit, credit });
    }

    async fn step(&mut self, bed: &Bed, step: Step) {
        let mut batch = RecordBatch::default();
        match step {
            Step::Records(holes, behind) => {
                for hole in holes {
                    let offset = self.next + i64::from(hole);
                    batch.push(offset, (offset, TimestampType::CreateTime), None, Some(b"value"), []);
                    self.sent.push(offset);
                    self.next = offset + 1;
                }
                self.next += i64::from(behind);
                batch.next_offset = self.next;
                self.send(batch, false).await;
            }
            Step::Eof(further) => {
                self.next += i64::from(further);
                batch.next_offset = self.next;
                self.send(batch, true).await;
            }
            Step::Again => {
                for offset in self.sent.iter().rev().take(5).rev() {
                    batch.push(*offset, (*offset, TimestampType::CreateTime), None, Some(b"value"), []);
                    batch.next_offset = offset + 1;
                }
                self.send(batch, false).await;
            }
            Step::Spill => self.encoder.do_send(Spill),
            Step::Barrier => self.barrier().await,
            Step::Slow => bed.store.add(Fault::delay("create", Duration::from_millis(30)).under("t/")),
        }
    }

    async fn barrier(&self) {
        let (done, waited) = tokio::sync::oneshot::channel();
        let done = Box::new(move || _ = done.send(()));
        self.encoder.do_send(Barrier { read_on: true, done });
        tokio::time::timeout(SOON, waited).await.expect("in time").expect("the lane lives");
    }
}

async fn check(steps: Vec<Step>, origin: i64, flush_size: u64) -> Result<(), TestCaseError> {
    let bed = Bed::new(&[("t", 1)]);
    let (mut feed, lane) = Feed::start(&bed, origin, flush_size).await;
    let mut early_cuts = 1;
    for step in steps {
        early_cuts += usize::from(matches!(step, Step::Barrier));
        feed.step(&bed, step).await;
    }
    feed.barrier().await;
    let (ends, offsets) = bed.chain("t", 1, 0, origin);
    prop_assert_eq!(&offsets, &feed.sent);
    prop_assert_eq!(lane.progress.durable_next(), ends.last().copied().unwrap_or(origin));
    let sizes: Vec<u64> = bed.objects("t", 1, 0).iter().map(|object| object.meta.records).collect();
    prop_assert!(sizes.iter().all(|size| *size <= flush_size), "{:?}", sizes);
    let small = sizes.iter().filter(|size| **size < flush_size).count();
    prop_assert!(small <= early_cuts, "{:?} with {} barriers", sizes, early_cuts);
    lane.close();
    feed.shared.threads.stop();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn objects_are_a_list_cut_where_they_should_be(steps in steps(), origin in 0..50i64, flush_size in 1..60u64) {
        System::new().block_on(check(steps, origin, flush_size))?;
    }
}
