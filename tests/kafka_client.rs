//! The Kafka room against a real broker: `KAFKA_BACKUP_TEST_KAFKA=host:port`, one node is enough.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use kafka_backup::config::{Isolation, KafkaConfig, Property};
use kafka_backup::kafka::admin::{Cluster, End, TIMEOUT};
use kafka_backup::kafka::consumer::{GroupConsumer, GroupEvent, Position, Protocol};
use kafka_backup::kafka::producer::{ProducerSettings, RestoreProducer, SendError};
use kafka_backup::kafka::queue::{PartitionQueue, QueueError};
use kafka_backup::kafka::settings::ConsumerSettings;
use kafka_backup::kafka::{Kind, TopicPartition};
use kafka_backup::model::batch::{Header, Record, RecordBatch, TimestampType};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// Longest wait for anything that should happen.
const SOON: Duration = Duration::from_secs(30);

/// The broker, or `None`: then the test has nothing to run against and passes.
fn kafka(properties: &[(&str, &str)]) -> Option<KafkaConfig> {
    let Ok(bootstrap) = std::env::var("KAFKA_BACKUP_TEST_KAFKA") else {
        eprintln!("KAFKA_BACKUP_TEST_KAFKA is not set: skipped");
        return None;
    };
    let property = |value: &str| Property { value: value.into(), secret_from: None };
    Some(KafkaConfig {
        name: "test".into(),
        bootstrap_servers: vec![bootstrap],
        properties: properties.iter().map(|(k, v)| ((*k).to_owned(), property(v))).collect(),
    })
}

/// A name no other test uses.
fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis();
    format!("kc-{what}-{since}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn wait_for<T>(runtime: impl std::future::Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(runtime)
}

fn create(kafka: &KafkaConfig, topic: &str, partitions: i32, configs: &[(&str, &str)]) -> Arc<Cluster> {
    let cluster = Cluster::connect(kafka).expect("cluster");
    // The records of these tests are old: a broker that looks for expired ones would delete them at once.
    let configs =
        [("retention.ms", "-1")].iter().chain(configs).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    wait_for(cluster.create_topic(topic, partitions, None, &configs, TIMEOUT)).expect("topic created");
    // Created is not yet known to whoever is asked next.
    let begin = Instant::now();
    while wait_for(cluster.describe(&[topic.to_owned()], TIMEOUT)).expect("described")[topic].is_err() {
        assert!(begin.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(50));
    }
    cluster
}

fn delete(kafka: &KafkaConfig, topic: &str) {
    use rdkafka::admin::{AdminClient, AdminOptions};
    let client: AdminClient<_> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &kafka.bootstrap_servers[0]).create().expect("client");
    wait_for(client.delete_topics(&[topic], &AdminOptions::new())).expect("deleted")[0].as_ref().expect("deleted");
}

fn settings(group: &str) -> ConsumerSettings {
    ConsumerSettings {
        group_id: group.to_owned(),
        group_instance_id: String::new(),
        isolation: Isolation::ReadCommitted,
        prefetch_bytes: 8 << 20,
        partitions: 4,
        patient: false,
    }
}

/// A group member whose events are kept.
struct Member {
    consumer: Arc<GroupConsumer>,
    events: Mutex<mpsc::Receiver<GroupEvent>>,
}

impl Member {
    fn join(kafka: &KafkaConfig, s: &ConsumerSettings, topic: &str) -> Member {
        let (send, events) = mpsc::channel();
        let on_event = Box::new(move |event| drop(send.send(event)));
        let consumer = GroupConsumer::start("test", kafka, s, &[topic.to_owned()], on_event).expect("consumer");
        Member { consumer, events: Mutex::new(events) }
    }

    fn event(&self) -> GroupEvent {
        self.events.lock().expect("lock").recv_timeout(SOON).expect("an event")
    }

    /// Follows events until exactly `count` partitions are owned; returns them.
    fn own(&self, owned: &mut Vec<TopicPartition>, count: usize) {
        while owned.len() != count {
            match self.event() {
                GroupEvent::Assigned(new) => {
                    if self.consumer.protocol() == Protocol::Eager {
                        owned.clear();
                    }
                    owned.extend(new);
                }
                GroupEvent::Revoked { partitions, lost } => {
                    assert!(!lost);
                    owned.retain(|at| !partitions.contains(at));
                }
                other => eprintln!("{other:?}"),
            }
        }
        owned.sort();
    }

