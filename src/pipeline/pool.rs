//! Used batches, kept for the next read: their arenas are large enough that allocating anew each time shows.

use std::sync::{Mutex, PoisonError};

use crate::model::batch::RecordBatch;

/// Record content in one batch, unless a single record is larger.
pub const BATCH_BYTES: usize = 256 * 1024;
/// Memory of the index of a batch, beside its content.
pub const INDEX_BYTES: usize = BATCH_BYTES / 4;
/// Batches kept. They are few: each lane has a handful under way, and idle lanes none.
const KEPT: usize = 16;
/// A batch that grew beyond what a consumer takes a permit for (one large record, many headers) is not kept: who takes
/// it out again would hold more than is charged.
const MAX_BYTES: usize = BATCH_BYTES + INDEX_BYTES;

/// Used batches of all lanes.
#[derive(Debug, Default)]
pub struct BatchPool(Mutex<Vec<RecordBatch>>);

impl BatchPool {
    /// An empty batch.
    pub fn take(&self, bytes: usize) -> RecordBatch {
        let used = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        used.unwrap_or_else(|| RecordBatch::with_capacity(bytes))
    }

    /// Takes a batch back.
    pub fn put(&self, mut batch: RecordBatch) {
        batch.clear();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT && batch.memory_bytes() <= MAX_BYTES {
            kept.push(batch);
        }
    }
}
