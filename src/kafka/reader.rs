//! Reads single records back, without a consumer group.

use std::collections::BTreeMap;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings::*;
use rdkafka::types::RDKafkaRespErr as Code;

use super::ffi::{self, Client, Events, Role, c_string, millis};
use super::message::Message;
use super::{KafkaError, Kind, TopicPartition, settings};
use crate::kafka::settings::{Isolation, KafkaConfig};
use crate::model::batch::{Record, RecordBatch};

/// Partitions read at the same time: each may fetch a batch that is much larger than the record.
const AT_ONCE: usize = 32;

/// How long nothing at all may arrive.
const PATIENCE: Duration = Duration::from_secs(60);

struct Quiet;
impl Events for Quiet {
    fn error(&self, error: KafkaError, _fatal: bool) {
        tracing::warn!(%error, "read back");
    }
}

/// Gives the record at each of these positions to `take`, in any order. Positions at which there is no record (any
/// more) are left out. Blocks.
pub fn read_at(
    kafka: &KafkaConfig,
    positions: &[(TopicPartition, i64)],
    mut take: impl FnMut(&TopicPartition, &Record<'_>),
) -> Result<(), KafkaError> {
    let wanted: BTreeMap<_, _> = positions.iter().cloned().collect();
    let exact = |at: &TopicPartition, record: &Record<'_>| {
        if wanted.get(at) == Some(&record.offset) {
            take(at, record);
        }
    };
    read(kafka, Isolation::ReadUncommitted, positions, exact)
}

/// Gives the offset of the first record at or behind each of these positions to `take`, in any order. Positions behind
/// which there is none, as far as `isolation` shows records, are left out. Blocks.
pub fn next_at(
    kafka: &KafkaConfig,
    isolation: Isolation,
    positions: &[(TopicPartition, i64)],
    mut take: impl FnMut(&TopicPartition, i64),
) -> Result<(), KafkaError> {
    read(kafka, isolation, positions, |at, record| take(at, record.offset))
}

/// Gives the first record at or behind each position to `take`.
fn read(
    kafka: &KafkaConfig,
    isolation: Isolation,
    positions: &[(TopicPartition, i64)],
    mut take: impl FnMut(&TopicPartition, &Record<'_>),
) -> Result<(), KafkaError> {
    if positions.is_empty() {
        return Ok(());
    }
    let settings = settings::reader(kafka, isolation);
    let client = Arc::new(Client::new(Role::CONSUMER, "read back", &settings, Arc::new(Quiet))?);
    for some in positions.chunks(AT_ONCE) {
        Reading::start(&client, some)?.finish(&mut take)?;
    }
    Ok(())
}

/// Some partitions that are fetched into one queue. Fetching ends when it is dropped.
struct Reading {
    queue: NonNull<rd_kafka_queue_t>,
    topics: BTreeMap<Arc<str>, NonNull<rd_kafka_topic_t>>,
    begun: Vec<(NonNull<rd_kafka_topic_t>, i32)>,
    wanted: BTreeMap<TopicPartition, i64>,
    /// Outlives what belongs to it.
    _client: Arc<Client>,
}

impl Reading {
    fn start(client: &Arc<Client>, positions: &[(TopicPartition, i64)]) -> Result<Self, KafkaError> {
        let failed = |what: String| KafkaError { operation: "read back".to_owned(), kind: Kind::Other, message: what };
        // SAFETY: a live client; the queue is ours.
        let queue = NonNull::new(unsafe { rd_kafka_queue_new(client.ptr()) });
        let mut reading = Self {
            queue: queue.ok_or_else(|| failed("librdkafka gives no queue".to_owned()))?,
            topics: BTreeMap::new(),
            begun: Vec::new(),
            wanted: positions.iter().cloned().collect(),
            _client: Arc::clone(client),
        };
        for (at, offset) in positions {
            let topic = match reading.topics.get(&at.topic) {
                Some(topic) => *topic,
                None => {
                    let name = c_string("read back", &at.topic)?;
                    // SAFETY: a live client, a valid name, the default configuration; the topic is ours.
                    let topic = unsafe { rd_kafka_topic_new(client.ptr(), name.as_ptr(), ptr::null_mut()) };
                    let topic = NonNull::new(topic).ok_or_else(|| failed(format!("no topic {}", at.topic)))?;
                    reading.topics.insert(at.topic.clone(), topic);
                    topic
                }
            };
            // SAFETY: topic and queue are ours and live until the fetching is stopped.
            let begun =
                unsafe { rd_kafka_consume_start_queue(topic.as_ptr(), at.partition, *offset, reading.queue.as_ptr()) };
            if begun != 0 {
                return Err(failed(format!("{at} cannot be fetched")));
            }
            reading.begun.push((topic, at.partition));
        }
        Ok(reading)
    }

    fn finish(mut self, take: &mut impl FnMut(&TopicPartition, &Record<'_>)) -> Result<(), KafkaError> {
        let (mut last, mut batch) = (Instant::now(), RecordBatch::default());
        while let Some((first, _)) = self.wanted.first_key_value() {
            if last.elapsed() > PATIENCE {
                let message = format!("nothing of {first} arrived in {} s", PATIENCE.as_secs());
                return Err(KafkaError { operation: "read back".to_owned(), kind: Kind::Timeout, message });
            }
            // SAFETY: a valid queue; the message is ours.
            let message = unsafe { rd_kafka_consume_queue(self.queue.as_ptr(), millis(Duration::from_millis(200))) };
            let Some(message) = Message::take(message) else { continue };
            let Some(at) = message.partition() else { continue };
            match message.code() {
                Code::RD_KAFKA_RESP_ERR_NO_ERROR => {
                    // Those in front of it in the same batch come, too, and later ones.
                    if self.wanted.get(&at).is_some_and(|wanted| *wanted <= message.offset()) {
                        self.wanted.remove(&at);
                        batch.clear();
                        message.push_into(&mut batch, message.headers());
                        batch.iter().for_each(|record| take(&at, &record));
                    }
                }
                Code::RD_KAFKA_RESP_ERR__PARTITION_EOF
                | Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET
                | Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE => _ = self.wanted.remove(&at),
                code if ffi::transient(code) => continue,
                code => return Err(ffi::error(&format!("read back {at}"), code, message.text())),
            }
            last = Instant::now();
        }
        Ok(())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // SAFETY: begun on these topics; topics and queue are ours, and the client is still there.
        unsafe {
            for (topic, partition) in &self.begun {
                rd_kafka_consume_stop(topic.as_ptr(), *partition);
            }
            self.topics.values().for_each(|topic| rd_kafka_topic_destroy(topic.as_ptr()));
            rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}
