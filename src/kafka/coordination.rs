//! A topic of state that few clients share: each writes its own keys in transactions, which fence all but the newest
//! client of the same name, and reads everything from the beginning.
//!
//! Librdkafka's calls block, so that there are two named threads: one writes, one reads.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as Failure, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::bootstrap::{self, Watched};
use super::{KafkaError, Kind, settings};
use crate::kafka::settings::KafkaConfig;

/// How long one step of a transaction may take.
const STEP: Duration = Duration::from_secs(20);
/// How long giving up a transaction may take, before a new client is the quicker way.
const ABORT: Duration = Duration::from_secs(5);
/// How long the reader waits for a message; also how late it notices that it should stop.
const POLL: Duration = Duration::from_millis(100);

/// What is read from the topic.
#[derive(Debug)]
pub enum CoordinationEvent {
    /// A message; without a value its key was deleted.
    Message {
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Option<Vec<u8>>,
        /// When it was written, in milliseconds since 1970-01-01 UTC, by the clock of who wrote it or of the broker.
        written_ms: Option<i64>,
    },
    /// Everything that was there has been read; said again whenever the end is reached.
    End,
    /// Reading fails; it goes on by itself when it can.
    Error(KafkaError),
}

/// A message to write.
struct Write {
    key: Vec<u8>,
    value: Vec<u8>,
    done: oneshot::Sender<Result<(), KafkaError>>,
}

/// What the reading thread has; fields are dropped from top to bottom.
struct Reader {
    _watched: Option<Watched>,
    consumer: BaseConsumer,
}

impl Reader {
    fn poll(&self) -> Option<Result<BorrowedMessage<'_>, Failure>> {
        self.consumer.poll(POLL)
    }
}

/// A client of a coordination topic. Its threads end when it is dropped.
pub struct Coordination {
    writes: mpsc::Sender<Write>,
    ended: Arc<AtomicBool>,
    stuck: Arc<AtomicBool>,
}

impl Drop for Coordination {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
    }
}

impl Coordination {
    /// Takes over the name `id` (whoever had it before can write no more), then reads `topic` from its beginning.
    /// `on_event` runs on the reading thread and must return soon.
    ///
    /// # Errors
    /// The brokers cannot be reached, refuse the client, or know no transactions.
    pub async fn open(
        kafka: &KafkaConfig,
        topic: &str,
        id: &str,
        on_event: Box<dyn Fn(CoordinationEvent) + Send>,
    ) -> Result<Self, KafkaError> {
        let (ended, stuck) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (writes, todo) = mpsc::channel::<Write>();
        let (ready, is_ready) = oneshot::channel();
        let (config, name, is_stuck) = (writer(kafka, id), topic.to_owned(), stuck.clone());
        thread("kafka-coordination-w", move || {
            let producer = match begin(&config) {
                Ok(producer) => producer,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let _ = ready.send(Ok(()));
            for Write { key, value, done } in todo {
                // Whoever gave up waiting does not want the answer.
                let _ = done.send(write(&producer, &name, &key, &value, &is_stuck));
            }
        })?;
        let gone =
            || KafkaError { operation: "write".to_owned(), kind: Kind::Other, message: "its thread ended".to_owned() };
        is_ready.await.map_err(|_| gone())??;
        let reader = read_from_the_beginning(kafka, topic)?;
        let stop = ended.clone();
        thread("kafka-coordination-r", move || {
            while !stop.load(Ordering::Acquire) {
                match reader.poll() {
                    None => {}
                    Some(Ok(message)) => on_event(CoordinationEvent::Message {
                        key: message.key().unwrap_or_default().to_vec(),
                        value: message.payload().map(<[u8]>::to_vec),
                        written_ms: message.timestamp().to_millis(),
                    }),
                    Some(Err(Failure::PartitionEOF(_))) => on_event(CoordinationEvent::End),
                    Some(Err(error)) => {
                        on_event(CoordinationEvent::Error(named("read the coordination topic", &error)))
                    }
                }
            }
        })?;
        Ok(Self { writes, ended, stuck })
    }

    /// Whether a transaction could neither be ended nor given up, as when the broker was away in the middle of it: nothing
    /// can be written any more, only a new client can.
    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Acquire)
    }

    /// Writes a message in a transaction of its own. When this succeeds, no newer client had this one's name before the
    /// call was made.
    ///
    /// # Errors
    /// [`Kind::Fenced`]: a newer client has the name; this one is of no more use. Anything else may be tried again.
    pub async fn write(&self, key: Vec<u8>, value: Vec<u8>) -> Result<(), KafkaError> {
        let (done, is_done) = oneshot::channel();
        let gone =
            || KafkaError { operation: "write".to_owned(), kind: Kind::Fenced, message: "its thread ended".to_owned() };
        self.writes.send(Write { key, value, done }).map_err(|_| gone())?;
        is_done.await.map_err(|_| gone())?
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), KafkaError> {
    let failed = |e: std::io::Error| KafkaError {
        operation: format!("start thread {name}"),
        kind: Kind::Other,
        message: e.to_string(),
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop).map_err(failed)
}

