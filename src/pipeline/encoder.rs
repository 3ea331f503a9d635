//! Turns batches into Avro blocks, appends them to the open object, and closes it when it is time.
//!
//! The memory a batch was charged for is taken over as far as the blocks need it, so encoding never waits for memory.
//! It waits for a *slot* when two closed objects of the lane are not acknowledged yet: then the batches stay where they
//! are, their credits with them, and the consumer stops. Under memory pressure the blocks go to the spool; where that
//! is full, objects are closed early, which brings memory back as soon as the bucket takes them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::budget::{Budget, Permit, Spill};
use super::lane::{Lane, LaneNews};
use super::message::{Barrier, Records, Sealed};
use super::open_object::OpenObject;
use super::pool::BatchPool;
use super::shared::{MAILBOX, stop_when_closed};
use super::spool::Spool;
use super::uploader::Uploader;
use crate::config::Codec;
use crate::model::avro::{BlockBuilder, Compressor, EncodeError};
use crate::model::batch::Record;
use crate::model::rotation::{Reason, Rotation};

/// Closed objects of a lane that are not acknowledged: one is sent, one waits.
const SLOTS: usize = 2;
/// Under pressure with a full spool an object is closed early, but not for less than this while the lane has others on
/// their way to the bucket.
const WORTH_CLOSING: u64 = 64 * 1024;
/// How long an object that could be neither spilled nor closed is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(1);

thread_local! {
    /// One compression context a thread and codec: they are large, and lanes are many.
    static COMPRESSORS: RefCell<Vec<(Codec, Compressor)>> = const { RefCell::new(Vec::new()) };
}

fn with_compressor<T>(
    codec: Codec,
    f: impl FnOnce(&mut Compressor) -> Result<T, EncodeError>,
) -> Result<T, EncodeError> {
    COMPRESSORS.with_borrow_mut(|all| {
        let at = match all.iter().position(|(c, _)| *c == codec) {
            Some(at) => at,
            None => {
                all.push((codec, Compressor::new(codec)?));
                all.len() - 1
            }
        };
        f(&mut all[at].1)
    })
}

/// What lies in front of the encoder.
enum Input {
    /// Records, and how many of them are encoded already.
    Records(Records, usize),
    /// Close what is open, then pass it on.
    Barrier(Barrier),
}

/// The encoder of one lane.
pub struct Encoder {
    lane: Arc<Lane>,
    uploader: Addr<Uploader>,
    rotation: Rotation,
    spool: Arc<Spool>,
    budget: Arc<Budget>,
    pool: Arc<BatchPool>,
    builder: BlockBuilder,
    open: Option<OpenObject>,
    /// When the open object is to be closed for its age.
    due: Instant,
    /// A timer is running that looks at `due`. Only one: objects may come by the thousand while it runs.
    timer: bool,
    overdue: bool,
    /// Until then memory cannot be had from the open object.
    left_alone: Option<Instant>,
    /// Where the next object's range starts.
    range_start: i64,
    /// Where the consumer stood after what has been encoded.
    position: i64,
    at_eof: bool,
    /// When the last object was closed at the end of the partition, or the lane began.
    closed_at_end: Instant,
    queue: VecDeque<Input>,
    held: Permit,
    /// What [`Budget`] sees of our size.
    shown: Arc<AtomicU64>,
    slots: Arc<Semaphore>,
    waiting_for_slot: bool,
    slot: Option<OwnedSemaphorePermit>,
    failed: bool,
}

impl Encoder {
    /// An encoder whose first object starts at `position`.
    pub fn new(
        lane: &Arc<Lane>,
        position: i64,
        uploader: Addr<Uploader>,
        spool: Arc<Spool>,
        budget: Arc<Budget>,
        pool: Arc<BatchPool>,
    ) -> Self {
        let job = &lane.job;
        Self {
            uploader,
            rotation: Rotation { records: job.flush_size, bytes: job.flush_bytes, interval: job.rotate_interval },
            spool,
            budget,
            pool,
            builder: BlockBuilder::new(&lane.partition.topic, lane.partition.partition),
            open: None,
            due: Instant::now(),
            timer: false,
            overdue: false,
            left_alone: None,
            range_start: position,
            position,
            at_eof: false,
            closed_at_end: Instant::now(),
            queue: VecDeque::new(),
            held: Permit::default(),
            shown: Arc::default(),
            slots: Arc::new(Semaphore::new(SLOTS)),
            waiting_for_slot: false,
            slot: None,
            failed: false,
            lane: lane.clone(),
        }
    }

    /// Works through the queue until it is empty or a slot is missing.
    fn work(&mut self, ctx: &mut Context<Self>) {
        if let Err(why) = self.try_work(ctx) {
            self.failed = true;
            self.queue.clear();
            self.lane.report(LaneNews::Failed { why });
        }
        self.settle();
    }

