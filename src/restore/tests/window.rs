//! A part of a backup: by the timestamp of each record, and by offsets.

use super::*;

const NONE: i64 = -1;

/// Adds an object of partition 0 with a record for each timestamp, from offset `start` on.
async fn add_at(bed: &Bed, start: i64, timestamps: &[i64]) {
    let next = start + timestamps.len() as i64;
    let (mut meta, _) = object(0, start, next, &(start..next).collect::<Vec<_>>());
    let mut batch = RecordBatch::default();
    for (offset, ms) in (start..).zip(timestamps) {
        let value = offset.to_string();
        batch.push(offset, (*ms, TimestampType::CreateTime), None, Some(value.as_bytes()), []);
    }
    let min = timestamps.iter().min().copied();
    meta.timestamps = min.zip(timestamps.iter().max().copied());
    meta.sha256.clear();
    let bytes = encode(&meta, &batch);
    let name = PartitionPath::normal("t", 1, 0).object(start);
    bed.store.create(&name, &Body::from(bytes), &meta.to_metadata()).await.unwrap();
}

/// The offsets restored, which the values name.
fn offsets(records: &[Owned]) -> Vec<i64> {
    let offset = |record: &Owned| String::from_utf8(record.value.clone().unwrap()).unwrap().parse().unwrap();
    records.iter().map(offset).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_is_judged_by_its_own_timestamp() {
    let mut bed = Bed::new().await;
    add_at(&bed, 0, &[100, 90, 210, 120]).await; // out of order, across both ends
    add_at(&bed, 4, &[150, 199, 100]).await; // inside
    add_at(&bed, 7, &[10, 99, 20]).await; // in front
    add_at(&bed, 10, &[200, 300]).await; // behind
    add_at(&bed, 12, &[NONE, 50]).await; // in front, but for one that has no timestamp
    add_at(&bed, 14, &[NONE, NONE]).await;
    bed.times = Times { from_ms: Some(100), until_ms: Some(200) };
    let plan = bed.plan().await.unwrap();
    let totals = plan.totals();
    assert_eq!((totals.objects, totals.skipped_objects, totals.uncounted_objects), (4, 2, 3));
    assert_eq!((totals.records, totals.records_at_most), (3, Some(11)));
    let (report, records) = act(&bed, &plan, Lists::default(), &Stop::default()).await;
    assert_eq!(offsets(&records[&0]), [0, 3, 4, 5, 6, 12, 14, 15]);
    assert_eq!((report.exit(), report.planned(), report.produced()), (Exit::Ok, 8, 8));
    let summary: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!((&summary["records_filtered"], &summary["records_without_timestamp"]), (&3.into(), &3.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_overlapping_objects_repeat_is_left_out_once() {
    let mut bed = Bed::new().await;
    add_at(&bed, 0, &[10, 20, 30, 40]).await;
    add_at(&bed, 2, &[30, 40, 50, 60]).await;
    bed.times = Times { from_ms: Some(25), until_ms: Some(55) };
    let plan = bed.plan().await.unwrap();
    let (report, records) = act(&bed, &plan, Lists::default(), &Stop::default()).await;
    assert_eq!((offsets(&records[&0]), report.partitions[0].filtered), (vec![2, 3, 4], 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_exact_and_only_what_they_touch_is_read() {
    let mut bed = Bed::new().await;
    for start in [0, 10, 20, 30] {
        bed.add(0, start, start + 10, &(start..start + 10).collect::<Vec<_>>()).await;
    }
    bed.add(1, 0, 5, &(0..5).collect::<Vec<_>>()).await;
    bed.offsets.insert(("t".to_owned(), 0), Offsets { from: Some(10), until: Some(23) });
    let plan = bed.plan().await.unwrap();
    let totals = plan.totals();
    assert_eq!((totals.records, totals.records_at_most, totals.skipped_objects), (15, Some(18), 2));
    let (report, records) = act(&bed, &plan, Lists::default(), &Stop::default()).await;
    assert_eq!((report.exit(), report.planned()), (Exit::Ok, 18));
    assert_eq!((&records[&0], records[&1].len()), (&expected(10..23), 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_only_reading_shows_to_be_empty_is_an_error() {
    let mut bed = Bed::new().await;
    add_at(&bed, 0, &[10, 90]).await;
    bed.times = Times { from_ms: Some(40), until_ms: Some(50) };
    let plan = bed.plan().await.unwrap();
    let (report, _) = act(&bed, &plan, Lists::default(), &Stop::default()).await;
    assert_eq!((report.exit(), report.produced()), (Exit::NotFound, 0), "{}", report.text());
    bed.times = Times { from_ms: Some(91), until_ms: None };
    assert_eq!(bed.plan().await, Err(vec![Refusal::NothingMatched]));
}
