//! Up to which moment everything is safe.
//!
//! `protected` of a partition is the latest time T such that every record that was visible at T is durable. It is
//! computed from observations "at T the log ended at E": the latest one whose E is covered. An idle partition advances
//! with every observation; a stuck one stops at once, whatever stopped it.
//!
//! The answer outlives the process ([`Kept`]): what was protected before a restart still is, until something newer is
//! known. It does not outlive the list it speaks of: in another generation, or where objects are gone, it is void.

use std::collections::VecDeque;

/// Observations kept. Older ones are thinned out evenly: the answer is then a little older than it could be, never newer.
const KEPT: usize = 64;

/// The observations of one partition that are not covered yet, and the answer so far.
#[derive(Debug, Clone, Default)]
pub struct Protected {
    waiting: VecDeque<(i64, i64)>,
    covered: i64,
    at_ms: Option<i64>,
    /// Taken over from before, and not yet held against the list in the bucket.
    kept: Option<Kept>,
}

/// What is remembered of a partition over a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Everything that was visible at this time is durable; milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
    /// Everything below this offset was durable.
    pub covered: i64,
    /// The generation (its uuid) that this was said of.
    pub generation: String,
}

impl Protected {
    /// The answer that was kept; void unless [`Self::begin`] finds it true.
    pub fn remembered(kept: Kept) -> Self {
        Self { at_ms: Some(kept.at_ms), kept: Some(kept), ..Self::default() }
    }

    /// The partition goes on in `generation`, with everything below `covered` durable. What was remembered of another
    /// list, or of objects that are not there any more, is forgotten: "never" is better than a promise nobody can keep.
    pub fn begin(&mut self, generation: &str, covered: i64) {
        if let Some(kept) = self.kept.take()
            && (kept.generation != generation || kept.covered > covered)
        {
            self.at_ms = None;
        }
    }

    /// What to remember of a partition that is in `generation`.
    pub fn keep(&self, generation: &str) -> Option<Kept> {
        let from_before = self.kept.clone();
        let new = |at_ms| Kept { at_ms, covered: self.covered, generation: generation.to_owned() };
        from_before.or_else(|| self.at_ms.map(new))
    }

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
    use rstest::rstest;

    use super::*;

    fn kept() -> Kept {
        Kept { at_ms: 7, covered: 10, generation: "g".to_owned() }
    }

    #[rstest]
    #[case::the_same_list("g", 10, Some(7))]
    #[case::longer_now("g", 12, Some(7))]
    #[case::objects_are_gone("g", 9, None)]
    #[case::another_generation("h", 10, None)]
    fn what_was_protected_stays_so_where_its_objects_are(
        #[case] generation: &str,
        #[case] covered: i64,
        #[case] expected: Option<i64>,
    ) {
        let mut p = Protected::remembered(kept());
        assert_eq!(p.at_ms(), Some(7), "until something newer is known");
        assert_eq!(p.keep("whatever"), Some(kept()), "a process that gets no further remembers it, too");
        p.observe(8, 20);
        p.begin(generation, covered);
        p.cover(covered);
        assert_eq!(p.at_ms(), expected);
        p.cover(20);
        assert_eq!(p.at_ms(), Some(8));
        assert_eq!(p.keep("g"), Some(Kept { at_ms: 8, covered: 20, generation: "g".to_owned() }));
    }

    #[test]
    fn nothing_known_is_nothing_to_remember() {
        assert_eq!(Protected::default().keep("g"), None);
    }

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
