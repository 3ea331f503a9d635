//! The room against a folder, with lifecycle rules that are kept byte for byte where a test wants a bucket.

use std::sync::Arc;
use std::time::Duration;

use super::report::Report;
use super::survey::JobTopic;
use super::{How, keeper};
use crate::clock::now_ms;
use crate::config::{Job, Lifecycle, Retention};
use crate::model::key;
use crate::model::lifecycle::plan::Step;
use crate::model::lifecycle::rule::written;
use crate::model::object::Metadata;
use crate::pipeline::expiry::record_of;
use crate::pipeline::heads;
use crate::storage::fault::{Fault, FaultStore, Rules};
use crate::storage::file::FileStore;
use crate::storage::{Body, Create, Kind, Store};

/// A job of one topic.
pub fn job(id: &str, topic: &str, retention: Retention) -> Arc<Job> {
    let mut job = crate::pipeline::tests::any_job(id, topic);
    job.retention = retention;
    Arc::new(job)
}

fn topic(job: Arc<Job>, days: Option<u32>) -> JobTopic {
    JobTopic { topic: job.topics.literal[0].clone(), job, days: Ok(days), hindrance: None }
}

fn days(topic_name: &str, n: Option<u32>) -> JobTopic {
    topic(job("j", topic_name, n.map_or(Retention::Keep, Retention::Days)), n)
}

struct Bucket {
    _dir: tempfile::TempDir,
    store: Arc<FaultStore>,
}

impl Bucket {
    fn new(document: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let inner = FileStore::open(dir.path(), "", tokio::runtime::Handle::current()).unwrap();
        let rules = Rules { document: document.map(str::to_owned), versioned: false };
        Self { store: Arc::new(FaultStore::with_rules(Arc::new(inner), rules)), _dir: dir }
    }

    fn dyn_store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn put(&self, key: &str) {
        let created = self.store.create(key, &Body::from("x"), &Metadata::new()).await.unwrap();
        assert_eq!(created, Create::Created);
    }

    async fn in_step(&self, topics: &[JobTopic], how: How) -> Report {
        keeper::in_step(&self.dyn_store(), topics, how).await.unwrap()
    }

    async fn last(&self, topic: &str) -> Option<Option<u32>> {
        record_of(&self.dyn_store(), topic).await.unwrap().unwrap().last()
    }
}

const QUICK: How = How { allow_decrease: false, dry_run: false, settle: Duration::ZERO };
const ALLOWED: How = How { allow_decrease: true, ..QUICK };
const DRY: How = How { dry_run: true, ..ALLOWED };

const FOREIGN: &str = "<?xml version=\"1.0\"?>\n<LifecycleConfiguration  xmlns=\"u\">\n\t<Rule><ID>big</ID>\
    <Filter><ObjectSizeGreaterThan>500</ObjectSizeGreaterThan></Filter><Status>Disabled</Status>\
    <Expiration><Days>3</Days></Expiration><What/></Rule>\n</LifecycleConfiguration>\n";

#[tokio::test]
async fn a_bucket_comes_into_step_and_stays_there() {
    let bucket = Bucket::new(Some(FOREIGN));
    bucket.put("t/0/t-0-00000000000000000000.avro").await;
    let dry = bucket.in_step(&[days("t", Some(30))], DRY).await;
    assert_eq!((dry.drift_of("j"), bucket.store.calls("put_document")), (1, 0));
    assert_eq!(bucket.last("t").await, None);
    let first = bucket.in_step(&[days("t", Some(30))], QUICK).await;
    assert_eq!((first.drift_of("j"), first.topics[0].done), (0, true));
    let expected = FOREIGN.replace("</Lifecycle", &format!("{}</Lifecycle", written("", "t/", 30, false)));
    assert_eq!(bucket.store.rules().document.as_deref(), Some(expected.as_str()));
    assert_eq!(bucket.last("t").await, Some(Some(30)));
    let kept = bucket.store.list("_kafka_backup/lifecycle/", None, 10).await.unwrap().entries;
    assert_eq!(bucket.store.get(&kept[0].key).await.unwrap().unwrap(), FOREIGN);
    let again = bucket.in_step(&[days("t", Some(30))], QUICK).await;
    assert_eq!((again.topics[0].step, again.drift_of("j")), (Some(Step::Leave), 0));
    assert_eq!(bucket.store.calls("put_document"), 1);
    bucket.in_step(&[days("t", None)], QUICK).await;
    assert_eq!(bucket.store.rules().document.as_deref(), Some(FOREIGN));
    assert_eq!(bucket.last("t").await, Some(None));
}

