//! The test's own view of Kafka: topics, producers that can write any record, and a reader.
//!
//! Header names go through librdkafka's C interface both ways: the Rust wrapper takes and gives only UTF-8.

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::bindings as c;
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message, Timestamp};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use super::record::Rec;
use super::s3::block_on;
use super::{stack, unique, wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// A Kafka cluster.
pub struct Kafka {
    /// Bootstrap servers.
    pub bootstrap: String,
    pub(super) admin: AdminClient<DefaultClientContext>,
}

impl Kafka {
    /// The one all tests share.
    pub fn shared() -> Self {
        Self::at(stack::kafka_bootstrap())
    }

    /// The one at these bootstrap servers.
    pub fn at(bootstrap: &str) -> Self {
        // Or what it calls the high watermark would be the last stable offset.
        let admin = Self::config_for(bootstrap).set("isolation.level", "read_uncommitted").create();
        let admin = admin.expect("an admin client");
        Self { bootstrap: bootstrap.to_owned(), admin }
    }

    fn config_for(bootstrap: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap);
        config
    }

    fn options() -> AdminOptions {
        AdminOptions::new().request_timeout(Some(LIMIT)).operation_timeout(Some(LIMIT))
    }

    /// Creates a topic with a unique name on one replica and returns the name.
    pub fn topic(&self, what: &str, partitions: i32, config: &[(&str, &str)]) -> String {
        let name = unique(what);
        self.create_topic(&name, partitions, 1, config);
        name
    }

    /// Creates a topic and waits until every partition has a leader. It keeps its records whatever their timestamps
    /// say, unless `config` sets `retention.ms`.
    pub fn create_topic(&self, name: &str, partitions: i32, replicas: i32, config: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas)).set("retention.ms", "-1");
        for (key, value) in config {
            topic = topic.set(key, value);
        }
        let results = block_on(self.admin.create_topics([&topic], &Self::options())).expect("create topic");
        for result in results {
            result.unwrap_or_else(|(name, error)| panic!("create topic {name}: {error}"));
        }
        self.await_partitions(name, partitions);
    }

    /// Creates topics of one partition each, all in one request.
    pub fn create_topics(&self, names: &[String]) {
        let topics: Vec<_> = names.iter().map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(1))).collect();
        for result in block_on(self.admin.create_topics(&topics, &Self::options())).expect("create topics") {
            result.unwrap_or_else(|(name, error)| panic!("create topic {name}: {error}"));
        }
    }

    /// Deletes topics, all in one request.
    pub fn delete_topics(&self, names: &[String]) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for result in block_on(self.admin.delete_topics(&names, &Self::options())).expect("delete topics") {
            result.unwrap_or_else(|(name, error)| panic!("delete topic {name}: {error}"));
        }
    }

    fn await_partitions(&self, name: &str, partitions: i32) {
        wait_for(&format!("leaders of {partitions} partitions of {name}"), LIMIT, || {
            let metadata = self.admin.inner().fetch_metadata(Some(name), LIMIT).ok()?;
            let topic = metadata.topics().first()?;
            let led = topic.partitions().iter().filter(|p| p.leader() >= 0).count();
            (topic.error().is_none() && led == partitions as usize).then_some(())
        });
    }

    /// Waits until this broker leads a partition.
    pub fn await_leader(&self, topic: &str, partition: i32, broker: i32) {
        wait_for(&format!("broker {broker} to lead {topic}/{partition}"), LIMIT, || {
            let metadata = self.admin.inner().fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
            let partitions = metadata.topics().first()?.partitions();
            (partitions.iter().find(|p| p.id() == partition)?.leader() == broker).then_some(())
        });
    }

    /// Deletes a topic and waits until it is gone.
    pub fn delete_topic(&self, name: &str) {
        for result in block_on(self.admin.delete_topics(&[name], &Self::options())).expect("delete topic") {
            result.unwrap_or_else(|(name, error)| panic!("delete topic {name}: {error}"));
        }
        wait_for(&format!("{name} to be gone"), LIMIT, || {
            let metadata = self.admin.inner().fetch_metadata(Some(name), LIMIT).ok()?;
            metadata.topics().first().is_none_or(|topic| topic.error().is_some()).then_some(())
        });
    }

    /// Raises the number of partitions.
    pub fn add_partitions(&self, name: &str, total: i32) {
        let partitions = NewPartitions::new(name, total as usize);
        for result in block_on(self.admin.create_partitions([&partitions], &Self::options())).expect("add partitions") {
            result.unwrap_or_else(|(name, error)| panic!("add partitions to {name}: {error}"));
        }
        self.await_partitions(name, total);
    }

    /// Replaces the topic's settings: what is not named is as after [`Self::create_topic`].
    pub fn configure(&self, name: &str, config: &[(&str, &str)]) {
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(name)).set("retention.ms", "-1");
        for (key, value) in config {
            change = change.set(key, value);
        }
        for result in block_on(self.admin.alter_configs([&change], &Self::options())).expect("alter config") {
            result.unwrap_or_else(|(what, error)| panic!("alter config of {what:?}: {error}"));
        }
    }

    /// The topic's setting `key`, set or default.
    pub fn setting(&self, name: &str, key: &str) -> Option<String> {
        let results = block_on(self.admin.describe_configs([&ResourceSpecifier::Topic(name)], &Self::options()));
        let resource = results.expect("describe config").remove(0).expect("the topic has settings");
        resource.get(key).and_then(|entry| entry.value.clone())
    }

    fn member(&self, group: &str) -> BaseConsumer {
        Self::config_for(&self.bootstrap)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("session.timeout.ms", "6000")
            .create()
            .expect("a consumer")
    }

    /// Commits offsets of one topic, with this metadata, as a group that has no members; makes the group.
    pub fn commit(&self, group: &str, topic: &str, offsets: &[(i32, i64)], metadata: &str) {
        let consumer = self.member(group);
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).expect("a list");
            list.find_partition(topic, *partition).expect("just added").set_metadata(metadata);
        }
        // The coordinator of a group that is the first one may not be there yet.
        wait_for(&format!("group {group} to commit"), LIMIT, || consumer.commit(&list, CommitMode::Sync).ok());
    }

    /// What a group has committed for the partitions of a topic, with the metadata; nothing where there is nothing.
    pub fn committed(&self, group: &str, topic: &str, partitions: i32) -> Vec<Option<(i64, String)>> {
        let consumer = self.member(group);
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition(topic, partition);
        }
        let list = consumer.committed_offsets(list, LIMIT).expect("committed offsets");
        let one = |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(offset) => Some((offset, element.metadata().to_owned())),
            _ => None,
        };
        list.elements().into_iter().map(one).collect()
    }

    /// A live member of a group, which reads `topic` and commits nothing; it leaves when dropped.
    pub fn join(&self, group: &str, topic: &str) -> Member {
        self.join_with(group, topic, "classic")
    }

    /// The same with a `group.protocol`.
    pub fn join_with(&self, group: &str, topic: &str, protocol: &str) -> Member {
        let mut config = Self::config_for(&self.bootstrap);
        config.set("group.id", group).set("enable.auto.commit", "false").set("group.protocol", protocol);
        let consumer: BaseConsumer = config.create().expect("a consumer");
        consumer.subscribe(&[topic]).expect("a subscription");
        wait_for(&format!("a partition for the member of {group}"), LIMIT, || {
            _ = consumer.poll(Duration::from_millis(100));
            consumer.assignment().is_ok_and(|assigned| assigned.count() > 0).then_some(())
        });
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let poll = move || {
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                _ = consumer.poll(Duration::from_millis(100));
            }
            consumer.unsubscribe();
        };
        Member { stop: Some(stop), thread: Some(std::thread::spawn(poll)) }
    }

    /// Deletes a consumer group.
    pub fn delete_group(&self, group: &str) {
        for result in block_on(self.admin.delete_groups(&[group], &Self::options())).expect("delete group") {
            result.unwrap_or_else(|(name, error)| panic!("delete group {name}: {error}"));
        }
    }

    /// Deletes all records below `offset`.
    pub fn delete_records(&self, topic: &str, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("a list");
        wait_until(&format!("records of {topic}/{partition} to be deleted"), LIMIT, || {
            let done = block_on(self.admin.delete_records(&list, &Self::options())).expect("delete records");
            done.elements().iter().all(|element| match element.error() {
                Ok(()) => true,
                // A policy that was just changed reaches the log a moment later.
                Err(KafkaError::OffsetFetch(RDKafkaErrorCode::PolicyViolation)) => false,
                Err(error) => panic!("delete records of {topic}/{partition}: {error}"),
            })
        });
    }

    /// Log start and high watermark.
    pub fn watermarks(&self, topic: &str, partition: i32) -> (i64, i64) {
        wait_for(&format!("watermarks of {topic}/{partition}"), LIMIT, || {
            self.admin.inner().fetch_watermarks(topic, partition, Duration::from_secs(5)).ok()
        })
    }

    /// The high watermark; 0 when there is no such partition (yet).
    pub fn end(&self, topic: &str, partition: i32) -> i64 {
        if self.partitions(topic) <= partition {
            return 0;
        }
        self.admin.inner().fetch_watermarks(topic, partition, Duration::from_secs(5)).map_or(0, |(_, end)| end)
    }

    /// The number of partitions; 0 when there is no such topic.
    pub fn partitions(&self, topic: &str) -> i32 {
        let metadata = self.admin.inner().fetch_metadata(Some(topic), LIMIT).expect("metadata");
        metadata.topics().first().map_or(0, |topic| topic.partitions().len() as i32)
    }

    /// A producer with librdkafka properties of its own.
    pub fn producer(&self, properties: &[(&str, &str)]) -> Producer {
        let mut config = Self::config_for(&self.bootstrap);
        config
            .set("enable.idempotence", "true")
            .set("message.max.bytes", "33554432")
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "2000000")
            .set("queue.buffering.max.kbytes", "1048576");
        for (key, value) in properties {
            config.set(*key, *value);
        }
        Producer { inner: config.create_with_context(Deliveries::default()).expect("a producer") }
    }

    /// Produces `records` to one partition as they are (their offsets are ignored) and waits until they are there.
    pub fn produce(&self, topic: &str, partition: i32, records: &[Rec]) {
        let producer = self.producer(&[]);
        for record in records {
            producer.send(topic, partition, record);
        }
        producer.flush();
    }

    /// Everything a `read_committed` consumer is given, from the log's start to its end.
    pub fn read(&self, topic: &str, partition: i32) -> Vec<Rec> {
        self.read_as("read_committed", topic, partition)
    }

    /// Everything a consumer with this isolation level is given, from the log's start to its end.
    pub fn read_as(&self, isolation: &str, topic: &str, partition: i32) -> Vec<Rec> {
        let consumer: BaseConsumer = Self::config_for(&self.bootstrap)
            .set("group.id", unique("reader"))
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("fetch.message.max.bytes", "33554432")
            .set("receive.message.max.bytes", "134217728")
            .set("check.crcs", "true")
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("a list");
        consumer.assign(&list).expect("assign");
        let mut records = Vec::new();
        loop {
            match consumer
                .poll(LIMIT)
                .unwrap_or_else(|| panic!("{topic}/{partition}: no end of partition in {LIMIT:?}"))
            {
                Ok(message) => records.push(record_of(&message)),
                Err(KafkaError::PartitionEOF(_)) => return records,
                Err(error) if is_passing(&error) => {}
                Err(error) => panic!("reading {topic}/{partition}: {error}"),
            }
        }
    }
}

