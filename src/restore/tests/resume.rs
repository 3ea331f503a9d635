//! A restore that was interrupted goes on exactly where the target ends, or not at all.

use super::*;
use crate::restore::fingerprint::fingerprint;

/// A partition in which an object is taken whole, one overlaps it, one is taken in part, and there is a hole.
async fn filled() -> (Bed, Vec<Owned>) {
    let mut bed = Bed::new().await;
    bed.add(0, 0, 20, &(0..20).filter(|o| o % 3 != 1).collect::<Vec<_>>()).await;
    bed.add(0, 20, 40, &(20..40).collect::<Vec<_>>()).await;
    bed.add(0, 30, 50, &(30..50).collect::<Vec<_>>()).await;
    bed.add(0, 60, 70, &(60..70).collect::<Vec<_>>()).await;
    bed.offsets.insert(("t".to_owned(), 0), Offsets { from: None, until: Some(66) });
    let offsets = (0..20).filter(|o| o % 3 != 1).chain(20..50).chain(60..66);
    (bed, expected(offsets))
}

fn print_of(record: &Owned) -> [u8; 32] {
    let mut batch = RecordBatch::default();
    let headers = record.headers.iter().map(|(name, value)| Header { name, value: value.as_deref() });
    let timestamp = (record.timestamp, TimestampType::CreateTime);
    batch.push(0, timestamp, record.key.as_deref(), record.value.as_deref(), headers);
    fingerprint(&batch.first().unwrap())
}

/// Restores onto a target that holds `there`, the last of which has the fingerprint `last`.
async fn go_on(bed: &Bed, there: &[Owned], last: Option<[u8; 32]>) -> (Report, Vec<Owned>) {
    let plan = bed.plan().await.unwrap();
    let lists = Lists { records: Mutex::new(BTreeMap::from([(0, there.to_vec())])), ..Lists::default() };
    let resumed = Resumed { done: there.len() as u64, last };
    let resumed = BTreeMap::from([(("copy".to_owned(), 0), resumed)]);
    let (report, mut records) = act_resumed(bed, &plan, lists, &Stop::default(), resumed).await;
    (report, records.remove(&0).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn from_every_record_it_goes_on_with_the_next() {
    let (bed, all) = filled().await;
    for done in 0..=all.len() {
        let there = &all[..done];
        let (report, records) = go_on(&bed, there, there.last().map(print_of)).await;
        assert!(report.is_restored(), "after {done}: {}", report.text());
        assert_eq!((report.planned(), report.produced()), (all.len() as u64, all.len() as u64), "after {done}");
        assert!(records == all, "after {done}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_is_not_even_read() {
    let (bed, all) = filled().await;
    let plan = bed.plan().await.unwrap();
    // Objects of 13 and 20 records, then one of which some are left: the first two may have expired meanwhile.
    for start in [0, 20] {
        bed.store.delete(&PartitionPath::normal("t", 1, 0).object(start)).await.unwrap();
    }
    let there = &all[..34];
    let lists = Lists { records: Mutex::new(BTreeMap::from([(0, there.to_vec())])), ..Lists::default() };
    let resumed = Resumed { done: 34, last: there.last().map(print_of) };
    let resumed = BTreeMap::from([(("copy".to_owned(), 0), resumed)]);
    let (report, records) = act_resumed(&bed, &plan, lists, &Stop::default(), resumed).await;
    // Between two of the objects there is a hole from the beginning.
    assert!(report.is_restored() && report.exit() == Exit::Incomplete, "{}", report.text());
    assert!(records[&0] == all);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_last_record_is_refused_before_anything_is_produced() {
    let (bed, all) = filled().await;
    for done in [1, 13, 14, 40, all.len()] {
        let there = &all[..done];
        let (report, records) = go_on(&bed, there, Some([7; 32])).await;
        assert_eq!((report.exit(), records.len()), (Exit::Incomplete, done));
        let offset = done as i64 - 1;
        let failure = report.partitions[0].failure.as_ref().unwrap();
        assert!(matches!(failure, Failure::Differs { offset: o, .. } if *o == offset), "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_there_is_to_restore_is_refused() {
    let (bed, mut all) = filled().await;
    let planned_end = all.len() as i64;
    all.push(all[0].clone());
    let (report, records) = go_on(&bed, &all, all.last().map(print_of)).await;
    assert_eq!((report.exit(), records.len()), (Exit::Incomplete, all.len()));
    let failure = report.partitions[0].failure.as_ref().unwrap();
    assert!(matches!(failure, Failure::Foreign { planned_end: p, .. } if *p == planned_end), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_again_and_again_it_ends_all_the_same() {
    let (bed, all) = filled().await;
    let (mut there, mut runs) = (Vec::new(), 0);
    while there.len() < all.len() {
        let stop = Stop::default();
        let plan = bed.plan().await.unwrap();
        let after = there.len() as i64 + 3;
        let resumed = Resumed { done: there.len() as u64, last: there.last().map(print_of) };
        let lists = Lists {
            records: Mutex::new(BTreeMap::from([(0, there.clone())])),
            stop_after: Some((after, stop.clone())),
            ..Lists::default()
        };
        let resumed = BTreeMap::from([(("copy".to_owned(), 0), resumed)]);
        let (report, mut records) = act_resumed(&bed, &plan, lists, &stop, resumed).await;
        let now = records.remove(&0).unwrap();
        assert!(now.len() > there.len(), "{}", report.text());
        assert_eq!(report.produced(), now.len() as u64);
        (there, runs) = (now, runs + 1);
    }
    assert!(runs > 3, "{runs}");
    assert!(there == all);
}