    fn place(&self, at: &TopicPartition, offset: i64, leader_epoch: i32) -> PartitionQueue {
        let placed = self.consumer.place(&[(at.clone(), Position { offset, leader_epoch })]).expect("placed");
        placed.into_iter().next().expect("still owned")
    }

    fn close(self) {
        let begin = Instant::now();
        self.consumer.close(Duration::from_secs(10));
        assert!(begin.elapsed() < Duration::from_secs(9), "left the group in {:?}", begin.elapsed());
    }
}

/// Drains until the end of the partition. Panics on an error.
fn drain_to_eof(queue: &mut PartitionQueue, batch: &mut RecordBatch) -> i64 {
    let begin = Instant::now();
    loop {
        let drained = queue.drain(batch, usize::MAX, usize::MAX);
        assert!(drained.error.is_none(), "{:?}", drained.error);
        if let Some(eof) = drained.eof {
            return eof;
        }
        assert!(begin.elapsed() < SOON, "no end of {} after {} records", queue.partition(), batch.len());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Drains until an error ends the queue.
fn drain_to_error(queue: &mut PartitionQueue, batch: &mut RecordBatch) -> QueueError {
    let begin = Instant::now();
    loop {
        if let Some(error) = queue.drain(batch, usize::MAX, usize::MAX).error {
            return error;
        }
        assert!(begin.elapsed() < SOON, "no error after {} records", batch.len());
        std::thread::sleep(Duration::from_millis(5));
    }
}

type Deliveries = Arc<Mutex<BTreeMap<u64, i64>>>;

fn producer(kafka: &KafkaConfig) -> (RestoreProducer, Deliveries) {
    let deliveries = Deliveries::default();
    let kept = Arc::clone(&deliveries);
    let on_delivery = move |tag, _, result: Result<i64, _>| {
        kept.lock().expect("lock").insert(tag, result.expect("delivered"));
    };
    let s = ProducerSettings::default();
    (RestoreProducer::new(kafka, &s, Box::new(on_delivery)).expect("producer"), deliveries)
}

/// Produces a batch's records to a partition and returns their offsets.
fn produce(kafka: &KafkaConfig, at: &TopicPartition, batch: &RecordBatch) -> Vec<i64> {
    let (producer, deliveries) = producer(kafka);
    let topic = producer.topic(&at.topic).expect("topic");
    for (tag, record) in batch.iter().enumerate() {
        loop {
            match producer.send(&topic, at.partition, &record, tag as u64) {
                Ok(()) => break,
                Err(SendError::Full) => producer.poll(Duration::from_millis(10)),
                Err(error) => panic!("{error}"),
            }
        }
    }
    producer.flush(SOON).expect("flushed");
    assert_eq!(producer.in_flight(), 0);
    let deliveries = deliveries.lock().expect("lock");
    assert_eq!(deliveries.len(), batch.len());
    deliveries.values().copied().collect()
}

/// `count` records with values `prefix0`, `prefix1`, ...
fn numbered(prefix: &str, count: usize) -> RecordBatch {
    let mut batch = RecordBatch::default();
    for i in 0..count {
        let value = format!("{prefix}{i}");
        batch.push(0, (1_700_000_000_000, TimestampType::CreateTime), None, Some(value.as_bytes()), []);
    }
    batch
}

/// Produces `count` records in a transaction that ends as told.
fn transaction(kafka: &KafkaConfig, topic: &str, count: usize, commit: bool) -> BaseProducer {
    let producer = open_transaction(kafka, topic, count);
    let ended = if commit { producer.commit_transaction(SOON) } else { producer.abort_transaction(SOON) };
    ended.expect("transaction ended");
    producer
}

fn open_transaction(kafka: &KafkaConfig, topic: &str, count: usize) -> BaseProducer {
    let producer: BaseProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &kafka.bootstrap_servers[0])
        .set("transactional.id", unique("tx"))
        .create()
        .expect("producer");
    producer.init_transactions(SOON).expect("init");
    producer.begin_transaction().expect("begin");
    for i in 0..count {
        let value = format!("t{i}");
        let record = BaseRecord::<str, str>::to(topic).partition(0).payload(&value);
        producer.send(record).map_err(|(e, _)| e).expect("queued");
    }
    producer.flush(SOON).expect("flushed");
    producer
}

#[test]
fn end_of_partition_is_behind_aborted_records_and_markers() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("eof");
    let cluster = create(&kafka, &topic, 1, &[]);
    transaction(&kafka, &topic, 10, true); // records 0..=9, marker 10
    transaction(&kafka, &topic, 5, false); // aborted 11..=15, marker 16
    let member = Member::join(&kafka, &settings(&topic), &topic);
    let mut owned = Vec::new();
    member.own(&mut owned, 1);
    let mut queue = member.place(&owned[0], 0, -1);
    let mut batch = RecordBatch::with_capacity(1 << 20);
    assert_eq!(drain_to_eof(&mut queue, &mut batch), 17);
    assert_eq!(batch.len(), 10);
    assert_eq!(batch.last().map(|r| r.offset), Some(9));
    assert_eq!(batch.next_offset, 17);
    assert_eq!(batch.leader_epoch, 0);
    drop(cluster);
    member.close();
}