    fn try_work(&mut self, ctx: &mut Context<Self>) -> Result<(), String> {
        while !self.waiting_for_slot && !self.failed && !self.lane.is_closed() {
            if self.overdue && !self.close(Reason::Age, ctx)? {
                return Ok(());
            }
            match self.queue.pop_front() {
                None => return Ok(()),
                Some(Input::Records(records, done)) => self.encode(records, done, ctx)?,
                Some(Input::Barrier(barrier)) => {
                    if !self.close(Reason::Drain, ctx)? {
                        self.queue.push_front(Input::Barrier(barrier));
                        return Ok(());
                    }
                    self.uploader.do_send(barrier);
                }
            }
        }
        Ok(())
    }

    /// Encodes records from `done` on, to the end of the batch or until the object is full and cannot be closed yet.
    fn encode(&mut self, mut records: Records, mut done: usize, ctx: &mut Context<Self>) -> Result<(), String> {
        if done == 0 {
            self.held.merge(std::mem::take(&mut records.permit));
        }
        while let Some(record) = records.batch.get(done) {
            // In front of the record, so that an object that had to wait for its slot does not grow meanwhile.
            if let Some(reason) = self.full()
                && !self.close(reason, ctx)?
            {
                self.queue.push_front(Input::Records(records, done));
                return Ok(());
            }
            done += 1;
            // A queue that was placed anew may bring again what came before.
            if record.offset >= self.position {
                self.append(&record, &records, ctx)?;
            }
        }
        self.reach_end_of(&records);
        if let Some(reason) = self.full().or_else(|| self.at_the_end())
            && !self.close(reason, ctx)?
        {
            self.queue.push_front(Input::Records(records, done));
            return Ok(());
        }
        self.pool.put(records.batch);
        Ok(())
    }

