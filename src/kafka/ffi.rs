//! The thin layer over librdkafka's C interface: clients with their callbacks, partition lists, error codes.
//!
//! The crate's own clients are left aside on purpose: they pop one event per message, drop the offset of the
//! partition-EOF event, panic on header names that are not UTF-8, and close a consumer inside `drop`, without a limit
//! in time, on whatever thread drops it last.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::bindings::*;
use rdkafka::types::RDKafkaRespErr as Code;

use super::{KafkaError, Kind, TopicPartition, bootstrap, epoch, headers, slack};

/// Longest error text librdkafka writes into a buffer of ours.
pub(super) const ERROR_TEXT: usize = 512;

/// What a client tells its owner. Called on librdkafka's or the polling thread; must not block for long.
pub(super) trait Events: Send + Sync + 'static {
    /// A client-wide error; with `fatal` the client is of no more use.
    fn error(&self, _error: KafkaError, _fatal: bool) {}
    /// The group assigned (`assign`) or revoked partitions. To be acknowledged on `client` before returning.
    fn rebalance(&self, _client: *mut rd_kafka_t, _assign: bool, _partitions: Vec<TopicPartition>) {}
    /// An offset commit ended.
    fn committed(&self, _result: Result<(), KafkaError>) {}
    /// A produced record was acknowledged or given up.
    fn delivered(&self, _message: &rd_kafka_message_t) {}
}

/// Whether a client consumes or produces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Consumer {
        /// How late its threads may wake up while there is nothing to read.
        oversleeps: Duration,
    },
    Producer,
}

impl Role {
    /// A consumer that is not quiet most of the time.
    pub(super) const CONSUMER: Role = Role::Consumer { oversleeps: slack::LATE };
}

/// A librdkafka client. The last reference to go destroys it on a thread of its own, because that joins librdkafka's
/// threads and may wait for the network.
pub(super) struct Client {
    ptr: NonNull<rd_kafka_t>,
    name: String,
    /// What the callbacks' opaque pointer points at; freed after the client.
    events: NonNull<Arc<dyn Events>>,
    /// Skip leaving the group when the client is destroyed: it was tried, or there is none.
    abandon: AtomicBool,
    /// `None` when it is being dropped.
    watched: Option<bootstrap::Watched>,
}

// SAFETY: librdkafka's handles may be used from any thread (INTRODUCTION.md, "Threads and callbacks"); `events` is
// only read, through a shared reference to a `Sync` object.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

/// Moves pointers into the thread that destroys a client.
struct Remains(NonNull<rd_kafka_t>, NonNull<Arc<dyn Events>>);
// SAFETY: the thread is the only owner of both from then on.
unsafe impl Send for Remains {}

impl Client {
    /// Creates a client; nothing is sent yet. `name` is for threads and logs.
    pub(super) fn new(
        role: Role,
        name: &str,
        config: &ClientConfig,
        events: Arc<dyn Events>,
    ) -> Result<Client, KafkaError> {
        let failed =
            |message: String| KafkaError { operation: format!("create client {name}"), kind: Kind::Config, message };
        if role != Role::Producer && !headers::are_known() {
            return Err(failed("this version of librdkafka cannot tell the names of headers".to_owned()));
        }
        let native = config.create_native_config().map_err(|e| failed(e.to_string()))?;
        let events = NonNull::from(Box::leak(Box::new(events)));
        let mut text = [0 as c_char; ERROR_TEXT];
        // SAFETY: `native` is a valid configuration; ownership of it passes to rd_kafka_new on success only. The
        // opaque pointer stays valid until after rd_kafka_destroy (see `drop`).
        let ptr = unsafe {
            let conf = native.ptr();
            rd_kafka_conf_set_opaque(conf, events.as_ptr().cast());
            rd_kafka_conf_set_log_cb(conf, Some(on_log));
            rd_kafka_conf_set_error_cb(conf, Some(on_error));
            let kind = match role {
                Role::Consumer { oversleeps } => {
                    slack::allow(conf, oversleeps);
                    rd_kafka_conf_set_rebalance_cb(conf, Some(on_rebalance));
                    rd_kafka_conf_set_offset_commit_cb(conf, Some(on_commit));
                    rd_kafka_type_t::RD_KAFKA_CONSUMER
                }
                Role::Producer => {
                    epoch::install(conf);
                    rd_kafka_conf_set_dr_msg_cb(conf, Some(on_delivery));
                    rd_kafka_type_t::RD_KAFKA_PRODUCER
                }
            };
            rd_kafka_new(kind, conf, text.as_mut_ptr(), text.len())
        };
        match NonNull::new(ptr) {
            Some(ptr) => {
                let _owned_by_the_client = ManuallyDrop::new(native);
                // SAFETY: it is dropped before the client is destroyed.
                let watched = Some(unsafe { bootstrap::watch(ptr, config) });
                Ok(Client { ptr, name: name.to_owned(), events, abandon: AtomicBool::new(false), watched })
            }
            None => {
                // SAFETY: made by Box::leak above, and no client exists that could use it.
                drop(unsafe { Box::from_raw(events.as_ptr()) });
                Err(failed(c_text(text.as_ptr())))
            }
        }
    }

