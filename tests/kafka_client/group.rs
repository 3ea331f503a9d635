//! Members of a group: what they own, and what they commit.

use super::*;

/// librdkafka's batch calls set the position behind the end-of-partition event; the rebalance that follows here goes
/// on from the position, and the next record would be lost.
#[test]
fn nothing_is_skipped_when_a_rebalance_follows_the_end() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("skip");
    create(&kafka, &topic, 2, &[]);
    let at = TopicPartition::new(topic.as_str(), 0);
    produce(&kafka, &at, &numbered("a", 3));
    let first = Member::join(&kafka, &settings(&topic), &topic);
    let mut owned = Vec::new();
    first.own(&mut owned, 2);
    let mut queues: Vec<_> = owned.iter().map(|at| first.place(at, 0, -1)).collect();
    let mut batches = [RecordBatch::default(), RecordBatch::default()];
    for (queue, batch) in queues.iter_mut().zip(&mut batches) {
        drain_to_eof(queue, batch);
    }
    let second = Member::join(&kafka, &settings(&topic), &topic);
    first.own(&mut owned, 1);
    let kept = owned[0].partition as usize;
    produce(&kafka, &owned[0], &numbered("b", 4));
    let begin = Instant::now();
    let before = batches[kept].len();
    while batches[kept].len() < before + 4 {
        let drained = queues[kept].drain(&mut batches[kept], usize::MAX, usize::MAX);
        assert!(drained.error.is_none(), "{:?}", drained.error);
        assert!(begin.elapsed() < SOON, "{} records", batches[kept].len());
        std::thread::sleep(Duration::from_millis(5));
    }
    let offsets: Vec<i64> = batches[kept].iter().map(|r| r.offset).collect();
    assert_eq!(offsets, (0..(before + 4) as i64).collect::<Vec<_>>());
    // The queue of the partition that went away is empty for ever.
    let gone = 1 - kept;
    let drained = queues[gone].drain(&mut batches[gone], usize::MAX, usize::MAX);
    assert!(drained.records == 0 && drained.exhausted && drained.error.is_none(), "{drained:?}");
    second.close();
    first.close();
}

#[test]
fn two_members_share_while_neither_has_placed_anything() {
    let strategy = "partition.assignment.strategy";
    for (key, strategy) in [(strategy, "cooperative-sticky"), (strategy, "range"), ("group.protocol", "consumer")] {
        let Some(kafka) = kafka(&[(key, strategy)]) else { return };
        let topic = unique(strategy);
        create(&kafka, &topic, 4, &[]);
        for partition in 0..4 {
            produce(&kafka, &TopicPartition::new(topic.as_str(), partition), &numbered("a", 5));
        }
        let first = Member::join(&kafka, &settings(&topic), &topic);
        let expected = if strategy == "range" { Protocol::Eager } else { Protocol::Cooperative };
        assert_eq!(first.consumer.protocol(), expected);
        let (mut of_first, mut of_second) = (Vec::new(), Vec::new());
        first.own(&mut of_first, 4);
        let second = Member::join(&kafka, &settings(&topic), &topic);
        first.own(&mut of_first, 2);
        second.own(&mut of_second, 2);
        let mut all = [of_first.clone(), of_second.clone()].concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4, "{strategy}: {all:?}");

        // Placing late, in the steady state, works; what is not owned is left out.
        let from_2 = Position { offset: 2, leader_epoch: 0 };
        let everything: Vec<_> = all.iter().map(|at| (at.clone(), from_2)).collect();
        let mut queues = first.consumer.place(&everything).expect("placed");
        assert_eq!(queues.iter().map(|q| q.partition().clone()).collect::<Vec<_>>(), of_first);
        for queue in &mut queues {
            let mut batch = RecordBatch::default();
            assert_eq!(drain_to_eof(queue, &mut batch), 5, "{strategy}");
            assert_eq!(batch.len(), 3);
        }

        // The second leaves; the first owns all again, its queues go on or were replaced.
        second.close();
        first.own(&mut of_first, 4);
        let mut queues = first.consumer.place(&everything).expect("placed");
        assert_eq!(queues.len(), 4, "{strategy}");
        for queue in &mut queues {
            let mut batch = RecordBatch::default();
            assert_eq!(drain_to_eof(queue, &mut batch), 5, "{strategy}");
            assert_eq!(batch.len(), 3);
        }
        first.close();
    }
}

