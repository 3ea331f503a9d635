//! One partition's messages: copied once into a [`RecordBatch`], without an allocation each.
//!
//! Messages are taken with `rd_kafka_consume_callback_queue`: one lock and two looks at the clock for as many as fit
//! into the batch, where `rd_kafka_consume_queue` needs both for each. Never with `rd_kafka_consume_batch_queue`: that
//! sets the position behind *every* message it returns, errors included (`rd_kafka_q_serve_rkmessages`), so that a
//! partition-EOF event at offset N moves it to N + 1, and the next rebalance, which pauses, discards what is queued
//! and goes on from the position, silently skips record N.

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::bindings::*;
use rdkafka::types::RDKafkaRespErr as Code;

use super::ffi::{self, Client, c_string};
use super::message::Message;
use super::queue_error::{QueueError, classify};
use super::{KafkaError, Kind, TopicPartition};
use crate::model::batch::RecordBatch;

/// What one call of [`PartitionQueue::drain`] did.
#[derive(Debug, Default)]
pub struct Drained {
    /// Records appended.
    pub records: usize,
    /// The end of the partition was reached here, and nothing came behind it.
    pub eof: Option<i64>,
    /// The next record alone is larger than the limit and the batch is empty: the bytes of content it needs.
    pub needs: Option<usize>,
    /// The queue is empty now; the wake-up will be called when it is not.
    pub exhausted: bool,
    /// The queue has ended. Records appended by this call precede the error. The same error is returned until the
    /// partition is placed anew.
    pub error: Option<QueueError>,
}

/// The queue of one placed partition. It ends, and is empty from then on, when the partition is revoked, unplaced or
/// placed anew; a queue that was left behind can therefore never take records from its successor.
pub struct PartitionQueue {
    split: Arc<Split>,
}

impl PartitionQueue {
    pub(super) fn new(split: Arc<Split>) -> Self {
        Self { split }
    }

    /// Which partition.
    pub fn partition(&self) -> &TopicPartition {
        &self.split.at
    }

    /// Moves what is queued into `batch`, without waiting, while its content stays within `limit_bytes` and no more
    /// than `max_records` are appended. Sets the batch's `next_offset` and `leader_epoch`.
    pub fn drain(&mut self, batch: &mut RecordBatch, limit_bytes: usize, max_records: usize) -> Drained {
        let limit = limit_bytes.min(u32::MAX as usize); // the arena's spans are 32 bits wide
        let mut state = self.split.state();
        let mut filling = Filling { at: &self.split.at, batch, limit, max_records, drained: Drained::default() };
        if filling.go_on(&mut state) {
            filling.drained.exhausted = self.split.serve(&mut |message| filling.take(&mut state, message));
        }
        let mut drained = filling.drained;
        drained.error = state.failed.clone();
        // A queue that was closed stays empty: who is told otherwise would come back at once, for ever.
        drained.exhausted |= !state.open;
        drained.exhausted &= drained.error.is_none();
        drained
    }

    /// Whether a drain would find nothing: cheap, for who has to make room before it drains.
    pub fn is_empty(&self) -> bool {
        let state = self.split.state();
        state.failed.is_none() && state.pending.is_none() && (!state.open || self.split.is_empty())
    }

    /// Has `wake` called whenever the queue stops being empty, on a thread of librdkafka's and with the queue's lock
    /// held: it must only send a signal, never drain. A call may come before anything can be drained, and one drain
    /// may find what several calls announced.
    pub fn set_wakeup(&mut self, wake: Box<dyn Fn() + Send + Sync>) {
        self.split.set_wakeup(wake);
    }
}

/// A batch that is being filled.
struct Filling<'a> {
    at: &'a TopicPartition,
    batch: &'a mut RecordBatch,
    limit: usize,
    max_records: usize,
    drained: Drained,
}

