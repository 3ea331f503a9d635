//! Brings the bytes of a partition's objects, in order, a bounded piece at a time.
//!
//! One piece is asked for when there is room for it: while one is decoded, the next one is on its way or waits. So it is
//! two pieces for each partition at the most, whatever the objects are like.
//!
//! A damaged object is to be named before a record of it is produced. An object of one piece is looked through when it is
//! there; a larger one is read to its end first, with nothing of it kept, and then once more to be produced: holding it
//! would need as much memory as objects are large. While one object is produced the next one is looked through, which
//! adds a piece.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::failure::Failure;
use super::object::{Piece, Proof};
use super::progress::Progress;
use super::stop::Stop;
use crate::model::restore::{PartitionPlan, Take};
use crate::storage::retry::retry;
use crate::storage::{Kind, Store, StoreError};

/// Bytes of a piece, but the last of an object.
pub const PIECE_BYTES: u64 = 2 * 1024 * 1024;

/// How long a store may be out of reach before a partition gives up.
const PATIENCE: Duration = Duration::from_secs(600);

/// Where objects are read, how fast, and who is told.
pub struct Source {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Bytes per second.
    pub throttle: Arc<Throttle>,
    /// How far the restore is.
    pub progress: Arc<Progress>,
}

/// Sends the bytes of the objects of `plan` in order, from number `first` on, until there are no more, one is damaged or
/// cannot be read, a stop is asked for or nobody wants them any longer.
pub async fn fetch(
    source: Source,
    plan: Arc<PartitionPlan>,
    first: usize,
    pieces: mpsc::Sender<Result<Piece, Failure>>,
    stop: Stop,
) {
    let all = async {
        let mut proved = source.prove(&plan, first).await;
        for index in first..plan.objects.len() {
            if let Err(failure) = proved {
                _ = pieces.send(Err(failure)).await;
                return;
            }
            // Where nobody wants the one, nobody wants the other.
            let next = async { Ok(source.prove(&plan, index + 1).await) };
            match tokio::try_join!(source.send(index, &plan.objects[index], &pieces), next) {
                Ok(((), next)) => proved = next,
                Err(Ended) => return,
            }
        }
    };
    tokio::select! {
        () = all => {}
        () = stop.wait() => {}
    }
}

/// Nobody wants more pieces, or there are none.
struct Ended;

impl Source {
    /// Sends one object.
    async fn send(
        &self,
        index: usize,
        take: &Take,
        pieces: &mpsc::Sender<Result<Piece, Failure>>,
    ) -> Result<(), Ended> {
        let mut object = Pieces::of(index, take);
        loop {
            let room = pieces.reserve().await.map_err(|_| Ended)?;
            let Some(piece) = object.next(&self.store, &self.throttle).await else { return Ok(()) };
            let failed = piece.is_err();
            self.progress.read(piece.as_ref().map_or(0, |piece| piece.bytes.len() as u64));
            room.send(piece.map_err(Failure::from));
            if failed {
                return Err(Ended);
            }
        }
    }

    /// Reads an object of more than one piece to its end, to see whether it is sound. One of one piece is looked through
    /// by who receives it; there is nothing to see behind the last one.
    async fn prove(&self, plan: &Arc<PartitionPlan>, index: usize) -> Result<(), Failure> {
        let Some(take) = plan.objects.get(index).filter(|take| take.size > PIECE_BYTES) else { return Ok(()) };
        let (mut object, mut proof) = (Pieces::of(index, take), Proof::new(index));
        while let Some(piece) = object.next(&self.store, &self.throttle).await {
            let (piece, plan) = (piece?, plan.clone());
            // Hashing and decompressing take long enough to keep a thread of the runtime from everything else.
            let fed = tokio::task::spawn_blocking(move || {
                proof.feed(&plan.objects[index], piece)?;
                Ok::<_, Failure>(proof)
            });
            proof = fed.await.map_err(|_| Failure::Died(take.key.clone()))??;
        }
        Ok(())
    }
}

/// The pieces of one object, in order.
pub struct Pieces<'t> {
    index: usize,
    take: &'t Take,
    at: u64,
}

impl<'t> Pieces<'t> {
    /// Of number `index` of a plan's objects.
    pub fn of(index: usize, take: &'t Take) -> Self {
        Self { index, take, at: 0 }
    }

    /// The next one, when the throttle lets it pass; `None` behind the last one.
    pub async fn next(&mut self, store: &Arc<dyn Store>, throttle: &Throttle) -> Option<Result<Piece, StoreError>> {
        let Self { index, take, at } = *self;
        if at >= take.size {
            return None;
        }
        let end = (at + PIECE_BYTES).min(take.size);
        throttle.take(end - at).await;
        let piece = range(store, take, at..end).await;
        self.at = end;
        Some(piece.map(|bytes| Piece { index, bytes, last: end == take.size }))
    }
}

/// Exactly these bytes of the object that was planned.
async fn range(store: &Arc<dyn Store>, take: &Take, range: std::ops::Range<u64>) -> Result<Bytes, StoreError> {
    let etag = Some(take.etag.as_str()).filter(|etag| !etag.is_empty());
    let bytes = retry(PATIENCE, || store.get_range(&take.key, range.clone(), etag)).await?;
    let wanted = range.end - range.start;
    if bytes.len() as u64 == wanted {
        return Ok(bytes);
    }
    Err(StoreError {
        operation: "get",
        url: store.url().to_owned(),
        key: take.key.clone(),
        kind: Kind::Changed,
        message: format!(
            "{} bytes at {} instead of {wanted}: the object is shorter than it was",
            bytes.len(),
            range.start
        ),
    })
}

/// Bytes per second, shared by all partitions.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: Option<u64>,
    /// When what was taken so far is paid off.
    free: Mutex<Instant>,
}

impl Throttle {
    /// At most `bytes_per_second`; `None` is no limit.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second: bytes_per_second.filter(|rate| *rate > 0), free: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` may be read.
    async fn take(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else { return };
        let begin = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = (*free).max(Instant::now());
            *free = begin + Duration::from_secs_f64(bytes as f64 / rate as f64);
            begin
        };
        tokio::time::sleep_until(begin.into()).await;
    }
}
