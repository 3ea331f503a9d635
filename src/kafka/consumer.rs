//! A member of a consumer group that is told where to begin by somebody else.
//!
//! The group decides *which* partitions a member owns; *where* each begins stands in the store, and finding out may
//! take minutes. So an assignment is acknowledged at once with nothing in it, and each partition is
//! [placed](GroupConsumer::place) when its position is known. librdkafka keeps the two apart: what the member tells
//! the group it owns (`rkcg_group_assignment`) is not what it fetches (`rk_consumer.assignment`).
//!
//! `place` and `unplace` hold the lock that the rebalance callback takes, so that a partition is never placed after it
//! was revoked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings::*;
use rdkafka::types::RDKafkaRespErr as Code;

use super::ffi::{self, Client, Events, Latch, PartitionList, Role, check, millis, take_error};
pub use super::member::{GroupEvent, Protocol};
use super::member::{Member, Owned, end, end_all, incremental_unassign};
use super::queue::{PartitionQueue, Split};
use super::settings::{self, ConsumerSettings};
use super::{KafkaError, Kind, TopicPartition, slack};
use crate::kafka::settings::KafkaConfig;

/// How long a consumer that is dropped without having been closed may take to leave its group.
const DROPPED: Duration = Duration::from_millis(100);
/// How long a placed partition may take to accept its position: librdkafka first waits for commits and stops under way.
const START: Duration = Duration::from_secs(2);
const START_RETRY: Duration = Duration::from_millis(10);

/// Where a partition begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The first offset wanted.
    pub offset: i64,
    /// The leader epoch of the record before it, so that a log truncated below it is noticed; -1 is none.
    pub leader_epoch: i32,
}

/// A group member with its own polling thread.
pub struct GroupConsumer {
    client: Arc<Client>,
    member: Arc<Member>,
    stopped: Arc<Latch>,
}

impl GroupConsumer {
    /// Joins the group. Nothing is fetched before [`place`](Self::place). Without topics it joins nothing: what it owns
    /// is what it [takes](Self::take).
    ///
    /// `on_event` runs on the polling thread and must return soon; it may call any method of the consumer but `close`.
    pub fn start(
        name: &str,
        kafka: &KafkaConfig,
        s: &ConsumerSettings,
        topics: &[String],
        on_event: Box<dyn Fn(GroupEvent) + Send + Sync>,
    ) -> Result<Arc<GroupConsumer>, KafkaError> {
        let config = settings::consumer(kafka, s);
        let protocol = match config.get("partition.assignment.strategy") {
            Some(strategy) if !strategy.contains("cooperative") => Protocol::Eager,
            _ => Protocol::Cooperative,
        };
        let member = Arc::new(Member::new(protocol, on_event));
        let events: Arc<dyn Events> = Arc::clone(&member) as _;
        let client = Arc::new(Client::new(role(kafka, s), name, &config, events)?);
        // SAFETY: a live consumer with a group. Client events come to the queue that the thread polls from then on.
        check("redirect the main queue", unsafe { rd_kafka_poll_set_consumer(client.ptr()) })?;
        let consumer = GroupConsumer { client, member, stopped: Arc::new(Latch::default()) };
        if !topics.is_empty() {
            consumer.subscribe(topics)?;
        }
        let thread = {
            let (client, member, stopped) =
                (consumer.client.clone(), consumer.member.clone(), consumer.stopped.clone());
            move || {
                member.run(&client);
                stopped.open();
            }
        };
        std::thread::Builder::new().name(format!("kafka-{name}")).spawn(thread).map_err(|e| KafkaError {
            operation: "start the polling thread".into(),
            kind: Kind::Other,
            message: e.to_string(),
        })?;
        Ok(Arc::new(consumer))
    }

    /// How the group moves partitions, as configured.
    pub fn protocol(&self) -> Protocol {
        self.member.protocol()
    }

    /// Owns these partitions from now on, whatever any group says; reported as [`GroupEvent::Assigned`]. For a client
    /// that was started without topics.
    pub fn take(&self, partitions: &[TopicPartition]) {
        self.member.owned().extend(partitions.iter().map(|at| (at.clone(), None)));
        self.member.report(GroupEvent::Assigned(partitions.to_vec()));
    }

    /// Changes the topics subscribed to.
    pub fn subscribe(&self, topics: &[String]) -> Result<(), KafkaError> {
        let list = PartitionList::of(&topics.iter().map(|t| TopicPartition::new(t.as_str(), -1)).collect::<Vec<_>>());
        // SAFETY: a live consumer; the list is copied.
        check("subscribe", unsafe { rd_kafka_subscribe(self.client.ptr(), list.ptr()) })
    }

