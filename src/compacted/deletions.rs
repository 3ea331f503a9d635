//! The deletions of one coordinator, and their end: a process may end one and start another for the same topic at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt, stream};
use tokio::sync::RwLock;

use super::bucket::AT_ONCE;
use super::now::now;
use crate::storage::{Store, StoreError};

/// Sees to it that no DELETE begins after the end, and lets the end wait for those on their way.
#[derive(Default)]
pub(super) struct Deletions {
    over: AtomicBool,
    /// Held shared by batches.
    running: RwLock<()>,
}

/// What came of a batch.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Objects deleted.
    pub deleted: u64,
    /// The first failure.
    pub failed: Option<StoreError>,
    /// A DELETE without an answer may still take effect.
    pub unanswered: bool,
}

impl Deletions {
    /// No DELETE begins any more.
    pub fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Whether that was said.
    pub fn over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// No DELETE begins any more; returns when none is on its way.
    pub async fn ended(&self) {
        self.end();
        drop(self.running.write().await);
    }

    /// Deletes `keys` with one attempt each, none after `good_until_boot_ms`, none after the end, and none after the store
    /// has refused one.
    pub async fn batch(&self, store: &Arc<dyn Store>, keys: Vec<String>, good_until_boot_ms: i64) -> Batch {
        // Before `over` is asked: whoever waits for the end waits for everything that was let through.
        let _running = self.running.read().await;
        let refused = &AtomicBool::new(false);
        let each = stream::iter(keys).map(|key| async move {
            #[cfg(debug_assertions)]
            crate::failpoint::before_delete(&key).await;
            if self.over() || refused.load(Ordering::Relaxed) || now().boot_ms >= good_until_boot_ms {
                return Ok(false);
            }
            let answer = store.delete(&key).await;
            if answer.as_ref().is_err_and(|error| !error.is_transient()) {
                refused.store(true, Ordering::Relaxed);
            }
            answer.map(|()| true)
        });
        let mut batch = Batch::default();
        let mut each = each.buffer_unordered(AT_ONCE);
        while let Some(answer) = each.next().await {
            match answer {
                Ok(sent) => batch.deleted += u64::from(sent),
                Err(error) => {
                    batch.unanswered |= error.is_transient();
                    batch.failed.get_or_insert(error);
                }
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::storage::fault::{Fault, FaultStore};
    use crate::storage::file::FileStore;
    use crate::storage::{Body, Create, Kind, Metadata};

    const LATE: i64 = i64::MAX;

    async fn put_all(store: &Arc<dyn Store>, keys: &[String]) -> usize {
        let mut created = 0;
        for key in keys {
            let answer = store.create(key, &Body::from(b"x".to_vec()), &Metadata::new()).await.unwrap();
            created += usize::from(answer == Create::Created);
        }
        created
    }

    fn store(dir: &tempfile::TempDir) -> Arc<FaultStore> {
        let inner = FileStore::open(dir.path(), "", tokio::runtime::Handle::current()).unwrap();
        Arc::new(FaultStore::new(Arc::new(inner)))
    }

    #[tokio::test]
    async fn what_is_written_after_the_end_stays() {
        let dir = tempfile::tempdir().unwrap();
        let faulty = store(&dir);
        let store: Arc<dyn Store> = faulty.clone();
        let keys: Vec<_> = (0..3 * AT_ONCE).map(|n| format!("t/a/{n:03}")).collect();
        assert_eq!(put_all(&store, &keys).await, keys.len());
        faulty.add(Fault::delay("delete", Duration::from_secs(1)).always());

        let deletions = Arc::new(Deletions::default());
        let batch = {
            let (deletions, store, keys) = (deletions.clone(), store.clone(), keys.clone());
            tokio::spawn(async move { deletions.batch(&store, keys, LATE).await })
        };
        while faulty.calls("delete") < AT_ONCE as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        deletions.ended().await;
        // The next coordinator writes where the batch has deleted.
        let written = put_all(&store, &keys).await;
        let batch = batch.await.unwrap();
        assert_eq!(batch.deleted, written as u64, "the end waits for those on their way");
        assert!(written < keys.len(), "no other begins");
        for key in &keys {
            assert!(store.head(key).await.unwrap().is_some(), "{key} was deleted after the end");
        }
        assert_eq!(deletions.batch(&store, keys, LATE).await.deleted, 0, "nor does a batch begin");
    }

    /// A policy that denies one denies them all.
    #[tokio::test]
    async fn who_may_not_delete_asks_for_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let faulty = store(&dir);
        let store: Arc<dyn Store> = faulty.clone();
        let keys: Vec<_> = (0..3 * AT_ONCE).map(|n| format!("t/a/{n:03}")).collect();
        faulty.add(Fault::before("delete", Kind::Auth).always());
        let batch = Deletions::default().batch(&store, keys, LATE).await;
        assert!(batch.deleted == 0 && !batch.unanswered);
        assert_eq!(batch.failed.map(|error| error.kind), Some(Kind::Auth));
        assert!(faulty.calls("delete") <= AT_ONCE as u64);
    }

    #[tokio::test]
    async fn a_proof_that_is_too_old_deletes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = store(&dir);
        let keys = vec!["t/a/1".to_owned()];
        put_all(&store, &keys).await;
        let deletions = Deletions::default();
        assert_eq!(deletions.batch(&store, keys.clone(), now().boot_ms).await.deleted, 0);
        assert_eq!(deletions.batch(&store, keys, LATE).await.deleted, 1);
    }
}
