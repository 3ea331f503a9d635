//! One contract, kept by every store: each test of [`contract`] runs against a folder and against a real S3 server,
//! the one at `KAFKA_BACKUP_TEST_S3` or one that is started here. The faults at the end need the real server, too.
//!
//! The store's work runs on a runtime of its own, and the tests call it from other threads, as the daemon does.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use kafka_backup::config::{Place, StorageConfig};
use kafka_backup::model::lifecycle::plan::{Bucket, Document, Wanted, plan};
use kafka_backup::model::object::AVRO_PREFIX;
use kafka_backup::storage::check::{StoreCheck, store_check};
use kafka_backup::storage::file::FileStore;
use kafka_backup::storage::s3::{Limits, Options, S3Store};
use kafka_backup::storage::{Body, Create, Kind, Metadata, Piece, Store, StoreError};
use rstest::rstest;
use rusoto_core::{Client, HttpClient, Region, credential::StaticProvider, signature::SignedRequest};
use tokio::runtime::Runtime;

/// Where the stores work.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// Waits on this thread, in a runtime that drives nothing.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

// ---- places ---------------------------------------------------------------------------------------------------------

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

// ---- the contract ---------------------------------------------------------------------------------------------------

/// An Avro file's header with our metadata, and some bytes behind it.
fn avro(metadata: &Metadata, rest: &str) -> Vec<u8> {
    let mut bytes = b"Obj\x01".to_vec();
    let pairs: Vec<_> = metadata.iter().map(|(k, v)| (format!("{AVRO_PREFIX}{k}"), v.clone())).collect();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        assert!(text.len() < 64, "one byte of length is enough here");
        bytes.push((text.len() * 2) as u8);
        bytes.extend(text.as_bytes());
    };
    bytes.push(((pairs.len() + 1) * 2) as u8);
    for (key, value) in pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).chain([("avro.codec", "null")]) {
        text(&mut bytes, key);
        text(&mut bytes, value);
    }
    bytes.push(0);
    bytes.extend([7; 16]);
    bytes.extend(rest.as_bytes());
    bytes
}

fn none() -> Metadata {
    Metadata::new()
}

async fn fill(store: &dyn Store, keys: &[&str]) {
    for key in keys {
        assert_eq!(store.create(key, &Body::from(key.to_string()), &none()).await.unwrap(), Create::Created);
    }
}

async fn listed(store: &dyn Store, prefix: &str, after: Option<&str>, limit: usize) -> (Vec<String>, bool) {
    let page = store.list(prefix, after, limit).await.unwrap();
    (page.entries.into_iter().map(|entry| entry.key).collect(), page.more)
}

/// Keys whose order by whole keys is not the order of their folders' names.
const KEYS_IN_ORDER: [&str; 9] =
    ["a", "a-b/0/x", "a.b/0/x", "a/0/a-0-1", "a/0/a-0-2", "a/1/x", "a/10/x", "a0/0/x", "b"];

#[rstest]
#[case::folder(folder())]
#[case::s3(s3())]
fn an_object_is_created_once_and_never_replaced(#[case] at: Empty) {
    block_on(async {
        let create = async |text: &'static str| at.store.create("t/0/k", &Body::from(text), &none()).await.unwrap();
        assert_eq!(create("first").await, Create::Created);
        let head = at.store.head("t/0/k").await.unwrap();
        assert_eq!(create("second").await, Create::Exists);
        assert_eq!(create("first").await, Create::Exists);
        assert_eq!(at.store.head("t/0/k").await.unwrap(), head);
        assert_eq!(at.store.get("t/0/k").await.unwrap().unwrap(), "first");
    });
}

