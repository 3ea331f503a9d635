//! One contract, kept by every store: each test of [`contract`] runs against a folder and against a real S3 server,
//! the one at `KAFKA_BACKUP_TEST_S3` or one that is started here. Those of [`buckets`] and [`faults`] need the real server.
//!
//! The store's work runs on a runtime of its own, and the tests call it from other threads, as the daemon does.

mod buckets;
mod contract;
mod faults;

use std::future::Future;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use kafka_backup::config::{Place, StorageConfig};
use kafka_backup::storage::file::FileStore;
use kafka_backup::storage::s3::{Limits, Options, S3Store};
use kafka_backup::storage::{Metadata, Store};
use rusoto_core::{Client, HttpClient, Region, credential::StaticProvider, signature::SignedRequest};
use tokio::runtime::Runtime;

/// Where the stores work.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// Waits on this thread, in a runtime that drives nothing.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

const KEYS: (&str, &str) = ("AKTEST", "SKTESTSKTEST");

/// The S3 server of this process, and the guard that stops it when the process ends in whatever way.
struct OwnServer {
    endpoint: String,
    _guard: Child,
}

fn s3_endpoint() -> String {
    static OWN: LazyLock<OwnServer> = LazyLock::new(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stack/s3.sh");
        let dir = tempfile::Builder::new().prefix("s3.").tempdir().unwrap().keep();
        let up = Command::new(&script).arg("up").arg(&dir).output().unwrap();
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        let stop = "cat >/dev/null; \"$0\" down \"$1\"; rm -rf \"$1\"";
        let mut guard = Command::new("setsid");
        guard.args(["bash", "-c", stop]).arg(&script).arg(&dir).stdin(Stdio::piped());
        let endpoint = String::from_utf8(up.stdout).unwrap().trim().to_owned();
        OwnServer { endpoint, _guard: guard.spawn().unwrap() }
    });
    std::env::var("KAFKA_BACKUP_TEST_S3").unwrap_or_else(|_| OWN.endpoint.clone())
}

fn unique(what: &str) -> String {
    static RUN: LazyLock<u32> = LazyLock::new(|| fastrand::u32(..));
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{:08x}-{}", *RUN, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Sends a request about a bucket, past the store under test.
fn bucket_request(method: &str, bucket: &str, query: &str, body: &str) {
    let region = Region::Custom { name: "us-east-1".to_owned(), endpoint: s3_endpoint() };
    let mut request = SignedRequest::new(method, "s3", &region, &format!("/{bucket}"));
    if !query.is_empty() {
        request.params.insert(query.to_owned(), None);
    }
    request.set_payload(Some(body.to_owned()));
    let client =
        Client::new_with(StaticProvider::new_minimal(KEYS.0.into(), KEYS.1.into()), HttpClient::new().unwrap());
    let status = RUNTIME.block_on(client.sign_and_dispatch(request)).unwrap().status;
    assert!(status.is_success(), "{method} {bucket}: {status}");
}

fn new_bucket() -> String {
    let bucket = unique("contract");
    bucket_request("PUT", &bucket, "", "");
    bucket
}

/// The bucket that tests share, each under a prefix of its own.
fn shared_bucket() -> &'static str {
    static BUCKET: LazyLock<String> = LazyLock::new(new_bucket);
    &BUCKET
}

fn s3_at(endpoint: String, bucket: &str, prefix: &str) -> S3Store {
    let place = Place::S3 {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        region: None,
        profile: None,
        proxy_url: None,
        endpoint: Some(endpoint),
        path_style: true,
    };
    let config = StorageConfig { name: "test".to_owned(), place, single_writer: false };
    let limits = Limits { silence: Duration::from_secs(5), ..Limits::default() };
    let options = Options { limits, credentials: Some((KEYS.0.to_owned(), KEYS.1.to_owned())) };
    S3Store::open_with(&config, options, RUNTIME.handle().clone()).unwrap()
}

/// A store with nothing in it, and what must live as long.
struct Empty {
    store: Arc<dyn Store>,
    _dir: Option<tempfile::TempDir>,
}

fn folder() -> Empty {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::open(dir.path(), "some/prefix", RUNTIME.handle().clone()).unwrap();
    Empty { store: Arc::new(store), _dir: Some(dir) }
}

fn s3() -> Empty {
    let prefix = format!("some/{}", unique("prefix"));
    Empty { store: Arc::new(s3_at(s3_endpoint(), shared_bucket(), &prefix)), _dir: None }
}

fn none() -> Metadata {
    Metadata::new()
}

async fn listed(store: &dyn Store, prefix: &str, after: Option<&str>, limit: usize) -> (Vec<String>, bool) {
    let page = store.list(prefix, after, limit).await.unwrap();
    (page.entries.into_iter().map(|entry| entry.key).collect(), page.more)
}