/// A live member of a consumer group.
pub struct Member {
    stop: Option<std::sync::mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Member {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Errors a client reports and gets over by itself: connections come and go when brokers do.
fn is_passing(error: &KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    matches!(error.rdkafka_error_code(), Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve))
}

fn record_of(message: &BorrowedMessage<'_>) -> Rec {
    let (timestamp, timestamp_type) = match message.timestamp() {
        Timestamp::CreateTime(ms) => (ms, "CREATE_TIME"),
        Timestamp::LogAppendTime(ms) => (ms, "LOG_APPEND_TIME"),
        Timestamp::NotAvailable => (-1, "NOT_AVAILABLE"),
    };
    Rec {
        offset: message.offset(),
        timestamp,
        timestamp_type,
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: raw_headers(message),
    }
}

fn raw_headers(message: &BorrowedMessage<'_>) -> Vec<super::record::Header> {
    let mut list = std::ptr::null_mut();
    let mut headers = Vec::new();
    // SAFETY: the message outlives this function, and with it the list that librdkafka lends.
    let error = unsafe { c::rd_kafka_message_headers(message.ptr(), &mut list) };
    if error != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return headers;
    }
    loop {
        let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
        // SAFETY: `list` is valid (above); the out-pointers are locals. Past the last index it answers with an error.
        let error = unsafe { c::rd_kafka_header_get_all(list, headers.len(), &mut name, &mut value, &mut size) };
        if error != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return headers;
        }
        // SAFETY: the name ends in NUL, the value has `size` bytes (or is null), both belong to the message.
        headers.push(unsafe {
            let name = CStr::from_ptr(name).to_bytes().to_vec();
            let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size).to_vec());
            (name, value)
        });
    }
}

