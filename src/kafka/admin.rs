//! Questions to a cluster: metadata, offsets, configurations. Those about consumer groups are in [`super::groups`].
//!
//! librdkafka's calls block, so that each cluster has one client with one named thread that makes them one after the
//! other; callers await a channel.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, c_char};
use std::ptr::{self, NonNull};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rdkafka::bindings::*;
use rdkafka::types::RDKafkaRespErr as Code;
use tokio::sync::oneshot;

use super::asker::Asker;
use super::ffi::{self, Client, PartitionList, borrowed_error, c_string, c_text, check, millis};
use super::{KafkaError, Kind, TopicPartition};
use crate::kafka::settings::{Isolation, KafkaConfig};
use crate::metrics;

/// How long a call may take when nothing else is said.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A topic in the cluster's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: i32,
}

/// A topic by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicState {
    /// Kafka's topic id in its base64; `None` with brokers that have none.
    pub id: Option<String>,
    /// How many partitions it has.
    pub partitions: i32,
}

/// One end of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The log start.
    Earliest,
    /// Behind the last record: the high watermark, or with [`Isolation::ReadCommitted`] the last stable offset.
    Latest,
}

/// One setting of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its value; `None` for sensitive ones.
    pub value: Option<String>,
    /// Not set for this topic: the broker's or Kafka's default.
    pub is_default: bool,
    /// Cannot be changed.
    pub read_only: bool,
    /// A secret.
    pub sensitive: bool,
}

type Call = Box<dyn FnOnce(&mut Asker) + Send>;

/// A cluster's client.
pub struct Cluster {
    calls: mpsc::Sender<Call>,
    name: String,
}

impl Cluster {
    /// A client of a cluster. It connects with the first call.
    pub fn connect(kafka: &KafkaConfig) -> Result<Arc<Cluster>, KafkaError> {
        let name = kafka.name.clone();
        let mut asker = Asker::new(kafka.clone())?;
        let (calls, todo) = mpsc::channel::<Call>();
        let serve = move || {
            for call in todo {
                call(&mut asker);
                // SAFETY: a live client. Serves its error callback.
                unsafe { rd_kafka_poll(asker.client().ptr(), 0) };
            }
        };
        std::thread::Builder::new().name(format!("kafka-admin-{name}")).spawn(serve).map_err(|e| KafkaError {
            operation: format!("start the admin thread of {name}"),
            kind: Kind::Other,
            message: e.to_string(),
        })?;
        Ok(Arc::new(Cluster { calls, name }))
    }

    /// Has `call` made on the cluster's thread. `api` is what the request is counted as.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        api: &'static str,
        call: impl FnOnce(&Client) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        self.ask_with(api, move |asker| call(asker.client())).await
    }

    /// The same for the offsets of groups, of which `group` is one.
    pub(super) async fn ask_for_offsets<T: Send + 'static>(
        &self,
        api: &'static str,
        group: String,
        call: impl FnOnce(&Client) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        self.ask_with(api, move |asker| asker.of_group(&group).and_then(call)).await
    }

    async fn ask_with<T: Send + 'static>(
        &self,
        api: &'static str,
        call: impl FnOnce(&mut Asker) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        let (answer, answered) = oneshot::channel();
        let call: Call = Box::new(move |asker| {
            // Whoever gave up waiting does not want the answer.
            let _ = answer.send(call(asker));
        });
        let ended = || KafkaError {
            operation: format!("ask cluster {}", self.name),
            kind: Kind::Other,
            message: "its thread has ended".into(),
        };
        self.calls.send(call).map_err(|_| ended())?;
        let answer = answered.await.map_err(|_| ended())?;
        metrics::kafka_request(api, super::result_name(&answer));
        answer
    }

    /// The cluster's id.
    pub async fn cluster_id(&self, timeout: Duration) -> Result<String, KafkaError> {
        self.ask("cluster_id", move |client| cluster_id(client, timeout)).await
    }

    /// All topics the user may see, internal ones included.
    pub async fn topics(&self, timeout: Duration) -> Result<Vec<TopicInfo>, KafkaError> {
        self.ask("topics", move |client| topics(client, timeout)).await
    }

    /// The ids and partition counts of topics; an error each for those that are not there or not permitted.
    pub async fn describe(&self, topics: &[String], timeout: Duration) -> Result<Described, KafkaError> {
        let topics = topics.to_vec();
        self.ask("describe_topics", move |client| describe(client, &topics, timeout)).await
    }

    /// One end of partitions, asked in one call for all; an error each for those that could not be asked.
    pub async fn offsets(
        &self,
        partitions: &[TopicPartition],
        end: End,
        isolation: Isolation,
        timeout: Duration,
    ) -> Result<Offsets, KafkaError> {
        let partitions = partitions.to_vec();
        self.ask("offsets", move |client| offsets(client, &partitions, end, isolation, timeout)).await
    }

    /// The settings of topics, by topic and name. Empty with the mock cluster, which has none.
    pub async fn topic_configs(&self, topics: &[String], timeout: Duration) -> Result<Configs, KafkaError> {
        let topics = topics.to_vec();
        self.ask("topic_configs", move |client| topic_configs(client, &topics, timeout)).await
    }

    /// Creates a topic; [`Kind::Exists`] when it is there. `None` takes the broker's replication factor.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        replication_factor: Option<i32>,
        configs: &BTreeMap<String, String>,
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        self.create(name, partitions, replication_factor, configs, (timeout, false)).await
    }

    /// Asks whether a topic could be created: permissions, policies and settings are judged, nothing is done.
    pub async fn could_create_topic(
        &self,
        name: &str,
        partitions: i32,
        replication_factor: Option<i32>,
        configs: &BTreeMap<String, String>,
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        self.create(name, partitions, replication_factor, configs, (timeout, true)).await
    }

    async fn create(
        &self,
        name: &str,
        partitions: i32,
        replication_factor: Option<i32>,
        configs: &BTreeMap<String, String>,
        how: (Duration, bool),
    ) -> Result<(), KafkaError> {
        let (name, configs) = (name.to_owned(), configs.clone());
        self.ask("create_topic", move |client| {
            create_topic(client, &name, partitions, replication_factor, &configs, how)
        })
        .await
    }
}

