//! The producer of a restore: what it is given arrives as it is, in order, once, or the restore stops.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings::*;
use rdkafka::types::RDKafkaRespErr as Code;

use super::ffi::{self, Client, Events, Role, c_string, millis};
pub use super::settings::ProducerSettings;
use super::{KafkaError, Kind, epoch, headers, settings};
use crate::kafka::settings::KafkaConfig;
use crate::model::batch::Record;

/// Why a record was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// The queue is full: [`RestoreProducer::poll`], then send the record again.
    #[error("the producer's queue is full")]
    Full,
    /// Larger than `record_bytes_max`.
    #[error("the record is larger than the producer takes: {0}")]
    TooLarge(KafkaError),
    /// A timestamp that librdkafka cannot send; the record was not sent.
    #[error("this librdkafka cannot send the timestamp {0}")]
    Timestamp(i64),
    /// The producer is of no more use, or topic or partition do not exist.
    #[error(transparent)]
    Fatal(KafkaError),
}

/// Called for every record sent, on the thread that polls: its tag, its partition and its offset in the target.
pub type OnDelivery = Box<dyn Fn(u64, i32, Result<i64, KafkaError>) + Send + Sync>;

/// An idempotent producer with `acks=all`. A record that cannot be delivered is a fatal error for all that are behind
/// it (`enable.gapless.guarantee`), so that no hole is ever left.
pub struct RestoreProducer {
    client: Arc<Client>,
}

/// A topic of a producer's.
#[derive(Clone)]
pub struct TopicHandle {
    topic: Arc<Topic>,
}

struct Topic {
    ptr: NonNull<rd_kafka_topic_t>,
    /// Outlives the topic.
    _client: Arc<Client>,
}

// SAFETY: librdkafka's topics are locked and reference counted inside.
unsafe impl Send for Topic {}
// SAFETY: as above.
unsafe impl Sync for Topic {}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: our reference, and the client is still there.
        unsafe { rd_kafka_topic_destroy(self.ptr.as_ptr()) };
    }
}

struct Reports(OnDelivery);

impl Events for Reports {
    fn error(&self, error: KafkaError, fatal: bool) {
        match fatal {
            true => tracing::error!(%error, "the producer failed for good"),
            false => tracing::warn!(%error, "producer"),
        }
    }

    fn delivered(&self, message: &rd_kafka_message_t) {
        let tag = message._private as usize as u64;
        let result = match message.err {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(message.offset),
            code => Err(ffi::error("deliver a record", code, String::new())),
        };
        (self.0)(tag, message.partition, result);
    }
}

impl RestoreProducer {
    /// Creates a producer; it connects by itself.
    pub fn new(kafka: &KafkaConfig, s: &ProducerSettings, on_delivery: OnDelivery) -> Result<Self, KafkaError> {
        let config = settings::producer(kafka, s);
        let client = Client::new(Role::Producer, "restore", &config, Arc::new(Reports(on_delivery)))?;
        Ok(Self { client: Arc::new(client) })
    }

    /// A topic to send to.
    pub fn topic(&self, name: &str) -> Result<TopicHandle, KafkaError> {
        let operation = format!("open topic {name}");
        let c_name = c_string(&operation, name)?;
        // SAFETY: a live producer, a valid name, the default configuration.
        let topic = unsafe { rd_kafka_topic_new(self.client.ptr(), c_name.as_ptr(), ptr::null_mut()) };
        let ptr = NonNull::new(topic).ok_or_else(|| KafkaError {
            operation,
            kind: Kind::Other,
            message: "not a valid topic name".into(),
        })?;
        Ok(TopicHandle { topic: Arc::new(Topic { ptr, _client: Arc::clone(&self.client) }) })
    }