#[test]
fn a_partition_placed_anew_never_feeds_its_old_queue() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("replace");
    create(&kafka, &topic, 1, &[]);
    let at = TopicPartition::new(topic.as_str(), 0);
    produce(&kafka, &at, &numbered("a", 1000));
    let member = Member::join(&kafka, &settings(&topic), &topic);
    member.own(&mut Vec::new(), 1);
    let mut old: Vec<PartitionQueue> = Vec::new();
    for round in 0..20 {
        let mut queue = member.place(&at, round, if round % 2 == 0 { 0 } else { -1 });
        let mut batch = RecordBatch::default();
        let begin = Instant::now();
        while batch.next_offset < 1000 {
            for old in &mut old {
                assert_eq!(old.drain(&mut RecordBatch::default(), usize::MAX, usize::MAX).records, 0);
            }
            queue.drain(&mut batch, usize::MAX, 17);
            assert!(begin.elapsed() < SOON, "round {round}: {}", batch.next_offset);
        }
        let offsets: Vec<i64> = batch.iter().map(|r| r.offset).collect();
        assert_eq!(offsets, (round..1000).collect::<Vec<_>>());
        if round % 3 == 0 {
            member.consumer.unplace(std::slice::from_ref(&at)).expect("unplaced");
        }
        old.push(queue);
    }
    member.close();
}

#[test]
fn commits_come_back_with_their_metadata() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("commit");
    let cluster = create(&kafka, &topic, 2, &[]);
    let member = Member::join(&kafka, &settings(&topic), &topic);
    let mut owned = Vec::new();
    member.own(&mut owned, 2);
    let group = topic.as_str();
    assert_eq!(wait_for(cluster.group_members(group, TIMEOUT)).expect("members").len(), 1);
    member.consumer.commit(&[(owned[0].clone(), 42, "uuid-1".into())]).expect("queued");
    let expected = vec![(owned[0].clone(), Some((42, "uuid-1".to_owned()))), (owned[1].clone(), None)];
    let begin = Instant::now();
    while member.consumer.committed(&owned, SOON).expect("read") != expected {
        assert!(begin.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(wait_for(cluster.committed(group, &owned, TIMEOUT)).expect("read"), expected);
    // A commit is not lost when the member leaves right behind it.
    member.consumer.commit(&[(owned[0].clone(), 43, "uuid-2".into())]).expect("queued");
    member.close();
    let last = wait_for(cluster.committed(group, &owned[..1], TIMEOUT)).expect("read");
    assert_eq!(last, [(owned[0].clone(), Some((43, "uuid-2".to_owned())))]);
    assert!(wait_for(cluster.group_members(group, TIMEOUT)).expect("members").is_empty());
    assert!(wait_for(cluster.group_members("kc-never-there", TIMEOUT)).expect("members").is_empty());
}

#[test]
fn a_commit_that_the_group_refuses_is_reported() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("refused");
    create(&kafka, &topic, 1, &[]);
    let member = Member::join(&kafka, &settings(&topic), &topic);
    member.own(&mut Vec::new(), 1);
    let too_long = "x".repeat(100_000); // offset.metadata.max.bytes is 4096
    member.consumer.commit(&[(TopicPartition::new(topic.as_str(), 0), 1, too_long)]).expect("queued");
    assert!(matches!(member.event(), GroupEvent::CommitFailed(_)));
    member.close();
}