/// Topics, or why not.
pub type Described = BTreeMap<String, Result<TopicState, KafkaError>>;
/// Offsets, or why not.
pub type Offsets = BTreeMap<TopicPartition, Result<i64, KafkaError>>;
/// Settings by topic and name.
pub type Configs = BTreeMap<String, BTreeMap<String, ConfigEntry>>;

/// An admin call's options; destroyed when dropped.
pub(super) struct Options(NonNull<rd_kafka_AdminOptions_t>);

impl Options {
    pub(super) fn new(client: &Client, operation: rd_kafka_admin_op_t, timeout: Duration) -> Options {
        let mut text = [0 as c_char; ffi::ERROR_TEXT];
        // SAFETY: a live client; never null for a known operation. The timeout is within librdkafka's range.
        unsafe {
            let options = NonNull::new_unchecked(rd_kafka_AdminOptions_new(client.ptr(), operation));
            let timeout = millis(timeout).clamp(1, 3_600_000);
            rd_kafka_AdminOptions_set_request_timeout(options.as_ptr(), timeout, text.as_mut_ptr(), text.len());
            Options(options)
        }
    }

    pub(super) fn ptr(&self) -> *mut rd_kafka_AdminOptions_t {
        self.0.as_ptr()
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { rd_kafka_AdminOptions_destroy(self.ptr()) };
    }
}

/// The answer to an admin call; destroyed when dropped.
pub(super) struct Answer(NonNull<rd_kafka_event_t>);

impl Answer {
    /// Makes a call and waits for its answer: `submit` hands it to librdkafka with a queue for the answer. librdkafka
    /// ends every admin call by its own timeout, so the wait here needs none.
    pub(super) fn wait(
        client: &Client,
        operation: &str,
        submit: impl FnOnce(*mut rd_kafka_queue_t),
    ) -> Result<Answer, KafkaError> {
        // SAFETY: a live client; the queue is ours, and librdkafka keeps a reference while it needs one.
        let event = unsafe {
            let queue = rd_kafka_queue_new(client.ptr());
            submit(queue);
            let event = rd_kafka_queue_poll(queue, -1);
            rd_kafka_queue_destroy(queue);
            event
        };
        let answer = Answer::of(event)
            .ok_or_else(|| ffi::error(operation, Code::RD_KAFKA_RESP_ERR__TIMED_OUT, String::new()))?;
        answer.check(operation).map(|()| answer)
    }

    /// Takes an event over that a queue gave; `None` when it gave none.
    pub(super) fn of(event: *mut rd_kafka_event_t) -> Option<Answer> {
        NonNull::new(event).map(Answer)
    }

    /// Whether the call as a whole succeeded.
    pub(super) fn check(&self, operation: &str) -> Result<(), KafkaError> {
        // SAFETY: a valid event; its text lives as long.
        let (code, text) =
            unsafe { (rd_kafka_event_error(self.ptr()), c_text(rd_kafka_event_error_string(self.ptr()))) };
        match code {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            code => Err(ffi::error(operation, code, text)),
        }
    }

