//! What the user may do with topics and groups, asked before anything is done.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::time::Duration;

use rdkafka::bindings::*;
use rdkafka::types::RDKafkaRespErr as Code;

use super::KafkaError;
use super::admin::{Cluster, describe_answer, is_mock};
use super::call::{Answer, Options, array};
use super::ffi::{Client, borrowed_error, c_string, c_text, take_error};

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

    /// Those of `groups` for which the user may not commit offsets (READ). Groups of which the broker does not tell, as
    /// newer ones do of groups that are not there, are not among them.
    pub async fn groups_denied(&self, groups: &[String], timeout: Duration) -> Result<BTreeSet<String>, KafkaError> {
        let groups = groups.to_vec();
        self.ask("groups_denied", move |client| groups_denied(client, &groups, timeout)).await
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

fn groups_denied(client: &Client, groups: &[String], timeout: Duration) -> Result<BTreeSet<String>, KafkaError> {
    if groups.is_empty() || is_mock(client, timeout)? {
        return Ok(BTreeSet::new());
    }
    let operation = "describe the permissions on groups";
    let names: Vec<CString> = groups.iter().map(|group| c_string(operation, group)).collect::<Result<_, _>>()?;
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let options = Options::new(client, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, timeout);
    // SAFETY: valid options; the error is ours.
    let asked = unsafe { rd_kafka_AdminOptions_set_include_authorized_operations(options.ptr(), 1) };
    take_error(operation, asked)?;
    // SAFETY: the names are copied into the request.
    let answer = Answer::wait(client, operation, |queue| unsafe {
        rd_kafka_DescribeConsumerGroups(client.ptr(), pointers.as_mut_ptr(), pointers.len(), options.ptr(), queue);
    })?;
    let mut count = 0;
    // SAFETY: the answer to this call; what it returns lives as long as the answer.
    let list = unsafe {
        let result = rd_kafka_event_DescribeConsumerGroups_result(answer.ptr());
        array(rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count), count)
    };
    let denied = list.iter().map(|&group| denied(operation, group));
    denied.filter_map(Result::transpose).collect()
}

/// The name of a group, when it may not be read.
fn denied(operation: &str, group: *const rd_kafka_ConsumerGroupDescription_t) -> Result<Option<String>, KafkaError> {
    let mut count = 0;
    // SAFETY: a description that the answer keeps alive; null where the broker does not tell.
    unsafe {
        let error = rd_kafka_ConsumerGroupDescription_error(group);
        match rd_kafka_error_code(error) {
            // It is not there; or not one of consumers, so that nothing is told.
            Code::RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND | Code::RD_KAFKA_RESP_ERR__INVALID_ARG => {}
            _ => borrowed_error(operation, error)?,
        }
        let operations = rd_kafka_ConsumerGroupDescription_authorized_operations(group, &mut count);
        let is_told = !operations.is_null();
        let may_read =
            is_told && array(operations, count).contains(&rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ);
        Ok((is_told && !may_read).then(|| c_text(rd_kafka_ConsumerGroupDescription_group_id(group))))
    }
}
