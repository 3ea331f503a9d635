//! What only buckets do.

use kafka_backup::model::lifecycle::plan::{Bucket, Document, Wanted, plan};
use kafka_backup::storage::check::{StoreCheck, store_check};
use kafka_backup::storage::{Body, Create, Kind, StoreError};

use super::*;

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