    pub(super) fn ptr(&self) -> *mut rd_kafka_event_t {
        self.0.as_ptr()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { rd_kafka_event_destroy(self.ptr()) };
    }
}

/// An array of `count` pointers that librdkafka filled in.
///
/// # Safety
/// `array` points at `count` values that live for `'a`, or `count` is 0.
pub(super) unsafe fn array<'a, T>(array: *const T, count: usize) -> &'a [T] {
    match count {
        0 => &[],
        // SAFETY: promised by the caller.
        _ => unsafe { std::slice::from_raw_parts(array, count) },
    }
}

fn cluster_id(client: &Client, timeout: Duration) -> Result<String, KafkaError> {
    // SAFETY: a live client; the string is ours and freed with librdkafka's allocator.
    let id = unsafe {
        let id = rd_kafka_clusterid(client.ptr(), millis(timeout));
        let text = (!id.is_null()).then(|| c_text(id));
        rd_kafka_mem_free(client.ptr(), id.cast());
        text
    };
    id.ok_or_else(|| ffi::error("read the cluster id", Code::RD_KAFKA_RESP_ERR__TIMED_OUT, String::new()))
}

/// Whether this is librdkafka's mock cluster. It names a controller that does not exist, for which most admin calls
/// would wait in vain.
pub(super) fn is_mock(client: &Client, timeout: Duration) -> Result<bool, KafkaError> {
    Ok(cluster_id(client, timeout)?.starts_with("mockCluster"))
}

fn topics(client: &Client, timeout: Duration) -> Result<Vec<TopicInfo>, KafkaError> {
    let mut metadata = ptr::null();
    // SAFETY: a live client; no topic with "all topics".
    let code = unsafe { rd_kafka_metadata(client.ptr(), 1, ptr::null_mut(), &mut metadata, millis(timeout)) };
    check("list topics", code)?;
    // SAFETY: on success the metadata is ours, valid until it is destroyed.
    unsafe {
        let list = array((*metadata).topics, (*metadata).topic_cnt as usize);
        let topics = list.iter().map(|t| TopicInfo { name: c_text(t.topic), partitions: t.partition_cnt }).collect();
        rd_kafka_metadata_destroy(metadata);
        Ok(topics)
    }
}

/// What [`describe`] says of a cluster that has no topic ids.
fn describe_by_metadata(client: &Client, names: &[String], timeout: Duration) -> Result<Described, KafkaError> {
    let known = topics(client, timeout)?;
    let state = |name: &String| match known.iter().find(|topic| topic.name == *name) {
        Some(topic) => Ok(TopicState { id: None, partitions: topic.partitions }),
        None => Err(ffi::error(
            &format!("describe topic {name}"),
            Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
            String::new(),
        )),
    };
    Ok(names.iter().map(|name| (name.clone(), state(name))).collect())
}

fn describe(client: &Client, topics: &[String], timeout: Duration) -> Result<Described, KafkaError> {
    if topics.is_empty() {
        return Ok(Described::new());
    }
    if is_mock(client, timeout)? {
        return describe_by_metadata(client, topics, timeout);
    }
    let options = Options::new(client, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout);
    let answer = describe_answer(client, topics, &options)?;
    let mut count = 0;
    // SAFETY: the answer to this call; what it returns lives as long as the answer.
    let list = unsafe {
        let result = rd_kafka_event_DescribeTopics_result(answer.ptr());
        array(rd_kafka_DescribeTopics_result_topics(result, &mut count), count)
    };
    Ok(list.iter().map(|&topic| topic_state(topic)).collect())
}

/// The answer to DescribeTopics.
pub(super) fn describe_answer(client: &Client, topics: &[String], options: &Options) -> Result<Answer, KafkaError> {
    let operation = "describe topics";
    let unique: BTreeSet<&String> = topics.iter().collect();
    let names = unique.iter().map(|t| c_string(operation, t)).collect::<Result<Vec<CString>, _>>()?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|n| n.as_ptr()).collect();
    Answer::wait(client, operation, |queue| {
        // SAFETY: names are copied into the collection, the collection into the request.
        unsafe {
            let collection = rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            rd_kafka_DescribeTopics(client.ptr(), collection, options.ptr(), queue);
            rd_kafka_TopicCollection_destroy(collection);
        }
    })
}