#[tokio::test]
async fn a_shorter_retention_waits_for_permission() {
    let bucket = Bucket::new(None);
    bucket.in_step(&[days("t", Some(7))], QUICK).await;
    let before = bucket.store.rules();
    let report = bucket.in_step(&[days("t", Some(1))], QUICK).await;
    assert_eq!((report.drift_of("j"), report.topics[0].is_problem()), (1, false));
    assert!(report.topics[0].difference().unwrap().contains("--allow-retention-decrease"));
    assert_eq!((bucket.store.rules(), bucket.last("t").await), (before, Some(Some(7))));
    bucket.in_step(&[days("t", Some(1))], ALLOWED).await;
    assert_eq!(bucket.last("t").await, Some(Some(1)));
}

/// Two daemons that want different things for one topic end at the longer retention, and stay there.
#[tokio::test]
async fn two_daemons_do_not_fight() {
    let bucket = Bucket::new(None);
    let wishes = [Some(7), Some(30), None];
    for wish in wishes {
        bucket.in_step(&[days("t", wish)], QUICK).await;
    }
    let settled = (bucket.store.rules(), bucket.store.calls("put_document") + bucket.store.calls("delete_document"));
    for wish in wishes {
        bucket.in_step(&[days("t", wish)], QUICK).await;
    }
    let now = (bucket.store.rules(), bucket.store.calls("put_document") + bucket.store.calls("delete_document"));
    assert_eq!((settled.0.document.clone(), now), (None, settled));
    // Topics of others are none of their business.
    bucket.in_step(&[days("u", Some(3))], QUICK).await;
    let report = bucket.in_step(&[days("t", None)], QUICK).await;
    assert_eq!((report.drift_of("j"), bucket.store.rules().document.is_some()), (0, true));
}

#[tokio::test]
async fn keys_that_are_not_ours_refuse_a_rule() {
    for stranger in ["t/notes.txt", "t/a/0/t-0-00000000000000000000.avro", "t/0/u-0-00000000000000000000.avro"] {
        let bucket = Bucket::new(None);
        bucket.put(stranger).await;
        let report = bucket.in_step(&[days("t", Some(3))], ALLOWED).await;
        assert!(report.topics[0].is_problem() && report.topics[0].difference().unwrap().contains(stranger));
        assert_eq!(bucket.store.rules().document, None);
    }
}

#[tokio::test]
async fn check_only_looks_and_off_looks_away() {
    let bucket = Bucket::new(None);
    let with = |mode| {
        let mut job = (*job("j", "t", Retention::Days(3))).clone();
        job.lifecycle = mode;
        topic(Arc::new(job), Some(3))
    };
    let report = bucket.in_step(&[with(Lifecycle::Check)], ALLOWED).await;
    assert_eq!((report.drift_of("j"), report.topics[0].is_problem()), (1, false));
    assert_eq!(bucket.last("t").await, None);
    let report = bucket.in_step(&[with(Lifecycle::Off)], ALLOWED).await;
    assert_eq!((report.drift_of("j"), bucket.last("t").await), (0, Some(Some(3))));
    assert_eq!(bucket.store.rules().document, None);
}

#[tokio::test]
async fn rules_of_others_that_remove_what_is_kept_are_named() {
    let everything = "<LifecycleConfiguration><Rule><ID>cheap</ID><Filter/><Status>Enabled</Status>\
                      <Expiration><Days>3</Days></Expiration></Rule></LifecycleConfiguration>";
    let bucket = Bucket::new(Some(everything));
    let report = bucket.in_step(&[days("t", None)], QUICK).await;
    assert_eq!((report.drift_of("j"), report.threats.len()), (1, 1));
    assert!(report.topics[0].threats[0].contains("cheap"));
    assert_eq!(bucket.last("t").await, Some(Some(3)), "what expires is accounted for");
    assert_eq!(bucket.store.rules().document.as_deref(), Some(everything));
}