fn writer(kafka: &KafkaConfig, id: &str) -> ClientConfig {
    let mut config = settings::admin(kafka);
    config
        .set("transactional.id", id)
        .set("transaction.timeout.ms", "30000")
        .set("message.timeout.ms", "20000")
        .set("linger.ms", "0");
    config
}

fn begin(config: &ClientConfig) -> Result<BaseProducer, KafkaError> {
    let producer = BaseProducer::from_config(config).map_err(|e| named("start a transactional producer", &e))?;
    let mut last = None;
    for _ in 0..3 {
        match producer.init_transactions(STEP) {
            Ok(()) => return Ok(producer),
            Err(Failure::Transaction(error)) if error.is_retriable() => last = Some(Failure::Transaction(error)),
            Err(error) => return Err(named("take over a transactional id", &error)),
        }
    }
    let timeout = || KafkaError {
        operation: "take over a transactional id".to_owned(),
        kind: Kind::Timeout,
        message: "no answer".to_owned(),
    };
    Err(last.map_or_else(timeout, |error| named("take over a transactional id", &error)))
}

fn write(producer: &BaseProducer, topic: &str, key: &[u8], value: &[u8], stuck: &AtomicBool) -> Result<(), KafkaError> {
    let operation = "write to the coordination topic";
    if stuck.load(Ordering::Acquire) {
        let message = "the transaction before could not be given up; a new client begins anew".to_owned();
        return Err(KafkaError { operation: operation.to_owned(), kind: Kind::Unavailable, message });
    }
    let attempt = || {
        producer.begin_transaction()?;
        let sent = producer.send(BaseRecord::<[u8], [u8]>::to(topic).partition(0).key(key).payload(value));
        sent.map_err(|(error, _)| error)?;
        producer.commit_transaction(STEP)
    };
    let Err(error) = attempt() else { return Ok(()) };
    let named = named(operation, &error);
    if named.kind == Kind::Fenced {
        return Err(named);
    }
    match producer.abort_transaction(ABORT) {
        Ok(()) => Err(named),
        Err(abort) => {
            let abort = self::named("abort a transaction", &abort);
            if abort.kind == Kind::Fenced {
                return Err(abort);
            }
            stuck.store(true, Ordering::Release);
            Err(named)
        }
    }
}

fn read_from_the_beginning(kafka: &KafkaConfig, topic: &str) -> Result<Reader, KafkaError> {
    let mut config = settings::admin(kafka);
    config
        // Needed by the client, never joined.
        .set("group.id", "kafka-backup-coordination")
        .set("enable.auto.commit", "false")
        // State, not events: whatever was missed is said again, and what is read twice says the same.
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "250");
    let consumer = BaseConsumer::from_config(&config).map_err(|e| named("start a consumer", &e))?;
    let mut list = TopicPartitionList::new();
    let assigned = list.add_partition_offset(topic, 0, Offset::Beginning).and_then(|()| consumer.assign(&list));
    assigned.map_err(|e| named("read the coordination topic", &e))?;
    let client = NonNull::new(consumer.client().native_ptr());
    // SAFETY: it is dropped before the consumer.
    let watched = client.map(|client| unsafe { bootstrap::watch(client, &config) });
    Ok(Reader { _watched: watched, consumer })
}

/// A failure of the crate's as ours.
fn named(operation: &str, error: &Failure) -> KafkaError {
    let (code, fatal) = match error {
        Failure::Transaction(error) => (Some(error.code()), error.is_fatal()),
        other => (other.rdkafka_error_code(), false),
    };
    let kind = match code {
        Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch) => Kind::Fenced,
        Some(
            Code::SaslAuthenticationFailed
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::Authentication,
        ) => Kind::Auth,
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => Kind::UnknownTopic,
        Some(Code::OperationTimedOut | Code::RequestTimedOut | Code::MessageTimedOut) => Kind::Timeout,
        Some(Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve) => Kind::Unavailable,
        // Whatever made it useless: a new one begins anew.
        _ if fatal => Kind::Fenced,
        _ => Kind::Other,
    };
    KafkaError { operation: operation.to_owned(), kind, message: error.to_string() }
}