    /// The handle, valid as long as `self`.
    pub(super) fn ptr(&self) -> *mut rd_kafka_t {
        self.ptr.as_ptr()
    }

    /// For threads and logs.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Destroy without another attempt to leave the group.
    pub(super) fn abandon(&self) {
        self.abandon.store(true, Ordering::Relaxed);
    }

    /// The client's fatal error, once there is one.
    pub(super) fn fatal(&self, operation: &str) -> Option<KafkaError> {
        let mut text = [0 as c_char; ERROR_TEXT];
        // SAFETY: the buffer's length is given.
        let code = unsafe { rd_kafka_fatal_error(self.ptr(), text.as_mut_ptr(), text.len()) };
        (code != Code::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| error(operation, code, c_text(text.as_ptr())))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.watched = None;
        let remains = Remains(self.ptr, self.events);
        let flags = match self.abandon.load(Ordering::Relaxed) {
            true => RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE,
            false => 0,
        };
        let destroy = move || {
            let Remains(client, events) = { remains };
            // SAFETY: `self` was the last user of the handle, and callbacks end with rd_kafka_destroy: only then is
            // what they point at freed.
            unsafe {
                rd_kafka_destroy_flags(client.as_ptr(), flags);
                drop(Box::from_raw(events.as_ptr()));
            }
        };
        if let Err(error) = std::thread::Builder::new().name("kafka-destroy".into()).spawn(destroy) {
            // Without a thread the client leaks rather than blocking whoever dropped it.
            tracing::error!(client = %self.name, %error, "no thread to destroy the kafka client on");
        }
    }
}

/// Something that happens once and can be waited for.
#[derive(Default)]
pub(super) struct Latch {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Latch {
    pub(super) fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }

