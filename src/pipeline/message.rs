//! What actors say to each other. Every message of a lane carries its number: those of a lane that is gone are dropped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Message;
use tokio::sync::OwnedSemaphorePermit;

use super::budget::Permit;
use super::lane::Lane;
use crate::kafka::queue::PartitionQueue;
use crate::model::batch::RecordBatch;
use crate::model::object::{Metadata, ObjectMeta};
use crate::storage::Body;

/// There may be something to do: records arrived, or time has passed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Wake;

/// Job to consumer: the partition was placed anew where the consumer stood, or a little before that; go on with this
/// queue.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Requeue(pub PartitionQueue);

/// Consumer to encoder: records in the order of their offsets, each offset once.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Records {
    /// The records, and where the consumer stands after them.
    pub batch: RecordBatch,
    /// The partition's end was seen directly behind the batch.
    pub at_eof: bool,
    /// When the fetch that brought them was over at the latest.
    pub fetched: Instant,
    /// The memory of the batch.
    pub permit: Permit,
    /// One of the few batches that a lane may have under way.
    pub credit: OwnedSemaphorePermit,
}

/// Encoder to uploader: a closed object.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Sealed {
    /// Its name.
    pub key: String,
    /// Its bytes.
    pub body: Body,
    /// Its facts.
    pub meta: ObjectMeta,
    /// The same, as stored.
    pub metadata: Metadata,
    /// When the newest record in it had been fetched.
    pub fetched: Instant,
    /// When its first record was read, by a clock that goes on while the machine sleeps.
    pub born: Duration,
    /// When it was closed.
    pub closed: Instant,
    /// The memory of its bytes.
    pub permit: Permit,
    /// The spool file that `body` reads from.
    pub spool: Option<Arc<super::spool::SpoolFile>>,
    /// One of the two closed objects that a lane may have.
    pub slot: OwnedSemaphorePermit,
    /// Whether it is on disk, too.
    pub copy: std::sync::Mutex<Copy>,
}

/// The copy on disk of a closed object that the bucket does not take.
#[derive(Debug, Default)]
pub enum Copy {
    /// There is none.
    #[default]
    None,
    /// There is one.
    Kept(super::kept::KeptObject),
    /// The bucket has the object.
    Needless,
}

/// Uploader to committer: everything below `meta.next_offset` is durable.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Durable {
    /// The lane.
    pub lane: Arc<Lane>,
    /// Where the object's range starts.
    pub tail_start: i64,
    /// Where it ends.
    pub next_offset: i64,
    /// Leader epoch of its last record.
    pub leader_epoch: i32,
    /// When it was closed.
    pub closed: Instant,
}

/// Travels through a lane behind everything that was read before it; each stage makes durable what it holds and passes
/// it on. What it carries is run behind the last stage, and dropped when the lane ends before.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Barrier {
    /// Whether the consumer reads on behind it.
    pub read_on: bool,
    /// Run when everything before it is durable and committed.
    pub done: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for Barrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Barrier").field("read_on", &self.read_on).finish_non_exhaustive()
    }
}