fn topic_state(topic: *const rd_kafka_TopicDescription_t) -> (String, Result<TopicState, KafkaError>) {
    let mut partitions = 0;
    // SAFETY: a description that the answer keeps alive.
    unsafe {
        let name = c_text(rd_kafka_TopicDescription_name(topic));
        let result = borrowed_error(&format!("describe topic {name}"), rd_kafka_TopicDescription_error(topic));
        rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        let id = rd_kafka_TopicDescription_topic_id(topic);
        let zero = id.is_null()
            || (rd_kafka_Uuid_most_significant_bits(id) == 0 && rd_kafka_Uuid_least_significant_bits(id) == 0);
        let id = (!zero).then(|| c_text(rd_kafka_Uuid_base64str(id)));
        (name, result.map(|()| TopicState { id, partitions: partitions as i32 }))
    }
}

/// As [`list_offsets`], and forgets what is believed of leaders where a partition could not be asked: librdkafka keeps
/// "no leader" of a topic that was just created for minutes, and would answer the next question from that.
fn offsets(
    client: &Client,
    partitions: &[TopicPartition],
    end: End,
    isolation: Isolation,
    timeout: Duration,
) -> Result<Offsets, KafkaError> {
    let answer = list_offsets(client, partitions, end, isolation, timeout)?;
    if answer.values().any(Result::is_err)
        && let Err(error) = topics(client, timeout)
    {
        tracing::debug!(%error, "the leaders of partitions cannot be learned anew");
    }
    Ok(answer)
}

fn list_offsets(
    client: &Client,
    partitions: &[TopicPartition],
    end: End,
    isolation: Isolation,
    timeout: Duration,
) -> Result<Offsets, KafkaError> {
    if partitions.is_empty() {
        return Ok(Offsets::new());
    }
    let spec = match end {
        End::Earliest => rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST,
        End::Latest => rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST,
    };
    let level = match isolation {
        Isolation::ReadCommitted => rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
        Isolation::ReadUncommitted => rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
    };
    let mut list = PartitionList::empty();
    for at in partitions.iter().collect::<BTreeSet<_>>() {
        list.add(at).offset = spec as i64;
    }
    let options = Options::new(client, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS, timeout);
    // SAFETY: valid options.
    ffi::take_error("list offsets", unsafe { rd_kafka_AdminOptions_set_isolation_level(options.ptr(), level) })?;
    // SAFETY: the list is copied into the request.
    let answer = Answer::wait(client, "list offsets", |queue| unsafe {
        rd_kafka_ListOffsets(client.ptr(), list.ptr(), options.ptr(), queue);
    });
    let answer = match answer {
        // One partition without a leader is an error of its own, all of them are one of the call.
        Err(error) if error.message.contains("No leaders found") => {
            let error = KafkaError { kind: Kind::Unavailable, ..error };
            return Ok(partitions.iter().map(|at| (at.clone(), Err(error.clone()))).collect());
        }
        answer => answer?,
    };
    let mut count = 0;
    // SAFETY: the answer to this call; what it returns lives as long as the answer.
    let infos = unsafe {
        let result = rd_kafka_event_ListOffsets_result(answer.ptr());
        array(rd_kafka_ListOffsets_result_infos(result, &mut count), count)
    };
    let read = |&info: &*const rd_kafka_ListOffsetsResultInfo_t| {
        // SAFETY: an element of the answer, which keeps it alive.
        let element = unsafe { &*rd_kafka_ListOffsetsResultInfo_topic_partition(info) };
        let at = ffi::topic_partition(element);
        let result = check(&format!("list offsets of {at}"), element.err).map(|()| element.offset);
        (at, result)
    };
    Ok(infos.iter().map(read).collect())
}

fn topic_configs(client: &Client, topics: &[String], timeout: Duration) -> Result<Configs, KafkaError> {
    if topics.is_empty() || is_mock(client, timeout)? {
        return Ok(Configs::new());
    }
    let operation = "describe topic configurations";
    let unique: BTreeSet<&String> = topics.iter().collect();
    let names = unique.iter().map(|t| c_string(operation, t)).collect::<Result<Vec<CString>, _>>()?;
    let kind = rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
    // SAFETY: names are copied; the resources are ours until destroyed below.
    let mut resources: Vec<_> =
        names.iter().map(|n| unsafe { rd_kafka_ConfigResource_new(kind, n.as_ptr()) }).collect();
    let options = Options::new(client, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, timeout);
    // SAFETY: the resources are copied into the request.
    let answer = Answer::wait(client, operation, |queue| unsafe {
        rd_kafka_DescribeConfigs(client.ptr(), resources.as_mut_ptr(), resources.len(), options.ptr(), queue);
        rd_kafka_ConfigResource_destroy_array(resources.as_mut_ptr(), resources.len());
    })?;
    let mut count = 0;
    // SAFETY: the answer to this call; what it returns lives as long as the answer.
    let resources = unsafe {
        let result = rd_kafka_event_DescribeConfigs_result(answer.ptr());
        array(rd_kafka_DescribeConfigs_result_resources(result, &mut count), count)
    };
    resources.iter().map(|&resource| resource_configs(resource)).collect()
}

