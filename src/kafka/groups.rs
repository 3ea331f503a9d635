//! Consumer groups: which there are, who is in them, what they have committed, and committing for them.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::ptr;
use std::time::Duration;

use rdkafka::bindings::*;
use rdkafka::types::RDKafkaRespErr as Code;

use super::admin::{Cluster, is_mock};
use super::call::{Answer, Options, array};
use super::consumer::Committed;
use super::ffi::{self, Client, PartitionList, borrowed_error, c_string, c_text, check};
use super::{KafkaError, TopicPartition};

/// Requests for offsets of groups that are under way at the same time: one for each group is all that Kafka's protocol
/// has.
const AT_ONCE: usize = 64;

/// What all coordinators said of their groups.
#[derive(Debug, Clone, Default)]
pub struct GroupList {
    /// Consumer groups by name, in whatever state; also those that have only committed offsets and never had members.
    pub groups: BTreeMap<String, Activity>,
    /// Brokers that did not answer: what they coordinate is not in the list.
    pub failures: Vec<KafkaError>,
}

/// Whether a group has members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// It has none: its offsets may be set from outside.
    Empty,
    /// It has members.
    Active,
    /// The broker does not say, or librdkafka does not know the word it says.
    Unknown,
}

/// The offsets of groups, or why they are not known: by group, for every partition it has committed something for.
pub type GroupOffsets = BTreeMap<String, Result<OffsetsOfGroup, KafkaError>>;
/// Next offset and metadata by partition.
pub type OffsetsOfGroup = BTreeMap<TopicPartition, (i64, String)>;

impl Cluster {
    /// All consumer groups that the user may see, asked of all brokers. None with the mock cluster, which does not tell.
    pub async fn groups(&self, timeout: Duration) -> Result<GroupList, KafkaError> {
        self.ask("groups", move |client| groups(client, timeout)).await
    }

    /// What each of `groups` has committed, with the metadata beside it.
    pub async fn group_offsets(&self, groups: &[String], timeout: Duration) -> Result<GroupOffsets, KafkaError> {
        let Some(first) = groups.first().cloned() else { return Ok(GroupOffsets::new()) };
        let groups = groups.to_vec();
        self.ask_for_offsets("group_offsets", first, move |client| Ok(group_offsets(client, &groups, timeout))).await
    }

    /// Commits offsets with their metadata for a group that has no members; refused by the broker where it has some.
    ///
    /// # Errors
    /// Nothing was committed, or not for all partitions.
    pub async fn commit_for(
        &self,
        group: &str,
        offsets: &[(TopicPartition, i64, String)],
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        let (group, offsets) = (group.to_owned(), offsets.to_vec());
        self.ask("commit_for", move |client| commit_for(client, &group, &offsets, timeout)).await
    }

    /// The live members of a consumer group, as `client id (member id) at host`; none for a group that does not exist
    /// (and with the mock cluster, which does not tell).
    pub async fn group_members(&self, group: &str, timeout: Duration) -> Result<Vec<String>, KafkaError> {
        let group = group.to_owned();
        self.ask("group_members", move |client| group_members(client, &group, timeout)).await
    }

    /// What a group has committed for partitions: next offset and metadata, or nothing.
    pub async fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Result<Committed, KafkaError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let (group, partitions) = (group.to_owned(), partitions.to_vec());
        self.ask_for_offsets("committed", group.clone(), move |client| committed(client, &group, &partitions, timeout))
            .await
    }
}

fn groups(client: &Client, timeout: Duration) -> Result<GroupList, KafkaError> {
    if is_mock(client, timeout)? {
        return Ok(GroupList::default());
    }
    let operation = "list consumer groups";
    let options = Options::new(client, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS, timeout);
    // SAFETY: a live client, options of this call.
    let answer = Answer::wait(client, operation, |queue| unsafe {
        rd_kafka_ListConsumerGroups(client.ptr(), options.ptr(), queue);
    })?;
    let (mut valid, mut failed) = (0, 0);
    // SAFETY: the answer to this call; what it returns lives as long as the answer.
    unsafe {
        let result = rd_kafka_event_ListConsumerGroups_result(answer.ptr());
        let listed = array(rd_kafka_ListConsumerGroups_result_valid(result, &mut valid), valid);
        let errors = array(rd_kafka_ListConsumerGroups_result_errors(result, &mut failed), failed);
        let groups = listed.iter().map(|&group| {
            (
                c_text(rd_kafka_ConsumerGroupListing_group_id(group)),
                activity(rd_kafka_ConsumerGroupListing_state(group)),
            )
        });
        let failures = errors.iter().filter_map(|&error| borrowed_error(operation, error).err());
        Ok(GroupList { groups: groups.collect(), failures: failures.collect() })
    }
}

