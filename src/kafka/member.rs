//! What the polling thread of a group member does: events, assignments and revocations, and leaving the group.

use std::collections::BTreeMap;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::bindings::*;
use rdkafka::types::RDKafkaRespErr as Code;

use super::ffi::{self, Client, Events, PartitionList, check, millis, take_error};
use super::message::Message;
use super::queue::Split;
use super::{KafkaError, TopicPartition, slack};
use crate::metrics;

/// How long the polling thread waits for an event. It is woken when it is to stop; a thread that wakes up by itself
/// costs little, but hundreds of quiet clients are hundreds of threads. librdkafka does not count waiting against
/// `max.poll.interval.ms`.
const POLL: Duration = Duration::from_secs(30);
/// How long a member that joins is helped to be quick.
const JOINING: Duration = Duration::from_secs(10);

/// What happens in the group. Reported on the polling thread, outside of any lock.
#[derive(Debug, Clone)]
pub enum GroupEvent {
    /// These are owned now, besides what was owned before (with [`Protocol::Eager`]: and nothing else). They are
    /// fetched once they are placed.
    Assigned(Vec<TopicPartition>),
    /// These are not owned any more and their queues have ended.
    Revoked {
        /// Which.
        partitions: Vec<TopicPartition>,
        /// The member was thrown out or timed out: others may own them already.
        lost: bool,
    },
    /// Something failed that librdkafka goes on trying.
    Error(KafkaError),
    /// The client is of no more use; close it.
    Fatal(KafkaError),
    /// A commit failed.
    CommitFailed(KafkaError),
}

/// How the group moves partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// One by one.
    Cooperative,
    /// All are revoked in every rebalance.
    Eager,
}

/// The partitions the group gave us, with their queues where they are placed.
pub(super) type Owned = BTreeMap<TopicPartition, Option<Arc<Split>>>;

/// What the polling thread, the callbacks and the consumer share.
pub(super) struct Member {
    protocol: Protocol,
    on_event: Box<dyn Fn(GroupEvent) + Send + Sync>,
    owned: Mutex<Owned>,
    /// Set once: leave the group, and give up at this time.
    stop: Mutex<Option<Instant>>,
    closing: AtomicBool,
}

