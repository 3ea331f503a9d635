//! Verification of objects in a folder: generations, what retention leaves, stores that fail or must not be written.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::report::{Report, Tally};
use super::{Verify, look, status};
use crate::error::{Exit, Result};
use crate::model::chain::GenerationRecord;
use crate::model::key::{self, PartitionPath};
use crate::model::object::Metadata;
use crate::model::verify::{Expiry, Mode, Reason};
use crate::restore::tests::{Bed, UUID, encode_like, hash, object};
use crate::storage::fault::{Fault, FaultStore};
use crate::storage::{Body, Kind, Store};

fn ask(store: &Arc<dyn Store>, mode: Mode, expiry: Expiry) -> Verify {
    Verify {
        store: store.clone(),
        topic: None,
        job: None,
        mode,
        subset: None,
        expiry: Arc::new(move |_| expiry),
        record: true,
        json: true,
    }
}

/// What a verification counts; findings are printed as well.
async fn verify(verify: &Verify) -> Result<Tally> {
    let report = Arc::new(Report::new(verify.mode, verify.subset, true));
    look(verify, &report).await?;
    Ok(report.tallies().remove("orders").unwrap_or_default())
}

async fn record(bed: &Bed, change: impl FnOnce(&mut GenerationRecord)) {
    let first = bed.store.get(&key::generation_record("t", 1)).await.unwrap().unwrap();
    let mut record: GenerationRecord = serde_json::from_slice(&first).unwrap();
    change(&mut record);
    let json = serde_json::to_vec(&record).unwrap();
    let name = key::generation_record("t", record.generation);
    bed.store.put(&name, &Body::from(json), &Metadata::new()).await.unwrap();
}

/// Adds an object of which everything that it says is true.
async fn put(bed: &Bed, generation: u32, uuid: &str, start: i64, next: i64) {
    let (mut meta, _) = object(0, start, next, &(start..next).collect::<Vec<_>>());
    meta.generation = uuid.to_owned();
    meta.timestamps = Some((1_700_000_000_000 + start, 1_700_000_000_000 + next - 1));
    meta.max_record_bytes = 0;
    meta.sha256.clear();
    let bytes = encode_like(&meta);
    meta.sha256 = hash(&bytes);
    let name = PartitionPath::normal("t", generation, 0).object(start);
    bed.store.create(&name, &Body::from(bytes), &meta.to_metadata()).await.unwrap();
}

/// A topic with one object, of offsets 0 to 29.
async fn backed_up() -> Bed {
    let bed = Bed::new().await;
    record(&bed, |record| record.origins = (0..3).map(|partition| (partition.to_string(), 0)).collect()).await;
    put(&bed, 1, UUID, 0, 30).await;
    bed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_begins_where_it_forked_from_its_parent() {
    let bed = backed_up().await;
    put(&bed, 1, UUID, 30, 60).await;
    record(&bed, |record| {
        (record.generation, record.uuid, record.parent) = (2, "second".to_owned(), Some(1));
        record.forks = BTreeMap::from([("0".to_owned(), 45), ("1".to_owned(), 0)]);
        record.origins = record.forks.clone();
    })
    .await;
    put(&bed, 2, "second", 45, 50).await;
    let asked = ask(&bed.store, Mode::Data, Expiry::Never);
    let tally = verify(&asked).await.unwrap();
    assert_eq!((tally.partitions, tally.objects, tally.read_objects, tally.records), (2, 3, 3, 65));
    assert!(tally.bad.is_empty(), "{:?}", tally.bad);

    bed.store.delete(&PartitionPath::normal("t", 1, 0).object(30)).await.unwrap();
    let tally = verify(&asked).await.unwrap();
    assert_eq!(tally.bad, BTreeMap::from([(Reason::Missing, 1)]), "the parent must reach up to the fork");

    bed.store.delete(&key::generation_record("t", 1)).await.unwrap();
    let tally = verify(&asked).await.unwrap();
    assert_eq!(tally.bad, BTreeMap::from([(Reason::Missing, 1)]), "and its record must be there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_gone_as_a_whole_is_missed() {
    let bed = backed_up().await;
    let asked = ask(&bed.store, Mode::Manifest, Expiry::Never);
    assert!(verify(&asked).await.unwrap().bad.is_empty());
    bed.store.delete(&PartitionPath::normal("t", 1, 0).object(0)).await.unwrap();
    assert_eq!(verify(&asked).await.unwrap().bad, BTreeMap::from([(Reason::Missing, 1)]));
    let tally = verify(&ask(&bed.store, Mode::Manifest, Expiry::Possible)).await.unwrap();
    assert_eq!((tally.bad.len(), tally.notes), (0, 1), "it may have expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_generation_that_is_none_is_named_and_the_rest_is_looked_at() {
    let bed = backed_up().await;
    bed.store.put(&key::generation_record("t", 2), &Body::from("{"), &Metadata::new()).await.unwrap();
    let tally = verify(&ask(&bed.store, Mode::Data, Expiry::Never)).await.unwrap();
    assert_eq!((tally.bad, tally.records), (BTreeMap::from([(Reason::Metadata, 1)]), 30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_read_is_no_damage() {
    let bed = backed_up().await;
    for operation in ["list", "head", "get_range"] {
        let faulty = FaultStore::new(bed.store.clone());
        (0..3).for_each(|_| faulty.add(Fault::before(operation, Kind::Auth)));
        let store: Arc<dyn Store> = Arc::new(faulty);
        let error = verify(&ask(&store, Mode::Data, Expiry::Never)).await.unwrap_err();
        assert_eq!(error.exit, Exit::Auth, "{operation}: {error}");
    }
}

/// Damage on the way is no damage of the object: it is read once more.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_damaged_on_the_way_is_read_once_more() {
    let bed = backed_up().await;
    let faulty = FaultStore::new(bed.store.clone());
    faulty.add(Fault::before("get_range", Kind::Changed));
    let store: Arc<dyn Store> = Arc::new(faulty);
    let tally = verify(&ask(&store, Mode::Data, Expiry::Never)).await.unwrap();
    assert_eq!((tally.bad.len(), tally.records), (0, 30));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_only_read_are_enough() {
    let bed = backed_up().await;
    let faulty = FaultStore::new(bed.store.clone());
    (0..8).for_each(|_| faulty.add(Fault::before("put", Kind::Auth)));
    let store: Arc<dyn Store> = Arc::new(faulty);
    let asked = ask(&store, Mode::Data, Expiry::Never);
    let tally = verify(&asked).await.unwrap();
    let tallies = BTreeMap::from([("orders".to_owned(), tally)]);
    assert!(!status::store(&asked, &tallies, true).await, "it says that the result is not kept");
    assert!(status::load(&bed.store, "orders").await.unwrap().is_empty());
    let writable = ask(&bed.store, Mode::Data, Expiry::Never);
    assert!(status::store(&writable, &tallies, true).await);
    let kept = status::load(&bed.store, "orders").await.unwrap();
    assert_eq!((kept.len(), kept[0].mode, kept[0].objects), (1, Mode::Data, 1));
    assert!((kept[0].coverage() - 1.0).abs() < 1e-9);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_without_a_record_of_their_generation_are_named() {
    let bed = backed_up().await;
    put(&bed, 2, UUID, 0, 5).await;
    let tally = verify(&ask(&bed.store, Mode::Manifest, Expiry::Possible)).await.unwrap();
    assert_eq!(tally.bad, BTreeMap::from([(Reason::Missing, 1)]));
}
