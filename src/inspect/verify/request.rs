//! What is asked of a verification.

use std::sync::Arc;

use crate::model::verify::subset::Subset;
use crate::model::verify::{ExpiryOf, Mode};
use crate::storage::Store;

/// What to look at, and how.
#[derive(Clone)]
pub struct Verify {
    /// Where the backup is.
    pub store: Arc<dyn Store>,
    /// Only this topic.
    pub topic: Option<String>,
    /// Only topics whose newest generation this job wrote.
    pub job: Option<String>,
    /// How deep to look.
    pub mode: Mode,
    /// Which objects to read, when not all.
    pub subset: Option<Subset>,
    /// Of which topics the oldest objects may be gone.
    pub expiry: ExpiryOf,
    /// The result is written into the bucket.
    pub record: bool,
    /// JSON lines instead of text.
    pub json: bool,
}