/// Collects what could not be delivered.
#[derive(Default)]
struct Deliveries {
    failures: Mutex<Vec<String>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failures.lock().unwrap().push(error.to_string());
        }
    }
}

/// Writes any record there can be.
pub struct Producer {
    inner: BaseProducer<Deliveries>,
}

impl Producer {
    /// Queues a record; the client's own queue is the limit. A timestamp of -1 leaves it to the client.
    pub fn send(&self, topic: &str, partition: i32, record: &Rec) {
        while !self.try_send(topic, partition, record) {
            self.inner.poll(Duration::from_millis(50));
        }
    }

    /// Waits until everything queued is acknowledged; panics when anything was not.
    pub fn flush(&self) {
        self.inner.flush(LIMIT).expect("everything is delivered in time");
        let failures = self.inner.context().failures.lock().unwrap();
        assert!(failures.is_empty(), "{} records were not delivered, the first: {}", failures.len(), failures[0]);
    }

    /// Begins a transaction (the producer has a `transactional.id`).
    pub fn begin(&self) {
        self.inner.begin_transaction().expect("a transaction begins");
    }

    /// Registers the transactional id; once, before the first [`Self::begin`].
    pub fn init_transactions(&self) {
        self.inner.init_transactions(LIMIT).expect("the transactional id is registered");
    }

