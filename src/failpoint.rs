//! Faults on demand, in debug builds only: what no real server can be made to do.
//!
//! `KAFKA_BACKUP_FAIL_ENCODER="TOPIC/PARTITION@OFFSET"` makes the encoder panic at that record every time, with
//! `"...@OFFSETxN"` only the first N times. `KAFKA_BACKUP_FAIL_COMMITTER=hang` makes the committer hang at its first
//! commit, as a disk that does not answer would; `panic` makes it die.
//!
//! `KAFKA_BACKUP_FAIL_COORDINATOR="TOPIC/INSTANCE@PHASExN"` makes the coordinator of that instance panic in that phase (as
//! `status` calls it), the first N times that it is in it.
//!
//! `KAFKA_BACKUP_DAY_MS=10000` makes a day of retention that long, as the test servers do with their lifecycle days.
//!
//! `KAFKA_BACKUP_DELETE_LIFETIME_MS` is how long a DELETE of a dead process is waited for: 20 minutes would be too long
//! for a test.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use crate::kafka::TopicPartition;

/// Which partition, at which offset, how many times.
type Fault = (String, i64, u64);

static ENCODER: LazyLock<Mutex<Option<Fault>>> =
    LazyLock::new(|| Mutex::new(std::env::var("KAFKA_BACKUP_FAIL_ENCODER").ok().and_then(|text| parse(&text))));

/// How long a day of retention is, where the variable says so.
pub fn day_ms() -> Option<i64> {
    static DAY: LazyLock<Option<i64>> = LazyLock::new(|| std::env::var("KAFKA_BACKUP_DAY_MS").ok()?.parse().ok());
    DAY.filter(|ms| *ms > 0)
}

fn parse(text: &str) -> Option<Fault> {
    let (partition, at) = text.split_once('@')?;
    let (offset, times) = match at.split_once('x') {
        Some((offset, times)) => (offset, times.parse().ok()?),
        None => (at, u64::MAX),
    };
    Some((partition.to_owned(), offset.parse().ok()?, times))
}

/// How long a DELETE of a dead process is waited for.
pub fn delete_lifetime() -> Option<Duration> {
    std::env::var("KAFKA_BACKUP_DELETE_LIFETIME_MS").ok()?.parse().ok().map(Duration::from_millis)
}

/// Waits a while in front of every DELETE (`KAFKA_BACKUP_DELETE_SLOWLY_MS`), one after another, so that a test can stop
/// the process between two of them.
pub async fn before_delete(_key: &str) {
    let wait = std::env::var("KAFKA_BACKUP_DELETE_SLOWLY_MS").ok().and_then(|ms| ms.parse().ok());
    if let Some(wait) = wait {
        static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _one = ONE.lock().await;
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
}

/// The same as the variable, from inside of the process; `None` ends it.
pub fn fail_encoder(text: Option<&str>) {
    *ENCODER.lock().unwrap_or_else(PoisonError::into_inner) = text.and_then(parse);
}

/// Panics where it was told to.
pub fn encoder(partition: &TopicPartition, offset: i64) {
    let mut fault = ENCODER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((which, at, left)) = &mut *fault
        && *at == offset
        && *left > 0
        && *which == partition.to_string()
    {
        *left -= 1;
        panic!("told to panic at {partition}@{offset}");
    }
}

/// Panics where it was told to.
pub fn coordinator(topic: &str, instance: &str, phase: &str) {
    static LEFT: LazyLock<Mutex<Option<(String, u32)>>> = LazyLock::new(|| {
        let text = std::env::var("KAFKA_BACKUP_FAIL_COORDINATOR").ok();
        Mutex::new(text.and_then(|text| text.rsplit_once('x').map(|(at, n)| Some((at.to_owned(), n.parse().ok()?)))?))
    });
    let mut fault = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, left)) = &mut *fault
        && *left > 0
        && *at == format!("{topic}/{instance}@{phase}")
    {
        *left -= 1;
        panic!("told to panic at {at}");
    }
}

/// Hangs or dies where it was told to.
pub fn committer() {
    let how = std::env::var("KAFKA_BACKUP_FAIL_COMMITTER").unwrap_or_default();
    assert!(how != "panic", "told to panic");
    if how == "hang" {
        std::thread::sleep(std::time::Duration::MAX);
    }
}
