//! How well a daemon and its jobs stand, in numbers and in the one line that `systemctl status` shows.

/// Up to when a job is safe, for judging it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Safety {
    /// Everything visible at this time is durable, in milliseconds since 1970-01-01 UTC; `None`: nothing is known yet.
    pub protected_ms: Option<i64>,
    /// When the job began, likewise.
    pub began_ms: i64,
    /// The job's `rpo_target` in milliseconds.
    pub target_ms: i64,
}

impl Safety {
    /// How old what is not yet safe may be at `now_ms`, in milliseconds; `None` while nothing is known.
    pub fn age_ms(&self, now_ms: i64) -> Option<i64> {
        self.protected_ms.map(|at| (now_ms - at).max(0))
    }

    /// Whether the target is missed. A job that knows nothing yet has as much time as one that knew everything when it
    /// began.
    pub fn over_target(&self, now_ms: i64) -> bool {
        now_ms - self.protected_ms.unwrap_or(self.began_ms) > self.target_ms
    }
}

/// What the line says.
#[derive(Debug, Clone, Default)]
pub struct Line<'a> {
    /// Jobs that run as they should.
    pub running: usize,
    /// Ids of jobs for which something is wrong that is tried again.
    pub degraded: Vec<&'a str>,
    /// Ids of jobs that need the operator.
    pub failed: Vec<&'a str>,
    /// Jobs that are paused.
    pub paused: usize,
    /// Jobs that end.
    pub draining: usize,
    /// Where jobs are looked for.
    pub jobs_dir: &'a str,
    /// Which configuration runs.
    pub generation: u64,
    /// Why the last reload was rejected, with its time.
    pub rejected: Option<&'a str>,
    /// The files differ from what runs.
    pub drift: bool,
}

/// Ids named in the line; the rest is counted.
const NAMED: usize = 3;

impl Line<'_> {
    /// The line, for people.
    pub fn text(&self) -> String {
        let all = self.running + self.degraded.len() + self.failed.len() + self.paused + self.draining;
        let mut text = match all {
            0 => format!("idle: no jobs in {}", self.jobs_dir),
            1 => "running 1 job".to_owned(),
            n => format!("running {n} jobs"),
        };
        let mut parts = Vec::new();
        for (ids, word) in [(&self.failed, "failed"), (&self.degraded, "degraded")] {
            if !ids.is_empty() {
                parts.push(format!("{} {word}: {}", ids.len(), named(ids)));
            }
        }
        for (count, word) in [(self.paused, "paused"), (self.draining, "draining")] {
            if count > 0 {
                parts.push(format!("{count} {word}"));
            }
        }
        if !parts.is_empty() {
            text.push_str(&format!(" ({})", parts.join("; ")));
        }
        text.push_str(&format!(", generation {}", self.generation));
        match self.rejected {
            Some(why) => format!("reload REJECTED {why}; {text}"),
            None if self.drift => format!("{text}; files were edited and not loaded"),
            None => text,
        }
    }
}

fn named(ids: &[&str]) -> String {
    let some = ids.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    match ids.len().saturating_sub(NAMED) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::fresh(Some(9_000), 10_000, Some(1_000), false)]
    #[case::on_the_target(Some(5_000), 10_000, Some(5_000), false)]
    #[case::over(Some(4_999), 10_000, Some(5_001), true)]
    #[case::never_but_young(None, 6_000, None, false)]
    #[case::never(None, 6_001, None, true)]
    #[case::a_clock_that_went_back(Some(20_000), 10_000, Some(0), false)]
    fn safety(#[case] protected_ms: Option<i64>, #[case] now: i64, #[case] age: Option<i64>, #[case] over: bool) {
        let safety = Safety { protected_ms, began_ms: 1_000, target_ms: 5_000 };
        assert_eq!((safety.age_ms(now), safety.over_target(now)), (age, over));
    }

    #[test]
    fn lines() {
        let line = Line { jobs_dir: "/etc/jobs.d", generation: 1, ..Line::default() };
        assert_eq!(line.text(), "idle: no jobs in /etc/jobs.d, generation 1");
        let line = Line { running: 1, ..line };
        assert_eq!(line.text(), "running 1 job, generation 1");
        let line =
            Line { degraded: vec!["a"], failed: vec!["b", "c", "d", "e", "f"], paused: 1, generation: 7, ..line };
        assert_eq!(line.text(), "running 8 jobs (5 failed: b, c, d and 2 more; 1 degraded: a; 1 paused), generation 7");
        let line = Line { drift: true, degraded: vec![], failed: vec![], ..line };
        assert_eq!(line.text(), "running 2 jobs (1 paused), generation 7; files were edited and not loaded");
        let line = Line { rejected: Some("12:04:11Z: orders.toml:14:1: unknown key"), ..line };
        assert_eq!(
            line.text(),
            "reload REJECTED 12:04:11Z: orders.toml:14:1: unknown key; running 2 jobs (1 paused), generation 7"
        );
    }
}
