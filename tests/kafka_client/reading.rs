//! What the queue of a partition delivers.

use super::*;

#[test]
fn end_of_partition_is_behind_aborted_records_and_markers() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("eof");
    let cluster = create(&kafka, &topic, 1, &[]);
    transaction(&kafka, &topic, 10, true); // records 0..=9, marker 10
    transaction(&kafka, &topic, 5, false); // aborted 11..=15, marker 16
    let member = Member::join(&kafka, &settings(&topic), &topic);
    let mut owned = Vec::new();
    member.own(&mut owned, 1);
    let mut queue = member.place(&owned[0], 0, -1);
    let mut batch = RecordBatch::with_capacity(1 << 20);
    assert_eq!(drain_to_eof(&mut queue, &mut batch), 17);
    assert_eq!(batch.len(), 10);
    assert_eq!(batch.last().map(|r| r.offset), Some(9));
    assert_eq!(batch.next_offset, 17);
    assert_eq!(batch.leader_epoch, 0);
    drop(cluster);
    member.close();
}

#[test]
fn a_position_above_the_end_of_its_epoch_is_a_truncation() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("truncated");
    create(&kafka, &topic, 1, &[]);
    let at = TopicPartition::new(topic.as_str(), 0);
    produce(&kafka, &at, &numbered("a", 10));
    let member = Member::join(&kafka, &settings(&topic), &topic);
    member.own(&mut Vec::new(), 1);
    let mut batch = RecordBatch::default();

    let mut queue = member.place(&at, 15, 0);
    match drain_to_error(&mut queue, &mut batch) {
        QueueError::Truncated { end_offset, .. } => assert_eq!(end_offset, Some(10)),
        other => panic!("{other:?}"),
    }
    // An epoch the broker never had.
    let mut queue = member.place(&at, 5, 7);
    match drain_to_error(&mut queue, &mut batch) {
        QueueError::Truncated { end_offset, .. } => assert_eq!(end_offset, None),
        other => panic!("{other:?}"),
    }
    // Without an epoch it is only out of range.
    let mut queue = member.place(&at, 15, -1);
    assert!(matches!(drain_to_error(&mut queue, &mut batch), QueueError::OutOfRange { .. }));
    assert!(batch.is_empty());
    // After all that the partition still works, from the very position, with its epoch.
    let mut queue = member.place(&at, 4, 0);
    assert_eq!(drain_to_eof(&mut queue, &mut batch), 10);
    assert_eq!(batch.iter().map(|r| r.offset).collect::<Vec<_>>(), (4..10).collect::<Vec<_>>());
    member.close();
}

#[test]
fn a_drain_keeps_its_limits_and_names_what_it_needs() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("limits");
    create(&kafka, &topic, 1, &[]);
    let at = TopicPartition::new(topic.as_str(), 0);
    let mut sent = RecordBatch::default();
    for size in [100, 100, 5000, 100] {
        sent.push(0, (1, TimestampType::CreateTime), None, Some(&vec![1; size]), []);
    }
    produce(&kafka, &at, &sent);
    let member = Member::join(&kafka, &settings(&topic), &topic);
    member.own(&mut Vec::new(), 1);
    let mut queue = member.place(&at, 0, 0);
    let (wake, woken) = mpsc::channel();
    queue.set_wakeup(Box::new(move || wake.send(()).unwrap_or_default()));
    let mut batch = RecordBatch::default();
    let begin = Instant::now();
    while batch.len() < 2 {
        assert!(begin.elapsed() < SOON);
        let _ = woken.recv_timeout(Duration::from_millis(100));
        queue.drain(&mut batch, 1000, 2);
    }
    assert_eq!((batch.len(), batch.next_offset), (2, 2));
    let drained = queue.drain(&mut batch, 1000, usize::MAX);
    assert!(drained.records == 0 && drained.needs.is_none() && !drained.exhausted, "{drained:?}");
    batch.clear();
    let drained = queue.drain(&mut batch, 1000, usize::MAX);
    assert!(drained.records == 0 && drained.needs == Some(5000), "{drained:?}");
    assert_eq!(drain_to_eof(&mut queue, &mut batch), 4);
    assert_eq!(batch.iter().map(|r| r.offset).collect::<Vec<_>>(), [2, 3]);
    produce(&kafka, &at, &numbered("woken", 1));
    woken.recv_timeout(SOON).expect("a wake-up");
    member.close();
}

/// Not a test of anything: how fast a full queue is drained. 1,000,000 records of about 900 bytes.
#[test]
#[ignore = "a measurement"]
fn drain_throughput() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("throughput");
    create(&kafka, &topic, 1, &[]);
    let at = TopicPartition::new(topic.as_str(), 0);
    let value: Vec<u8> = (0..850).map(|i| b"0123456789 abcdef, \"field\": "[(i * 7 + i / 13) % 27]).collect();
    let mut part = RecordBatch::default();
    for i in 0..50_000u32 {
        let headers = [Header { name: b"trace", value: Some(b"0123456789abcdef") }];
        part.push(0, (1_700_000_000_000, TimestampType::CreateTime), Some(&i.to_be_bytes()), Some(&value), headers);
    }
    let begin = Instant::now();
    for _ in 0..20 {
        produce(&kafka, &at, &part);
    }
    eprintln!("produced: {:.0} records/s", 1e6 / begin.elapsed().as_secs_f64());
    let mut s = settings(&topic);
    (s.prefetch_bytes, s.partitions) = (256 << 20, 1);
    let member = Member::join(&kafka, &s, &topic);
    member.own(&mut Vec::new(), 1);
    let mut queue = member.place(&at, 0, 0);
    let mut batch = RecordBatch::with_capacity(1 << 20);
    let (mut records, mut busy, mut drains) = (0, Duration::ZERO, 0u32);
    let begin = Instant::now();
    while records < 1_000_000 {
        batch.clear();
        let drain = Instant::now();
        let drained = queue.drain(&mut batch, 1 << 20, usize::MAX);
        if drained.records == 0 {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        busy += drain.elapsed();
        drains += 1;
        records += drained.records;
    }
    let (total, busy) = (begin.elapsed().as_secs_f64(), busy.as_secs_f64());
    eprintln!("end to end: {:.0} records/s; draining alone: {:.0} records/s, {drains} drains", 1e6 / total, 1e6 / busy);
    member.close();
    delete(&kafka, &topic);
}
