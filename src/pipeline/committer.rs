//! Writes down what is durable: sled first, flushed, then the consumer group. One for the process, on its own thread,
//! because sled blocks.
//!
//! Both are hints: the bucket is the truth. So a commit that fails is said and counted, and nothing waits for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::lane::Lane;
use super::message::{Barrier, Durable};
use crate::kafka::TopicPartition;
use crate::metrics;
use crate::model::watermark::Kept;
use crate::state::{self, Committed, State};

/// Commits are gathered for so long: one flush serves many partitions.
const GATHER: Duration = Duration::from_millis(50);

/// Commits the offsets of one lane's consumer group.
pub trait GroupCommit: Send + Sync {
    /// Sends the commits: partition, next offset, metadata. Does not wait for the answer.
    fn commit(&self, offsets: &[(TopicPartition, i64, String)]);
}

/// Tells the committer where a lane's group commits go.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Register {
    /// The lane's number.
    pub lane: u64,
    /// The store's name in keys of local state.
    pub store_url: Arc<str>,
    /// Its group member.
    pub group: Arc<dyn GroupCommit>,
}

/// Write down what is protected of a job, for the next process. A [`Barrier`] behind it tells when that is durable, or has
/// failed: many jobs share one write.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Remember {
    /// The job.
    pub job: String,
    /// Per topic and partition; what is missing is forgotten.
    pub topics: BTreeMap<String, BTreeMap<i32, Kept>>,
}

/// The lane is over.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Forget(pub u64);

/// Where a lane's commits go: the store's name in keys of local state, and the group member.
type Target = (Arc<str>, Arc<dyn GroupCommit>);

/// The committer.
pub struct Committer {
    state: Option<State>,
    lanes: HashMap<u64, Target>,
    /// With where it goes: the lane may be forgotten before it is written.
    pending: HashMap<u64, (Durable, Target)>,
    closed: Vec<(Arc<Lane>, Instant)>,
    barriers: Vec<Barrier>,
    /// What is protected was written and is not durable yet.
    remembered: bool,
    gathering: bool,
}

impl Committer {
    /// A committer into `state`; none for the demo and for tests without local state.
    pub fn new(state: Option<State>) -> Self {
        Self {
            state,
            lanes: HashMap::new(),
            pending: HashMap::new(),
            closed: Vec::new(),
            barriers: Vec::new(),
            remembered: false,
            gathering: false,
        }
    }

    fn gather(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.gathering, true) {
            ctx.run_later(GATHER, |act, _| act.flush());
        }
    }

    fn flush(&mut self) {
        self.gathering = false;
        #[cfg(debug_assertions)]
        if !self.pending.is_empty() {
            crate::failpoint::committer();
        }
        let pending = std::mem::take(&mut self.pending);
        let mut entries = Vec::with_capacity(pending.len());
        let mut by_group: HashMap<*const (), (Arc<dyn GroupCommit>, Vec<_>)> = HashMap::new();
        for (durable, (store_url, group)) in pending.into_values() {
            let partition = &durable.lane.partition;
            let generation = uuid::Uuid::parse_str(&durable.lane.generation.uuid).unwrap_or_default();
            entries.push((
                state::key(&store_url, &partition.topic, partition.partition),
                Committed {
                    tail_start: durable.tail_start,
                    next_offset: durable.next_offset,
                    leader_epoch: durable.leader_epoch,
                    generation,
                },
            ));
            let commit = (partition.clone(), durable.next_offset, durable.lane.generation.uuid.clone());
            let id = Arc::as_ptr(&group).cast::<()>();
            by_group.entry(id).or_insert_with(|| (group, Vec::new())).1.push(commit);
        }
        let remembered = std::mem::take(&mut self.remembered);
        let written = self.state.as_ref().map(|state| match (entries.is_empty(), remembered) {
            (false, _) => state.commit(&entries),
            (true, true) => state.flush(),
            (true, false) => Ok(()),
        });
        if let Some(Err(error)) = written {
            not_written(&error);
        }
        for (group, offsets) in by_group.into_values() {
            group.commit(&offsets);
        }
        for (lane, closed) in self.closed.drain(..) {
            metrics::segment_committed(&lane.job.id, closed.elapsed().as_secs_f64());
        }
        for barrier in self.barriers.drain(..) {
            (barrier.done)();
        }
    }
}

fn not_written(error: &str) {
    metrics::error("state", if error.contains("No space") { "disk" } else { "other" });
    tracing::warn!(error, "local state cannot be written; the next start asks the bucket instead");
}

impl Actor for Committer {
    type Context = Context<Self>;

    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        // Also called while a panic unwinds, where a second one would end the process without a word.
        if !std::thread::panicking() {
            self.flush();
        }
        Running::Stop
    }
}

/// Answered while the committer turns.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Ping;

impl Handler<Ping> for Committer {
    type Result = ();

    fn handle(&mut self, _: Ping, _: &mut Self::Context) {}
}

impl Handler<Register> for Committer {
    type Result = ();

    fn handle(&mut self, msg: Register, _: &mut Self::Context) {
        self.lanes.insert(msg.lane, (msg.store_url, msg.group));
    }
}

impl Handler<Forget> for Committer {
    type Result = ();

    fn handle(&mut self, Forget(lane): Forget, _: &mut Self::Context) {
        self.lanes.remove(&lane);
    }
}

impl Handler<Remember> for Committer {
    type Result = ();

    fn handle(&mut self, Remember { job, topics }: Remember, ctx: &mut Self::Context) {
        if let Some(Err(error)) = self.state.as_ref().map(|state| state.keep_protected(&job, &topics)) {
            not_written(&error);
        }
        self.remembered = true;
        self.gather(ctx);
    }
}

impl Handler<Durable> for Committer {
    type Result = ();

    fn handle(&mut self, durable: Durable, ctx: &mut Self::Context) {
        self.closed.push((durable.lane.clone(), durable.closed));
        if let Some(target) = self.lanes.get(&durable.lane.number).cloned() {
            self.pending.insert(durable.lane.number, (durable, target));
        }
        self.gather(ctx);
    }
}

impl Handler<Barrier> for Committer {
    type Result = ();

    fn handle(&mut self, barrier: Barrier, ctx: &mut Self::Context) {
        self.barriers.push(barrier);
        self.gather(ctx);
    }
}
