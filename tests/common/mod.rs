//! What all integration tests share: a real Kafka and a real S3, the built binary under test, a proxy that breaks
//! requests, and readers of topic and backup that share no code with the program they check.

#![allow(dead_code)] // each test binary uses its own part

pub mod avro_reader;
pub mod check;
pub mod daemon;
pub mod env;
pub mod group;
pub mod host;
pub mod kafka;
pub mod proxy;
pub mod record;
pub mod s3;
pub mod stack;
pub mod wire;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// Long enough for anything that happens at all on a busy machine with two cores.
pub const SOON: Duration = Duration::from_secs(120);

/// A name nobody else uses: neither another test nor another run against the same servers.
pub fn unique(what: &str) -> String {
    static RUN: LazyLock<u32> = LazyLock::new(|| fastrand::u32(..));
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{:08x}-{}", *RUN, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Asks until there is an answer; panics, naming `what`, when there is none in `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until `condition` holds.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, limit, || condition().then_some(()));
}

static MACHINE: RwLock<()> = RwLock::new(());

/// Taken by ordinary tests, which run beside each other.
pub fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Taken by tests that measure, or that need the machine for themselves.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}