/// librdkafka's batch calls set the position behind the end-of-partition event; the rebalance that follows here goes
/// on from the position, and the next record would be lost.
#[test]
fn nothing_is_skipped_when_a_rebalance_follows_the_end() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("skip");
    create(&kafka, &topic, 2, &[]);
    let at = TopicPartition::new(topic.as_str(), 0);
    produce(&kafka, &at, &numbered("a", 3));
    let first = Member::join(&kafka, &settings(&topic), &topic);
    let mut owned = Vec::new();
    first.own(&mut owned, 2);
    let mut queues: Vec<_> = owned.iter().map(|at| first.place(at, 0, -1)).collect();
    let mut batches = [RecordBatch::default(), RecordBatch::default()];
    for (queue, batch) in queues.iter_mut().zip(&mut batches) {
        drain_to_eof(queue, batch);
    }
    let second = Member::join(&kafka, &settings(&topic), &topic);
    first.own(&mut owned, 1);
    let kept = owned[0].partition as usize;
    produce(&kafka, &owned[0], &numbered("b", 4));
    let begin = Instant::now();
    let before = batches[kept].len();
    while batches[kept].len() < before + 4 {
        let drained = queues[kept].drain(&mut batches[kept], usize::MAX, usize::MAX);
        assert!(drained.error.is_none(), "{:?}", drained.error);
        assert!(begin.elapsed() < SOON, "{} records", batches[kept].len());
        std::thread::sleep(Duration::from_millis(5));
    }
    let offsets: Vec<i64> = batches[kept].iter().map(|r| r.offset).collect();
    assert_eq!(offsets, (0..(before + 4) as i64).collect::<Vec<_>>());
    // The queue of the partition that went away is empty for ever.
    let gone = 1 - kept;
    let drained = queues[gone].drain(&mut batches[gone], usize::MAX, usize::MAX);
    assert!(drained.records == 0 && drained.exhausted && drained.error.is_none(), "{drained:?}");
    second.close();
    first.close();
}

#[test]
fn a_position_above_the_end_of_its_epoch_is_a_truncation() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("truncated");
    create(&kafka, &topic, 1, &[]);
    let at = TopicPartition::new(topic.as_str(), 0);
    produce(&kafka, &at, &numbered("a", 10));
    let member = Member::join(&kafka, &settings(&topic), &topic);
    member.own(&mut Vec::new(), 1);
    let mut batch = RecordBatch::default();

    let mut queue = member.place(&at, 15, 0);
    match drain_to_error(&mut queue, &mut batch) {
        QueueError::Truncated { end_offset, .. } => assert_eq!(end_offset, Some(10)),
        other => panic!("{other:?}"),
    }
    // An epoch the broker never had.
    let mut queue = member.place(&at, 5, 7);
    match drain_to_error(&mut queue, &mut batch) {
        QueueError::Truncated { end_offset, .. } => assert_eq!(end_offset, None),
        other => panic!("{other:?}"),
    }
    // Without an epoch it is only out of range.
    let mut queue = member.place(&at, 15, -1);
    assert!(matches!(drain_to_error(&mut queue, &mut batch), QueueError::OutOfRange { .. }));
    assert!(batch.is_empty());
    // After all that the partition still works, from the very position, with its epoch.
    let mut queue = member.place(&at, 4, 0);
    assert_eq!(drain_to_eof(&mut queue, &mut batch), 10);
    assert_eq!(batch.iter().map(|r| r.offset).collect::<Vec<_>>(), (4..10).collect::<Vec<_>>());
    member.close();
}

