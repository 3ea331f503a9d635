//! Drains a partition's queue into batches while there is memory, and stops when there is none: librdkafka's own queue
//! then fills up and the fetcher pauses, for this partition alone.
//!
//! The queue says when it is no longer empty; a slow tick is the safety net. Memory is taken before a byte is copied,
//! and only when there is something to read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::Semaphore;

use super::budget::{JobBudget, Permit};
use super::encoder::Encoder;
use super::lane::{Lane, LaneGuard, LaneNews};
use super::message::{Barrier, Records, Requeue, Wake};
use super::pool::{BATCH_BYTES, BatchPool, INDEX_BYTES};
use super::rate::RateLimit;
use super::shared::{MAILBOX, Shared, stop_when_closed};
use crate::clock::{now_ms, with_others};
use crate::kafka::queue::PartitionQueue;
use crate::kafka::queue_error::QueueError;

/// Records in one batch: what the index has room for.
const BATCH_RECORDS: usize = INDEX_BYTES / 64;
/// Batches that a lane may have under way to the encoder.
const CREDITS: usize = 4;
/// The safety net for wake-ups that get lost; none is known to. Thousands of quiet lanes are to cost next to nothing.
const TICK: Duration = Duration::from_secs(5);

/// The consumer of one lane.
pub struct Consumer {
    lane: Arc<Lane>,
    queue: PartitionQueue,
    encoder: Addr<Encoder>,
    budget: JobBudget,
    pool: Arc<BatchPool>,
    rate: Arc<RateLimit>,
    credits: Arc<Semaphore>,
    woken: Arc<AtomicBool>,
    /// Something asynchronous is under way that will call `turn` again.
    waiting: bool,
    /// Content bytes that the next record needs, when it is larger than a batch.
    needs: usize,
    /// Stop reading here and make everything durable; `None` is for ever.
    stop_at: Option<i64>,
    position: i64,
    stopped: bool,
    _guard: LaneGuard,
}

impl Consumer {
    /// A consumer of `queue` that stands at `position`.
    pub fn new(
        lane: &Arc<Lane>,
        queue: PartitionQueue,
        encoder: Addr<Encoder>,
        shared: &Shared,
        position: i64,
        stop_at: Option<i64>,
    ) -> Self {
        Self {
            lane: lane.clone(),
            queue,
            encoder,
            budget: shared.budget.clone(),
            pool: shared.pool.clone(),
            rate: shared.rate.clone(),
            credits: Arc::new(Semaphore::new(CREDITS)),
            woken: Arc::new(AtomicBool::new(true)),
            waiting: false,
            needs: 0,
            stop_at,
            position,
            stopped: false,
            _guard: lane.guard("consumer"),
        }
    }

    /// Reads what there is, as far as memory and credits go.
    fn turn(&mut self, ctx: &mut Context<Self>) {
        if self.waiting || self.stopped || self.lane.is_closed() {
            return;
        }
        if self.caught_up() {
            return self.finish();
        }
        if !self.woken.swap(false, Ordering::AcqRel) {
            return;
        }
        // Memory is for partitions that have something; the tick comes round to all of them.
        if self.queue.is_empty() {
            return;
        }
        if let Some(wait) = self.rate.wait() {
            return self.come_back(ctx, tokio::time::sleep(wait));
        }
        let Ok(credit) = self.credits.clone().try_acquire_owned() else {
            let credits = self.credits.clone();
            return self.come_back(ctx, async move { drop(credits.acquire().await) });
        };
        let memory = (self.needs.max(BATCH_BYTES) + INDEX_BYTES) as u64;
        if let Some(permit) = self.budget.try_acquire(memory) {
            return self.drain(permit, credit, ctx);
        }
        self.waiting = true;
        let budget = self.budget.clone();
        let acquire = async move { (budget.acquire(memory).await, credit) };
        ctx.spawn(acquire.into_actor(self).map(|(permit, credit), act, ctx| {
            act.waiting = false;
            act.drain(permit, credit, ctx);
        }));
    }

    /// Tries again when `event` has happened.
    fn come_back(&mut self, ctx: &mut Context<Self>, event: impl Future<Output = ()> + 'static) {
        self.waiting = true;
        self.woken.store(true, Ordering::Release);
        ctx.spawn(event.into_actor(self).map(|(), act, ctx| {
            act.waiting = false;
            act.turn(ctx);
        }));
    }

