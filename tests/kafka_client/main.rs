//! The Kafka room against a real broker: `KAFKA_BACKUP_TEST_KAFKA=host:port`, one node is enough.

mod cluster;
mod group;
mod producing;
mod reading;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use kafka_backup::config::{Isolation, KafkaConfig, Property};
use kafka_backup::kafka::admin::{Cluster, End, TIMEOUT};
use kafka_backup::kafka::consumer::{GroupConsumer, GroupEvent, Position, Protocol};
use kafka_backup::kafka::create::NewTopic;
use kafka_backup::kafka::producer::{ProducerSettings, RestoreProducer, SendError};
use kafka_backup::kafka::queue::PartitionQueue;
use kafka_backup::kafka::queue_error::QueueError;
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
    let new = NewTopic { name: topic.to_owned(), partitions, replication_factor: None, configs };
    wait_for(cluster.create_topic(&new, TIMEOUT)).expect("topic created");
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
