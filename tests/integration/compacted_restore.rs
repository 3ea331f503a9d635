//! Compacted topics: what a restore by name, by time or under a pin comes to.

use serde_json::json;

use crate::common::env::Output;
use crate::common::proxy::{Fault, Hits, Proxy};
use crate::common::stack::s3_endpoint;
use crate::common::{SOON, beside_others, unique, wait_until};
use crate::compacted::{PARTITIONS, Two, await_term};
use crate::compacted_proofs::{folder, swap, two};

fn restore(two: &Two, args: &[&str]) -> Output {
    let target = unique("restored");
    two.a.restore(&format!("{}:{target}", two.topic), args)
}

fn said(output: &Output) -> String {
    format!("{}\n{}", output.stdout, output.stderr)
}

/// An instance in the middle of its scan is restored by its name only, with a warning; bounds of time are refused with the
/// reason; and the objects that a pin names stay until it is gone, though the other instance has proved to be complete.
#[test]
fn instances_by_name_bounds_of_time_and_pins() {
    let _turn = beside_others();
    let before_b = Proxy::start(s3_endpoint());
    let mut two = two("named", "flush_size = 50\n");
    two.b = two.b.storage_behind(&before_b);
    let a = two.a_owns(400);
    before_b.set(Fault::Status(503), Hits::LaterDataPuts);
    let b = two.b.daemon().ready();
    swap(&two.b, "pair-b");
    wait_until("b to have begun", SOON, || folder(&two, "b").len() == PARTITIONS as usize && before_b.hit() >= 2);

    let whole = restore(&two, &["--instance", "a"]);
    whole.success();
    assert!(!said(&whole).contains("is not complete"), "{whole:?}");
    let part = restore(&two, &["--instance", "b"]);
    part.success();
    assert!(said(&part).contains("what instance b has is not complete: keys may be missing"), "{part:?}");
    let records = |output: &Output| output.summary()["records_produced"].as_u64().expect("a number");
    assert!(records(&part) < records(&whole), "{} of {}", records(&part), records(&whole));
    let bounded = restore(&two, &["--until", "2026-01-01T00:00:00Z"]);
    assert!(bounded.code() != 0 && said(&bounded).contains("older versions of its keys are not in the backup"));

    // A restore that reads from a, and was not heard of since.
    let pin = json!({
        "format_version": 1, "id": "by-hand", "topic": two.topic, "instance": "a", "run": "", "renewed_ms": 0,
        "expires_ms": 4_000_000_000_000_i64,
    });
    two.a.bucket.put("_kafka_backup/pins/by-hand.json", pin.to_string().as_bytes());
    let of_a = folder(&two, "a");
    before_b.set(Fault::Pass, Hits::All);
    await_term(&b, 2.0);
    a.await_log("a restore reads these objects");
    assert!(a.metric("kafka_backup_compacted_refused_deletions_total", &[]) >= 1.0);
    assert!(folder(&two, "a").is_superset(&of_a), "objects that a restore reads were deleted");
    two.await_restored();
    two.a.bucket.delete("_kafka_backup/pins/by-hand.json");
    wait_until("a to clear its folder", SOON, || folder(&two, "a").is_empty());
    two.await_restored();
    assert!(a.stop().success() && b.stop().success());
}
