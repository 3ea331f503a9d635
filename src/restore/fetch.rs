//! Brings the bytes of a partition's objects, in order, a bounded piece at a time.
//!
//! While one piece is decoded the next waits in the channel and the one after it is on its way: three pieces per
//! partition are the most that is ever held. Objects of up to [`WHOLE_BYTES`] come in one piece, so that their hash is
//! compared before any record of them is produced; larger ones come in pieces of [`PIECE_BYTES`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::progress::Progress;
use super::stop::Stop;
use crate::model::restore::{PartitionPlan, Take};
use crate::storage::retry::retry;
use crate::storage::{Kind, Store, StoreError};

/// Bytes of a piece of a large object.
pub const PIECE_BYTES: u64 = 8 * 1024 * 1024;

/// Objects of up to this many bytes are held whole.
pub const WHOLE_BYTES: u64 = 16 * 1024 * 1024;

/// How long a store may be out of reach before a partition gives up.
const PATIENCE: Duration = Duration::from_secs(600);

/// Some bytes of one object.
#[derive(Debug)]
pub struct Piece {
    /// Which of the plan's objects.
    pub index: usize,
    /// The bytes that follow those of the piece before.
    pub bytes: Bytes,
    /// The object ends with them.
    pub last: bool,
}

/// Where objects are read, how fast, and who is told.
pub struct Source {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Bytes per second.
    pub throttle: Arc<Throttle>,
    /// How far the restore is.
    pub progress: Arc<Progress>,
}

/// Sends the bytes of the objects of `plan` in order, from number `first` on, until there are no more, one cannot be
/// read, a stop is asked for or nobody wants them any longer.
pub async fn fetch(
    source: Source,
    plan: Arc<PartitionPlan>,
    first: usize,
    pieces: mpsc::Sender<Result<Piece, StoreError>>,
    stop: Stop,
) {
    let all = async {
        for (index, take) in plan.objects.iter().enumerate().skip(first) {
            let mut object = Pieces::of(index, take);
            while let Some(piece) = object.next(&source.store, &source.throttle).await {
                let failed = piece.is_err();
                source.progress.read(piece.as_ref().map_or(0, |piece| piece.bytes.len() as u64));
                if pieces.send(piece).await.is_err() || failed {
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = all => {}
        () = stop.wait() => {}
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
        let step = if take.size <= WHOLE_BYTES { WHOLE_BYTES } else { PIECE_BYTES };
        let end = (at + step).min(take.size);
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