    /// Begins fetching partitions at their positions. Partitions that are not owned (any more) are left out of what
    /// is returned; one that is placed already is begun anew, and its old queue ends.
    ///
    /// With [`Protocol::Eager`] the list must hold *all* partitions to be fetched: those left out stop, and all queues
    /// returned earlier end.
    ///
    /// A position with a leader epoch is validated against the broker before anything is fetched (KIP-320):
    /// librdkafka does that by itself only when the leader epoch changes later, so the partition is sought to the very
    /// position it was assigned at, which validates always.
    ///
    /// Blocks for the time of a few messages between threads, [2 s](START) at worst.
    pub fn place(&self, positions: &[(TopicPartition, Position)]) -> Result<Vec<PartitionQueue>, KafkaError> {
        if let Some(fatal) = self.client.fatal("place partitions") {
            return Err(fatal);
        }
        let mut owned = self.member.owned();
        let wanted: Vec<_> = positions.iter().filter(|(at, _)| owned.contains_key(at)).cloned().collect();
        if self.member.closing() || (wanted.is_empty() && self.protocol() == Protocol::Cooperative) {
            return Ok(Vec::new());
        }
        match self.protocol() {
            Protocol::Cooperative => self.unplace_owned(&mut owned, wanted.iter().map(|(at, _)| at))?,
            Protocol::Eager => {
                end_all(&mut owned);
                // Stops all fetching first, so that what is left in the queues can be told from what comes.
                self.assign(&[])?;
            }
        }
        let splits = wanted
            .iter()
            .map(|(at, position)| Split::new(&self.client, at, position.offset).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        self.begin(&wanted)?;
        for split in &splits {
            owned.insert(split.partition().clone(), Some(Arc::clone(split)));
        }
        Ok(splits.into_iter().map(PartitionQueue::new).collect())
    }

    /// Assigns and validates. Positions to be validated are paused meanwhile: a fetch that overtook the validation and
    /// found the position out of range would stop the partition and hide that the log was truncated.
    fn begin(&self, wanted: &[(TopicPartition, Position)]) -> Result<(), KafkaError> {
        // Nothing can be truncated below offset 0, and librdkafka validates no such position.
        let has_epoch = |p: &Position| p.leader_epoch >= 0 && p.offset > 0;
        let checked: Vec<_> = wanted.iter().filter(|(_, p)| has_epoch(p)).cloned().collect();
        let list = positions(&checked);
        // SAFETY: a live consumer and a list of ours. Returns when the partitions are paused.
        unsafe { rd_kafka_pause_partitions(self.client.ptr(), list.ptr()) };
        let late = self.assign(wanted).map(|()| self.validate(checked));
        // Twice, because librdkafka drops a resume that a rebalance overtakes (librdkafka#5591); the second does nothing
        // otherwise.
        for _ in 0..2 {
            // SAFETY: as above.
            unsafe { rd_kafka_resume_partitions(self.client.ptr(), list.ptr()) };
        }
        for (at, _) in late? {
            tracing::warn!(client = self.client.name(), partition = %at, "the leader epoch was not validated");
        }
        Ok(())
    }

    fn assign(&self, wanted: &[(TopicPartition, Position)]) -> Result<(), KafkaError> {
        let list = positions(wanted);
        // SAFETY: a live consumer; the list is copied.
        unsafe {
            match self.protocol() {
                Protocol::Cooperative => {
                    take_error("assign", rd_kafka_incremental_assign(self.client.ptr(), list.ptr()))
                }
                Protocol::Eager => check("assign", rd_kafka_assign(self.client.ptr(), list.ptr())),
            }
        }
    }

    /// Seeks to positions, which makes librdkafka validate their leader epochs. Returns those that could not be sought
    /// in time.
    fn validate(&self, mut todo: Vec<(TopicPartition, Position)>) -> Vec<(TopicPartition, Position)> {
        let deadline = Instant::now() + START;
        while !todo.is_empty() {
            let list = positions(&todo);
            // SAFETY: a live consumer and a list of ours, which receives an error for each partition.
            let result = unsafe { rd_kafka_seek_partitions(self.client.ptr(), list.ptr(), millis(START)) };
            if let Err(error) = take_error("seek", result) {
                tracing::warn!(client = self.client.name(), %error, "seek to validate positions");
            }
            let failed = |at: &TopicPartition| {
                let mut elements = list.elements().iter();
                elements.any(|e| ffi::topic_partition(e) == *at && e.err != Code::RD_KAFKA_RESP_ERR_NO_ERROR)
            };
            todo.retain(|(at, _)| failed(at));
            if todo.is_empty() || Instant::now() >= deadline {
                break;
            }
            // Not started yet, because a commit or an earlier stop is under way.
            std::thread::sleep(START_RETRY);
        }
        todo
    }

    /// Stops fetching partitions and ends their queues; they stay owned. With [`Protocol::Eager`] only the queues end:
    /// fetching stops with the next `place`.
    pub fn unplace(&self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        let mut owned = self.member.owned();
        self.unplace_owned(&mut owned, partitions.iter())
    }

    fn unplace_owned<'a>(
        &self,
        owned: &mut Owned,
        partitions: impl Iterator<Item = &'a TopicPartition>,
    ) -> Result<(), KafkaError> {
        let placed: Vec<_> =
            partitions.filter(|at| owned.get(at).is_some_and(|split| split.is_some())).cloned().collect();
        if placed.is_empty() {
            return Ok(());
        }
        let ended: Vec<_> = placed.iter().filter_map(|at| owned.get_mut(at).and_then(end)).collect();
        if self.protocol() == Protocol::Cooperative {
            incremental_unassign(self.client.ptr(), placed.iter())?;
            ended.iter().for_each(|split| split.purge());
        }
        Ok(())
    }