#[test]
fn records_come_back_as_they_were_sent() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("exact");
    create(&kafka, &topic, 1, &[("max.message.bytes", "12000000")]);
    let at = TopicPartition::new(topic.as_str(), 0);
    let header = |name, value| Header { name, value };
    let large = vec![7u8; 10_000_000];
    let mut sent = RecordBatch::default();
    let create_time = |t| (t, TimestampType::CreateTime);
    sent.push(0, create_time(1), None, None, []);
    sent.push(1, create_time(1_700_000_000_000), Some(b""), Some(b""), []);
    sent.push(2, create_time(-1), Some(b"k"), None, []);
    sent.push(
        3,
        create_time(1_700_000_000_001),
        None,
        Some(b"v"),
        [
            header(b"\xff\xfe not utf-8".as_slice(), Some(b"1".as_slice())),
            header(b"twice", Some(b"a")),
            header(b"null", None),
            header(b"empty", Some(b"")),
            header(b"twice", Some(b"b")),
            header(b"", Some(b"no name")),
        ],
    );
    sent.push(4, create_time(5), None, Some(&large), []);
    assert_eq!(produce(&kafka, &at, &sent), [0, 1, 2, 3, 4]);

    let member = Member::join(&kafka, &settings(&topic), &topic);
    member.own(&mut Vec::new(), 1);
    let mut queue = member.place(&at, 0, 0);
    let mut got = RecordBatch::default();
    drain_to_eof(&mut queue, &mut got);
    let sent: Vec<Record<'_>> = sent.iter().collect();
    let got: Vec<Record<'_>> = got.iter().collect();
    assert_eq!(got.len(), sent.len());
    for (got, sent) in got.iter().zip(&sent) {
        assert!(got == sent, "offset {}: {:?} {:?}", sent.offset, (got.timestamp, got.timestamp_type), got.key);
    }
    member.close();
}

#[test]
fn a_drain_keeps_its_limits_and_names_what_it_needs() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("limits");
    create(&kafka, &topic, 1, &[]);
    let at = TopicPartition::new(topic.as_str(), 0);
    let mut sent = RecordBatch::default();
    for size in [100, 100, 5000, 100] {
        sent.push(0, (1, TimestampType::CreateTime), None, Some(&vec![1; size]), []);
    }
    produce(&kafka, &at, &sent);
    let member = Member::join(&kafka, &settings(&topic), &topic);
    member.own(&mut Vec::new(), 1);
    let mut queue = member.place(&at, 0, 0);
    let (wake, woken) = mpsc::channel();
    queue.set_wakeup(Box::new(move || wake.send(()).unwrap_or_default()));
    let mut batch = RecordBatch::default();
    let begin = Instant::now();
    while batch.len() < 2 {
        assert!(begin.elapsed() < SOON);
        let _ = woken.recv_timeout(Duration::from_millis(100));
        queue.drain(&mut batch, 1000, 2);
    }
    assert_eq!((batch.len(), batch.next_offset), (2, 2));
    let drained = queue.drain(&mut batch, 1000, usize::MAX);
    assert!(drained.records == 0 && drained.needs.is_none() && !drained.exhausted, "{drained:?}");
    batch.clear();
    let drained = queue.drain(&mut batch, 1000, usize::MAX);
    assert!(drained.records == 0 && drained.needs == Some(5000), "{drained:?}");
    assert_eq!(drain_to_eof(&mut queue, &mut batch), 4);
    assert_eq!(batch.iter().map(|r| r.offset).collect::<Vec<_>>(), [2, 3]);
    produce(&kafka, &at, &numbered("woken", 1));
    woken.recv_timeout(SOON).expect("a wake-up");
    member.close();
}

