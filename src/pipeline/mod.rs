//! From Kafka to the bucket: one lane per partition, each with three actors.
//!
//! ```text
//! Kafka ──> consumer ──> encoder ──> uploader ──> committer
//!          (actor)      (actor)      (actor)      (actor, one for the process)
//! ```
//!
//! Batches carry the permit for their memory, one of the lane's few credits, and travel in the lane's own order. Orders
//! to make everything durable ([`message::Barrier`]) travel the same way. [`spawn_lane`] shows the whole wiring, from
//! right to left. [`job`] owns the lanes of a job: it resolves where they begin ([`resolver`]), builds them, and builds
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
mod generation;
pub mod generations;
pub mod groups;
pub mod heads;
pub mod job;
mod kept;
pub mod lane;
pub mod message;
pub mod open_object;
pub mod pool;
pub mod rate;
mod resolve;
pub mod resolver;
mod run;
mod shared;
pub mod shown;
pub mod spool;
pub mod status;
mod stock;
pub mod tail;
pub mod topics;
pub mod uploader;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::prelude::*;

use self::consumer::Consumer;
use self::encoder::Encoder;
use self::lane::Lane;
pub use self::run::recreated;
pub use self::shared::{MAILBOX, Shared, Threads};
use self::uploader::Uploader;
use crate::kafka::queue::PartitionQueue;

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