#[rstest]
#[case::folder(folder())]
#[case::s3(s3())]
fn of_concurrent_creates_one_wins(#[case] at: Empty) {
    for round in 0..20 {
        let key = format!("t/0/{round}");
        let barrier = Arc::new(std::sync::Barrier::new(6));
        let writers: Vec<_> = (0..6)
            .map(|writer| {
                let (store, key, barrier) = (at.store.clone(), key.clone(), barrier.clone());
                std::thread::spawn(move || {
                    barrier.wait();
                    let body = Body::from(format!("writer {writer}"));
                    let created = block_on(store.create(&key, &body, &none())).unwrap();
                    (created == Create::Created).then_some(writer)
                })
            })
            .collect();
        let winners: Vec<_> = writers.into_iter().filter_map(|w| w.join().unwrap()).collect();
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        let found = block_on(at.store.get(&key)).unwrap().unwrap();
        assert_eq!(found, format!("writer {}", winners[0]));
    }
}

#[rstest]
#[case::folder(folder())]
#[case::s3(s3())]
fn metadata_comes_back(#[case] at: Empty) {
    let metadata: Metadata = [("generation", "0b6c"), ("next-offset", "12"), ("topic", "a.b_c-D"), ("gap", "a, b")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let bytes = avro(&metadata, "records");
    block_on(async {
        at.store.create("t/0/k.avro", &Body::from(bytes.clone()), &metadata).await.unwrap();
        let head = at.store.head("t/0/k.avro").await.unwrap().unwrap();
        assert_eq!((head.size, head.metadata), (bytes.len() as u64, metadata));
        assert!(!head.etag.is_empty() && !head.etag.contains('"'));
    });
}

#[rstest]
#[case::folder(folder())]
#[case::s3(s3())]
fn what_is_not_there_is_none(#[case] at: Empty) {
    block_on(async {
        fill(&*at.store, &["a/b"]).await;
        for key in ["x", "a", "a/b/c", "a/x"] {
            assert_eq!(at.store.head(key).await.unwrap(), None, "{key}");
            assert_eq!(at.store.get(key).await.unwrap(), None, "{key}");
            let range = at.store.get_range(key, 0..1, None).await;
            assert_eq!(range.unwrap_err().kind, Kind::NotFound, "{key}");
            at.store.delete(key).await.unwrap();
        }
        assert_eq!(at.store.get("a/b").await.unwrap().unwrap(), "a/b");
    });
}

#[rstest]
#[case::folder(folder())]
#[case::s3(s3())]
fn parts_of_an_object(#[case] at: Empty) {
    block_on(async {
        at.store.create("k", &Body::from("0123456789"), &none()).await.unwrap();
        at.store.create("empty", &Body::new(), &none()).await.unwrap();
        let etag = at.store.head("k").await.unwrap().unwrap().etag;
        for (range, expected) in
            [(0..4, "0123"), (4..10, "456789"), (8..20, "89"), (3..3, ""), (10..12, ""), (50..60, "")]
        {
            let part = at.store.get_range("k", range.clone(), Some(&etag)).await.unwrap();
            assert_eq!(part, expected, "{range:?}");
        }
        assert_eq!(at.store.get("empty").await.unwrap().unwrap(), "");
        assert_eq!(at.store.get_range("empty", 0..5, None).await.unwrap(), "");
        for range in [0..4, 3..3, 50..60] {
            let changed = at.store.get_range("k", range, Some("another")).await.unwrap_err();
            assert_eq!(changed.kind, Kind::Changed, "{changed}");
        }
    });
}

#[rstest]
#[case::folder(folder())]
#[case::s3(s3())]
fn put_replaces_and_says_so_in_the_etag(#[case] at: Empty) {
    block_on(async {
        at.store.put("k", &Body::from("old"), &none()).await.unwrap();
        let etag = at.store.head("k").await.unwrap().unwrap().etag;
        at.store.put("k", &Body::from("newer"), &none()).await.unwrap();
        assert_eq!(at.store.get("k").await.unwrap().unwrap(), "newer");
        assert_eq!(at.store.get_range("k", 0..3, Some(&etag)).await.unwrap_err().kind, Kind::Changed);
    });
}

#[rstest]
#[case::folder(folder())]
#[case::s3(s3())]
fn listings_are_in_the_order_of_whole_keys(#[case] at: Empty) {
    block_on(async {
        assert_eq!(listed(&*at.store, "", None, 10).await, (vec![], false));
        let mut shuffled = KEYS_IN_ORDER;
        shuffled.reverse();
        // No file can be beside a folder of its own name, which a bucket allows; no key of ours needs it.
        let keys: Vec<_> = shuffled.into_iter().filter(|key| *key != "a").collect();
        fill(&*at.store, &keys).await;
        let expected = &KEYS_IN_ORDER[1..];
        assert_eq!(listed(&*at.store, "", None, 1000).await, (expected.iter().map(|k| k.to_string()).collect(), false));
        for limit in 1..=expected.len() {
            let (mut all, mut after) = (Vec::new(), None::<String>);
            loop {
                let (keys, more) = listed(&*at.store, "", after.as_deref(), limit).await;
                assert!(keys.len() <= limit && (!more || keys.len() == limit));
                after = keys.last().cloned().or(after);
                all.extend(keys);
                if !more {
                    break;
                }
            }
            assert_eq!(all, expected, "pages of {limit}");
        }
        let page = at.store.list("a/0/", None, 1).await.unwrap();
        assert_eq!((page.entries[0].size, page.more), (9, true));
        assert!(page.entries[0].modified_ms > 1_700_000_000_000);
    });
}

#[rstest]
#[case::folder(folder())]
#[case::s3(s3())]
fn listings_by_prefix_and_start(#[case] at: Empty) {
    block_on(async {
        fill(&*at.store, &KEYS_IN_ORDER[1..]).await;
        for (prefix, after, expected) in [
            ("a/", None, &["a/0/a-0-1", "a/0/a-0-2", "a/1/x", "a/10/x"][..]),
            ("a/1", None, &["a/1/x", "a/10/x"]),
            ("a/0/a-0-", None, &["a/0/a-0-1", "a/0/a-0-2"]),
            ("a/0/a-0-2", None, &["a/0/a-0-2"]),
            ("a/0/a-0-3", None, &[]),
            ("none/at/all/", None, &[]),
            ("b/", None, &[]),
            ("a/0/", Some("a/0/a-0-1"), &["a/0/a-0-2"]),
            ("a/0/", Some("a/0/a-0-10"), &["a/0/a-0-2"]),
            ("a/0/", Some("a/0/a-0-2"), &[]),
            ("a/0/", Some("a/0/"), &["a/0/a-0-1", "a/0/a-0-2"]),
            ("a/0/", Some("A"), &["a/0/a-0-1", "a/0/a-0-2"]),
            ("a/0/", Some("z"), &[]),
            ("", Some("a/10/x"), &["a0/0/x", "b"]),
            ("", Some("a/0/a-0-1/z"), &["a/0/a-0-2", "a/1/x", "a/10/x", "a0/0/x", "b"]),
            ("", Some("a/0"), &["a/0/a-0-1", "a/0/a-0-2", "a/1/x", "a/10/x", "a0/0/x", "b"]),
            ("", Some("a."), &["a.b/0/x", "a/0/a-0-1", "a/0/a-0-2", "a/1/x", "a/10/x", "a0/0/x", "b"]),
        ] {
            let found = listed(&*at.store, prefix, after, 100).await;
            let expected: Vec<_> = expected.iter().map(|key| key.to_string()).collect();
            assert_eq!(found, (expected, false), "prefix {prefix:?}, after {after:?}");
        }
    });
}

#[rstest]
#[case::folder(folder())]
#[case::s3(s3())]
fn folders_directly_under_a_prefix(#[case] at: Empty) {
    block_on(async {
        assert_eq!(at.store.folders("").await.unwrap(), Vec::<String>::new());
        fill(&*at.store, &KEYS_IN_ORDER[1..]).await;
        assert_eq!(at.store.folders("").await.unwrap(), ["a-b/", "a.b/", "a/", "a0/"]);
        assert_eq!(at.store.folders("a/").await.unwrap(), ["a/0/", "a/1/", "a/10/"]);
        assert_eq!(at.store.folders("a/0/").await.unwrap(), Vec::<String>::new());
        assert_eq!(at.store.folders("none/").await.unwrap(), Vec::<String>::new());
        at.store.delete("a/1/x").await.unwrap();
        assert_eq!(at.store.folders("a/").await.unwrap(), ["a/0/", "a/10/"]);
    });
}

#[rstest]
#[case::folder(folder())]
#[case::s3(s3())]
fn what_was_deleted_can_be_created_again(#[case] at: Empty) {
    block_on(async {
        fill(&*at.store, &["k", "other"]).await;
        at.store.delete("k").await.unwrap();
        at.store.delete("k").await.unwrap();
        assert_eq!(at.store.head("k").await.unwrap(), None);
        assert_eq!(at.store.create("k", &Body::from("again"), &none()).await.unwrap(), Create::Created);
        assert_eq!(at.store.get("other").await.unwrap().unwrap(), "other");
    });
}

#[rstest]
#[case::folder(folder())]
#[case::s3(s3())]
fn bodies_of_several_pieces_arrive_in_order(#[case] at: Empty) {
    let mut spool = tempfile::NamedTempFile::new().unwrap();
    let on_disk: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
    spool.write_all(&on_disk).unwrap();
    let path = Arc::new(spool.path().to_owned());
    let in_memory = vec![9_u8; 1_500_000];
    let mut body = Body::from("start ");
    body.push(Piece::File { path: path.clone(), range: 100..2_500_000 });
    body.push(Piece::Memory(in_memory.clone().into()));
    body.push(Piece::Memory(bytes::Bytes::new()));
    body.push(Piece::File { path, range: 2_999_990..3_000_000 });
    let expected = [b"start ", &on_disk[100..2_500_000], &in_memory, &on_disk[2_999_990..]].concat();
    block_on(async {
        assert_eq!(at.store.create("t/0/k", &body, &none()).await.unwrap(), Create::Created);
        assert_eq!(at.store.head("t/0/k").await.unwrap().unwrap().size, expected.len() as u64);
        assert!(at.store.get("t/0/k").await.unwrap().unwrap() == expected);
        // A refusal in the middle of a long body is an answer, too.
        assert_eq!(at.store.create("t/0/k", &body, &none()).await.unwrap(), Create::Exists);
    });
}

#[rstest]
#[case::folder(folder())]
#[case::s3(s3())]
fn a_body_with_another_hash_than_the_caller_says_is_refused(#[case] at: Empty) {
    let wrong = Metadata::from([("sha256".to_owned(), "0".repeat(64))]);
    block_on(async {
        at.store.create("k", &Body::from("text"), &wrong).await.unwrap_err();
        assert_eq!(at.store.head("k").await.unwrap(), None);
    });
}

#[rstest]
#[case::folder(folder())]
#[case::s3(s3())]
fn the_store_check_passes_and_leaves_nothing(#[case] at: Empty) {
    block_on(async {
        assert_eq!(store_check(&*at.store, "job", "nonce").await.unwrap(), StoreCheck::Conditional);
        assert_eq!(listed(&*at.store, "", None, 10).await, (vec![], false));
    });
}

// ---- S3 only --------------------------------------------------------------------------------------------------------

const VERSIONED: &str = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";

#[test]
fn the_store_check_finds_a_versioned_bucket() {
    let bucket = new_bucket();
    bucket_request("PUT", &bucket, "versioning", VERSIONED);
    let store = s3_at(s3_endpoint(), &bucket, "");
    let found = block_on(store_check(&store, "job", "nonce")).unwrap();
    assert!(matches!(&found, StoreCheck::Ignored { why } if why.contains(&bucket)), "{found:?}");
}

/// The server reorders and drops what it does not know, so only what it must keep is looked at.
#[test]
fn lifecycle_rules_of_a_bucket() {
    let bucket = new_bucket();
    let store = s3_at(s3_endpoint(), &bucket, "some/prefix");
    let lifecycle = store.lifecycle().expect("a bucket has rules");
    let bucket_of = Bucket { document: None, prefix: "some/prefix/", versioned: true };
    let all = [Wanted { topic: "t".to_owned(), days: Some(30), last: None, hindrance: None }];
    block_on(async {
        assert_eq!(lifecycle.prefix(), "some/prefix/");
        assert_eq!(lifecycle.document().await.unwrap(), None);
        let planned = plan(Bucket { document: None, ..bucket_of }, &all, false).unwrap();
        let Document::Put(text) = planned.document else { panic!("{planned:?}") };
        lifecycle.put_document(&text).await.unwrap();
        let there = lifecycle.document().await.unwrap().unwrap();
        assert_eq!(
            plan(Bucket { document: Some(&there), ..bucket_of }, &all, false).unwrap().document,
            Document::Same,
            "{there}"
        );
        lifecycle.delete_document().await.unwrap();
        assert_eq!(lifecycle.document().await.unwrap(), None);
        assert!(!lifecycle.versioned().await.unwrap());
        let nowhere = s3_at(s3_endpoint(), "there-is-no-such-bucket", "");
        assert_eq!(nowhere.lifecycle().unwrap().document().await.unwrap_err().kind, Kind::NoBucket);
    });
    bucket_request("PUT", &bucket, "versioning", VERSIONED);
    assert!(block_on(lifecycle.versioned()).unwrap());
    assert!(folder().store.lifecycle().is_none());
}

#[test]
fn a_missing_bucket_is_no_empty_one() {
    let store = s3_at(s3_endpoint(), &unique("missing"), "");
    let kind = |result: Result<(), StoreError>| result.unwrap_err().kind;
    block_on(async {
        assert_eq!(kind(store.head("k").await.map(drop)), Kind::NoBucket);
        assert_eq!(kind(store.get("k").await.map(drop)), Kind::NoBucket);
        assert_eq!(kind(store.list("", None, 1).await.map(drop)), Kind::NoBucket);
        assert_eq!(kind(store.folders("").await.map(drop)), Kind::NoBucket);
        assert_eq!(kind(store.create("k", &Body::from("x"), &none()).await.map(drop)), Kind::NoBucket);
        assert_eq!(kind(store.delete("k").await), Kind::NoBucket);
    });
}

/// More folders than one answer of the server holds.
#[test]
fn folders_are_paged_to_the_end() {
    let at = s3();
    let names: Vec<_> = (0..1003).map(|n| format!("t/{n:05}/")).collect();
    RUNTIME.block_on(async {
        for some in names.chunks(64) {
            let creates = some.iter().map(|name| {
                let (store, key) = (at.store.clone(), format!("{name}x"));
                async move { store.create(&key, &Body::from("x"), &none()).await.unwrap() }
            });
            futures_util::future::join_all(creates).await;
        }
    });
    assert!(block_on(at.store.folders("t/")).unwrap() == names);
    let (keys, more) = block_on(listed(&*at.store, "", None, 5000));
    assert_eq!((keys.len(), more), (1000, true));
}

/// A name with everything that has to be encoded somewhere.
#[test]
fn keys_are_encoded() {
    let at = s3();
    let key = "t/0/ü +%2F&=?#~<>\"'*.json";
    block_on(async {
        assert_eq!(at.store.create(key, &Body::from("x"), &none()).await.unwrap(), Create::Created);
        assert_eq!(at.store.create(key, &Body::from("x"), &none()).await.unwrap(), Create::Exists);
        assert_eq!(listed(&*at.store, "t/0/ü +", None, 10).await.0, [key]);
        at.store.delete(key).await.unwrap();
        assert_eq!(at.store.head(key).await.unwrap(), None);
    });
}

// ---- faults between us and S3 ---------------------------------------------------------------------------------------

/// What the proxy does with the connections it gets.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Pass,
    /// Closes a connection before anything of the request went on.
    CutBefore,
    /// Passes the request on, waits for the answer and closes the connection instead of passing it back.
    CutAfter,
    /// Passes nothing on and answers nothing.
    Hang,
    /// Changes a byte of the body on its way.
    Corrupt,
}

