//! A store that fails as told, for tests: before a call reaches the real one, after it has taken effect there (a lost
//! acknowledgement), late, or never.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Body, Create, Head, Kind, Lifecycle, Metadata, Page, Store, StoreError};

/// What is to go wrong with calls of one operation.
#[derive(Debug, Clone)]
pub struct Fault {
    operation: &'static str,
    prefix: String,
    skip: u32,
    times: u32,
    effect: Effect,
}

#[derive(Debug, Clone, Copy)]
enum Effect {
    /// Fails, and the inner store never hears of it.
    Before(Kind),
    /// Takes effect, and fails.
    After(Kind),
    /// Comes late.
    Delay(Duration),
    /// Never ends.
    Hang,
}

impl Fault {
    /// Calls fail and the inner store never hears of them. `operation` is the name of a method of [`Store`].
    pub fn before(operation: &'static str, kind: Kind) -> Self {
        Self::new(operation, Effect::Before(kind))
    }

    /// Calls take effect and fail then: the acknowledgement is lost.
    pub fn after(operation: &'static str, kind: Kind) -> Self {
        Self::new(operation, Effect::After(kind))
    }

    /// Calls take so much longer.
    pub fn delay(operation: &'static str, by: Duration) -> Self {
        Self::new(operation, Effect::Delay(by))
    }

    /// Calls never end, nor reach the inner store.
    pub fn hang(operation: &'static str) -> Self {
        Self::new(operation, Effect::Hang)
    }

    fn new(operation: &'static str, effect: Effect) -> Self {
        Self { operation, prefix: String::new(), skip: 0, times: 1, effect }
    }

    /// Only for keys (or listed prefixes) that begin with `prefix`.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        self.prefix = prefix.to_owned();
        self
    }

    /// Lets the first `calls` that match pass.
    #[must_use]
    pub fn skip(mut self, calls: u32) -> Self {
        self.skip = calls;
        self
    }

    /// For so many calls; without this for one.
    #[must_use]
    pub fn times(mut self, calls: u32) -> Self {
        self.times = calls;
        self
    }

    /// Until [`FaultStore::heal`].
    #[must_use]
    pub fn always(self) -> Self {
        self.times(u32::MAX)
    }
}

/// A store with faults.
pub struct FaultStore {
    inner: Arc<dyn Store>,
    state: Mutex<State>,
    /// Lifecycle rules of its own, which nobody acts on: for an inner store that has none.
    rules: Option<Mutex<Rules>>,
}

/// A bucket's lifecycle document, kept exactly as it was put.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// The document.
    pub document: Option<String>,
    /// The bucket keeps versions.
    pub versioned: bool,
}

#[derive(Default)]
struct State {
    script: Vec<Fault>,
    calls: BTreeMap<&'static str, u64>,
}

