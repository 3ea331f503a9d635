//! A lane: one partition's way from Kafka to the bucket, and what its actors share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};

use actix::{Message, Recipient};
use tokio::sync::watch;

use crate::config::Job;
use crate::kafka::TopicPartition;
use crate::metrics::TopicCounters;
use crate::model::chain::GenerationRecord;
use crate::model::key::PartitionPath;

/// What the actors of one lane share.
#[derive(Debug)]
pub struct Lane {
    /// Its number, unique in the process: a rebuilt lane has another one.
    pub number: u64,
    /// The partition.
    pub partition: TopicPartition,
    /// The job.
    pub job: Arc<Job>,
    /// The generation it writes to.
    pub generation: Arc<GenerationRecord>,
    /// Where its objects lie.
    pub path: PartitionPath,
    /// The run of a compacted topic's instance, which its objects name; empty for a normal topic.
    pub run: String,
    /// Objects are closed whenever the end of the partition is seen: somebody waits for that.
    pub at_every_end: Arc<AtomicBool>,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// Counters of its topic.
    pub counters: TopicCounters,
    closed: watch::Sender<bool>,
    events: Recipient<LaneEvent>,
}

impl Lane {
    /// A new lane that reports to `events`.
    pub fn new(
        number: u64,
        partition: TopicPartition,
        job: Arc<Job>,
        generation: Arc<GenerationRecord>,
        progress: Arc<Progress>,
        events: Recipient<LaneEvent>,
    ) -> Arc<Self> {
        let (path, run) = match &job.compacted {
            Some(one) => {
                let path = PartitionPath::of_instance(&partition.topic, &one.instance, partition.partition);
                (path, generation.uuid.clone())
            }
            None => {
                let path = PartitionPath::normal(&partition.topic, generation.generation, partition.partition);
                (path, String::new())
            }
        };
        let at_every_end = Arc::default();
        let counters = TopicCounters::of(&job.id, &partition.topic);
        let closed = watch::Sender::new(false);
        Arc::new(Self {
            number,
            partition,
            job,
            generation,
            path,
            run,
            at_every_end,
            progress,
            counters,
            closed,
            events,
        })
    }

    /// The lane is over: its actors end without a word, its uploads are given up.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Whether it is over.
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Returns when it is over.
    pub async fn until_closed(&self) {
        let mut closed = self.closed.subscribe();
        // The sender lives as long as the lane, which we hold.
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// Tells who supervises the lane.
    pub fn report(&self, what: LaneNews) {
        if !self.is_closed() {
            self.events.do_send(LaneEvent { number: self.number, partition: self.partition.clone(), what });
        }
    }

    /// A guard for one of its actors: unless the lane was closed before, dropping it reports the actor's death.
    pub fn guard(self: &Arc<Self>, stage: &'static str) -> LaneGuard {
        LaneGuard { lane: self.clone(), stage }
    }
}

/// Reports the death of an actor: a panic drops the actor, and the actor drops this.
#[derive(Debug)]
pub struct LaneGuard {
    lane: Arc<Lane>,
    stage: &'static str,
}

impl Drop for LaneGuard {
    fn drop(&mut self) {
        self.lane.report(LaneNews::Died { stage: self.stage, at: self.lane.progress.encoding() });
    }
}

/// News of a lane.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct LaneEvent {
    /// Its number.
    pub number: u64,
    /// Its partition.
    pub partition: TopicPartition,
    /// What happened.
    pub what: LaneNews,
}

