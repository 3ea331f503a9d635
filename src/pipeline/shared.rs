//! What the lanes of a job share, and the threads that their actors run on.

use std::sync::Arc;

use actix::prelude::*;
use actix_rt::ArbiterHandle;

use super::budget::JobBudget;
use super::committer::Committer;
use super::generations::Forks;
use super::lane::Lane;
use super::pool::BatchPool;
use super::rate::RateLimit;
use super::spool::Spool;
use super::topics::TopicWatch;
use crate::storage::Store;

/// Messages an actor's mailbox takes. Credits and slots keep every lane far below; it is a bound, not the mechanism.
pub const MAILBOX: usize = 64;

/// Threads that actors run on. A lane stays on the threads it was given, which keeps its messages in order.
pub struct Threads {
    pub(super) control: Arbiter,
    pub(super) read: Vec<Arbiter>,
    pub(super) encode: Vec<Arbiter>,
    pub(super) upload: Arbiter,
    pub(super) commit: Arbiter,
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

/// Ends an actor of a lane when the lane is closed.
pub(super) fn stop_when_closed<A: Actor<Context = Context<A>>>(lane: &Arc<Lane>, actor: &A, ctx: &mut Context<A>) {
    let lane = lane.clone();
    ctx.spawn(async move { lane.until_closed().await }.into_actor(actor).map(|(), _, ctx| ctx.stop()));
}