impl FaultStore {
    /// `inner` without faults so far.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, state: Mutex::default(), rules: None }
    }

    /// The same with lifecycle rules, which it keeps byte for byte and does not act on.
    pub fn with_rules(inner: Arc<dyn Store>, rules: Rules) -> Self {
        Self { rules: Some(Mutex::new(rules)), ..Self::new(inner) }
    }

    /// Its lifecycle rules as they are now; those of the inner store are not seen here.
    pub fn rules(&self) -> Rules {
        self.rules.as_ref().map(|rules| locked(rules).clone()).unwrap_or_default()
    }

    /// Somebody else replaces the document.
    pub fn set_document(&self, document: Option<&str>) {
        if let Some(rules) = &self.rules {
            locked(rules).document = document.map(str::to_owned);
        }
    }

    /// Adds a fault. Of several that match a call the oldest that is not used up acts.
    pub fn add(&self, fault: Fault) {
        self.state().script.push(fault);
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.state().script.clear();
    }

    /// How many calls of `operation` there were, failed ones included.
    pub fn calls(&self, operation: &str) -> u64 {
        self.state().calls.get(operation).copied().unwrap_or(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Counts a call and takes the fault that acts on it.
    fn enter(&self, operation: &'static str, key: &str) -> Option<Effect> {
        let mut state = self.state();
        *state.calls.entry(operation).or_default() += 1;
        let matches = |fault: &&mut Fault| {
            fault.operation == operation && fault.times > 0 && key.starts_with(fault.prefix.as_str())
        };
        let fault = state.script.iter_mut().find(matches)?;
        if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        }
        fault.times = fault.times.saturating_sub(u32::from(fault.times != u32::MAX));
        Some(fault.effect)
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        key: &str,
        inner: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let failed = |kind| StoreError {
            operation,
            url: self.inner.url().to_owned(),
            key: key.to_owned(),
            kind,
            message: "as the test wants it".to_owned(),
        };
        match self.enter(operation, key) {
            None => inner.await,
            Some(Effect::Before(kind)) => Err(failed(kind)),
            Some(Effect::After(kind)) => inner.await.and_then(|_| Err(failed(kind))),
            Some(Effect::Delay(by)) => {
                tokio::time::sleep(by).await;
                inner.await
            }
            Some(Effect::Hang) => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Store for FaultStore {
    fn url(&self) -> &str {
        self.inner.url()
    }

    async fn create(&self, key: &str, body: &Body, metadata: &Metadata) -> Result<Create, StoreError> {
        self.call("create", key, self.inner.create(key, body, metadata)).await
    }

    async fn put(&self, key: &str, body: &Body, metadata: &Metadata) -> Result<(), StoreError> {
        self.call("put", key, self.inner.put(key, body, metadata)).await
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        self.call("head", key, self.inner.head(key)).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.call("get", key, self.inner.get(key)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>, etag: Option<&str>) -> Result<Bytes, StoreError> {
        self.call("get_range", key, self.inner.get_range(key, range, etag)).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.call("list", prefix, self.inner.list(prefix, start_after, limit)).await
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.call("folders", prefix, self.inner.folders(prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.call("delete", key, self.inner.delete(key)).await
    }

    fn lifecycle(&self) -> Option<&dyn Lifecycle> {
        (self.rules.is_some() || self.inner.lifecycle().is_some()).then_some(self as &dyn Lifecycle)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FaultStore {
    fn inner_rules(&self) -> Result<&dyn Lifecycle, StoreError> {
        self.inner.lifecycle().ok_or_else(|| StoreError {
            operation: "lifecycle",
            url: self.inner.url().to_owned(),
            key: String::new(),
            kind: Kind::Other,
            message: "the store has no rules".to_owned(),
        })
    }
}

#[async_trait]
impl Lifecycle for FaultStore {
    fn prefix(&self) -> &str {
        self.inner.lifecycle().map_or("", Lifecycle::prefix)
    }

    async fn document(&self) -> Result<Option<String>, StoreError> {
        let get = async {
            match &self.rules {
                Some(rules) => Ok(locked(rules).document.clone()),
                None => self.inner_rules()?.document().await,
            }
        };
        self.call("document", "", get).await
    }

    async fn put_document(&self, document: &str) -> Result<(), StoreError> {
        let put = async {
            match &self.rules {
                Some(rules) => locked(rules).document = Some(document.to_owned()),
                None => self.inner_rules()?.put_document(document).await?,
            }
            Ok(())
        };
        self.call("put_document", "", put).await
    }

    async fn delete_document(&self) -> Result<(), StoreError> {
        let delete = async {
            match &self.rules {
                Some(rules) => locked(rules).document = None,
                None => self.inner_rules()?.delete_document().await?,
            }
            Ok(())
        };
        self.call("delete_document", "", delete).await
    }

    async fn versioned(&self) -> Result<bool, StoreError> {
        let get = async {
            match &self.rules {
                Some(rules) => Ok(locked(rules).versioned),
                None => self.inner_rules()?.versioned().await,
            }
        };
        self.call("versioned", "", get).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::file::FileStore;

    async fn create(store: &FaultStore, key: &str) -> Result<Create, Kind> {
        store.create(key, &Body::from("x"), &Metadata::new()).await.map_err(|e| e.kind)
    }

    #[tokio::test]
    async fn faults_act_as_scripted() {
        let dir = tempfile::tempdir().unwrap();
        let inner = FileStore::open(dir.path(), "", tokio::runtime::Handle::current()).unwrap();
        let store = FaultStore::new(Arc::new(inner));
        store.add(Fault::before("create", Kind::Throttle).under("a/").skip(1).times(2));
        store.add(Fault::after("create", Kind::Timeout).under("a/"));
        assert_eq!(create(&store, "b/1").await, Ok(Create::Created));
        assert_eq!(create(&store, "a/1").await, Ok(Create::Created));
        assert_eq!(create(&store, "a/2").await, Err(Kind::Throttle));
        assert_eq!(create(&store, "a/2").await, Err(Kind::Throttle));
        assert_eq!(create(&store, "a/2").await, Err(Kind::Timeout));
        assert_eq!(create(&store, "a/2").await, Ok(Create::Exists));
        store.add(Fault::hang("get").always());
        assert!(tokio::time::timeout(Duration::from_millis(20), store.get("a/1")).await.is_err());
        store.heal();
        assert!(store.get("a/1").await.unwrap().is_some());
        assert_eq!((store.calls("create"), store.calls("get"), store.calls("put")), (6, 2, 0));
    }
}