/// What can happen to a lane. After anything but [`LaneNews::CaughtUp`], [`LaneNews::Trouble`] and
/// [`LaneNews::Relieved`] it does nothing more and waits to be closed and built anew.
#[derive(Debug)]
pub enum LaneNews {
    /// An actor panicked or stopped unasked.
    Died {
        /// Which.
        stage: &'static str,
        /// The record that was being encoded, or had been last.
        at: i64,
    },
    /// Another writer of the list was first.
    Adopted {
        /// Where its object ends.
        next_offset: i64,
    },
    /// The topic is another one than the generation speaks of.
    Recreated,
    /// The log was truncated below the position: the broker's end offset for our epoch, when it told.
    Truncated {
        /// The end offset.
        at: Option<i64>,
    },
    /// The position is not in the log any more.
    OutOfRange,
    /// The record of its generation is gone: somebody has emptied the store, or it is another one.
    GenerationGone,
    /// The object before ours is gone although it must be there (we slept, or somebody deleted it).
    TailGone,
    /// Something foreign lies under the name we need.
    Foreign {
        /// Which name.
        key: String,
        /// In which way it is foreign.
        why: String,
    },
    /// A newer generation of the topic has begun: nothing may be appended to this one.
    Superseded,
    /// Something else that a new lane may get over.
    Failed {
        /// What.
        why: String,
    },
    /// Uploads fail; the lane goes on trying.
    Trouble {
        /// Why.
        why: String,
    },
    /// Uploads succeed again.
    Relieved,
    /// Everything up to the offset the lane was to stop at is durable.
    CaughtUp,
}

/// How far a partition is. Written by its lane, read by everybody.
#[derive(Debug)]
pub struct Progress {
    read_next: AtomicI64,
    durable_next: AtomicI64,
    records_read: AtomicU64,
    records_durable: AtomicU64,
    newest_timestamp: AtomicI64,
    moved_ms: AtomicI64,
    durable_ms: AtomicI64,
    encoding: AtomicI64,
    generation: String,
    tail_written_ms: AtomicI64,
    tail_epoch: AtomicI32,
    /// Where the end of the partition was seen last; -1 is nowhere.
    end: AtomicI64,
    /// When the log was last known to end where the consumer stood; -1 is never.
    end_ms: AtomicI64,
    /// Where the last durable object ends that was closed at the end of the partition; -1 is nowhere.
    closed_at_end: AtomicI64,
}

/// The end of a list of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListEnd {
    /// When the last object was written, in milliseconds since 1970-01-01 UTC; long ago where it has expired.
    pub written_ms: i64,
    /// Where it ends.
    pub next_offset: i64,
    /// Leader epoch of its last record, -1 when unknown.
    pub leader_epoch: i32,
}

impl Progress {
    /// A lane that begins at `position` with everything below durable.
    pub fn new(position: i64) -> Arc<Self> {
        Self::of_list(position, "", None)
    }

    /// The same of a list of generation `generation`; `tail`: when its last object was written, and the leader epoch of
    /// its last record. There is none where the list has not begun.
    pub fn of_list(position: i64, generation: &str, tail: Option<(i64, i32)>) -> Arc<Self> {
        Arc::new(Self {
            generation: generation.to_owned(),
            tail_written_ms: AtomicI64::new(tail.map_or(-1, |(written_ms, _)| written_ms)),
            tail_epoch: AtomicI32::new(tail.map_or(-1, |(_, epoch)| epoch)),
            read_next: AtomicI64::new(position),
            durable_next: AtomicI64::new(position),
            records_read: AtomicU64::new(0),
            records_durable: AtomicU64::new(0),
            newest_timestamp: AtomicI64::new(-1),
            moved_ms: AtomicI64::new(crate::clock::now_ms()),
            durable_ms: AtomicI64::new(0),
            encoding: AtomicI64::new(position),
            end: AtomicI64::new(-1),
            end_ms: AtomicI64::new(-1),
            closed_at_end: AtomicI64::new(-1),
        })
    }

    /// The consumer stands at `next`, `records` further records read.
    pub fn read(&self, next: i64, records: u64, now_ms: i64) {
        // In this order: who sees the new position must see the records before it.
        self.records_read.fetch_add(records, Ordering::AcqRel);
        self.read_next.fetch_max(next, Ordering::AcqRel);
        self.moved_ms.store(now_ms, Ordering::Relaxed);
    }

    /// An object that ends at `next` with `records` records is durable.
    pub fn durable(&self, next: i64, records: u64, newest_timestamp: Option<i64>) {
        if let Some(newest) = newest_timestamp {
            self.newest_timestamp.fetch_max(newest, Ordering::Relaxed);
        }
        self.durable_next.fetch_max(next, Ordering::AcqRel);
        self.records_durable.fetch_add(records, Ordering::AcqRel);
        self.durable_ms.store(crate::clock::now_ms(), Ordering::Relaxed);
    }

