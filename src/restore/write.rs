//! Decodes the objects of one partition and produces their records, on a thread of its own.
//!
//! **What is checked before a record of an object is produced.** The hash of the whole object; where none is known (in
//! folders, and of the older layout), that every block decompresses (zstandard and snappy carry a checksum of their own),
//! ends in the sync marker and decodes to its last byte, and that there are as many records as the object says. An object
//! that comes in one piece is looked through here, a larger one by the [fetcher](super::fetch), which reads it twice.
//! Also that the object's header belongs under its name. The blocks are checked once more when they are produced;
//! so is the hash of what was read before, where they have no checksums.
//!
//! **What is checked after.** Every delivery report must carry base offset + n, in order ([`Ledger`]): that one check
//! finds a second producer, a double retry, a truncation and a transaction marker.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::failure::Failure;
use super::fingerprint::{Resumed, fingerprint};
use super::object::{Open, Piece, Proof};
use super::stop::Stop;
use crate::kafka::KafkaError;
use crate::model::batch::{Record, RecordBatch};
use crate::model::restore::saved::Start;
use crate::model::restore::window::Verdict;
use crate::model::restore::{PartitionPlan, Take};

/// How long a wait for room in the producer's queue lasts before stops and failures are looked at again.
const LOOK: Duration = Duration::from_millis(50);

/// How long a stop waits for records already handed to the producer.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// Where the records of one partition go.
pub trait Sink: Send {
    /// Hands one record over; `false` when there is no room for it now.
    fn send(&mut self, record: &Record<'_>) -> Result<bool, KafkaError>;

    /// Waits up to `wait` for delivery reports, which go to the ledger that the sink was opened with.
    fn poll(&mut self, wait: Duration);

    /// The same, and sends at once what waits for more records.
    fn flush(&mut self, wait: Duration) {
        self.poll(wait);
    }
}

/// Opens sinks.
pub trait Sinks: Send + Sync {
    /// The sink of one partition of `topic`. Every delivery is reported to `ledger`, in the order of the sends.
    fn open(&self, topic: &str, partition: i32, ledger: Arc<Ledger>) -> Result<Box<dyn Sink>, KafkaError>;
}

/// Deliveries are added to the total of all partitions in steps of this: it is one number for all threads, and taking
/// it from each other for every record costs them more than all else that a delivery does.
const COUNTED_AT_ONCE: u64 = 256;

/// Counts deliveries and compares their offsets with those expected.
#[derive(Debug)]
pub struct Ledger {
    base: i64,
    delivered: AtomicU64,
    total: Arc<AtomicU64>,
    is_wrong: AtomicBool,
    wrong: Mutex<Option<Failure>>,
}

impl Ledger {
    /// The first record must get offset `base`. `total` counts the deliveries of all partitions.
    pub fn new(base: i64, total: Arc<AtomicU64>) -> Self {
        Self { base, delivered: AtomicU64::new(0), total, is_wrong: AtomicBool::new(false), wrong: Mutex::new(None) }
    }

    /// Takes one delivery report: the offset the record got, or why it was not delivered. After the first wrong one
    /// nothing counts any more.
    pub fn report(&self, result: Result<i64, KafkaError>) {
        if self.is_wrong.load(Ordering::Acquire) {
            return;
        }
        let expected = self.base + self.delivered() as i64;
        let failure = match result {
            Ok(offset) if offset == expected => {
                let before = self.delivered.fetch_add(1, Ordering::AcqRel);
                if (before + 1).is_multiple_of(COUNTED_AT_ONCE) {
                    self.total.fetch_add(COUNTED_AT_ONCE, Ordering::Relaxed);
                }
                return;
            }
            Ok(offset) => Failure::Offset { expected, offset },
            Err(error) => Failure::Kafka(error),
        };
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).replace(failure);
        self.is_wrong.store(true, Ordering::Release);
    }

    /// Records delivered where they belong.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Acquire)
    }

    fn check(&self) -> Result<(), Failure> {
        if !self.is_wrong.load(Ordering::Acquire) {
            return Ok(());
        }
        let failure = self.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failure.map_or(Ok(()), Err)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.total.fetch_add(self.delivered() % COUNTED_AT_ONCE, Ordering::Relaxed);
    }
}

/// How a partition ended.
#[derive(Debug)]
pub struct Outcome {
    /// Records taken from the objects, those of earlier runs included.
    pub taken: u64,
    /// Of these, records of objects that the plan could not count.
    pub counted: u64,
    /// Of these, records without a timestamp, where only records of some time were asked for.
    pub untimed: u64,
    /// Records read and left out because of their timestamps.
    pub filtered: u64,
    /// One more than the source offset of the last record taken; `None` before the first, and where not all that was taken
    /// was delivered.
    pub next_source_offset: Option<i64>,
    /// Records delivered where they belong, those of earlier runs included.
    pub delivered: u64,
    /// Why it ended early.
    pub failure: Option<Failure>,
}

impl Outcome {
    /// Of a partition of which nothing was read, with what is on the target of earlier runs.
    pub fn failed(delivered: u64, failure: Failure) -> Self {
        let (next_source_offset, failure) = (None, Some(failure));
        Self { taken: 0, counted: 0, untimed: 0, filtered: 0, next_source_offset, delivered, failure }
    }
}