    /// Commits next offsets with their metadata, asynchronously; failures come as [`GroupEvent::CommitFailed`].
    pub fn commit(&self, offsets: &[(TopicPartition, i64, String)]) -> Result<(), KafkaError> {
        if offsets.is_empty() {
            return Ok(()); // an empty list would commit what is stored, a null one everything
        }
        let mut list = PartitionList::empty();
        for (at, offset, metadata) in offsets {
            list.add_commit(at, *offset, metadata);
        }
        // SAFETY: a live consumer; the list is copied.
        check("commit", unsafe { rd_kafka_commit(self.client.ptr(), list.ptr(), 1) })
    }

    /// What the group has committed for partitions: next offset and metadata, or nothing. Blocks up to `timeout`.
    pub fn committed(&self, partitions: &[TopicPartition], timeout: Duration) -> Result<Committed, KafkaError> {
        let list = PartitionList::of(partitions);
        // SAFETY: a live consumer and a list of ours, which receives the offsets.
        check("read committed offsets", unsafe { rd_kafka_committed(self.client.ptr(), list.ptr(), millis(timeout)) })?;
        let read = |element: &rd_kafka_topic_partition_t| {
            let at = ffi::topic_partition(element);
            check(&format!("read the committed offset of {at}"), element.err)?;
            Ok((at, ffi::committed_offset(element)))
        };
        list.elements().iter().map(read).collect()
    }

    /// Leaves the group: ends all queues, and returns when the group was told or `deadline` has passed. No more
    /// events are reported. librdkafka's threads end once the last queue is dropped, on a thread of their own.
    pub fn close(self: Arc<Self>, deadline: Duration) {
        let until = Instant::now() + deadline;
        self.stop(until);
        if !self.stopped.wait_until(until) {
            tracing::warn!(client = self.client.name(), "the group was not left in time");
        }
    }
}

impl GroupConsumer {
    /// Tells the polling thread to leave the group by `until`, and wakes it.
    fn stop(&self, until: Instant) {
        self.member.stop(until);
        // SAFETY: a live consumer; the queue reference is returned.
        unsafe {
            let queue = rd_kafka_queue_get_consumer(self.client.ptr());
            if !queue.is_null() {
                rd_kafka_queue_yield(queue);
                rd_kafka_queue_destroy(queue);
            }
        }
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.stop(Instant::now() + DROPPED);
    }
}

/// Per partition: next offset and metadata, or nothing.
pub type Committed = Vec<(TopicPartition, Option<(i64, String)>)>;

/// One partition, about which nobody is in a hurry, waits for something to read most of the time, and hundreds of such clients
/// may be in the process.
fn role(kafka: &KafkaConfig, s: &ConsumerSettings) -> Role {
    match s.patient && s.partitions <= 1 {
        true => Role::Consumer { oversleeps: slack::quiet(kafka.session_timeout()) },
        false => Role::CONSUMER,
    }
}

fn positions(wanted: &[(TopicPartition, Position)]) -> PartitionList {
    let mut list = PartitionList::empty();
    for (at, position) in wanted {
        list.add_position(at, position.offset, position.leader_epoch);
    }
    list
}
