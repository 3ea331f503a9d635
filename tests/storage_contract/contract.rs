//! What every store does.

use std::io::Write;

use kafka_backup::model::avro::{Codec, SYNC_BYTES, write_header};
use kafka_backup::storage::check::{StoreCheck, store_check};
use kafka_backup::storage::{Body, Create, Kind, Piece};
use rstest::rstest;

use super::*;

/// An Avro file's header with our metadata, and some bytes behind it.
fn avro(metadata: &Metadata, rest: &str) -> Vec<u8> {
    [&write_header(Codec::Null, &[7; SYNC_BYTES], metadata), rest.as_bytes()].concat()
}

async fn fill(store: &dyn Store, keys: &[&str]) {
    for key in keys {
        assert_eq!(store.create(key, &Body::from(key.to_string()), &none()).await.unwrap(), Create::Created);
    }
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