fn activity(state: rd_kafka_consumer_group_state_t) -> Activity {
    use rd_kafka_consumer_group_state_t::*;
    match state {
        RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY | RD_KAFKA_CONSUMER_GROUP_STATE_DEAD => Activity::Empty,
        RD_KAFKA_CONSUMER_GROUP_STATE_UNKNOWN | RD_KAFKA_CONSUMER_GROUP_STATE__CNT => Activity::Unknown,
        RD_KAFKA_CONSUMER_GROUP_STATE_PREPARING_REBALANCE
        | RD_KAFKA_CONSUMER_GROUP_STATE_COMPLETING_REBALANCE
        | RD_KAFKA_CONSUMER_GROUP_STATE_STABLE => Activity::Active,
    }
}

/// Asks for many groups at the same time: one that has to wait for its coordinator does not keep the others waiting.
fn group_offsets(client: &Client, groups: &[String], timeout: Duration) -> GroupOffsets {
    let mut offsets = GroupOffsets::new();
    for groups in groups.chunks(AT_ONCE) {
        // SAFETY: a live client; the queue is ours until it is destroyed below.
        let queue = unsafe { rd_kafka_queue_new(client.ptr()) };
        let mut asked = 0;
        for (number, group) in groups.iter().enumerate() {
            match ask_offsets(client, queue, number, group, timeout) {
                Ok(()) => asked += 1,
                Err(error) => _ = offsets.insert(group.clone(), Err(error)),
            }
        }
        for _ in 0..asked {
            // SAFETY: the queue is ours. Every request ends with one event, at the latest when its time is up.
            let event = unsafe { rd_kafka_queue_poll(queue, -1) };
            let Some(answer) = Answer::of(event) else { continue };
            // SAFETY: the opaque value is the number that the request was given.
            let number = unsafe { rd_kafka_event_opaque(answer.ptr()) } as usize;
            if let Some(group) = groups.get(number) {
                let known = read_offsets(&answer, group);
                let committed = |all: Committed| all.into_iter().filter_map(|(at, one)| Some((at, one?))).collect();
                offsets.insert(group.clone(), known.map(committed));
            }
        }
        // SAFETY: ours, and not used any more.
        unsafe { rd_kafka_queue_destroy(queue) };
    }
    offsets
}

fn asking(group: &str) -> String {
    format!("read the offsets of group {group}")
}

fn ask_offsets(
    client: &Client,
    queue: *mut rd_kafka_queue_t,
    number: usize,
    group: &str,
    timeout: Duration,
) -> Result<(), KafkaError> {
    let name: CString = c_string(&asking(group), group)?;
    let options = Options::new(client, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS, timeout);
    // SAFETY: options of ours; the opaque value is a number that is only ever read as one. Group and options are copied
    // into the request; no list stands for all partitions.
    unsafe {
        rd_kafka_AdminOptions_set_opaque(options.ptr(), ptr::without_provenance_mut(number));
        let mut request = rd_kafka_ListConsumerGroupOffsets_new(name.as_ptr(), ptr::null());
        rd_kafka_ListConsumerGroupOffsets(client.ptr(), &mut request, 1, options.ptr(), queue);
        rd_kafka_ListConsumerGroupOffsets_destroy(request);
    }
    Ok(())
}

/// What an answer says of a group's partitions: next offset and metadata, or nothing.
fn read_offsets(answer: &Answer, group: &str) -> Result<Committed, KafkaError> {
    let operation = asking(group);
    answer.check(&operation)?;
    let mut count = 0;
    let mut offsets = Vec::new();
    // SAFETY: the answer to such a call; what it returns lives as long as the answer.
    unsafe {
        let result = rd_kafka_event_ListConsumerGroupOffsets_result(answer.ptr());
        for &result in array(rd_kafka_ListConsumerGroupOffsets_result_groups(result, &mut count), count) {
            borrowed_error(&operation, rd_kafka_group_result_error(result))?;
            for element in ffi::elements(rd_kafka_group_result_partitions(result)) {
                let at = ffi::topic_partition(element);
                check(&format!("{operation} for {at}"), element.err)?;
                offsets.push((at, ffi::committed_offset(element)));
            }
        }
    }
    Ok(offsets)
}

