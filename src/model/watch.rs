//! Whether a configuration that has been edited is loaded without being asked for (`watch = true`).

use std::time::Duration;

/// What was seen of the files so far. `T` is what two looks are compared by.
#[derive(Debug, Clone)]
pub struct Watch<T> {
    /// How the files were at the last look, and since when (in milliseconds) they have been like that.
    seen: Option<(T, u64)>,
    /// Files that were loaded, whatever came of it.
    tried: Option<T>,
}

impl<T> Default for Watch<T> {
    fn default() -> Self {
        Self { seen: None, tried: None }
    }
}

impl<T: PartialEq> Watch<T> {
    /// `files` stand there at `now_ms`, which only grows, and `differ` from what runs or do not. Are they to be loaded?
    /// Once they have been as they are for `settle_ms`, so that nothing half-written is; and never twice, so that what
    /// is refused is said once.
    pub fn due(&mut self, files: T, differ: bool, now_ms: u64, settle_ms: u64) -> bool {
        if !differ {
            self.tried = None;
        }
        let since = match &self.seen {
            Some((seen, since)) if *seen == files => *since,
            _ => now_ms,
        };
        let due = differ && now_ms - since >= settle_ms && self.tried.as_ref() != Some(&files);
        self.seen = Some((files, since));
        due
    }

    /// These files were loaded.
    pub fn tried(&mut self, files: T) {
        self.tried = Some(files);
    }
}

/// How often to look, that a change is loaded not much later than when it has settled.
pub fn look_every(settle: Duration) -> Duration {
    (settle / 4).clamp(Duration::from_millis(250), Duration::from_secs(15))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// What runs.
    const RUNS: &str = "a";

    /// Looks at these times at these files; returns when they were loaded, where loading them is refused.
    fn loaded(looks: &[(u64, &'static str)]) -> Vec<u64> {
        let mut watch = Watch::default();
        let mut loaded = Vec::new();
        for (now_ms, files) in looks {
            if watch.due(*files, *files != RUNS, *now_ms, 10) {
                watch.tried(*files);
                loaded.push(*now_ms);
            }
        }
        loaded
    }

    #[rstest]
    #[case::nothing_edited(&[(0, "a"), (50, "a"), (100, "a")], &[])]
    #[case::edited_and_settled(&[(0, "a"), (5, "b"), (10, "b"), (15, "b")], &[15])]
    #[case::not_settled(&[(0, "a"), (5, "b"), (14, "b")], &[])]
    #[case::edited_before_the_first_look(&[(0, "b"), (9, "b"), (10, "b")], &[10])]
    #[case::written_bit_by_bit(&[(0, "b"), (9, "bc"), (18, "bcd"), (27, "bcd"), (28, "bcd")], &[28])]
    #[case::looked_at_rarely(&[(0, "a"), (100, "b"), (200, "b")], &[200])]
    #[case::refused_is_not_tried_again(&[(0, "b"), (10, "b"), (20, "b"), (1000, "b")], &[10])]
    #[case::but_when_it_changes(&[(0, "b"), (10, "b"), (20, "c"), (29, "c"), (30, "c"), (60, "c")], &[10, 30])]
    #[case::taken_back(&[(0, "a"), (5, "b"), (9, "a"), (50, "a")], &[])]
    #[case::taken_back_and_done_again(&[(0, "b"), (10, "b"), (20, "a"), (30, "b"), (39, "b"), (40, "b")], &[10, 40])]
    #[case::there_and_back_between_looks(&[(0, "b"), (8, "c"), (9, "b"), (18, "b"), (19, "b")], &[19])]
    fn what_is_loaded_and_when(#[case] looks: &[(u64, &'static str)], #[case] expected: &[u64]) {
        assert_eq!(loaded(looks), expected);
    }

    #[test]
    fn what_was_applied_is_not_edited_any_more() {
        let mut watch = Watch::default();
        assert!(!watch.due("b", true, 0, 10));
        assert!(watch.due("b", true, 10, 10));
        watch.tried("b");
        assert!(!watch.due("b", false, 20, 10));
    }

    #[rstest]
    #[case(1_000, 250)]
    #[case(100, 250)]
    #[case(10_000, 2_500)]
    #[case(3_600_000, 15_000)]
    fn looks(#[case] settle: u64, #[case] every: u64) {
        assert_eq!(look_every(Duration::from_millis(settle)), Duration::from_millis(every));
    }
}
