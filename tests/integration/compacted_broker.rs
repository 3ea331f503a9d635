//! Compacted topics: the broker of the topic and of the coordination topic goes away in the middle of a turn.

use std::time::Duration;

use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::proxy::{Fault, Hits, Proxy};
use crate::common::stack::{Cluster, s3_endpoint};
use crate::common::{SOON, beside_others, wait_until};
use crate::compacted::{COMPACTED, PARTITIONS, Two, await_term, restored, term};
use crate::compacted_proofs::{folder, swap};

/// Once while the next owner scans (the broker dies), once while the old one hands over (it is stopped): the turn is taken
/// when the broker is there again, what can be restored meanwhile is the whole snapshot, and no key is lost.
#[test]
fn a_broker_that_is_restarted_in_mid_turn_costs_nothing() {
    let _turn = beside_others();
    let cluster = Cluster::start(1);
    let (before_b, bucket) = (Proxy::start(s3_endpoint()), Env::new().bucket);
    let lines = "partner_timeout = \"60s\"\nflush_size = 20\n";
    let environment = || Env::new().sharing(&bucket).kafka("main", &cluster.bootstrap, &[]);
    let mut two = Two::on(Kafka::at(&cluster.bootstrap), "broker", "24", lines, environment);
    two.b = two.b.storage_behind(&before_b);
    // A scan of this test may be slow.
    let slow = COMPACTED.map(|(key, value)| (key, if key == "delete.retention.ms" { "3600000" } else { value }));
    two.kafka.configure(&two.topic, &slow);
    let elsewhere = (Env::new().sharing(&bucket), Kafka::shared());
    let restored_elsewhere = |two: &Two| restored(&elsewhere.0, &elsewhere.1, &two.topic);

    let a = two.a_owns(600);

    before_b.set(Fault::Status(503), Hits::LaterDataPuts);
    let b = two.b.daemon().ready();
    swap(&two.b, "pair-b");
    wait_until("b to be in the middle of its scan", SOON, || {
        folder(&two, "b").len() == PARTITIONS as usize && before_b.hit() >= 2
    });
    cluster.stop_broker(1, "KILL");
    before_b.set(Fault::Pass, Hits::All);
    assert_eq!(restored_elsewhere(&two), two.live, "while the broker is away");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(term(&b), 1.0, "no TERM is made without the coordination topic");
    cluster.start_broker(1);
    await_term(&b, 2.0);
    wait_until("a to clear its folder", SOON, || folder(&two, "a").is_empty());
    two.write(100);
    two.await_restored();

    // Now b hands over, and cannot delete.
    before_b.set(Fault::Status(503), Hits::Method("DELETE"));
    wait_until("a to be asked for", SOON, || two.b.tell(&["swap", "pair-b"]).code() == 0);
    wait_until("b to want to clear its folder", SOON, || before_b.hit() > 0);
    cluster.stop_broker(1, "TERM");
    before_b.set(Fault::Pass, Hits::All);
    assert_eq!(restored_elsewhere(&two), two.live, "while the broker is away");
    cluster.start_broker(1);
    await_term(&a, 3.0);
    wait_until("b to clear its folder", SOON, || folder(&two, "b").is_empty());
    two.write(100);
    two.await_restored();
    assert!(a.stop().success() && b.stop().success());
}