fn commit_for(
    client: &Client,
    group: &str,
    offsets: &[(TopicPartition, i64, String)],
    timeout: Duration,
) -> Result<(), KafkaError> {
    if offsets.is_empty() {
        return Ok(());
    }
    let operation = format!("commit offsets for group {group}");
    let name = c_string(&operation, group)?;
    let mut list = PartitionList::empty();
    for (at, offset, metadata) in offsets {
        list.add_commit(at, *offset, metadata);
    }
    let options = Options::new(client, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS, timeout);
    // SAFETY: group and list are copied into the request.
    let answer = Answer::wait(client, &operation, |queue| unsafe {
        let mut request = rd_kafka_AlterConsumerGroupOffsets_new(name.as_ptr(), list.ptr());
        rd_kafka_AlterConsumerGroupOffsets(client.ptr(), &mut request, 1, options.ptr(), queue);
        rd_kafka_AlterConsumerGroupOffsets_destroy(request);
    })?;
    let mut count = 0;
    // SAFETY: the answer to this call; what it returns lives as long as the answer.
    unsafe {
        let result = rd_kafka_event_AlterConsumerGroupOffsets_result(answer.ptr());
        for &result in array(rd_kafka_AlterConsumerGroupOffsets_result_groups(result, &mut count), count) {
            borrowed_error(&operation, rd_kafka_group_result_error(result))?;
            for element in ffi::elements(rd_kafka_group_result_partitions(result)) {
                check(&format!("{operation} on {}", ffi::topic_partition(element)), element.err)?;
            }
        }
    }
    Ok(())
}

fn group_members(client: &Client, group: &str, timeout: Duration) -> Result<Vec<String>, KafkaError> {
    if is_mock(client, timeout)? {
        return Ok(Vec::new());
    }
    let operation = format!("describe group {group}");
    let c_group = c_string(&operation, group)?;
    let mut groups = [c_group.as_ptr()];
    let options = Options::new(client, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, timeout);
    // SAFETY: the names are copied into the request.
    let answer = Answer::wait(client, &operation, |queue| unsafe {
        rd_kafka_DescribeConsumerGroups(client.ptr(), groups.as_mut_ptr(), groups.len(), options.ptr(), queue);
    })?;
    let mut count = 0;
    // SAFETY: the answer to this call; what it returns lives as long as the answer.
    unsafe {
        let result = rd_kafka_event_DescribeConsumerGroups_result(answer.ptr());
        let groups = array(rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count), count);
        let mut members = Vec::new();
        for &group in groups {
            let error = rd_kafka_ConsumerGroupDescription_error(group);
            if rd_kafka_error_code(error) == Code::RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND {
                continue;
            }
            borrowed_error(&operation, error)?;
            for i in 0..rd_kafka_ConsumerGroupDescription_member_count(group) {
                let member = rd_kafka_ConsumerGroupDescription_member(group, i);
                members.push(format!(
                    "{} ({}) at {}",
                    c_text(rd_kafka_MemberDescription_client_id(member)),
                    c_text(rd_kafka_MemberDescription_consumer_id(member)),
                    c_text(rd_kafka_MemberDescription_host(member)),
                ));
            }
        }
        Ok(members)
    }
}

fn committed(
    client: &Client,
    group: &str,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Result<Committed, KafkaError> {
    let operation = asking(group);
    let c_group = c_string(&operation, group)?;
    let list = PartitionList::of(partitions);
    let options = Options::new(client, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS, timeout);
    // SAFETY: group and list are copied into the request.
    let answer = Answer::wait(client, &operation, |queue| unsafe {
        let mut request = rd_kafka_ListConsumerGroupOffsets_new(c_group.as_ptr(), list.ptr());
        rd_kafka_ListConsumerGroupOffsets(client.ptr(), &mut request, 1, options.ptr(), queue);
        rd_kafka_ListConsumerGroupOffsets_destroy(request);
    })?;
    read_offsets(&answer, group)
}
