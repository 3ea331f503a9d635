//! What a partition gets over, and what it must not get over.

use super::*;
use crate::failpoint::fail_encoder;
use crate::kafka::admin::Cluster;
use crate::model::chain::GenerationRecord;
use crate::model::key;
use crate::pipeline::resolver::{Local, Resolver, Unresolved};
use crate::pipeline::status::JobState;
use crate::pipeline::topics::TopicWatch;
use crate::storage::fault::Fault;
use crate::storage::{Body, Kind, Metadata, Store};

/// Which lane a partition has: two answers differ when it was built anew.
fn lane_of(open: &OpenJob, partition: i32) -> Option<usize> {
    let progress = open.status.partitions().get(&at(partition))?.progress.clone()?;
    Some(Arc::as_ptr(&progress) as usize)
}

fn durable(open: &OpenJob, partition: i32) -> Option<i64> {
    Some(open.status.partitions().get(&at(partition))?.progress.as_ref()?.durable_next())
}

#[actix::test]
async fn two_writers_of_one_list() {
    let bed = Bed::new(&[("t", 1)]);
    let jobs = [bed.job("writer-a", |job| job.flush_size = 10), bed.job("writer-b", |job| job.flush_size = 10)];
    let process = bed.process(BUDGET, 1 << 20, &jobs);
    let (a, b) = tokio::join!(bed.open(&process, &jobs[0], false), bed.open(&process, &jobs[1], false));
    until("lanes", || lane_of(&a, 0).is_some() && lane_of(&b, 0).is_some()).await;
    let writers = || {
        let objects = bed.objects("t", 1, 0).into_iter();
        objects.map(|object| object.meta.job).collect::<std::collections::BTreeSet<_>>().len()
    };
    // Each piece is a race.
    let mut records = 0;
    while records < 400 || writers() < 2 {
        assert!(records < 4000, "both must have written, or this shows nothing");
        bed.produce("t", 0, 10, 10);
        records += 10;
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    until("everything", || bed.chain("t", 1, 0, 0).1.len() == records).await;
    // Whoever lost the last race holds records that the other one has made durable.
    let _ = tokio::join!(a.end(SOON), b.end(SOON));
    process.stop();
    assert_eq!(bed.chain("t", 1, 0, 0).1, (0..records as i64).collect::<Vec<_>>());
}

#[actix::test]
async fn a_foreign_object_stops_its_partition_alone() {
    let bed = Bed::new(&[("t", 2)]);
    bed.produce("t", 0, 20, 10);
    bed.produce("t", 1, 20, 10);
    let job = bed.job("foreign", |job| job.flush_size = 10);
    let process = bed.process(BUDGET, 1 << 20, std::slice::from_ref(&job));
    bed.store.add(Fault::delay("create", Duration::from_secs(1)).under("t/0/"));
    let open = bed.open(&process, &job, false).await;
    until("lanes", || lane_of(&open, 0).is_some() && lane_of(&open, 1).is_some()).await;
    let folder = bed.dir.path().join("bucket/t/0");
    std::fs::create_dir_all(&folder).unwrap();
    let name = folder.join("t-0-00000000000000000000.avro");
    std::fs::write(&name, b"foreign").unwrap();
    until("the other partition", || bed.chain("t", 1, 1, 0).0 == [10, 20]).await;
    until("the problem", || open.status.problems().get("t/0").is_some_and(|p| p.text.contains("not ours"))).await;
    assert_eq!(std::fs::read(&name).unwrap(), b"foreign");
    // The operator takes it away.
    std::fs::remove_file(&name).unwrap();
    until("recovery", || bed.chain("t", 1, 0, 0).0 == [10, 20] && open.status.state() == JobState::Running).await;
    assert!(open.end(SOON).await);
    process.stop();
}

#[actix::test]
async fn one_poisoned_record_is_named_and_stops_one_partition() {
    let bed = Bed::new(&[("poison", 2)]);
    let job = bed.job("poison", |job| {
        job.topics.literal = vec!["poison".to_owned()];
        job.flush_size = 5;
    });
    bed.produce("poison", 0, 20, 10);
    bed.produce("poison", 1, 20, 10);
    fail_encoder(Some("poison/1@12"));
    let process = bed.process(BUDGET, 1 << 20, std::slice::from_ref(&job));
    let open = bed.open(&process, &job, false).await;
    let named = || {
        let problems = open.status.problems();
        problems.get("poison/1").is_some_and(|p| p.text.contains("cannot get past offset 12 (3 attempts)"))
    };
    until("the offset by name", named).await;
    assert_eq!(open.status.problems().len(), 1);
    assert_eq!(bed.chain("poison", 1, 0, 0).0, [5, 10, 15, 20]);
    assert_eq!(bed.chain("poison", 1, 1, 0).0, [5, 10], "what is in front of it is safe");
    fail_encoder(None);
    until("recovery", || open.status.state() == JobState::Running).await;
    assert_eq!(bed.chain("poison", 1, 1, 0).1, (0..20).collect::<Vec<_>>());
    assert!(open.end(SOON).await);
    process.stop();
}

#[actix::test]
async fn what_was_read_survives_that_kafka_deletes_what_follows() {
    let bed = Bed::new(&[("t", 1)]);
    bed.produce("t", 0, 3000, 1000);
    let job = bed.job("behind", |job| {
        job.flush_size = 1_000_000;
        job.rate_limit = Some(1 << 20);
    });
    let process = bed.process(4 << 20, 64 << 20, std::slice::from_ref(&job));
    let open = bed.open(&process, &job, false).await;
    until("the first records", || {
        open.status.partitions().get(&at(0)).is_some_and(|p| p.progress.as_ref().is_some_and(|p| p.read_next() > 200))
    })
    .await;
    // The mock cluster keeps 5 MiB of a partition.
    for _ in 0..4 {
        bed.produce("t", 0, 3000, 1000);
    }
    let gap = || bed.objects("t", 1, 0).iter().any(|object| object.meta.is_gap());
    until("a gap", gap).await;
    let objects = bed.objects("t", 1, 0);
    assert!(!objects[0].meta.is_gap() && objects[0].offsets.len() > 200, "{:?}", objects[0].meta);
    until("the end of the log is read", || {
        open.status.partitions()[&at(0)].progress.as_ref().is_some_and(|p| p.read_next() == 15_000)
    })
    .await;
    assert!(open.end(SOON).await);
    process.stop();
    assert_eq!(bed.chain("t", 1, 0, 0).0.last(), Some(&15_000));
    assert_eq!(open_gaps(&bed), 1);
}

fn open_gaps(bed: &Bed) -> usize {
    bed.objects("t", 1, 0).iter().filter(|object| object.meta.is_gap()).count()
}

#[actix::test]
async fn under_an_eager_protocol_a_partition_that_cannot_begin_leaves_the_others_alone() {
    let bed = Bed::new(&[("t", 2)]);
    bed.produce("t", 0, 100, 10);
    bed.produce("t", 1, 100, 10);
    let job = bed.job("eager", |job| {
        let mut kafka = KafkaConfig::clone(&job.kafka);
        let range = Property { value: "range".to_owned(), secret_from: None };
        kafka.properties.insert("partition.assignment.strategy".to_owned(), range);
        job.kafka = Arc::new(kafka);
    });
    bed.store.add(Fault::before("list", Kind::Other).under("t/1/").always());
    let process = bed.process(BUDGET, 1 << 20, std::slice::from_ref(&job));
    let open = bed.open(&process, &job, false).await;
    until("a lane", || lane_of(&open, 0).is_some()).await;
    let lane = lane_of(&open, 0);
    let read = |n| open.status.partitions()[&at(0)].progress.as_ref().is_some_and(|p| p.read_next() == n);
    until("its records", || read(100)).await;
    never("another lane", Duration::from_secs(6), || lane_of(&open, 0) != lane).await;
    bed.store.heal();
    until("the other lane", || lane_of(&open, 1).is_some()).await;
    bed.produce("t", 0, 50, 10);
    until("more records through the new queue", || read(150)).await;
    assert_eq!(lane_of(&open, 0), lane);
    assert_eq!(open.status.state(), JobState::Running);
    until("the other one's records", || {
        open.status.partitions()[&at(1)].progress.as_ref().is_some_and(|p| p.read_next() == 100)
    })
    .await;
    assert!(open.end(SOON).await);
    process.stop();
    assert_eq!(bed.chain("t", 1, 0, 0).1, (0..150).collect::<Vec<_>>());
    assert_eq!(bed.chain("t", 1, 1, 0).1, (0..100).collect::<Vec<_>>());
}

#[actix::test]
async fn a_generation_that_somebody_else_began_is_noticed() {
    let bed = Bed::new(&[("t", 1)]);
    bed.produce("t", 0, 10, 10);
    let job = bed.job("forked", |job| job.flush_size = 10);
    let process = bed.process(BUDGET, 1 << 20, std::slice::from_ref(&job));
    let open = bed.open(&process, &job, false).await;
    until("the first object", || durable(&open, 0) == Some(10)).await;
    let first = key::generation_record("t", 1);
    let record = GenerationRecord::from_json(&first, &bed.store.get(&first).await.unwrap().unwrap()).unwrap();
    let second = GenerationRecord {
        generation: 2,
        uuid: uuid::Uuid::new_v4().to_string(),
        origins: BTreeMap::from([("0".to_owned(), 10)]),
        forks: BTreeMap::from([("0".to_owned(), 10)]),
        parent: Some(1),
        ..record
    };
    let body = Body::from(serde_json::to_vec(&second).unwrap());
    bed.store.create(&key::generation_record("t", 2), &body, &Metadata::new()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    bed.produce("t", 0, 20, 10);
    until("objects of the new generation", || bed.chain("t", 2, 0, 10).0 == [20, 30]).await;
    assert_eq!(bed.chain("t", 1, 0, 0).0, [10], "nothing more in the old one");
    until("no problem is left", || open.status.state() == JobState::Running).await;
    assert!(open.end(SOON).await);
    process.stop();
}

#[actix::test]
async fn the_group_remembers_up_to_where_and_of_which_generation() {
    let bed = Bed::new(&[("t", 1)]);
    bed.produce("t", 0, 10, 10);
    let job = bed.job("hint", |_| ());
    let process = bed.process(BUDGET, 1 << 20, std::slice::from_ref(&job));
    let mut open = bed.open(&process, &job, true).await;
    open.reached.take().unwrap().await.unwrap().unwrap();
    assert!(open.end(SOON).await);
    process.stop();
    let uuid = bed.objects("t", 1, 0)[0].meta.generation.clone();
    let cluster = Cluster::connect(&job.kafka).unwrap();
    let topics = bed.io().block_on_here(async { TopicWatch::start(cluster.clone()) });
    let local = Local::default();
    let resolver = Resolver::new(job, bed.store.clone(), cluster, String::new(), local, topics, Arc::default());
    let asked = resolver.ask(&[at(0)]).await.unwrap();
    assert_eq!(asked[&at(0)].group, Some((10, uuid)));
}

/// Runs something short on another runtime than the test's.
trait BlockOnHere {
    fn block_on_here<T>(&self, work: impl Future<Output = T>) -> T;
}

impl BlockOnHere for tokio::runtime::Handle {
    fn block_on_here<T>(&self, work: impl Future<Output = T>) -> T {
        let _in_runtime = self.enter();
        futures_util::FutureExt::now_or_never(work).unwrap()
    }
}

#[actix::test]
async fn a_one_shot_run_does_not_wait_for_what_does_not_pass() {
    let bed = Bed::new(&[("t", 1)]);
    bed.produce("t", 0, 10, 10);
    bed.store.add(Fault::before("list", Kind::Auth).under("t/").always());
    let job = bed.job("refused", |_| ());
    let process = bed.process(BUDGET, 1 << 20, std::slice::from_ref(&job));
    let mut open = bed.open(&process, &job, true).await;
    let ended = tokio::time::timeout(SOON, open.reached.take().unwrap()).await.expect("it ends").unwrap();
    assert!(matches!(ended, Err(Unresolved::Store(_))), "{ended:?}");
    assert!(open.end(SOON).await, "nothing was read");
    process.stop();
}

#[actix::test]
async fn a_spool_file_that_somebody_deleted_is_read_from_kafka_again() {
    let bed = Bed::new(&[("t", 4)]);
    for partition in 0..4 {
        bed.produce("t", partition, 1500, 1000);
    }
    let job = bed.job("spool-gone", |job| job.flush_size = 1_000_000);
    let process = bed.process(4 << 20, 64 << 20, std::slice::from_ref(&job));
    let open = bed.open(&process, &job, false).await;
    let files = || std::fs::read_dir(bed.dir.path().join("spool-0")).unwrap().map(|e| e.unwrap().path());
    until("spool files", || files().count() > 0).await;
    until("everything read", || {
        let all = open.status.partitions();
        all.len() == 4 && all.values().all(|p| p.progress.as_ref().is_some_and(|p| p.read_next() == 1500))
    })
    .await;
    files().for_each(|path| std::fs::remove_file(path).unwrap());
    assert!(!open.end(SOON).await, "what was read could not be made durable");
    process.stop();
    assert!(bed.catch_up(&job).await);
    for partition in 0..4 {
        assert_eq!(bed.chain("t", 1, partition, 0).1, (0..1500).collect::<Vec<_>>());
    }
}

/// An outage of the bucket that is longer than Kafka's retention, and a process that ends in it: what was closed by then
/// is on disk, and nowhere else.
#[actix::test]
async fn what_waited_for_the_bucket_survives_that_kafka_has_deleted_it() {
    let bed = Bed::new(&[("t", 1)]);
    bed.produce("t", 0, 1000, 1000);
    let job = bed.job("outage", |job| job.flush_size = 300);
    let process = bed.process(BUDGET, 64 << 20, std::slice::from_ref(&job));
    bed.store.add(Fault::before("create", Kind::Unavailable).under("t/").always());
    let open = bed.open(&process, &job, false).await;
    let spool = |n: u32| bed.dir.path().join(format!("spool-{n}"));
    let kept = |n| std::fs::read_dir(spool(n)).unwrap().filter(|e| is_kept(&e.as_ref().unwrap().path())).count();
    until("two closed objects on disk", || kept(0) == 2).await;
    assert!(!open.end(Duration::from_millis(100)).await);
    process.stop();
    // The mock cluster keeps 5 MiB of a partition.
    bed.produce("t", 0, 12_000, 1000);

    bed.store.heal();
    std::fs::rename(spool(0), spool(1)).unwrap();
    assert!(bed.catch_up(&job).await);
    let (ends, offsets) = bed.chain("t", 1, 0, 0);
    assert_eq!(ends[..2], [300, 600]);
    assert_eq!(offsets[..600], (0..600).collect::<Vec<_>>(), "of these there is no other copy");
    assert_eq!(ends.last(), Some(&13_000));
    assert_eq!(open_gaps(&bed), 1, "what was not closed is gone, and that is said");
    assert_eq!(kept(1), 0, "what is stored is not needed any more");
}

fn is_kept(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|extension| extension == "closed")
}

/// The bucket came back in time, or another process was faster: the copies are of no more use.
#[actix::test]
async fn copies_on_disk_go_with_the_outage() {
    let bed = Bed::new(&[("t", 1)]);
    bed.produce("t", 0, 1000, 1000);
    let job = bed.job("short-outage", |job| job.flush_size = 300);
    let process = bed.process(BUDGET, 64 << 20, std::slice::from_ref(&job));
    bed.store.add(Fault::before("create", Kind::Unavailable).under("t/").always());
    let open = bed.open(&process, &job, false).await;
    let spool = bed.dir.path().join("spool-0");
    let kept = || std::fs::read_dir(&spool).unwrap().filter(|e| is_kept(&e.as_ref().unwrap().path())).count();
    until("two closed objects on disk", || kept() == 2).await;
    let copies = bed.dir.path().join("copies");
    std::fs::create_dir(&copies).unwrap();
    for entry in std::fs::read_dir(&spool).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copies.join(path.file_name().unwrap())).unwrap();
    }
    assert!(process.spool_bytes() > 600_000);
    bed.store.heal();
    until("the copies to go", || kept() == 0 && process.spool_bytes() == 0).await;
    assert!(open.end(SOON).await);
    process.stop();

    // As if they had been left behind by a process that died between the acknowledgement and the removal.
    std::fs::rename(&copies, bed.dir.path().join("spool-1")).unwrap();
    let before = bed.objects("t", 1, 0).len();
    assert!(bed.catch_up(&job).await);
    assert_eq!(bed.objects("t", 1, 0).len(), before);
    assert_eq!(bed.chain("t", 1, 0, 0).1, (0..1000).collect::<Vec<_>>());
    assert_eq!(std::fs::read_dir(bed.dir.path().join("spool-1")).unwrap().count(), 0);
}