    fn append(&mut self, record: &Record<'_>, from: &Records, ctx: &mut Context<Self>) -> Result<(), String> {
        self.lane.progress.encode(record.offset);
        #[cfg(debug_assertions)]
        crate::failpoint::encoder(&self.lane.partition, record.offset);
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open_object(ctx),
        };
        open.note_fetch(from.fetched, from.batch.leader_epoch);
        open.count(record);
        if !self.builder.fits(record) {
            self.finish_block()?;
        }
        self.builder.append(record);
        self.position = record.offset + 1;
        self.at_eof = false;
        if self.builder.is_full() { self.finish_block() } else { Ok(()) }
    }

    /// Behind a whole batch we stand where the consumer stood, which may be further than behind its last record.
    fn reach_end_of(&mut self, records: &Records) {
        if records.batch.next_offset >= self.position {
            self.position = records.batch.next_offset;
            self.at_eof = records.at_eof;
        }
    }

    fn full(&self) -> Option<Reason> {
        self.open.as_ref().and_then(|open| self.rotation.full(open.records(), open.encoded_bytes()))
    }

    /// Whether the open object of a compacted topic is closed because the end of the partition is reached.
    fn at_the_end(&self) -> Option<Reason> {
        let asked = !self.lane.run.is_empty() && self.at_eof && self.open.is_some();
        let waits = self.lane.at_every_end.load(Ordering::Relaxed);
        (asked && self.rotation.wants_end(waits, self.closed_at_end.elapsed())).then_some(Reason::End)
    }

    fn open_object(&mut self, ctx: &mut Context<Self>) -> &mut OpenObject {
        self.due = Instant::now() + self.rotation.lifetime(fastrand::f64());
        self.watch_age(ctx);
        self.open.insert(OpenObject::new(self.range_start))
    }

    /// Sees to it that the open object is closed when it is due.
    fn watch_age(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.timer, true) {
            return;
        }
        ctx.run_later(self.due.saturating_duration_since(Instant::now()), |act, ctx| {
            act.timer = false;
            if act.open.is_none() {
                return; // the next one will be watched
            }
            if Instant::now() >= act.due {
                act.overdue = true;
                act.work(ctx);
            } else {
                act.watch_age(ctx);
            }
        });
    }

    fn finish_block(&mut self) -> Result<(), String> {
        let Some(open) = self.open.as_mut().filter(|_| !self.builder.is_empty()) else { return Ok(()) };
        let finish = |c: &mut Compressor| self.builder.finish(c, open.sync());
        let block = with_compressor(self.lane.job.codec, finish).map_err(|e| format!("cannot encode: {e}"))?;
        open.push(block);
        Ok(())
    }

    /// Closes the open object, if there is one, and sends it on; `false` when a slot is missing and it has to wait.
    fn close(&mut self, reason: Reason, ctx: &mut Context<Self>) -> Result<bool, String> {
        if self.open.is_none() {
            self.overdue = false;
            return Ok(true);
        }
        let Some(slot) = self.slot.take().or_else(|| self.slots.clone().try_acquire_owned().ok()) else {
            self.wait_for_slot(ctx);
            return Ok(false);
        };
        self.finish_block()?;
        let Some(open) = self.open.take() else { return Ok(true) };
        let memory = open.memory_bytes();
        let closed = open.close(&self.lane, self.position, self.at_eof);
        let closed = closed.map_err(|e| format!("cannot read back the spooled part of an object: {e}"))?;
        self.range_start = self.position;
        if self.at_eof {
            self.closed_at_end = Instant::now();
        }
        let key = self.lane.path.object(closed.meta.range_start);
        tracing::debug!(job = %self.lane.job.id, key, records = closed.meta.records, bytes = closed.body.len(), ?reason, "object closed");
        self.uploader.do_send(Sealed {
            key,
            body: closed.body,
            meta: closed.meta,
            metadata: closed.metadata,
            fetched: closed.fetched,
            born: closed.born,
            closed: Instant::now(),
            permit: self.held.take(memory),
            spool: closed.spool,
            slot,
            copy: std::sync::Mutex::default(),
        });
        self.builder.release();
        self.overdue = false;
        self.left_alone = None;
        Ok(true)
    }

    fn wait_for_slot(&mut self, ctx: &mut Context<Self>) {
        self.waiting_for_slot = true;
        let slot = self.slots.clone().acquire_owned().into_actor(self);
        ctx.spawn(slot.map(|slot, act, ctx| {
            act.waiting_for_slot = false;
            act.slot = slot.ok();
            act.work(ctx);
        }));
    }

    /// Keeps of the permits what the memory in use needs, and shows how much could be spilled.
    fn settle(&mut self) {
        let blocks = self.open.as_ref().map_or(0, OpenObject::memory_bytes);
        let building = self.builder.memory_bytes() as u64;
        // Of a batch that is half encoded the permit is ours already; any other pays for itself.
        let queued = self.queue.iter().map(|input| match input {
            Input::Records(r, _) => (r.batch.memory_bytes() as u64).saturating_sub(r.permit.bytes()),
            Input::Barrier(_) => 0,
        });
        self.held.shrink_to(blocks + building + queued.sum::<u64>());
        let alone = self.left_alone.is_some_and(|until| Instant::now() < until);
        self.shown.store(if alone { 0 } else { blocks + building }, Ordering::Relaxed);
    }

    fn spill(&mut self, ctx: &mut Context<Self>) -> Result<(), String> {
        self.finish_block()?;
        self.builder.release();
        let Some(open) = self.open.as_mut().filter(|o| o.memory_bytes() > 0) else { return Ok(()) };
        let Err(error) = open.spill(&self.spool, self.lane.number) else { return Ok(()) };
        if self.spool.is_news() {
            crate::metrics::error("state", "disk");
            tracing::warn!(job = %self.lane.job.id, partition = %self.lane.partition, error = %error,
                "cannot spool open objects; they are closed early");
        }
        let nothing_under_way = self.slot.is_none() && self.slots.available_permits() == SLOTS;
        let worth_it = nothing_under_way || open.encoded_bytes() >= WORTH_CLOSING;
        if !(worth_it && !self.waiting_for_slot && self.close(Reason::Pressure, ctx)?) {
            self.left_alone = Some(Instant::now() + LEFT_ALONE);
            ctx.run_later(LEFT_ALONE, |act, _| act.settle());
        }
        Ok(())
    }
}

impl Drop for Encoder {
    /// Reports the encoder's death, as [`LaneGuard`](super::lane::LaneGuard) does for others, but behind what it has
    /// closed already: the records in front of the one that killed it are made durable first.
    fn drop(&mut self) {
        self.budget.forget(self.lane.number);
        if !self.lane.is_closed() {
            let (lane, at) = (self.lane.clone(), self.lane.progress.encoding());
            let done = Box::new(move || lane.report(LaneNews::Died { stage: "encoder", at }));
            self.uploader.do_send(Barrier { read_on: false, done });
        }
    }
}

impl Actor for Encoder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.budget.register(self.lane.number, self.shown.clone(), ctx.address().downgrade().recipient());
        let lane = self.lane.clone();
        stop_when_closed(&lane, self, ctx);
    }
}

impl Handler<Records> for Encoder {
    type Result = ();

    fn handle(&mut self, records: Records, ctx: &mut Self::Context) {
        self.queue.push_back(Input::Records(records, 0));
        self.work(ctx);
    }
}

impl Handler<Barrier> for Encoder {
    type Result = ();

    fn handle(&mut self, barrier: Barrier, ctx: &mut Self::Context) {
        self.queue.push_back(Input::Barrier(barrier));
        self.work(ctx);
    }
}

impl Handler<Spill> for Encoder {
    type Result = ();

    fn handle(&mut self, _: Spill, ctx: &mut Self::Context) {
        if let Err(why) = self.spill(ctx) {
            self.failed = true;
            self.lane.report(LaneNews::Failed { why });
        }
        self.settle();
    }
}