#[tokio::test]
async fn what_cannot_be_read_changes_nothing() {
    for (operation, kind) in [("document", Kind::Auth), ("put_document", Kind::Other), ("list", Kind::Auth)] {
        let bucket = Bucket::new(Some(FOREIGN));
        bucket.store.add(Fault::before(operation, kind).always());
        let failed = keeper::in_step(&bucket.dyn_store(), &[days("t", Some(3))], QUICK).await;
        assert!(failed.is_err(), "{operation}");
        assert_eq!(bucket.store.rules().document.as_deref(), Some(FOREIGN));
    }
    let bucket = Bucket::new(Some("<html>"));
    assert!(keeper::in_step(&bucket.dyn_store(), &[days("t", Some(3))], QUICK).await.is_err());
}

/// Another writer puts back what it had read before our change.
#[tokio::test]
async fn a_lost_update_is_noticed() {
    let bucket = Bucket::new(Some(FOREIGN));
    let store = bucket.store.clone();
    let settle = Duration::from_millis(300);
    let other = tokio::spawn(async move {
        while store.calls("put_document") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        store.set_document(Some(FOREIGN));
    });
    let report = bucket.in_step(&[days("t", Some(3))], How { settle, ..QUICK }).await;
    other.await.unwrap();
    assert_eq!((report.drift_of("j"), report.topics[0].done), (1, false));
    assert!(report.notes.iter().any(|note| note.contains("did not last")), "{:?}", report.notes);
    assert_eq!(bucket.in_step(&[days("t", Some(3))], QUICK).await.drift_of("j"), 0);
}

#[tokio::test]
async fn a_folder_loses_what_is_older() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::open(dir.path(), "", tokio::runtime::Handle::current()).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let names = [0, 5, 9].map(|offset| format!("t/0/t-0-{offset:020}.avro"));
    for name in names.iter().map(String::as_str).chain(["t/notes.txt", "u/0/u-0-00000000000000000000.avro"]) {
        store.create(name, &Body::from("x"), &Metadata::new()).await.unwrap();
    }
    let age = |name: &str, hours: u64| {
        let file = std::fs::File::options().write(true).open(dir.path().join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
    };
    age(&names[0], 50);
    age(&names[1], 49);
    age("t/notes.txt", 500);
    age("u/0/u-0-00000000000000000000.avro", 500);
    let report = keeper::in_step(&store, &[days("t", Some(2)), days("u", None)], QUICK).await.unwrap();
    assert_eq!(report.drift_of("j"), 0);
    assert_eq!(super::folder::sweep(&store, &report).await.unwrap(), 2);
    let left: Vec<_> = store.list("", None, 100).await.unwrap().entries.into_iter().map(|entry| entry.key).collect();
    assert!(left.contains(&names[2]) && left.contains(&"t/notes.txt".to_owned()) && left.len() == 4, "{left:?}");
    let shorter = keeper::in_step(&store, &[days("t", Some(1))], QUICK).await.unwrap();
    assert_eq!((shorter.drift_of("j"), shorter.topics[0].in_force_days), (1, Some(2)));
    let allowed = keeper::in_step(&store, &[days("t", Some(1))], ALLOWED).await.unwrap();
    assert_eq!((allowed.drift_of("j"), allowed.topics[0].in_force_days), (0, Some(1)));
}

#[tokio::test]
async fn the_end_of_a_quiet_list_is_written_down_once() {
    let bucket = Bucket::new(None);
    let (store, mut heads) = (bucket.dyn_store(), heads::Heads::default());
    let partition = crate::kafka::TopicPartition::new("t", 3);
    let of = |next, written_ms| crate::pipeline::lane::Progress::of_list(next, "uuid", Some((written_ms, 7)));
    let half = now_ms() - 12 * 3_600_000;
    assert!(!heads.write(&store, &partition, &of(10, half + 60_000), 1).await.unwrap(), "too early");
    assert!(heads.write(&store, &partition, &of(10, half), 1).await.unwrap());
    assert!(!heads.write(&store, &partition, &of(10, half), 1).await.unwrap(), "it is there");
    let mut other_process = heads::Heads::default();
    assert!(!other_process.write(&store, &partition, &of(9, half), 1).await.unwrap(), "it would say less");
    let head = heads::read(&store, &partition, "uuid").await.unwrap().unwrap();
    assert_eq!((head.next_offset, head.leader_epoch), (10, 7));
    assert_eq!(heads::read(&store, &partition, "another").await.unwrap(), None);
    assert!(bucket.store.get(&key::head_record("t", 3)).await.unwrap().is_some());
}