    /// Queues a copy of a record. `tag` comes back with its delivery.
    ///
    /// The timestamp is sent as it is: 0 too, and -1 ("not available"), which brokers take as "no timestamp". A topic with
    ///  `message.timestamp.type=LogAppendTime` replaces it.
    pub fn send(&self, topic: &TopicHandle, partition: i32, rec: &Record<'_>, tag: u64) -> Result<(), SendError> {
        let timestamp = epoch::given(rec.timestamp).ok_or(SendError::Timestamp(rec.timestamp))?;
        let headers = headers::raw(rec.headers);
        let fields = [
            field(rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT, rd_kafka_vu_s__bindgen_ty_1 { rkt: topic.topic.ptr.as_ptr() }),
            field(rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION, rd_kafka_vu_s__bindgen_ty_1 { i32_: partition }),
            field(rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS, rd_kafka_vu_s__bindgen_ty_1 { i: RD_KAFKA_MSG_F_COPY }),
            field(rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY, memory(rec.key)),
            field(rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE, memory(rec.value)),
            field(rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP, rd_kafka_vu_s__bindgen_ty_1 { i64_: timestamp }),
            field(
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE,
                rd_kafka_vu_s__bindgen_ty_1 { ptr: tag as usize as *mut c_void },
            ),
            field(rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS, rd_kafka_vu_s__bindgen_ty_1 { headers }),
        ];
        // Headers last: without any the field is left out.
        let count = fields.len() - usize::from(headers.is_null());
        // SAFETY: all pointers are good for the call; the record is copied (MSG_F_COPY); the headers become
        // librdkafka's when it succeeds and stay ours when it fails.
        let error = unsafe { rd_kafka_produceva(self.client.ptr(), fields.as_ptr(), count) };
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: ours again; an error that is ours too, read once and freed.
        unsafe {
            if !headers.is_null() {
                rd_kafka_headers_destroy(headers);
            }
            Err(send_error(self.client.fatal("send"), error))
        }
    }

    /// Serves delivery reports, for at most this long when there are none.
    pub fn poll(&self, timeout: Duration) {
        // SAFETY: a live client.
        unsafe { rd_kafka_poll(self.client.ptr(), millis(timeout)) };
    }

    /// Sends what waits without lingering, and serves delivery reports until all records are reported or the time
    /// has passed, which is an error.
    pub fn flush(&self, timeout: Duration) -> Result<(), KafkaError> {
        // SAFETY: a live client.
        ffi::check("flush", unsafe { rd_kafka_flush(self.client.ptr(), millis(timeout)) })
    }

    /// Records sent and not reported.
    pub fn in_flight(&self) -> usize {
        // SAFETY: a live client.
        usize::try_from(unsafe { rd_kafka_outq_len(self.client.ptr()) }).unwrap_or(0)
    }

    /// The error that made the producer useless, once there is one.
    pub fn fatal(&self) -> Option<KafkaError> {
        self.client.fatal("produce")
    }
}

fn field(vtype: rd_kafka_vtype_t, u: rd_kafka_vu_s__bindgen_ty_1) -> rd_kafka_vu_t {
    rd_kafka_vu_t { vtype, u }
}

/// Null and empty are different: an empty slice has an address, and librdkafka looks at that.
fn memory(bytes: Option<&[u8]>) -> rd_kafka_vu_s__bindgen_ty_1 {
    let (ptr, size) = bytes.map_or((ptr::null_mut(), 0), |b| (b.as_ptr().cast_mut().cast::<c_void>(), b.len()));
    rd_kafka_vu_s__bindgen_ty_1 { mem: rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr, size } }
}

/// # Safety
/// `error` is valid and ours.
unsafe fn send_error(fatal: Option<KafkaError>, error: *mut rd_kafka_error_t) -> SendError {
    // SAFETY: promised by the caller.
    let code = unsafe { rd_kafka_error_code(error) };
    let error = match ffi::take_error("send", error) {
        Err(error) => error,
        Ok(()) => ffi::error("send", code, String::new()),
    };
    match code {
        Code::RD_KAFKA_RESP_ERR__QUEUE_FULL => SendError::Full,
        Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE => SendError::TooLarge(error),
        _ => SendError::Fatal(fatal.unwrap_or(error)),
    }
}