/// A TCP proxy in front of the server.
struct Between {
    endpoint: String,
    mode: Arc<Mutex<Mode>>,
    connections: Arc<AtomicU64>,
}

impl Between {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let between = Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            mode: Arc::new(Mutex::new(Mode::Pass)),
            connections: Arc::default(),
        };
        let (mode, connections) = (between.mode.clone(), between.connections.clone());
        let server = s3_endpoint().trim_start_matches("http://").to_owned();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::Relaxed);
                let (server, mode) = (TcpStream::connect(&server).unwrap(), *mode.lock().unwrap());
                std::thread::spawn(move || pass(client, server, mode));
            }
        });
        between
    }

    /// A store behind the proxy, which has no connection yet, so that `mode` holds for its next one.
    fn store(&self, mode: Mode, prefix: &str) -> S3Store {
        *self.mode.lock().unwrap() = mode;
        s3_at(self.endpoint.clone(), shared_bucket(), prefix)
    }
}

fn pass(mut client: TcpStream, mut server: TcpStream, mode: Mode) {
    match mode {
        Mode::CutBefore => return,
        Mode::Hang => return std::thread::sleep(Duration::from_secs(30)),
        Mode::Pass | Mode::CutAfter | Mode::Corrupt => {}
    }
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let (mut buffer, mut total) = ([0; 4096], 0);
        while let Ok(n @ 1..) = from_client.read(&mut buffer) {
            // The head is shorter than this, and the body of the test that wants it much longer.
            if mode == Mode::Corrupt && (total..total + n).contains(&100_000) {
                buffer[100_000 - total] ^= 1;
            }
            total += n;
            if to_server.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = server.read(&mut buffer) {
        if mode == Mode::CutAfter || client.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

/// What a create says when something goes wrong on the way, how often it was sent, and what is there afterwards.
#[rstest]
#[case::nothing(Mode::Pass, Ok(Create::Created), true)]
#[case::cut_before(Mode::CutBefore, Err(Kind::Unavailable), false)]
#[case::lost_acknowledgement(Mode::CutAfter, Err(Kind::Unavailable), true)]
#[case::hang(Mode::Hang, Err(Kind::Timeout), false)]
#[case::corrupted(Mode::Corrupt, Err(Kind::Unavailable), false)]
fn create_on_a_bad_way(#[case] mode: Mode, #[case] expected: Result<Create, Kind>, #[case] stored: bool) {
    let (between, prefix) = (Between::new(), unique("fault"));
    let body = Body::from(vec![1_u8; 2_000_000]);
    let created = block_on(between.store(mode, &prefix).create("k", &body, &none()));
    assert_eq!(created.clone().map_err(|e| e.kind), expected, "{created:?}");
    assert_eq!(between.connections.load(Ordering::Relaxed), 1);
    let store = between.store(Mode::Pass, &prefix);
    assert_eq!(block_on(store.head("k")).unwrap().map(|head| head.size), stored.then_some(2_000_000));
    let again = if stored { Create::Exists } else { Create::Created };
    assert_eq!(block_on(store.create("k", &body, &none())).unwrap(), again);
}

/// Connections are kept and used again.
#[test]
fn one_connection_serves_many_requests() {
    let between = Between::new();
    let store = between.store(Mode::Pass, &unique("reuse"));
    block_on(async {
        for n in 0..10 {
            store.create(&format!("k{n}"), &Body::from("x"), &none()).await.unwrap();
            store.head(&format!("k{n}")).await.unwrap();
        }
    });
    assert_eq!(between.connections.load(Ordering::Relaxed), 1);
}

/// Of a body that cannot be read to its end nothing is stored.
#[test]
fn a_spool_file_that_shrank_stores_nothing() {
    let at = s3();
    let spool = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(spool.path(), vec![1; 600_000]).unwrap();
    let mut body = Body::from("start");
    body.push(Piece::File { path: Arc::new(spool.path().to_owned()), range: 0..700_000 });
    let known = Metadata::from([("sha256".to_owned(), "0".repeat(64))]);
    block_on(async {
        let error = at.store.create("k", &body, &known).await.unwrap_err();
        assert_eq!(error.kind, Kind::Other, "{error}");
        assert_eq!(at.store.head("k").await.unwrap(), None);
    });
}
