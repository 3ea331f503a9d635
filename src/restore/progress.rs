//! What is shown while a restore runs: in place on a terminal, a line a minute elsewhere.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::stop::Stop;
use super::text::size;
use crate::model::restore::{PartitionPlan, Plan};

/// Before this nobody knows how long the rest will take.
const FORESEEN_AFTER: f64 = 5.0;

/// Partitions that are named; the others are counted.
const NAMED: usize = 3;

/// How far a restore is, counted where the work is done and shown by [`Self::show`].
#[derive(Debug, Default)]
pub struct Progress {
    /// Records delivered, those of earlier runs included.
    pub records: Arc<AtomicU64>,
    /// Bytes of objects read, or not to be read any more.
    bytes: AtomicU64,
    /// Of these, what earlier runs have done.
    bytes_before: AtomicU64,
    records_before: u64,
    bytes_planned: u64,
    /// Partitions that are being restored.
    running: Mutex<BTreeSet<String>>,
}

impl Progress {
    /// Nothing done but so many records of earlier runs.
    pub fn new(plan: &Plan, before: u64) -> Self {
        Self {
            records: Arc::new(AtomicU64::new(before)),
            records_before: before,
            bytes_planned: plan.totals().bytes,
            ..Self::default()
        }
    }

    /// A partition begins at one of its objects; what is in front of it was done before.
    pub fn begins(&self, partition: &str, plan: &PartitionPlan, object: usize) {
        let before: u64 = plan.objects.iter().take(object).map(|take| take.size).sum();
        self.bytes.fetch_add(before, Ordering::Relaxed);
        self.bytes_before.fetch_add(before, Ordering::Relaxed);
        self.running().insert(partition.to_owned());
    }

    /// A partition has ended, however.
    pub fn ends(&self, partition: &str) {
        self.running().remove(partition);
    }

    /// Bytes of an object were read.
    pub fn read(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn running(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows it on stderr until it is dropped, and whenever somebody asks for it; `every` zero is only then.
    pub async fn show(&self, every: Option<Duration>, stop: &Stop) {
        let (terminal, began) = (std::io::stderr().is_terminal(), Instant::now());
        let every = every.unwrap_or(Duration::from_secs(if terminal { 1 } else { 60 }));
        loop {
            stop.progress_due(every).await;
            let line = self.line(began.elapsed().as_secs_f64());
            // Nobody to read it is no reason to stop.
            _ = if terminal {
                write!(std::io::stderr(), "\r{line}\x1b[K")
            } else {
                writeln!(std::io::stderr(), "{line}")
            };
        }
    }

    /// Takes what is shown in place away again.
    pub fn clear(&self) {
        if std::io::stderr().is_terminal() {
            _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    /// `42 %, 1.2 GiB of 2.9 GiB, 5000 records, 100/s, 3 MiB/s, 40 s left: orders/0 orders/1 (+2)`.
    fn line(&self, seconds: f64) -> String {
        let [records, bytes, before] =
            [&self.records, &self.bytes, &self.bytes_before].map(|number| number.load(Ordering::Relaxed));
        let per_second = |done: u64| done as f64 / seconds.max(0.001);
        let rate = per_second(bytes.saturating_sub(before));
        let mut line = String::new();
        if self.bytes_planned > 0 {
            // What is read again because an object was cut off does not make it more than everything.
            let bytes = bytes.min(self.bytes_planned);
            let percent = bytes as f64 * 100.0 / self.bytes_planned as f64;
            _ = write!(line, "{percent:.0} %, {} of {}, ", size(bytes), size(self.bytes_planned)); // a String takes all
        }
        let records_rate = per_second(records.saturating_sub(self.records_before));
        _ = write!(line, "{records} records, {records_rate:.0}/s, {}/s", size(rate as u64)); // a String takes all
        let left = self.bytes_planned.saturating_sub(bytes);
        if seconds >= FORESEEN_AFTER && rate > 0.0 && left > 0 {
            _ = write!(line, ", {:.0} s left", left as f64 / rate); // a String takes all
        }
        let running = self.running();
        if !running.is_empty() {
            let names: Vec<&str> = running.iter().take(NAMED).map(String::as_str).collect();
            _ = write!(line, ": {}", names.join(" ")); // a String takes all
            if running.len() > NAMED {
                _ = write!(line, " (+{})", running.len() - NAMED); // a String takes all
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn progress(bytes: u64, bytes_before: u64, records: u64, running: &[&str]) -> Progress {
        Progress {
            records: Arc::new(AtomicU64::new(records)),
            bytes: AtomicU64::new(bytes),
            bytes_before: AtomicU64::new(bytes_before),
            records_before: 100,
            bytes_planned: 100 * MIB,
            running: Mutex::new(running.iter().map(|name| (*name).to_owned()).collect()),
        }
    }

    #[rstest]
    #[case::at_the_beginning(progress(0, 0, 100, &[]), 1.0, "0 %, 0 B of 100.0 MiB, 100 records, 0/s, 0 B/s")]
    #[case::too_early_to_foresee(
        progress(4 * MIB, 0, 300, &["t/0"]), 2.0,
        "4 %, 4.0 MiB of 100.0 MiB, 300 records, 100/s, 2.0 MiB/s: t/0"
    )]
    #[case::under_way(
        progress(60 * MIB, 40 * MIB, 1_100, &["t/0", "t/1", "t/2", "t/3", "t/4"]), 10.0,
        "60 %, 60.0 MiB of 100.0 MiB, 1100 records, 100/s, 2.0 MiB/s, 20 s left: t/0 t/1 t/2 (+2)"
    )]
    #[case::everything_read(
        progress(100 * MIB, 0, 1_100, &["t/0"]), 10.0,
        "100 %, 100.0 MiB of 100.0 MiB, 1100 records, 100/s, 10.0 MiB/s: t/0"
    )]
    fn one_line(#[case] progress: Progress, #[case] seconds: f64, #[case] expected: &str) {
        assert_eq!(progress.line(seconds), expected);
    }
}
