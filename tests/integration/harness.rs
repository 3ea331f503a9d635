//! The tools of these tests, tested: what reads or breaks things wrongly would prove nothing.

use std::time::Duration;

use crate::common::kafka::Kafka;
use crate::common::proxy::{Fault, Hits, Proxy};
use crate::common::record::{Rec, assert_same};
use crate::common::s3::Bucket;
use crate::common::{beside_others, stack};

#[test]
fn a_record_is_read_from_kafka_as_it_was_produced() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("harness", 1, &[]);
    let odd = Rec { key: None, value: Some(Vec::new()), ..Rec::new(1, "", "") }
        .header("a", None)
        .header(b"\xff\xfe", Some(b""))
        .header("a", Some(b"1"));
    kafka.produce(&topic, 0, &[odd.clone(), Rec::new(5, "k", "v")]);
    let read = kafka.read(&topic, 0);
    let expected = [odd, Rec { offset: 1, ..Rec::new(5, "k", "v") }];
    assert_same("what was produced", &[Rec { offset: 0, ..expected[0].clone() }, expected[1].clone()], &read);
}

#[test]
fn the_reader_sees_committed_records_only() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("harness", 1, &[]);
    let producer = kafka.producer(&[("transactional.id", &topic)]);
    producer.init_transactions();
    for (text, commit) in [("yes", true), ("no", false), ("yes", true)] {
        producer.begin();
        producer.send(&topic, 0, &Rec::new(1, "k", text));
        if commit { producer.commit() } else { producer.abort() }
    }
    let values: Vec<_> = kafka.read(&topic, 0).into_iter().map(|r| (r.offset, r.value.unwrap())).collect();
    assert_eq!(values, [(0, b"yes".to_vec()), (4, b"yes".to_vec())]);
    assert_eq!(kafka.read_as("read_uncommitted", &topic, 0).len(), 3);
}

#[test]
fn the_proxy_breaks_what_it_is_told_to() {
    let _turn = beside_others();
    let bucket = Bucket::create();
    let proxy = Proxy::start(stack::s3_endpoint());
    let broken = Bucket::at(&proxy.url(), &bucket.name);
    let put = |fault| {
        proxy.set(fault, Hits::DataPuts);
        broken.try_put("a.avro", b"x")
    };
    assert!(put(Fault::CutBefore).is_err());
    assert!(put(Fault::Status(503)).unwrap_err().contains("503"));
    assert!(put(Fault::Hang).is_err_and(|e| e == "no answer"));
    assert_eq!(bucket.list("").len(), 0, "nothing reached S3");
    assert!(put(Fault::CutAfter).is_err());
    assert_eq!(bucket.list("").len(), 1, "S3 has done it, and nobody was told");
    assert_eq!(put(Fault::Delay(Duration::from_millis(10))), Ok(()));
    assert_eq!(proxy.hit(), 1);
    assert_eq!(broken.try_put("other", b"x"), Ok(()));
    assert_eq!((proxy.hit(), proxy.seen("PUT")), (1, 6), "a PUT that carries no records passes");
    bucket.wipe("");
    assert_eq!(bucket.list("").len(), 0);
}