#[test]
fn two_members_share_while_neither_has_placed_anything() {
    let strategy = "partition.assignment.strategy";
    for (key, strategy) in [(strategy, "cooperative-sticky"), (strategy, "range"), ("group.protocol", "consumer")] {
        let Some(kafka) = kafka(&[(key, strategy)]) else { return };
        let topic = unique(strategy);
        create(&kafka, &topic, 4, &[]);
        for partition in 0..4 {
            produce(&kafka, &TopicPartition::new(topic.as_str(), partition), &numbered("a", 5));
        }
        let first = Member::join(&kafka, &settings(&topic), &topic);
        let expected = if strategy == "range" { Protocol::Eager } else { Protocol::Cooperative };
        assert_eq!(first.consumer.protocol(), expected);
        let (mut of_first, mut of_second) = (Vec::new(), Vec::new());
        first.own(&mut of_first, 4);
        let second = Member::join(&kafka, &settings(&topic), &topic);
        first.own(&mut of_first, 2);
        second.own(&mut of_second, 2);
        let mut all = [of_first.clone(), of_second.clone()].concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4, "{strategy}: {all:?}");

        // Placing late, in the steady state, works; what is not owned is left out.
        let from_2 = Position { offset: 2, leader_epoch: 0 };
        let everything: Vec<_> = all.iter().map(|at| (at.clone(), from_2)).collect();
        let mut queues = first.consumer.place(&everything).expect("placed");
        assert_eq!(queues.iter().map(|q| q.partition().clone()).collect::<Vec<_>>(), of_first);
        for queue in &mut queues {
            let mut batch = RecordBatch::default();
            assert_eq!(drain_to_eof(queue, &mut batch), 5, "{strategy}");
            assert_eq!(batch.len(), 3);
        }

        // The second leaves; the first owns all again, its queues go on or were replaced.
        second.close();
        first.own(&mut of_first, 4);
        let mut queues = first.consumer.place(&everything).expect("placed");
        assert_eq!(queues.len(), 4, "{strategy}");
        for queue in &mut queues {
            let mut batch = RecordBatch::default();
            assert_eq!(drain_to_eof(queue, &mut batch), 5, "{strategy}");
            assert_eq!(batch.len(), 3);
        }
        first.close();
    }
}

#[test]
fn a_partition_placed_anew_never_feeds_its_old_queue() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("replace");
    create(&kafka, &topic, 1, &[]);
    let at = TopicPartition::new(topic.as_str(), 0);
    produce(&kafka, &at, &numbered("a", 1000));
    let member = Member::join(&kafka, &settings(&topic), &topic);
    member.own(&mut Vec::new(), 1);
    let mut old: Vec<PartitionQueue> = Vec::new();
    for round in 0..20 {
        let mut queue = member.place(&at, round, if round % 2 == 0 { 0 } else { -1 });
        let mut batch = RecordBatch::default();
        let begin = Instant::now();
        while batch.next_offset < 1000 {
            for old in &mut old {
                assert_eq!(old.drain(&mut RecordBatch::default(), usize::MAX, usize::MAX).records, 0);
            }
            queue.drain(&mut batch, usize::MAX, 17);
            assert!(begin.elapsed() < SOON, "round {round}: {}", batch.next_offset);
        }
        let offsets: Vec<i64> = batch.iter().map(|r| r.offset).collect();
        assert_eq!(offsets, (round..1000).collect::<Vec<_>>());
        if round % 3 == 0 {
            member.consumer.unplace(std::slice::from_ref(&at)).expect("unplaced");
        }
        old.push(queue);
    }
    member.close();
}

#[test]
fn commits_come_back_with_their_metadata() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("commit");
    let cluster = create(&kafka, &topic, 2, &[]);
    let member = Member::join(&kafka, &settings(&topic), &topic);
    let mut owned = Vec::new();
    member.own(&mut owned, 2);
    let group = topic.as_str();
    assert_eq!(wait_for(cluster.group_members(group, TIMEOUT)).expect("members").len(), 1);
    member.consumer.commit(&[(owned[0].clone(), 42, "uuid-1".into())]).expect("queued");
    let expected = vec![(owned[0].clone(), Some((42, "uuid-1".to_owned()))), (owned[1].clone(), None)];
    let begin = Instant::now();
    while member.consumer.committed(&owned, SOON).expect("read") != expected {
        assert!(begin.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(wait_for(cluster.committed(group, &owned, TIMEOUT)).expect("read"), expected);
    // A commit is not lost when the member leaves right behind it.
    member.consumer.commit(&[(owned[0].clone(), 43, "uuid-2".into())]).expect("queued");
    member.close();
    let last = wait_for(cluster.committed(group, &owned[..1], TIMEOUT)).expect("read");
    assert_eq!(last, [(owned[0].clone(), Some((43, "uuid-2".to_owned())))]);
    assert!(wait_for(cluster.group_members(group, TIMEOUT)).expect("members").is_empty());
    assert!(wait_for(cluster.group_members("kc-never-there", TIMEOUT)).expect("members").is_empty());
}

#[test]
fn a_commit_that_the_group_refuses_is_reported() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("refused");
    create(&kafka, &topic, 1, &[]);
    let member = Member::join(&kafka, &settings(&topic), &topic);
    member.own(&mut Vec::new(), 1);
    let too_long = "x".repeat(100_000); // offset.metadata.max.bytes is 4096
    member.consumer.commit(&[(TopicPartition::new(topic.as_str(), 0), 1, too_long)]).expect("queued");
    assert!(matches!(member.event(), GroupEvent::CommitFailed(_)));
    member.close();
}