impl Filling<'_> {
    /// Begins with what did not fit last time; `false` when nothing more can be taken.
    fn go_on(&mut self, state: &mut State) -> bool {
        if !state.open || state.failed.is_some() || self.max_records == 0 {
            return false;
        }
        let Some(held) = state.pending.take() else { return true };
        let fits = self.fits(held.content_bytes());
        if fits {
            for record in held.iter() {
                let timestamp = (record.timestamp, record.timestamp_type);
                self.batch.push(record.offset, timestamp, record.key, record.value, record.headers.iter());
                self.took(state, record.offset, held.leader_epoch);
            }
        } else {
            state.pending = Some(held);
        }
        fits && self.drained.records < self.max_records
    }

    /// Takes a message over; `false` when it is to be the last.
    fn take(&mut self, state: &mut State, message: &Message) -> bool {
        match message.code() {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR if message.offset() < state.position => true,
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => {
                let headers = message.headers();
                if !self.fits(message.content_bytes(headers)) {
                    let mut held = RecordBatch::default();
                    message.push_into(&mut held, headers);
                    held.leader_epoch = message.leader_epoch();
                    state.pending = Some(held);
                    return false;
                }
                message.push_into(self.batch, headers);
                self.took(state, message.offset(), message.leader_epoch());
                self.drained.records < self.max_records
            }
            Code::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                self.drained.eof = Some(message.offset());
                self.batch.next_offset = self.batch.next_offset.max(message.offset());
                true
            }
            code if ffi::transient(code) => {
                tracing::debug!(partition = %self.at, error = %message.text(), "transient fetch error");
                true
            }
            code => {
                state.failed = Some(classify(self.at, code, message.text()));
                false
            }
        }
    }

    /// Whether so many more bytes of content fit; says what is needed when nothing else is in the way.
    fn fits(&mut self, bytes: usize) -> bool {
        let fits = self.batch.content_bytes() + bytes <= self.limit;
        if !fits && self.batch.is_empty() {
            self.drained.needs = Some(bytes);
        }
        fits
    }

    fn took(&mut self, state: &mut State, offset: i64, leader_epoch: i32) {
        state.position = offset + 1;
        self.batch.next_offset = state.position;
        self.batch.leader_epoch = leader_epoch;
        self.drained.records += 1;
        self.drained.eof = None;
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        self.split.close();
    }
}

/// A partition's queue, split off the client's main queue. Shared by the [`PartitionQueue`] and the consumer that can
/// end it.
pub(super) struct Split {
    at: TopicPartition,
    /// Declared before `client`, which must outlive what it holds.
    state: Mutex<State>,
    queue: QueueHandle,
    client: Arc<Client>,
}

type Wakeup = Box<dyn Fn() + Send + Sync>;

struct State {
    open: bool,
    /// The next offset that may be delivered. A pause and resume by librdkafka (it does both in every rebalance) that
    /// meets a message between pop and bookkeeping delivers it twice; the second time it is below this.
    position: i64,
    /// A record that has been taken from librdkafka and did not fit into the batch.
    pending: Option<RecordBatch>,
    failed: Option<QueueError>,
    /// Boxed twice: librdkafka holds a thin pointer to it.
    wakeup: Option<Box<Wakeup>>,
}

struct QueueHandle(NonNull<rd_kafka_queue_t>);
// SAFETY: librdkafka's queues are locked and reference counted inside.
unsafe impl Send for QueueHandle {}
// SAFETY: as above.
unsafe impl Sync for QueueHandle {}
impl Drop for QueueHandle {
    fn drop(&mut self) {
        // SAFETY: our reference.
        unsafe { rd_kafka_queue_destroy(self.0.as_ptr()) };
    }
}

impl Split {
    /// Splits the partition's queue off. To be done *before* the partition is assigned: a queue forwarded nowhere by
    /// the application stays so (`RD_KAFKA_Q_F_FWD_APP`), and no message ever reaches the main queue.
    pub(super) fn new(client: &Arc<Client>, at: &TopicPartition, position: i64) -> Result<Split, KafkaError> {
        let operation = format!("split off the queue of {at}");
        let topic = c_string(&operation, &at.topic)?;
        // SAFETY: a live consumer and a valid string; the result is a reference of ours.
        let queue = unsafe { rd_kafka_queue_get_partition(client.ptr(), topic.as_ptr(), at.partition) };
        let queue = NonNull::new(queue).ok_or_else(|| KafkaError {
            operation,
            kind: Kind::Other,
            message: "librdkafka has no queue for it".into(),
        })?;
        // SAFETY: a valid queue; null undoes forwarding.
        unsafe { rd_kafka_queue_forward(queue.as_ptr(), ptr::null_mut()) };
        let state = State { open: true, position, pending: None, failed: None, wakeup: None };
        let split =
            Split { at: at.clone(), state: Mutex::new(state), queue: QueueHandle(queue), client: Arc::clone(client) };
        split.purge();
        Ok(split)
    }