    /// When its last object became durable, in milliseconds since 1970-01-01 UTC; `None` when it has sent none.
    pub fn durable_ms(&self) -> Option<i64> {
        Some(self.durable_ms.load(Ordering::Relaxed)).filter(|ms| *ms > 0)
    }

    /// An object has just been written whose last record is of this leader epoch.
    pub fn stored(&self, now_ms: i64, leader_epoch: i32) {
        self.tail_epoch.store(leader_epoch, Ordering::Release);
        self.tail_written_ms.store(now_ms, Ordering::Release);
    }

    /// The uuid of the generation that the lane writes to.
    pub fn generation(&self) -> &str {
        &self.generation
    }

    /// The end of the list; `None` while it has no object.
    pub fn tail(&self) -> Option<ListEnd> {
        let written_ms = self.tail_written_ms.load(Ordering::Acquire);
        let leader_epoch = self.tail_epoch.load(Ordering::Acquire);
        (written_ms >= 0).then(|| ListEnd { written_ms, next_offset: self.durable_next(), leader_epoch })
    }

    /// The consumer saw the end of the partition at `offset`, where it stands.
    pub fn saw_end(&self, offset: i64, now_ms: i64) {
        self.end.fetch_max(offset, Ordering::AcqRel);
        self.end_ms.fetch_max(now_ms, Ordering::AcqRel);
    }

    /// The partition ended at `end` at `at_ms`. Says something only where the consumer has read that far.
    pub fn observe_end(&self, end: i64, at_ms: i64) {
        // Without an end seen by the consumer itself nothing is known of what lies in front of it.
        if self.end.load(Ordering::Acquire) >= 0 && self.read_next() >= end {
            self.end_ms.fetch_max(at_ms, Ordering::AcqRel);
        }
    }

    /// A durable object that was closed at the end of the partition ends at `next`.
    pub fn closed_at_end(&self, next: i64) {
        self.closed_at_end.fetch_max(next, Ordering::AcqRel);
    }

    /// The largest offset P for which the end of the partition was seen at P, everything below P is durable, and no
    /// object holds records on both sides of P.
    pub fn restorable(&self) -> Option<i64> {
        let end = self.end.load(Ordering::Acquire);
        let idle = end >= 0 && self.covered() == end;
        let closed = self.closed_at_end.load(Ordering::Acquire);
        Some(if idle { end.max(closed) } else { closed }).filter(|offset| *offset >= 0)
    }

    /// When the log was last known to end where the consumer stood, in milliseconds since 1970-01-01 UTC.
    pub fn seen_end_ms(&self) -> Option<i64> {
        Some(self.end_ms.load(Ordering::Acquire)).filter(|ms| *ms >= 0)
    }

    /// The encoder turns to the record at `offset`: should it die, that is where.
    pub fn encode(&self, offset: i64) {
        self.encoding.store(offset, Ordering::Relaxed);
    }

    /// The record that was encoded last.
    pub fn encoding(&self) -> i64 {
        self.encoding.load(Ordering::Relaxed)
    }

    /// Where the consumer stands.
    pub fn read_next(&self) -> i64 {
        self.read_next.load(Ordering::Acquire)
    }

    /// Where the last durable object ends.
    pub fn durable_next(&self) -> i64 {
        self.durable_next.load(Ordering::Acquire)
    }

    /// Everything below this offset is durable. Behind the last record that is the consumer's own position: what it
    /// passed over (transaction markers, compacted records) will never be in an object.
    pub fn covered(&self) -> i64 {
        let read_next = self.read_next();
        let read = self.records_read.load(Ordering::Acquire);
        if self.records_durable.load(Ordering::Acquire) == read { read_next } else { self.durable_next() }
    }

    /// The largest timestamp of a durable record in milliseconds.
    pub fn newest_timestamp(&self) -> Option<i64> {
        Some(self.newest_timestamp.load(Ordering::Relaxed)).filter(|t| *t >= 0)
    }

    /// When the consumer last moved, or began, in milliseconds since 1970-01-01 UTC.
    pub fn moved_ms(&self) -> i64 {
        self.moved_ms.load(Ordering::Relaxed)
    }
}