#[test]
fn a_record_the_producer_cannot_carry_is_refused() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("refused");
    create(&kafka, &topic, 1, &[]);
    let s = ProducerSettings { record_bytes_max: 1_000_000, ..ProducerSettings::default() };
    let producer = RestoreProducer::new(&kafka, &s, Box::new(|_, _, _| ())).expect("producer");
    let handle = producer.topic(&topic).expect("topic");
    let mut batch = RecordBatch::default();
    batch.push(0, (i64::MIN, TimestampType::CreateTime), None, None, []);
    batch.push(1, (1, TimestampType::CreateTime), None, Some(&vec![0; 2_000_000]), []);
    let send = |i| producer.send(&handle, 0, &batch.get(i).expect("there"), 0);
    assert!(matches!(send(0), Err(SendError::Timestamp(i64::MIN))));
    assert!(matches!(send(1), Err(SendError::TooLarge(_))));
    assert!(producer.in_flight() == 0 && producer.fatal().is_none());
}

#[test]
fn topic_ids_change_with_the_topic() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("recreated");
    let cluster = create(&kafka, &topic, 3, &[]);
    let missing = unique("missing");
    let describe = || {
        let mut answer = wait_for(cluster.describe(&[topic.clone(), missing.clone()], TIMEOUT)).expect("described");
        assert_eq!(answer[&missing].as_ref().expect_err("not there").kind, Kind::UnknownTopic);
        answer.remove(&topic).expect("answered")
    };
    let first = describe().expect("there");
    assert_eq!(first.partitions, 3);
    assert!(first.id.is_some());
    delete(&kafka, &topic);
    let begin = Instant::now();
    while describe().is_ok() {
        assert!(begin.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(50));
    }
    create(&kafka, &topic, 2, &[]);
    let second = describe().expect("there again");
    assert_eq!(second.partitions, 2);
    assert_ne!(first.id, second.id);
    let listed = wait_for(cluster.topics(TIMEOUT)).expect("listed");
    assert!(listed.iter().any(|t| t.name == topic && t.partitions == 2));
    assert!(!wait_for(cluster.cluster_id(TIMEOUT)).expect("id").is_empty());
    let again = wait_for(cluster.create_topic(&topic, 2, Some(1), &BTreeMap::new(), TIMEOUT)).expect_err("exists");
    assert_eq!(again.kind, Kind::Exists);
}

