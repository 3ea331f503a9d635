//! From Kafka to the bucket: one lane per partition, each with three actors.
//!
//! ```text
//! Kafka ──> consumer ──> encoder ──> uploader ──> committer
//!          (actor)      (actor)      (actor)      (actor, one for the process)
//! ```
//!
//! Batches carry the permit for their memory, one of the lane's few credits, and travel in the lane's own order. Orders
//! to make everything durable ([`message::Barrier`]) travel the same way. [`spawn_lane`] shows the whole wiring, from
//! right to left. [`job`] owns the lanes of a job: it resolves where they begin ([`resolve`]), builds them, and builds
//! them anew when they die.
//!
//! Crash consistency: whatever is in a lane when the process dies is read from Kafka again. Nothing is committed before
//! the bucket has acknowledged it, and what the bucket holds is found there at the next start; so a crash between any
//! two steps costs a repeated read and nothing else. What may be left behind: spool files (deleted at start) and an
//! acknowledged object that nobody committed (found as the tail).

pub mod budget;
pub mod clusters;
pub mod committer;
pub mod consumer;
pub mod encoder;
pub mod expiry;
pub mod generation;
pub mod groups;
pub mod heads;
pub mod job;
mod kept;
pub mod lane;
pub mod message;
pub mod open_object;
pub mod pool;
pub mod rate;
pub mod resolve;
pub mod run;
pub mod shown;
pub mod spool;
pub mod status;
pub mod tail;
pub mod topics;
pub mod uploader;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::prelude::*;
use actix_rt::ArbiterHandle;

use self::budget::JobBudget;
use self::committer::Committer;
use self::consumer::Consumer;
use self::encoder::Encoder;
use self::generation::Forks;
use self::lane::Lane;
use self::pool::BatchPool;
use self::rate::RateLimit;
use self::spool::Spool;
use self::topics::TopicWatch;
use self::uploader::Uploader;
use crate::kafka::queue::PartitionQueue;
use crate::storage::Store;

/// Messages an actor's mailbox takes. Credits and slots keep every lane far below; it is a bound, not the mechanism.
pub const MAILBOX: usize = 64;

/// Threads that actors run on. A lane stays on the threads it was given, which keeps its messages in order.
pub struct Threads {
    control: Arbiter,
    read: Vec<Arbiter>,
    encode: Vec<Arbiter>,
    upload: Arbiter,
    commit: Arbiter,
}

impl Threads {
    /// As many encoding threads as there are cores, half as many for reading, one that only waits for the bucket.
    pub fn start() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let arbiters = |n: usize| (0..n).map(|_| Arbiter::new()).collect();
        Self {
            control: Arbiter::new(),
            read: arbiters(cores.div_ceil(2)),
            encode: arbiters(cores),
            upload: Arbiter::new(),
            commit: Arbiter::new(),
        }
    }

    /// Where jobs and other actors without much work run.
    pub fn control(&self) -> ArbiterHandle {
        self.control.handle()
    }

    /// Where the committer runs, and nothing else: it blocks.
    pub fn commit(&self) -> ArbiterHandle {
        self.commit.handle()
    }

    /// Ends all threads.
    pub fn stop(&self) {
        self.read.iter().chain(&self.encode).chain([&self.upload, &self.commit, &self.control]).for_each(|arbiter| {
            arbiter.stop();
        });
    }
}

/// What the lanes of one job share.
#[derive(Clone)]
pub struct Shared {
    /// The bucket.
    pub store: Arc<dyn Store>,
    /// Memory.
    pub budget: JobBudget,
    /// Used batches.
    pub pool: Arc<BatchPool>,
    /// The job's limit on reading.
    pub rate: Arc<RateLimit>,
    /// Where open objects go under pressure.
    pub spool: Arc<Spool>,
    /// Ids of the job's topics.
    pub topics: Arc<TopicWatch>,
    /// Generations that others began.
    pub forks: Arc<Forks>,
    /// Writes down what is durable.
    pub committer: Addr<Committer>,
    /// Where actors run.
    pub threads: Arc<Threads>,
}

/// Where a lane begins.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// The first offset it fetches, and where its first object's range starts.
    pub position: i64,
    /// Where the range of the object before it starts.
    pub tail_start: Option<i64>,
    /// Where it stops and reports; `None` is never.
    pub stop_at: Option<i64>,
}

/// A number for a new lane, unique in the process.
pub fn lane_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Builds a lane, from right to left, and returns its near end.
pub fn spawn_lane(shared: &Shared, lane: &Arc<Lane>, queue: PartitionQueue, begin: &Beginning) -> Addr<Consumer> {
    let encoder = spawn_far_end(shared, lane, begin);
    let read = &shared.threads.read[lane.number as usize % shared.threads.read.len()];
    let (lane, shared, begin) = (lane.clone(), shared.clone(), begin.clone());
    Consumer::start_in_arbiter(&read.handle(), move |_| {
        Consumer::new(&lane, queue, encoder, &shared, begin.position, begin.stop_at)
    })
}

/// All of a lane but its consumer.
fn spawn_far_end(shared: &Shared, lane: &Arc<Lane>, begin: &Beginning) -> Addr<Encoder> {
    let threads = &shared.threads;
    let encode = &threads.encode[lane.number as usize % threads.encode.len()];
    let uploader = {
        let (lane, shared, tail) = (lane.clone(), shared.clone(), begin.tail_start);
        Uploader::start_in_arbiter(&threads.upload.handle(), move |_| Uploader::new(&lane, tail, &shared))
    };
    let (lane, shared, position) = (lane.clone(), shared.clone(), begin.position);
    Encoder::start_in_arbiter(&encode.handle(), move |_| {
        let budget = shared.budget.whole().clone();
        Encoder::new(&lane, position, uploader, shared.spool, budget, shared.pool)
    })
}

/// Ends an actor of a lane when the lane is closed.
fn stop_when_closed<A: Actor<Context = Context<A>>>(lane: &Arc<Lane>, actor: &A, ctx: &mut Context<A>) {
    let lane = lane.clone();
    ctx.spawn(async move { lane.until_closed().await }.into_actor(actor).map(|(), _, ctx| ctx.stop()));
}
