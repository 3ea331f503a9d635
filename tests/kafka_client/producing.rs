//! What the producer of a restore sends, and what it refuses.

use super::*;

#[test]
fn records_come_back_as_they_were_sent() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("exact");
    create(&kafka, &topic, 1, &[("max.message.bytes", "12000000")]);
    let at = TopicPartition::new(topic.as_str(), 0);
    let header = |name, value| Header { name, value };
    let large = vec![7u8; 10_000_000];
    let mut sent = RecordBatch::default();
    let create_time = |t| (t, TimestampType::CreateTime);
    sent.push(0, create_time(1), None, None, []);
    sent.push(1, create_time(1_700_000_000_000), Some(b""), Some(b""), []);
    sent.push(2, create_time(-1), Some(b"k"), None, []);
    sent.push(
        3,
        create_time(1_700_000_000_001),
        None,
        Some(b"v"),
        [
            header(b"\xff\xfe not utf-8".as_slice(), Some(b"1".as_slice())),
            header(b"twice", Some(b"a")),
            header(b"null", None),
            header(b"empty", Some(b"")),
            header(b"twice", Some(b"b")),
            header(b"", Some(b"no name")),
        ],
    );
    sent.push(4, create_time(5), None, Some(&large), []);
    assert_eq!(produce(&kafka, &at, &sent), [0, 1, 2, 3, 4]);

    let member = Member::join(&kafka, &settings(&topic), &topic);
    member.own(&mut Vec::new(), 1);
    let mut queue = member.place(&at, 0, 0);
    let mut got = RecordBatch::default();
    drain_to_eof(&mut queue, &mut got);
    let sent: Vec<Record<'_>> = sent.iter().collect();
    let got: Vec<Record<'_>> = got.iter().collect();
    assert_eq!(got.len(), sent.len());
    for (got, sent) in got.iter().zip(&sent) {
        assert!(got == sent, "offset {}: {:?} {:?}", sent.offset, (got.timestamp, got.timestamp_type), got.key);
    }
    member.close();
}

#[test]
fn a_record_the_producer_cannot_carry_is_refused() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("refused");
    create(&kafka, &topic, 1, &[]);
    let s = ProducerSettings { record_bytes_max: 1_000_000, ..ProducerSettings::default() };
    let producer = RestoreProducer::new(&kafka, &s, Box::new(|_, _, _| ())).expect("producer");
    let handle = producer.topic(&topic).expect("topic");
    let mut batch = RecordBatch::default();
    batch.push(0, (i64::MIN, TimestampType::CreateTime), None, None, []);
    batch.push(1, (1, TimestampType::CreateTime), None, Some(&vec![0; 2_000_000]), []);
    let send = |i| producer.send(&handle, 0, &batch.get(i).expect("there"), 0);
    assert!(matches!(send(0), Err(SendError::Timestamp(i64::MIN))));
    assert!(matches!(send(1), Err(SendError::TooLarge(_))));
    assert!(producer.in_flight() == 0 && producer.fatal().is_none());
}