    /// Waits until it is open or `deadline` has come; says whether it is open.
    pub(super) fn wait_until(&self, deadline: Instant) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        *self.opened.wait_timeout_while(open, left, |open| !*open).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A C string of ours; an error when it holds a NUL, which no Kafka name may.
pub(super) fn c_string(operation: &str, text: &str) -> Result<CString, KafkaError> {
    CString::new(text).map_err(|_| KafkaError {
        operation: operation.to_owned(),
        kind: Kind::Other,
        message: format!("{text:?} contains a NUL byte"),
    })
}

/// A C string of librdkafka's, copied.
pub(super) fn c_text(text: *const c_char) -> String {
    match text.is_null() {
        true => String::new(),
        // SAFETY: librdkafka's strings are NUL-terminated and live at least as long as the call they come from.
        false => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
    }
}

/// What librdkafka says about a code.
pub(super) fn code_text(code: Code) -> String {
    // SAFETY: returns a static string for every code.
    c_text(unsafe { rd_kafka_err2str(code) })
}

/// The error of a code, with `text` where there is one.
pub(super) fn error(operation: &str, code: Code, text: String) -> KafkaError {
    let message = if text.is_empty() { code_text(code) } else { text };
    KafkaError { operation: operation.to_owned(), kind: kind(code), message }
}

/// `Ok` for no error.
pub(super) fn check(operation: &str, code: Code) -> Result<(), KafkaError> {
    check_said(operation, code, String::new())
}

/// The same with what was said about it.
pub(super) fn check_said(operation: &str, code: Code, text: String) -> Result<(), KafkaError> {
    match code {
        Code::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(error(operation, code, text)),
    }
}

/// Takes over an `rd_kafka_error_t`; null is `Ok`.
pub(super) fn take_error(operation: &str, raw: *mut rd_kafka_error_t) -> Result<(), KafkaError> {
    let result = borrowed_error(operation, raw);
    // SAFETY: the error is ours; null is accepted.
    unsafe { rd_kafka_error_destroy(raw) };
    result
}

/// Reads an `rd_kafka_error_t` that belongs to somebody else; null is `Ok`.
pub(super) fn borrowed_error(operation: &str, raw: *const rd_kafka_error_t) -> Result<(), KafkaError> {
    // SAFETY: `raw` is null, which both functions accept, or a valid error.
    let (code, text) = unsafe { (rd_kafka_error_code(raw), c_text(rd_kafka_error_string(raw))) };
    check_said(operation, code, text)
}

/// What kind of failure a code is.
pub(super) fn kind(code: Code) -> Kind {
    use Code::*;
    match code {
        RD_KAFKA_RESP_ERR__AUTHENTICATION
        | RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED
        | RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE
        | RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM
        | RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
        | RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED
        | RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED
        | RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        | RD_KAFKA_RESP_ERR_DELEGATION_TOKEN_AUTHORIZATION_FAILED => Kind::Auth,
        RD_KAFKA_RESP_ERR__TIMED_OUT
        | RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE
        | RD_KAFKA_RESP_ERR__MSG_TIMED_OUT
        | RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT => Kind::Timeout,
        RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
        | RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
        | RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
        | RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID => Kind::UnknownTopic,
        RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET
        | RD_KAFKA_RESP_ERR__LOG_TRUNCATION
        | RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE => Kind::OutOfRange,
        RD_KAFKA_RESP_ERR__FENCED
        | RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID
        | RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH
        | RD_KAFKA_RESP_ERR_PRODUCER_FENCED => Kind::Fenced,
        RD_KAFKA_RESP_ERR__INVALID_ARG | RD_KAFKA_RESP_ERR_INVALID_CONFIG => Kind::Config,
        RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS => Kind::Exists,
        RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE | RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE => Kind::TooLarge,
        code if transient(code) => Kind::Unavailable,
        _ => Kind::Other,
    }
}

/// Codes after which librdkafka goes on by itself, once brokers, leaders or connections are back.
pub(super) fn transient(code: Code) -> bool {
    use Code::*;
    matches!(
        code,
        RD_KAFKA_RESP_ERR__TRANSPORT
            | RD_KAFKA_RESP_ERR__RESOLVE
            | RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN
            | RD_KAFKA_RESP_ERR__NODE_UPDATE
            | RD_KAFKA_RESP_ERR__WAIT_COORD
            | RD_KAFKA_RESP_ERR__TIMED_OUT
            | RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT
            | RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE
            | RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION
            | RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE
            | RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE
            | RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION
            | RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS
            | RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE
            | RD_KAFKA_RESP_ERR_NOT_COORDINATOR
            | RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR
            | RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE
            | RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH
            | RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH
            | RD_KAFKA_RESP_ERR_UNKNOWN
    )
}

/// An owned `rd_kafka_topic_partition_list_t`.
pub(super) struct PartitionList(NonNull<rd_kafka_topic_partition_list_t>);

impl PartitionList {
    /// An empty list, which is not the same as no list.
    pub(super) fn empty() -> Self {
        // SAFETY: never returns null; librdkafka aborts when out of memory.
        Self(unsafe { NonNull::new_unchecked(rd_kafka_topic_partition_list_new(0)) })
    }

