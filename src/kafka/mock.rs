//! A Kafka inside this process: for `kafka-backup demo` and for tests without servers.
//!
//! librdkafka's mock cluster produces, fetches, keeps groups and offsets, lists offsets and knows leader epochs. It
//! has no transactions of others to abort, no topic configurations, cannot create topics and does not describe groups.

use rdkafka::ClientConfig;
use rdkafka::bindings::{rd_kafka_handle_mock_cluster, rd_kafka_mock_group_initial_rebalance_delay_ms};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer as _};

use super::{KafkaError, Kind};

/// A running cluster of one broker; it ends when dropped.
pub struct MockKafka {
    /// The client that the cluster lives in; it produces nothing.
    owner: BaseProducer,
}

impl MockKafka {
    /// Starts a broker with topics and their numbers of partitions. Its groups do not wait for further members.
    pub fn start(topics: &[(&str, i32)]) -> Result<MockKafka, KafkaError> {
        let owner = ClientConfig::new().set("test.mock.num.brokers", "1").create();
        let mock = MockKafka { owner: owner.map_err(|e| failed("start a mock cluster", &e))? };
        // SAFETY: the client has a mock cluster, which lives as long as it does and locks itself.
        unsafe {
            let cluster = rd_kafka_handle_mock_cluster(mock.owner.client().native_ptr());
            rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0);
        }
        for (topic, partitions) in topics {
            mock.create_topic(topic, *partitions)?;
        }
        Ok(mock)
    }

    /// It was created with one.
    fn cluster(&self) -> MockCluster<'_, DefaultProducerContext> {
        self.owner.client().mock_cluster().expect("a mock cluster")
    }

    /// Where clients connect.
    pub fn bootstrap(&self) -> String {
        self.cluster().bootstrap_servers()
    }

    /// Creates another topic.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), KafkaError> {
        let created = self.cluster().create_topic(topic, partitions, 1);
        created.map_err(|e| failed(&format!("create mock topic {topic}"), &e))
    }

    /// The next requests for the offsets of groups are answered with "not the coordinator".
    #[cfg(test)]
    fn coordinator_moves(&self, times: usize) {
        let errors = vec![rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR; times];
        self.cluster().request_errors(rdkafka::types::RDKafkaApiKey::OffsetFetch, &errors);
    }

    /// Elects a partition's leader anew, which raises its leader epoch.
    #[cfg(test)]
    pub(super) fn elect(&self, topic: &str, partition: i32) -> Result<(), KafkaError> {
        let elected = self.cluster().partition_leader(topic, partition, Some(1));
        elected.map_err(|e| failed(&format!("elect a leader of {topic}/{partition}"), &e))
    }
}