impl Member {
    /// Owns nothing yet.
    pub(super) fn new(protocol: Protocol, on_event: Box<dyn Fn(GroupEvent) + Send + Sync>) -> Self {
        let (owned, stop) = (Mutex::new(BTreeMap::new()), Mutex::new(None));
        Self { protocol, on_event, owned, stop, closing: AtomicBool::new(false) }
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// What it owns. Whoever places partitions or takes them out holds this meanwhile.
    pub(super) fn owned(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The polling thread is to leave the group, and to give up at `until`.
    pub(super) fn stop(&self, until: Instant) {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(until);
        self.closing.store(true, Ordering::Release);
    }

    pub(super) fn closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(super) fn report(&self, event: GroupEvent) {
        if !self.closing() {
            (self.on_event)(event);
        }
    }

    /// The polling thread.
    pub(super) fn run(&self, client: &Client) {
        self.join_soon(client);
        while !self.closing() {
            self.poll(client, POLL);
        }
        end_all(&mut self.owned());
        let until = self.stop.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_else(Instant::now);
        self.leave(client, until);
        self.owned().clear();
        // Tried, with or without success; destroying the client must not try again, without a limit in time.
        client.abandon();
    }

    /// Joining is a chain of steps, some of which librdkafka's main thread takes only when it looks, and that may be late
    /// ([`slack`]): has it look until something is assigned. Afterwards, and when that takes long, there is no hurry.
    fn join_soon(&self, client: &Client) {
        let until = Instant::now() + JOINING;
        while !self.closing() && self.owned().is_empty() && Instant::now() < until {
            self.poll(client, slack::LATE);
            let mut subscription = ptr::null_mut();
            // SAFETY: a live consumer, whose main thread answers. The list is null or ours.
            unsafe {
                rd_kafka_subscription(client.ptr(), &mut subscription);
                if !subscription.is_null() {
                    rd_kafka_topic_partition_list_destroy(subscription);
                }
            }
        }
    }

    fn poll(&self, client: &Client, timeout: Duration) {
        // SAFETY: a live consumer; the message is ours.
        let message = Message::take(unsafe { rd_kafka_consumer_poll(client.ptr(), millis(timeout)) });
        let Some(message) = message else { return };
        match message.code() {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR | Code::RD_KAFKA_RESP_ERR__PARTITION_EOF => self.astray(&message),
            Code::RD_KAFKA_RESP_ERR__FATAL => {
                if let Some(fatal) = client.fatal("consume") {
                    self.report(GroupEvent::Fatal(fatal));
                }
            }
            code => self.report(GroupEvent::Error(ffi::error("consume", code, message.text()))),
        }
    }

    /// A message on the main queue: every partition's queue is split off before it is fetched, so this is a bug.
    fn astray(&self, message: &Message) {
        let Some(at) = message.partition() else { return };
        tracing::error!(partition = %at, offset = message.offset(), "a message missed its partition's queue");
        if let Some(Some(split)) = self.owned().get(&at) {
            split.astray(message.offset());
        }
    }

    /// Closes the consumer by way of its queue, so that rebalance callbacks are still served, up to a deadline.
    fn leave(&self, client: &Client, until: Instant) {
        // SAFETY: a live consumer; the queue reference is returned below.
        let result = unsafe {
            let queue = rd_kafka_queue_get_consumer(client.ptr());
            let error = rd_kafka_consumer_close_queue(client.ptr(), queue);
            rd_kafka_queue_destroy(queue);
            take_error("leave the group", error)
        };
        if let Err(error) = result {
            tracing::warn!(client = client.name(), %error, "closing the consumer");
            return;
        }
        // SAFETY: a live consumer.
        while unsafe { rd_kafka_consumer_closed(client.ptr()) } == 0 && Instant::now() < until {
            self.poll(client, POLL);
        }
    }

    fn assigned(&self, client: *mut rd_kafka_t, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        let mut owned = self.owned();
        let nothing = PartitionList::empty();
        // SAFETY: called back by this client; the empty list is copied.
        let result = unsafe {
            match self.protocol {
                Protocol::Cooperative => {
                    take_error("acknowledge an assignment", rd_kafka_incremental_assign(client, nothing.ptr()))
                }
                Protocol::Eager => {
                    end_all(&mut owned);
                    owned.clear();
                    check("acknowledge an assignment", rd_kafka_assign(client, nothing.ptr()))
                }
            }
        };
        owned.extend(partitions.iter().map(|at| (at.clone(), None)));
        result
    }

    fn revoked(&self, client: *mut rd_kafka_t, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        let mut owned = self.owned();
        let gone = partitions.iter().filter_map(|at| owned.remove(at));
        let ended: Vec<_> = gone.filter_map(|mut split| end(&mut split)).collect();
        let result = match self.protocol {
            Protocol::Cooperative => {
                incremental_unassign(client, ended.iter().map(|s| s.partition())).or_else(|error| {
                    // The group waits for an acknowledgement in any case.
                    incremental_unassign(client, [].into_iter())?;
                    Err(error)
                })
            }
            // SAFETY: called back by this client; null is "nothing".
            Protocol::Eager => check("acknowledge a revocation", unsafe { rd_kafka_assign(client, ptr::null()) }),
        };
        ended.iter().for_each(|split| split.purge());
        result
    }
}

impl Events for Member {
    fn error(&self, error: KafkaError, fatal: bool) {
        self.report(if fatal { GroupEvent::Fatal(error) } else { GroupEvent::Error(error) });
    }

    fn rebalance(&self, client: *mut rd_kafka_t, assign: bool, partitions: Vec<TopicPartition>) {
        // SAFETY: called back by this client.
        let lost = !assign && unsafe { rd_kafka_assignment_lost(client) } != 0;
        let result = match assign {
            true => self.assigned(client, &partitions),
            false => self.revoked(client, &partitions),
        };
        if let Err(error) = result {
            self.report(GroupEvent::Error(error));
        }
        match assign {
            true => self.report(GroupEvent::Assigned(partitions)),
            false => self.report(GroupEvent::Revoked { partitions, lost }),
        }
    }

    fn committed(&self, result: Result<(), KafkaError>) {
        metrics::kafka_request("commit", super::result_name(&result));
        if let Err(error) = result {
            self.report(GroupEvent::CommitFailed(error));
        }
    }
}

/// Ends a partition's queue. It is to be purged once the partition is not fetched any more.
pub(super) fn end(split: &mut Option<Arc<Split>>) -> Option<Arc<Split>> {
    let split = split.take()?;
    split.close();
    Some(split)
}

/// Ends all queues.
pub(super) fn end_all(owned: &mut Owned) {
    for split in owned.values_mut() {
        end(split);
    }
}

pub(super) fn incremental_unassign<'a>(
    client: *mut rd_kafka_t,
    partitions: impl Iterator<Item = &'a TopicPartition>,
) -> Result<(), KafkaError> {
    let list = PartitionList::of(partitions);
    // SAFETY: the callers hold the client; the list is copied.
    take_error("unassign", unsafe { rd_kafka_incremental_unassign(client, list.ptr()) })
}