    fn drain(&mut self, permit: Permit, credit: tokio::sync::OwnedSemaphorePermit, ctx: &mut Context<Self>) {
        if self.lane.is_closed() || self.stopped {
            return;
        }
        let limit = self.needs.max(BATCH_BYTES);
        let mut batch = self.pool.take(limit);
        let fetched = Instant::now();
        let drained = self.queue.drain(&mut batch, limit, BATCH_RECORDS);
        self.needs = drained.needs.unwrap_or(0);
        if !drained.exhausted || drained.needs.is_some() {
            self.woken.store(true, Ordering::Release);
        }
        let moved = !batch.is_empty() || drained.eof.is_some_and(|eof| eof > self.position);
        if moved || drained.eof.is_some() {
            batch.next_offset = batch.next_offset.max(self.position).max(drained.eof.unwrap_or(-1));
            let again = batch.iter().take_while(|record| record.offset < self.position).count();
            self.position = batch.next_offset;
            self.lane.progress.read(self.position, (batch.len() - again) as u64, now_ms());
            let bytes = batch.content_bytes() as u64;
            self.lane.counters.read_bytes.inc_by(bytes);
            self.rate.spend(bytes);
            let at_eof = drained.eof.is_some();
            if let Some(end) = drained.eof.filter(|end| *end == self.position) {
                self.lane.progress.saw_end(end, now_ms());
            }
            self.encoder.do_send(Records { batch, at_eof, fetched, permit, credit });
        } else {
            self.pool.put(batch);
        }
        if let Some(error) = drained.error {
            return self.fail(error);
        }
        if self.woken.load(Ordering::Acquire) || self.caught_up() {
            // Through the mailbox, so that other lanes on this thread have their turn.
            ctx.address().do_send(Wake);
        }
    }

    fn fail(&mut self, error: QueueError) {
        let news = match error {
            QueueError::Truncated { end_offset, .. } => LaneNews::Truncated { at: end_offset },
            QueueError::OutOfRange { .. } => LaneNews::OutOfRange,
            other => LaneNews::Failed { why: other.to_string() },
        };
        self.stopped = true;
        // What was read is made durable first: it may be what Kafka does not have any more.
        let lane = self.lane.clone();
        self.encoder.do_send(Barrier { read_on: false, done: Box::new(move || lane.report(news)) });
    }

    /// Has the queue say when it is no longer empty.
    fn listen(&mut self, ctx: &mut Context<Self>) {
        let (woken, addr) = (self.woken.clone(), ctx.address().downgrade());
        self.queue.set_wakeup(Box::new(move || {
            // Coalesced: one message under way is enough.
            if !woken.swap(true, Ordering::AcqRel)
                && let Some(addr) = addr.upgrade()
            {
                addr.do_send(Wake);
            }
        }));
    }

    fn caught_up(&self) -> bool {
        self.stop_at.is_some_and(|end| self.position >= end)
    }

    /// The offset to stop at is reached: what was read is made durable, and that is reported.
    fn finish(&mut self) {
        self.stopped = true;
        let lane = self.lane.clone();
        self.encoder.do_send(Barrier { read_on: false, done: Box::new(move || lane.report(LaneNews::CaughtUp)) });
    }
}

impl Actor for Consumer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.listen(ctx);
        ctx.run_interval_at(with_others(TICK), TICK, |act, ctx| {
            act.woken.store(true, Ordering::Release);
            act.turn(ctx);
        });
        let lane = self.lane.clone();
        stop_when_closed(&lane, self, ctx);
        self.turn(ctx);
    }
}

impl Handler<Wake> for Consumer {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Self::Context) {
        self.turn(ctx);
    }
}

impl Handler<Barrier> for Consumer {
    type Result = ();

    fn handle(&mut self, barrier: Barrier, _: &mut Self::Context) {
        self.stopped |= !barrier.read_on;
        self.encoder.do_send(barrier);
    }
}

impl Handler<Requeue> for Consumer {
    type Result = ();

    fn handle(&mut self, Requeue(queue): Requeue, ctx: &mut Self::Context) {
        self.queue = queue;
        self.needs = 0;
        self.listen(ctx);
        self.woken.store(true, Ordering::Release);
        self.turn(ctx);
    }
}