fn failed(operation: &str, error: &rdkafka::error::KafkaError) -> KafkaError {
    KafkaError { operation: operation.to_owned(), kind: Kind::Other, message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex, mpsc};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::kafka::TopicPartition;
    use crate::kafka::admin::{Cluster, End};
    use crate::kafka::consumer::{GroupConsumer, GroupEvent, Position};
    use crate::kafka::producer::{ProducerSettings, RestoreProducer};
    use crate::kafka::queue::PartitionQueue;
    use crate::kafka::queue_error::QueueError;
    use crate::kafka::settings::ConsumerSettings;
    use crate::kafka::settings::{Isolation, KafkaConfig};
    use crate::model::batch::{RecordBatch, TimestampType};

    const SOON: Duration = Duration::from_secs(20);

    fn config(mock: &MockKafka) -> KafkaConfig {
        let bootstrap_servers = vec![mock.bootstrap()];
        KafkaConfig { name: "mock".into(), bootstrap_servers, properties: BTreeMap::new() }
    }

    fn produce(kafka: &KafkaConfig, at: &TopicPartition, count: usize) -> Vec<i64> {
        let offsets = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&offsets);
        let on_delivery =
            move |_, _, offset: Result<i64, _>| kept.lock().expect("lock").push(offset.expect("delivered"));
        let producer =
            RestoreProducer::new(kafka, &ProducerSettings::default(), Box::new(on_delivery)).expect("producer");
        let topic = producer.topic(&at.topic).expect("topic");
        let mut batch = RecordBatch::default();
        batch.push(0, (1_700_000_000_000, TimestampType::CreateTime), None, Some(b"value"), []);
        for tag in 0..count {
            let record = batch.first().expect("one");
            producer.send(&topic, at.partition, &record, tag as u64).expect("taken");
        }
        producer.flush(SOON).expect("flushed");
        offsets.lock().expect("lock").clone()
    }

    fn join(kafka: &KafkaConfig, topic: &str, partitions: usize) -> Arc<GroupConsumer> {
        let s = ConsumerSettings {
            group_id: "g".into(),
            group_instance_id: String::new(),
            isolation: Isolation::ReadCommitted,
            prefetch_bytes: 1 << 20,
            partitions,
            patient: false,
        };
        let (send, events) = mpsc::channel();
        let on_event = Box::new(move |event| send.send(event).unwrap_or_default());
        let consumer = GroupConsumer::start("mock", kafka, &s, &[topic.to_owned()], on_event).expect("consumer");
        loop {
            match events.recv_timeout(SOON).expect("an event") {
                GroupEvent::Assigned(owned) if owned.len() == partitions => return consumer,
                other => eprintln!("{other:?}"),
            }
        }
    }

    fn place(consumer: &GroupConsumer, at: &TopicPartition, offset: i64, leader_epoch: i32) -> PartitionQueue {
        let position = Position { offset, leader_epoch };
        consumer.place(&[(at.clone(), position)]).expect("placed").pop().expect("owned")
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("runtime").block_on(future)
    }

    #[test]
    fn it_serves_everything_the_demo_asks() {
        let mock = MockKafka::start(&[("orders", 3)]).expect("mock");
        let kafka = config(&mock);
        let at = TopicPartition::new("orders", 1);
        assert_eq!(produce(&kafka, &at, 100), (0..100).collect::<Vec<_>>());

        let cluster = Cluster::connect(&kafka).expect("cluster");
        assert!(!wait(cluster.cluster_id(SOON)).expect("cluster id").is_empty());
        let topics = wait(cluster.topics(SOON)).expect("topics");
        assert!(topics.iter().any(|t| t.name == "orders" && t.partitions == 3), "{topics:?}");
        let names = ["orders".to_owned()];
        let described = wait(cluster.describe(&names, SOON)).expect("described");
        assert_eq!(described["orders"].as_ref().expect("there").partitions, 3);
        let level = Isolation::ReadUncommitted;
        let partitions = [at.clone(), TopicPartition::new("orders", 2)];
        let ends = wait(cluster.offsets(&partitions, End::Latest, level, SOON)).expect("offsets");
        assert_eq!(ends.into_values().map(|o| o.expect("known")).collect::<Vec<_>>(), [100, 0]);
        assert!(wait(cluster.topic_configs(&names, SOON)).expect("configs").is_empty());
        assert!(wait(cluster.group_members("g", SOON)).expect("members").is_empty());

        let consumer = join(&kafka, "orders", 3);
        let mut queue = place(&consumer, &at, 40, 0);
        let mut batch = RecordBatch::default();
        let begin = Instant::now();
        while queue.drain(&mut batch, usize::MAX, usize::MAX).eof != Some(100) {
            assert!(begin.elapsed() < SOON, "{} records", batch.len());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!((batch.len(), batch.first().map(|r| r.offset)), (60, Some(40)));
        consumer.commit(&[(at.clone(), 100, "hint".into())]).expect("queued");
        let expected = vec![(at.clone(), Some((100, "hint".to_owned())))];
        let begin = Instant::now();
        while wait(cluster.committed("g", std::slice::from_ref(&at), SOON)).expect("read") != expected {
            assert!(begin.elapsed() < SOON);
            std::thread::sleep(Duration::from_millis(20));
        }
        consumer.close(SOON);
    }

    /// librdkafka asks the client's own group who the coordinator is now, and does not look whether there is one.
    #[test]
    fn a_coordinator_that_moves_is_an_error_and_no_crash() {
        let mock = MockKafka::start(&[("orders", 1)]).expect("mock");
        let kafka = config(&mock);
        let cluster = Cluster::connect(&kafka).expect("cluster");
        let at = TopicPartition::new("orders", 0);
        let groups = ["g".to_owned(), "h".to_owned()];
        mock.coordinator_moves(2);
        let offsets = wait(cluster.group_offsets(&groups, SOON)).expect("asked");
        let kinds: Vec<_> = offsets.into_values().map(|offsets| offsets.expect_err("it moved").kind).collect();
        assert_eq!(kinds, [Kind::Unavailable; 2]);
        mock.coordinator_moves(1);
        wait(cluster.committed("g", std::slice::from_ref(&at), SOON)).expect_err("it moved again");
        let offsets = wait(cluster.group_offsets(&groups, SOON)).expect("asked");
        assert!(offsets.into_values().all(|offsets| offsets.is_ok_and(|offsets| offsets.is_empty())));
        let committed = wait(cluster.committed("h", std::slice::from_ref(&at), SOON)).expect("there");
        assert_eq!(committed, [(at, None)]);
    }

    #[test]
    fn a_log_truncated_below_the_position_is_noticed_though_it_has_grown_since() {
        let mock = MockKafka::start(&[("t", 1)]).expect("mock");
        let kafka = config(&mock);
        let at = TopicPartition::new("t", 0);
        produce(&kafka, &at, 10);
        mock.elect("t", 0).expect("elected");
        produce(&kafka, &at, 10);
        let consumer = join(&kafka, "t", 1);
        let mut batch = RecordBatch::default();
        // Epoch 0 ended at 10: a position of 15 in it was written to a log that is no more.
        let mut queue = place(&consumer, &at, 15, 0);
        let begin = Instant::now();
        let error = loop {
            if let Some(error) = queue.drain(&mut batch, usize::MAX, usize::MAX).error {
                break error;
            }
            assert!(begin.elapsed() < SOON);
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(matches!(error, QueueError::Truncated { end_offset: Some(10), .. }), "{error:?}");
        assert!(batch.is_empty());
        // In epoch 1 it is where it should be.
        let mut queue = place(&consumer, &at, 15, 1);
        let begin = Instant::now();
        while queue.drain(&mut batch, usize::MAX, usize::MAX).eof != Some(20) {
            assert!(begin.elapsed() < SOON);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!((batch.len(), batch.leader_epoch), (5, 1));
        consumer.close(SOON);
    }
}