#[test]
fn offsets_know_both_ends_and_the_last_stable_one() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("offsets");
    let cluster = create(&kafka, &topic, 1, &[]);
    let at = TopicPartition::new(topic.as_str(), 0);
    produce(&kafka, &at, &numbered("a", 3));
    let open = open_transaction(&kafka, &topic, 2);
    let missing = TopicPartition::new(unique("missing"), 0);
    let ask = |end, isolation| {
        let partitions = [at.clone(), missing.clone()];
        let answer = wait_for(cluster.offsets(&partitions, end, isolation, Duration::from_secs(5))).expect("answered");
        assert_eq!(answer[&missing].as_ref().expect_err("not there").kind, Kind::UnknownTopic);
        *answer[&at].as_ref().expect("known")
    };
    assert_eq!(ask(End::Earliest, Isolation::ReadCommitted), 0);
    assert_eq!(ask(End::Latest, Isolation::ReadUncommitted), 5);
    assert_eq!(ask(End::Latest, Isolation::ReadCommitted), 3);
    open.abort_transaction(SOON).expect("aborted");
    // The marker is written some time after the abort was acknowledged.
    let begin = Instant::now();
    while ask(End::Latest, Isolation::ReadCommitted) != 6 {
        assert!(begin.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn offsets_of_two_thousand_partitions_are_one_call() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("wide");
    let cluster = create(&kafka, &topic, 2000, &[]);
    let all: Vec<_> = (0..2000).map(|p| TopicPartition::new(topic.as_str(), p)).collect();
    let begin = Instant::now();
    loop {
        let asked = Instant::now();
        let answer =
            wait_for(cluster.offsets(&all, End::Latest, Isolation::ReadUncommitted, TIMEOUT)).expect("answered");
        assert_eq!(answer.len(), 2000);
        if answer.values().all(|o| matches!(o, Ok(0))) {
            eprintln!("2,000 offsets in {:?}", asked.elapsed());
            break;
        }
        // Leaders are elected some time after the creation was acknowledged.
        assert!(begin.elapsed() < SOON, "{:?}", answer.values().find(|o| o.is_err()));
        std::thread::sleep(Duration::from_millis(200));
    }
    delete(&kafka, &topic);
}

#[test]
fn topic_configurations_say_what_is_set() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("configs");
    let cluster = create(&kafka, &topic, 1, &[("retention.ms", "86400000")]);
    let configs = wait_for(cluster.topic_configs(std::slice::from_ref(&topic), TIMEOUT)).expect("described");
    let retention = &configs[&topic]["retention.ms"];
    assert_eq!((retention.value.as_deref(), retention.is_default), (Some("86400000"), false));
    assert!(configs[&topic]["cleanup.policy"].is_default);
}

#[test]
fn a_broker_that_is_not_there_is_an_error_in_time() {
    let kafka = KafkaConfig {
        name: "nowhere".into(),
        bootstrap_servers: vec!["127.0.0.1:1".into()],
        properties: BTreeMap::new(),
    };
    let cluster = Cluster::connect(&kafka).expect("no network yet");
    let begin = Instant::now();
    let timeout = Duration::from_millis(500);
    wait_for(cluster.topics(timeout)).expect_err("nobody there");
    wait_for(cluster.describe(&["t".to_owned()], timeout)).expect_err("nobody there");
    wait_for(cluster.cluster_id(timeout)).expect_err("nobody there");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let member = Member::join(&kafka, &settings("g"), "t");
    let begin = Instant::now();
    member.consumer.close(Duration::from_secs(2));
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}

/// Not a test of anything: how fast a full queue is drained. 1,000,000 records of about 900 bytes.
#[test]
#[ignore = "a measurement"]
fn drain_throughput() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("throughput");
    create(&kafka, &topic, 1, &[]);
    let at = TopicPartition::new(topic.as_str(), 0);
    let value: Vec<u8> = (0..850).map(|i| b"0123456789 abcdef, \"field\": "[(i * 7 + i / 13) % 27]).collect();
    let mut part = RecordBatch::default();
    for i in 0..50_000u32 {
        let headers = [Header { name: b"trace", value: Some(b"0123456789abcdef") }];
        part.push(0, (1_700_000_000_000, TimestampType::CreateTime), Some(&i.to_be_bytes()), Some(&value), headers);
    }
    let begin = Instant::now();
    for _ in 0..20 {
        produce(&kafka, &at, &part);
    }
    eprintln!("produced: {:.0} records/s", 1e6 / begin.elapsed().as_secs_f64());
    let mut s = settings(&topic);
    (s.prefetch_bytes, s.partitions) = (256 << 20, 1);
    let member = Member::join(&kafka, &s, &topic);
    member.own(&mut Vec::new(), 1);
    let mut queue = member.place(&at, 0, 0);
    let mut batch = RecordBatch::with_capacity(1 << 20);
    let (mut records, mut busy, mut drains) = (0, Duration::ZERO, 0u32);
    let begin = Instant::now();
    while records < 1_000_000 {
        batch.clear();
        let drain = Instant::now();
        let drained = queue.drain(&mut batch, 1 << 20, usize::MAX);
        if drained.records == 0 {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        busy += drain.elapsed();
        drains += 1;
        records += drained.records;
    }
    let (total, busy) = (begin.elapsed().as_secs_f64(), busy.as_secs_f64());
    eprintln!("end to end: {:.0} records/s; draining alone: {:.0} records/s, {drains} drains", 1e6 / total, 1e6 / busy);
    member.close();
    delete(&kafka, &topic);
}