/// One partition's thread.
pub struct Writer {
    plan: Arc<PartitionPlan>,
    resumed: Resumed,
    /// The first object read.
    first: usize,
    sink: Box<dyn Sink>,
    ledger: Arc<Ledger>,
    stop: Stop,
    taken: u64,
    counted: u64,
    untimed: u64,
    filtered: u64,
    /// One more than the largest source offset taken or left out.
    next: i64,
}

impl Writer {
    /// Nothing read yet; the records in front of `start` are taken already.
    pub fn new(
        plan: Arc<PartitionPlan>,
        (resumed, start): (Resumed, Start),
        sink: Box<dyn Sink>,
        ledger: Arc<Ledger>,
        stop: Stop,
    ) -> Self {
        let (first, taken, next) = (start.object, start.records, start.next);
        Self { plan, resumed, first, sink, ledger, stop, taken, counted: 0, untimed: 0, filtered: 0, next }
    }

    /// Reads, decodes and produces until the end or the first failure, and waits for what is on its way.
    pub fn run(mut self, mut pieces: mpsc::Receiver<Result<Piece, Failure>>) -> Outcome {
        let read = self.read(&mut pieces);
        drop(pieces);
        let drained = self.drain(read.is_err());
        let delivered = self.resumed.done + self.ledger.delivered();
        // Which of what was handed over is missing is known only when the target is looked at again.
        let is_known = self.next != i64::MIN && delivered >= self.taken;
        Outcome {
            taken: self.taken,
            counted: self.counted,
            untimed: self.untimed,
            filtered: self.filtered,
            next_source_offset: is_known.then_some(self.next),
            delivered,
            failure: read.and(drained).err(),
        }
    }

    fn read(&mut self, pieces: &mut mpsc::Receiver<Result<Piece, Failure>>) -> Result<(), Failure> {
        let plan = self.plan.clone();
        let (mut open, mut batch, mut done) = (None::<Open>, RecordBatch::default(), self.first);
        while let Some(piece) = pieces.blocking_recv() {
            let piece = piece?;
            let take = &plan.objects[piece.index];
            let last = piece.last;
            if open.is_none() && last && take.sha256.is_empty() {
                Proof::new(piece.index).feed(take, piece.clone())?;
            }
            let object = open.get_or_insert_with(|| match last {
                true => Open::new(piece.index),
                false => Open::proved(piece.index),
            });
            debug_assert_eq!(object.index, piece.index);
            let fed = object.feed(take, piece);
            fed.and_then(|()| self.produce(take, object, &mut batch))?;
            if last {
                object.end(take)?;
                open = None;
                done += 1;
            }
        }
        // The channel also ends when the other side stops.
        if done < plan.objects.len() {
            return Err(Failure::Stopped);
        }
        let (end, planned_end) = (self.resumed.done, self.taken);
        if end <= planned_end {
            return Ok(());
        }
        let offset = |records: u64| plan.base_offset + records as i64;
        Err(Failure::Foreign { end: offset(end), planned_end: offset(planned_end) })
    }

    /// Produces what can be decoded of what has been fed.
    fn produce(&mut self, take: &Take, object: &mut Open, batch: &mut RecordBatch) -> Result<(), Failure> {
        while object.next(take, batch)? {
            self.ledger.check()?;
            self.sink.poll(Duration::ZERO);
            if self.stop.asked().is_some() {
                return Err(Failure::Stopped);
            }
            for record in batch.iter() {
                if record.offset <= object.last_offset {
                    let why = format!("offset {} follows {}", record.offset, object.last_offset);
                    return Err(object.damaged(take, why));
                }
                object.last_offset = record.offset;
                if take.takes(record.offset, self.next) {
                    let verdict = self.plan.times.judge(record.timestamp, record.timestamp_type);
                    if verdict == Verdict::Outside {
                        self.filtered += 1;
                    } else {
                        self.accept(&record)?;
                        self.taken += 1;
                        object.taken += 1;
                        self.counted += u64::from(take.records.is_none());
                        self.untimed += u64::from(verdict == Verdict::Untimed);
                    }
                    self.next = record.offset + 1;
                }
            }
        }
        Ok(())
    }

    /// Produces a record, unless an earlier run has: of those the last one must be what stands on the target.
    fn accept(&mut self, record: &Record<'_>) -> Result<(), Failure> {
        let done = self.resumed.done;
        if self.taken >= done {
            return self.send(record);
        }
        if self.taken + 1 == done && self.resumed.last != Some(fingerprint(record)) {
            let offset = self.plan.base_offset + self.taken as i64;
            return Err(Failure::Differs { offset, source_offset: record.offset });
        }
        Ok(())
    }

    fn send(&mut self, record: &Record<'_>) -> Result<(), Failure> {
        while !self.sink.send(record)? {
            self.sink.poll(LOOK);
            self.ledger.check()?;
            if self.stop.asked().is_some() {
                return Err(Failure::Stopped);
            }
        }
        Ok(())
    }

    /// Waits until everything sent is delivered. The producer itself gives up on a record after its delivery timeout;
    /// a stop or failure waits less long.
    fn drain(&mut self, hurried: bool) -> Result<(), Failure> {
        let mut hurried_since = hurried.then(Instant::now);
        while self.resumed.done + self.ledger.delivered() < self.taken {
            self.ledger.check()?;
            self.sink.flush(LOOK);
            if hurried_since.is_none() && self.stop.asked().is_some() {
                hurried_since = Some(Instant::now());
            }
            if hurried_since.is_some_and(|since| since.elapsed() > STOP_PATIENCE) {
                return Err(Failure::Stopped);
            }
        }
        Ok(())
    }
}
