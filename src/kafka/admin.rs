//! Questions to a cluster: topics and the ends of their logs. Others have files of their own: [`super::groups`],
//! [`super::topic_config`], [`super::create`], [`super::permissions`].
//!
//! librdkafka's calls block, so that each cluster has one client with one named thread that makes them one after the
//! other; callers await a channel.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rdkafka::bindings::*;
use rdkafka::types::RDKafkaRespErr as Code;
use tokio::sync::oneshot;

use super::asker::Asker;
use super::call::{Answer, Options, array};
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
            // Whoever gave up waiting does not want the answer, and others wait behind.
            if !answer.is_closed() {
                let _ = answer.send(call(asker));
            }
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
}

/// Topics, or why not.
pub type Described = BTreeMap<String, Result<TopicState, KafkaError>>;
/// Offsets, or why not.
pub type Offsets = BTreeMap<TopicPartition, Result<i64, KafkaError>>;
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    /// A client of a cluster that takes connections and never answers.
    fn silent() -> (TcpListener, Arc<Cluster>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let kafka = KafkaConfig {
            name: "silent".to_owned(),
            bootstrap_servers: vec![listener.local_addr().unwrap().to_string()],
            properties: BTreeMap::new(),
        };
        (listener, Cluster::connect(&kafka).unwrap())
    }

    /// Questions are answered one after the other, so that those nobody waits for must not be asked.
    #[tokio::test]
    async fn who_gave_up_keeps_nobody_waiting() {
        let (_listener, cluster) = silent();
        let (timeout, begin) = (Duration::from_secs(1), Instant::now());
        for _ in 0..8 {
            tokio::time::timeout(Duration::ZERO, cluster.cluster_id(timeout)).await.unwrap_err();
        }
        cluster.cluster_id(timeout).await.unwrap_err();
        assert!(begin.elapsed() < timeout * 5, "{:?}", begin.elapsed());
    }
}
