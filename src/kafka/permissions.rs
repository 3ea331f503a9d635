//! What the user may do with topics, asked before anything is done.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::bindings::*;

use super::KafkaError;
use super::admin::{Cluster, Options, array, describe_answer, is_mock};
use super::ffi::{Client, c_text, take_error};

/// What the user may do with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions {
    /// Produce.
    pub write: bool,
    /// Consume.
    pub read: bool,
    /// Change its settings.
    pub alter_configs: bool,
}

impl Cluster {
    /// What the user may do with each of `topics`. Those of which the broker does not tell are not in it.
    pub async fn permissions(
        &self,
        topics: &[String],
        timeout: Duration,
    ) -> Result<BTreeMap<String, Permissions>, KafkaError> {
        let topics = topics.to_vec();
        self.ask("permissions", move |client| permissions(client, &topics, timeout)).await
    }
}

fn permissions(
    client: &Client,
    topics: &[String],
    timeout: Duration,
) -> Result<BTreeMap<String, Permissions>, KafkaError> {
    if topics.is_empty() || is_mock(client, timeout)? {
        return Ok(BTreeMap::new());
    }
    let options = Options::new(client, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout);
    // SAFETY: valid options; the error is ours.
    let asked = unsafe { rd_kafka_AdminOptions_set_include_authorized_operations(options.ptr(), 1) };
    take_error("describe the permissions on topics", asked)?;
    let answer = describe_answer(client, topics, &options)?;
    let mut count = 0;
    // SAFETY: the answer to this call; what it returns lives as long as the answer.
    let list = unsafe {
        let result = rd_kafka_event_DescribeTopics_result(answer.ptr());
        array(rd_kafka_DescribeTopics_result_topics(result, &mut count), count)
    };
    Ok(list.iter().filter_map(|&topic| permitted(topic)).collect())
}

fn permitted(topic: *const rd_kafka_TopicDescription_t) -> Option<(String, Permissions)> {
    use rd_kafka_AclOperation_t::*;
    let mut count = 0;
    // SAFETY: a description that the answer keeps alive; null where the broker does not tell.
    let (name, operations) = unsafe {
        let operations = rd_kafka_TopicDescription_authorized_operations(topic, &mut count);
        if operations.is_null() {
            return None;
        }
        (c_text(rd_kafka_TopicDescription_name(topic)), array(operations, count))
    };
    let may = |operation| operations.contains(&operation);
    let permissions = Permissions {
        write: may(RD_KAFKA_ACL_OPERATION_WRITE),
        read: may(RD_KAFKA_ACL_OPERATION_READ),
        alter_configs: may(RD_KAFKA_ACL_OPERATION_ALTER_CONFIGS),
    };
    Some((name, permissions))
}
