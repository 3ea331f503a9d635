//! Up to which moment everything is safe.
//!
//! `protected` of a partition is the latest time T such that every record that was visible at T is durable. It is
//! computed from observations "at T the log ended at E": the latest one whose E is covered. An idle partition advances
//! with every observation; a stuck one stops at once, whatever stopped it.

use std::collections::VecDeque;

/// Observations kept. Older ones are thinned out evenly: the answer is then a little older than it could be, never newer.
const KEPT: usize = 64;

/// The observations of one partition that are not covered yet, and the answer so far.
#[derive(Debug, Clone, Default)]
pub struct Protected {
    waiting: VecDeque<(i64, i64)>,
    covered: i64,
    at_ms: Option<i64>,
}

impl Protected {
    /// Everything below offset `covered` is durable. Never goes back.
    pub fn cover(&mut self, covered: i64) {
        self.covered = self.covered.max(covered);
        while self.waiting.front().is_some_and(|(_, end)| *end <= self.covered) {
            if let Some((at, _)) = self.waiting.pop_front() {
                self.at_ms = Some(self.at_ms.map_or(at, |old| old.max(at)));
            }
        }
    }

    /// The log is another one now, of which everything below `covered` is durable: what was observed of the old one says
    /// nothing about it. What was protected stays so.
    pub fn restart(&mut self, covered: i64) {
        self.waiting.clear();
        self.covered = covered;
    }

    /// At time `at_ms` (milliseconds since 1970-01-01 UTC) the log ended at `end`.
    pub fn observe(&mut self, at_ms: i64, end: i64) {
        if self.waiting.len() >= KEPT {
            // Every second one goes; the newest stays.
            let mut keep = self.waiting.len().is_multiple_of(2);
            self.waiting.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.waiting.push_back((at_ms, end));
        self.cover(self.covered);
    }

    /// The latest protected time in milliseconds since 1970-01-01 UTC; `None` when nothing is known yet.
    pub fn at_ms(&self) -> Option<i64> {
        self.at_ms
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_idle_partition_advances_with_every_observation() {
        let mut p = Protected::default();
        p.cover(10);
        p.observe(1, 10);
        p.observe(2, 10);
        assert_eq!(p.at_ms(), Some(2));
    }

    #[test]
    fn a_stuck_partition_stops_and_catches_up() {
        let mut p = Protected::default();
        p.cover(10);
        p.observe(1, 10);
        p.observe(2, 11);
        p.observe(3, 20);
        assert_eq!(p.at_ms(), Some(1));
        p.cover(19);
        assert_eq!(p.at_ms(), Some(2));
        p.cover(20);
        assert_eq!(p.at_ms(), Some(3));
    }

    #[test]
    fn another_log_begins_anew() {
        let mut p = Protected::default();
        p.observe(1, 100);
        p.cover(100);
        p.restart(0);
        p.observe(2, 5);
        assert_eq!(p.at_ms(), Some(1), "nothing of the new log is durable");
        p.cover(5);
        assert_eq!(p.at_ms(), Some(2));
    }

    proptest! {
        #[test]
        fn never_claims_more_than_is_covered(steps in prop::collection::vec((any::<bool>(), 0i64..50), 1..300)) {
            let (mut p, mut seen, mut end, mut covered) = (Protected::default(), Vec::new(), 0i64, 0i64);
            for (t, (observe, n)) in steps.into_iter().enumerate() {
                if observe {
                    end += n;
                    seen.push((t as i64, end));
                    p.observe(t as i64, end);
                } else {
                    covered = (covered + n).min(end);
                    p.cover(covered);
                }
                let truth = seen.iter().filter(|(_, e)| *e <= covered).map(|(t, _)| *t).max();
                prop_assert!(p.at_ms() <= truth);
                if seen.len() <= KEPT { prop_assert_eq!(p.at_ms(), truth); }
            }
        }
    }
}