    /// Commits what was sent since [`Self::begin`].
    pub fn commit(&self) {
        self.inner.commit_transaction(LIMIT).expect("the transaction is committed");
    }

    /// Writes everything that was sent and aborts it.
    pub fn abort(&self) {
        self.flush();
        self.inner.abort_transaction(LIMIT).expect("the transaction is aborted");
    }

    /// `false` when the client's queue is full.
    fn try_send(&self, topic: &str, partition: i32, record: &Rec) -> bool {
        use c::rd_kafka_vtype_t as V;
        let topic = CString::new(topic).unwrap();
        let with = |vtype, set: &dyn Fn(&mut c::rd_kafka_vu_s__bindgen_ty_1)| {
            // SAFETY: all bytes zero is a value of this union of pointers and integers.
            let mut u = unsafe { std::mem::zeroed() };
            set(&mut u);
            c::rd_kafka_vu_t { vtype, u }
        };
        let bytes = |bytes: &Option<Vec<u8>>| c::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
            ptr: bytes.as_ref().map_or(std::ptr::null_mut(), |b| b.as_ptr().cast_mut().cast::<c_void>()),
            size: bytes.as_ref().map_or(0, Vec::len),
        };
        let headers = native_headers(record);
        let arguments = [
            with(V::RD_KAFKA_VTYPE_TOPIC, &|u| u.cstr = topic.as_ptr()),
            with(V::RD_KAFKA_VTYPE_PARTITION, &|u| u.i32_ = partition),
            with(V::RD_KAFKA_VTYPE_MSGFLAGS, &|u| u.i = c::RD_KAFKA_MSG_F_COPY),
            with(V::RD_KAFKA_VTYPE_KEY, &|u| u.mem = bytes(&record.key)),
            with(V::RD_KAFKA_VTYPE_VALUE, &|u| u.mem = bytes(&record.value)),
            with(V::RD_KAFKA_VTYPE_TIMESTAMP, &|u| u.i64_ = record.timestamp.max(0)),
            with(V::RD_KAFKA_VTYPE_HEADERS, &|u| u.headers = headers),
        ];
        let client = self.inner.client().native_ptr();
        // SAFETY: the client is alive; every pointer among the arguments is valid during the call, which copies key
        // and value. On success it takes the header list over.
        let error = unsafe { c::rd_kafka_produceva(client, arguments.as_ptr(), arguments.len()) };
        if error.is_null() {
            return true;
        }
        // SAFETY: refused, so that error and headers are still ours, to be read and destroyed once.
        let (code, text) = unsafe {
            let code = c::rd_kafka_error_code(error);
            let text = CStr::from_ptr(c::rd_kafka_error_string(error)).to_string_lossy().into_owned();
            c::rd_kafka_error_destroy(error);
            c::rd_kafka_headers_destroy(headers);
            (code, text)
        };
        assert!(code == c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__QUEUE_FULL, "produce: {text}");
        false
    }
}

fn native_headers(record: &Rec) -> *mut c::rd_kafka_headers_t {
    // SAFETY: plain constructor.
    let list = unsafe { c::rd_kafka_headers_new(record.headers.len()) };
    for (name, value) in &record.headers {
        let (value, size) = value.as_ref().map_or((std::ptr::null(), 0), |v| (v.as_ptr(), v.len()));
        // SAFETY: the list is ours; name and value are copied.
        let error = unsafe {
            c::rd_kafka_header_add(
                list,
                name.as_ptr().cast::<c_char>(),
                name.len() as isize,
                value.cast(),
                size as isize,
            )
        };
        assert!(error == c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, "a header is added");
    }
    list
}