    /// A list of partitions without offsets. Names with a NUL cannot exist and are cut there.
    pub(super) fn of<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> Self {
        let mut list = Self::empty();
        for partition in partitions {
            list.add(partition);
        }
        list
    }

    /// Adds a partition; the element is good until the next one is added.
    pub(super) fn add(&mut self, at: &TopicPartition) -> &mut rd_kafka_topic_partition_t {
        let bytes: Vec<u8> = at.topic.bytes().take_while(|&b| b != 0).collect();
        let topic = CString::new(bytes).unwrap_or_default();
        // SAFETY: the list is ours, the topic is copied, and the element stays where it is until the list changes,
        // which the borrow of `self` prevents.
        unsafe { &mut *rd_kafka_topic_partition_list_add(self.ptr(), topic.as_ptr(), at.partition) }
    }

    /// Adds a partition with an offset and a leader epoch (-1 is none).
    pub(super) fn add_position(&mut self, at: &TopicPartition, offset: i64, leader_epoch: i32) {
        let element = self.add(at);
        element.offset = offset;
        // SAFETY: a valid element of our list.
        unsafe { rd_kafka_topic_partition_set_leader_epoch(element, leader_epoch) };
    }

    /// Adds a partition with an offset and what stands beside it, to be committed.
    pub(super) fn add_commit(&mut self, at: &TopicPartition, offset: i64, metadata: &str) {
        let element = self.add(at);
        element.offset = offset;
        // SAFETY: the list frees the metadata with librdkafka's own allocator, which is where it comes from (without a
        // client all have the same); it is as large as what is copied into it.
        unsafe {
            let copy = rd_kafka_mem_malloc(std::ptr::null_mut(), metadata.len().max(1));
            std::ptr::copy_nonoverlapping(metadata.as_ptr().cast::<c_void>(), copy, metadata.len());
            element.metadata = copy;
        }
        element.metadata_size = metadata.len();
    }

    /// The list, valid as long as `self`.
    pub(super) fn ptr(&self) -> *mut rd_kafka_topic_partition_list_t {
        self.0.as_ptr()
    }

    /// The elements.
    pub(super) fn elements(&self) -> &[rd_kafka_topic_partition_t] {
        // SAFETY: our own list.
        unsafe { elements(self.ptr()) }
    }
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // SAFETY: owned.
        unsafe { rd_kafka_topic_partition_list_destroy(self.ptr()) };
    }
}

/// The elements of a list; none for null.
///
/// # Safety
/// `list` is null or valid, and unchanged, for `'a`.
pub(super) unsafe fn elements<'a>(list: *const rd_kafka_topic_partition_list_t) -> &'a [rd_kafka_topic_partition_t] {
    // SAFETY: promised by the caller.
    match unsafe { list.as_ref() } {
        Some(list) if list.cnt > 0 => unsafe { std::slice::from_raw_parts(list.elems, list.cnt as usize) },
        _ => &[],
    }
}

/// Which partition an element names.
pub(super) fn topic_partition(element: &rd_kafka_topic_partition_t) -> TopicPartition {
    TopicPartition::new(c_text(element.topic), element.partition)
}

/// The offset and the metadata of a committed element; `None` when nothing is committed.
pub(super) fn committed_offset(element: &rd_kafka_topic_partition_t) -> Option<(i64, String)> {
    if element.offset < 0 {
        return None;
    }
    let metadata = match element.metadata.is_null() {
        true => Vec::new(),
        // SAFETY: librdkafka keeps `metadata_size` bytes there.
        false => unsafe { std::slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size) }.to_vec(),
    };
    Some((element.offset, String::from_utf8_lossy(&metadata).into_owned()))
}

/// librdkafka's timeouts are milliseconds in an int.
pub(super) fn millis(duration: Duration) -> c_int {
    c_int::try_from(duration.as_millis()).unwrap_or(c_int::MAX)
}