    pub(super) fn partition(&self) -> &TopicPartition {
        &self.at
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives everything that is queued to `take`, in order, until it returns `false`; returns whether it never did.
    /// What is left stays queued.
    fn serve(&self, take: &mut dyn FnMut(&Message) -> bool) -> bool {
        struct Serving<'a> {
            take: &'a mut dyn FnMut(&Message) -> bool,
            client: *mut rd_kafka_t,
            panic: Option<Box<dyn std::any::Any + Send>>,
            all: bool,
        }
        unsafe extern "C" fn on_message(message: *mut rd_kafka_message_t, opaque: *mut c_void) {
            // SAFETY: the `Serving` below, which nobody else touches during the call.
            let serving = unsafe { &mut *opaque.cast::<Serving<'_>>() };
            // librdkafka destroys the message when this returns.
            let Some(message) = Message::take(message).map(ManuallyDrop::new) else { return };
            let took = catch_unwind(AssertUnwindSafe(|| (serving.take)(&message)));
            serving.all &= took.unwrap_or_else(|panic| {
                serving.panic = Some(panic);
                false
            });
            if !serving.all {
                // SAFETY: a live client; called from a callback, as it must be.
                unsafe { rd_kafka_yield(serving.client) };
            }
        }
        let mut serving = Serving { take, client: self.client.ptr(), panic: None, all: true };
        let opaque = ptr::from_mut(&mut serving).cast::<c_void>();
        // SAFETY: a valid queue; `serving` outlives the call, which alone calls back.
        unsafe { rd_kafka_consume_callback_queue(self.queue.0.as_ptr(), 0, Some(on_message), opaque) };
        if let Some(panic) = serving.panic {
            resume_unwind(panic);
        }
        serving.all
    }

    fn pop(&self) -> Option<Message> {
        // SAFETY: a valid queue; the message is ours.
        Message::take(unsafe { rd_kafka_consume_queue(self.queue.0.as_ptr(), 0) })
    }

    fn is_empty(&self) -> bool {
        // SAFETY: a valid queue.
        unsafe { rd_kafka_queue_length(self.queue.0.as_ptr()) == 0 }
    }

    /// Drops what is queued. Only for partitions that are not fetched, or it might never end.
    pub(super) fn purge(&self) {
        let mut state = self.state();
        state.pending = None;
        state.failed = None;
        while self.pop().is_some() {}
    }

    /// Ends the queue: it delivers nothing more and calls nobody.
    pub(super) fn close(&self) {
        let mut state = self.state();
        if !state.open {
            return; // the partition may have been placed anew, and the wake-up be the successor's
        }
        state.open = false;
        state.pending = None;
        // SAFETY: a valid queue. Callbacks run under the queue's lock, which this takes: none is running after it.
        unsafe { rd_kafka_queue_cb_event_enable(self.queue.0.as_ptr(), None, ptr::null_mut()) };
        state.wakeup = None;
    }

    /// A message of this partition came to the main queue, so its order is lost: ends the queue with an error.
    pub(super) fn astray(&self, offset: i64) {
        let mut state = self.state();
        state.pending = None;
        state.failed = Some(QueueError::Other(KafkaError {
            operation: format!("fetch {}", self.at),
            kind: Kind::Other,
            message: format!("the message at offset {offset} missed the partition's queue"),
        }));
        if let Some(wake) = &state.wakeup {
            wake();
        }
    }

    fn set_wakeup(&self, wake: Wakeup) {
        unsafe extern "C" fn on_event(_client: *mut rd_kafka_t, opaque: *mut c_void) {
            // SAFETY: points at the boxed closure, which is freed only after the callback was switched off.
            let wake = unsafe { &*opaque.cast::<Wakeup>() };
            if catch_unwind(AssertUnwindSafe(wake)).is_err() {
                tracing::error!("panic in a queue's wake-up");
            }
        }
        let mut state = self.state();
        if !state.open {
            return;
        }
        let wake = Box::new(wake);
        let opaque = ptr::from_ref::<Wakeup>(&wake).cast_mut().cast::<c_void>();
        // SAFETY: a valid queue; `opaque` lives in `state.wakeup` until it is replaced or switched off, and the one it
        // replaces is freed after this call.
        unsafe { rd_kafka_queue_cb_event_enable(self.queue.0.as_ptr(), Some(on_event), opaque) };
        state.wakeup = Some(wake);
    }
}

impl Drop for Split {
    fn drop(&mut self) {
        self.close();
        // Keeps `client` alive up to here: messages and queue are gone before it.
        let _last = &self.client;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_may_be_drained_on_another_thread() {
        fn send<T: Send>() {}
        send::<PartitionQueue>();
    }
}
