//! The stores that the jobs of a process have open. Jobs that begin at about the same time in the same place share one:
//! hundreds of small jobs must not mean hundreds of pools of connections, each with a timer of its own, nor as many loads of
//! the same credentials.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::{Store, StoreError, open};
use crate::config::StorageConfig;

/// Who opens a store later than this opens it anew, with what was changed meanwhile in what is read only then: the system's
/// trust store.
const SHARED_FOR: Duration = Duration::from_secs(60);

/// The stores that are in use, each for as long as somebody holds it.
#[derive(Default)]
pub struct Stores(Mutex<Vec<Opened>>);

struct Opened {
    config: StorageConfig,
    at: Instant,
    store: Weak<dyn Store>,
}

impl Stores {
    /// The store of this configuration, shared with whoever has opened it a moment ago; otherwise like [`open`].
    ///
    /// # Errors
    /// Those of [`open`].
    pub fn open(&self, config: &StorageConfig, runtime: Handle) -> Result<Arc<dyn Store>, StoreError> {
        self.open_at(Instant::now(), config, runtime)
    }

    fn open_at(&self, now: Instant, config: &StorageConfig, runtime: Handle) -> Result<Arc<dyn Store>, StoreError> {
        let mut opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        opened.retain(|one| now.duration_since(one.at) < SHARED_FOR && one.store.strong_count() > 0);
        let same = opened.iter().find(|one| one.config == *config);
        if let Some(store) = same.and_then(|one| one.store.upgrade()) {
            return Ok(store);
        }
        let store = open(config, runtime)?;
        opened.push(Opened { config: config.clone(), at: now, store: Arc::downgrade(&store) });
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Place;

    #[tokio::test]
    async fn who_opens_the_same_place_a_moment_later_shares_it() {
        let dir = tempfile::tempdir().unwrap();
        let place = |prefix: &str| StorageConfig {
            name: "main".to_owned(),
            place: Place::File { path: dir.path().to_owned(), prefix: prefix.to_owned() },
            single_writer: false,
        };
        let (stores, began) = (Stores::default(), Instant::now());
        let open = |after, prefix| stores.open_at(began + after, &place(prefix), Handle::current()).unwrap();
        let soon = SHARED_FOR - Duration::from_millis(1);
        let first = open(Duration::ZERO, "a");
        assert!(Arc::ptr_eq(&first, &open(soon, "a")));
        assert!(!Arc::ptr_eq(&first, &open(soon, "b")), "another place");
        assert!(!Arc::ptr_eq(&first, &open(SHARED_FOR, "a")), "it has been open for too long");
        assert_eq!(Arc::strong_count(&first), 1, "the others have let go of it");
        assert_eq!(Arc::weak_count(&first), 0, "and nothing is kept of it");
    }
}