fn resource_configs(
    resource: *const rd_kafka_ConfigResource_t,
) -> Result<(String, BTreeMap<String, ConfigEntry>), KafkaError> {
    let mut count = 0;
    // SAFETY: a resource that the answer keeps alive.
    unsafe {
        let name = c_text(rd_kafka_ConfigResource_name(resource));
        let code = rd_kafka_ConfigResource_error(resource);
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            let text = c_text(rd_kafka_ConfigResource_error_string(resource));
            return Err(ffi::error(&format!("describe the configuration of topic {name}"), code, text));
        }
        let entries = array(rd_kafka_ConfigResource_configs(resource, &mut count), count);
        Ok((name, entries.iter().map(|&entry| config_entry(entry)).collect()))
    }
}

fn config_entry(entry: *const rd_kafka_ConfigEntry_t) -> (String, ConfigEntry) {
    // SAFETY: an entry that the answer keeps alive.
    unsafe {
        let value = rd_kafka_ConfigEntry_value(entry);
        let is_default =
            rd_kafka_ConfigEntry_source(entry) != rd_kafka_ConfigSource_t::RD_KAFKA_CONFIG_SOURCE_DYNAMIC_TOPIC_CONFIG;
        let entry_out = ConfigEntry {
            value: (!value.is_null()).then(|| c_text(value)),
            is_default,
            read_only: rd_kafka_ConfigEntry_is_read_only(entry) == 1,
            sensitive: rd_kafka_ConfigEntry_is_sensitive(entry) == 1,
        };
        (c_text(rd_kafka_ConfigEntry_name(entry)), entry_out)
    }
}

fn create_topic(
    client: &Client,
    name: &str,
    partitions: i32,
    replication_factor: Option<i32>,
    configs: &BTreeMap<String, String>,
    (timeout, only_asked): (Duration, bool),
) -> Result<(), KafkaError> {
    let operation = format!("create topic {name}");
    let c_name = c_string(&operation, name)?;
    let mut text = [0 as c_char; ffi::ERROR_TEXT];
    // SAFETY: a valid name and a buffer with its length; -1 is the broker's default.
    let topic = unsafe {
        let replication_factor = replication_factor.unwrap_or(-1);
        rd_kafka_NewTopic_new(c_name.as_ptr(), partitions, replication_factor, text.as_mut_ptr(), text.len())
    };
    let mut topic = NonNull::new(topic)
        .ok_or_else(|| ffi::error(&operation, Code::RD_KAFKA_RESP_ERR__INVALID_ARG, c_text(text.as_ptr())))?
        .as_ptr();
    for (key, value) in configs {
        // Names with a NUL cannot exist; the broker refuses what is left of them.
        let (key, value) =
            (CString::new(key.as_str()).unwrap_or_default(), CString::new(value.as_str()).unwrap_or_default());
        // SAFETY: copied.
        unsafe { rd_kafka_NewTopic_set_config(topic, key.as_ptr(), value.as_ptr()) };
    }
    let options = Options::new(client, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS, timeout);
    // SAFETY: valid options and a buffer with its length; it fails for other operations only.
    unsafe {
        rd_kafka_AdminOptions_set_validate_only(options.ptr(), only_asked.into(), text.as_mut_ptr(), text.len());
    }
    // SAFETY: the topic is copied into the request.
    let answer = Answer::wait(client, &operation, |queue| unsafe {
        rd_kafka_CreateTopics(client.ptr(), &mut topic, 1, options.ptr(), queue);
        rd_kafka_NewTopic_destroy(topic);
    })?;
    let mut count = 0;
    // SAFETY: the answer to this call; what it returns lives as long as the answer.
    let results = unsafe {
        let result = rd_kafka_event_CreateTopics_result(answer.ptr());
        array(rd_kafka_CreateTopics_result_topics(result, &mut count), count)
    };
    for &result in results {
        // SAFETY: an element of the answer.
        let (code, text) =
            unsafe { (rd_kafka_topic_result_error(result), c_text(rd_kafka_topic_result_error_string(result))) };
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(ffi::error(&operation, code, text));
        }
    }
    Ok(())
}