/// Runs a callback's body; a panic must not cross into C.
fn guarded(what: &str, body: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(body)).is_err() {
        tracing::error!(callback = what, "panic in a kafka callback");
    }
}

/// SAFETY of all callbacks below: `opaque` is the `events` of the client that calls, which outlives it.
unsafe fn events<'a>(opaque: *mut c_void) -> &'a Arc<dyn Events> {
    // SAFETY: see above.
    unsafe { &*opaque.cast::<Arc<dyn Events>>() }
}

unsafe extern "C" fn on_log(_client: *const rd_kafka_t, level: c_int, fac: *const c_char, text: *const c_char) {
    let (fac, text) = (c_text(fac), c_text(text));
    guarded("log", || match level {
        ..=3 => tracing::error!(target: "librdkafka", %fac, "{text}"),
        // Remarks on settings, such as a consumer property that a producer has no use for.
        _ if fac == "CONFWARN" => tracing::debug!(target: "librdkafka", %fac, "{text}"),
        4 => tracing::warn!(target: "librdkafka", %fac, "{text}"),
        5 | 6 => tracing::info!(target: "librdkafka", %fac, "{text}"),
        _ => tracing::debug!(target: "librdkafka", %fac, "{text}"),
    });
}

unsafe extern "C" fn on_error(client: *mut rd_kafka_t, code: c_int, reason: *const c_char, opaque: *mut c_void) {
    let fatal = code == Code::RD_KAFKA_RESP_ERR__FATAL as c_int;
    let (code, text) = match fatal {
        true => {
            let mut text = [0 as c_char; ERROR_TEXT];
            // SAFETY: a live client and a buffer with its length.
            let code = unsafe { rd_kafka_fatal_error(client, text.as_mut_ptr(), text.len()) };
            (code, c_text(text.as_ptr()))
        }
        false => (code_of(code), c_text(reason)),
    };
    // SAFETY: see `events`.
    guarded("error", || unsafe { events(opaque) }.error(error("client", code, text), fatal));
}

unsafe extern "C" fn on_rebalance(
    client: *mut rd_kafka_t,
    code: Code,
    partitions: *mut rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
) {
    let assign = code == Code::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
    // SAFETY: the list is librdkafka's and good for the call.
    let partitions = unsafe { elements(partitions) }.iter().map(topic_partition).collect();
    // SAFETY: see `events`.
    guarded("rebalance", || unsafe { events(opaque) }.rebalance(client, assign, partitions));
}

unsafe extern "C" fn on_commit(
    _client: *mut rd_kafka_t,
    code: Code,
    offsets: *mut rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
) {
    // SAFETY: the list is null or good for the call.
    let failed = unsafe { elements(offsets) }.iter().find(|e| e.err != Code::RD_KAFKA_RESP_ERR_NO_ERROR);
    let result = match (code, failed) {
        // Nothing to commit is what it says.
        (Code::RD_KAFKA_RESP_ERR__NO_OFFSET, _) => Ok(()),
        (Code::RD_KAFKA_RESP_ERR_NO_ERROR, None) => Ok(()),
        (_, Some(e)) => Err(error(&format!("commit offset of {}", topic_partition(e)), e.err, String::new())),
        (code, None) => Err(error("commit offsets", code, String::new())),
    };
    // SAFETY: see `events`.
    guarded("commit", || unsafe { events(opaque) }.committed(result));
}

unsafe extern "C" fn on_delivery(_client: *mut rd_kafka_t, message: *const rd_kafka_message_t, opaque: *mut c_void) {
    // SAFETY: the message is librdkafka's and good for the call; for `opaque` see `events`.
    guarded("delivery", || unsafe { events(opaque).delivered(&*message) });
}

/// The code of an int that came through a callback.
fn code_of(code: c_int) -> Code {
    Code::try_from(code).unwrap_or(Code::RD_KAFKA_RESP_ERR__FAIL)
}
