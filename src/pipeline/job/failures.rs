//! What went wrong with partitions again and again, and when it is over.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::kafka::TopicPartition;
use crate::pipeline::resolver::Truncation;

/// The subject of a partition's trouble with uploads.
pub(super) fn upload_of(partition: &TopicPartition) -> String {
    format!("{partition} upload")
}

/// Deaths at one offset before the job says that it cannot get past it.
const POISON: u32 = 3;
/// A partition that has nothing to do has got over its failures when nothing has happened for so long.
const QUIET: Duration = Duration::from_secs(15);

/// How long to wait before attempt `n` (from 1) at the same thing.
pub fn patience(attempt: u32) -> Duration {
    Duration::from_millis(200).saturating_mul(1 << attempt.min(8)).min(Duration::from_secs(30))
}

/// Failures of one partition in a row.
#[derive(Debug)]
struct Row {
    generation: String,
    at: i64,
    count: u32,
    last: Instant,
    truncated: Option<i64>,
}

/// The failures of all partitions of a job.
#[derive(Debug, Default)]
pub struct Failures(HashMap<TopicPartition, Row>);

impl Failures {
    /// A lane of `generation` failed at offset `at`; returns what to tell.
    pub fn note(&mut self, partition: &TopicPartition, generation: &str, at: i64, why: &str) -> String {
        let now = Instant::now();
        let new = || Row { generation: generation.to_owned(), at, count: 0, last: now, truncated: None };
        let row = self.0.entry(partition.clone()).or_insert_with(new);
        if row.at != at || row.generation != generation {
            *row = new();
        }
        row.count += 1;
        row.last = now;
        if row.count < POISON {
            return why.to_owned();
        }
        format!("cannot get past offset {at} ({} attempts): {why}", row.count)
    }

    /// The broker has told where the log of the last object's leader epoch ends.
    pub fn truncated(&mut self, partition: &TopicPartition, end_offset: Option<i64>) {
        if let Some(row) = self.0.get_mut(partition) {
            row.truncated = end_offset;
        }
    }

    /// The truncation that was met with last, for whoever decides where to go on.
    pub fn truncation(&self, partition: &TopicPartition) -> Option<Truncation> {
        let row = self.0.get(partition)?;
        Some(Truncation { generation: row.generation.clone(), at: row.truncated? })
    }

    /// A lane of `generation` begins: whether nothing is held against the partition (any more).
    pub fn began(&mut self, partition: &TopicPartition, generation: &str) -> bool {
        match self.0.get_mut(partition) {
            // It goes on elsewhere: what it could not get past is not there.
            Some(row) if row.generation != generation => {
                self.0.remove(partition);
                true
            }
            Some(row) => {
                row.truncated = None;
                false
            }
            None => true,
        }
    }

    /// Partitions that have got over their failures: those that moved on, and those that have nothing more to do and
    /// have been quiet. `state` tells of a partition with a lane up to where it is durable, and whether it is idle.
    pub fn take_over(&mut self, state: impl Fn(&TopicPartition) -> Option<(i64, bool)>) -> Vec<TopicPartition> {
        let over = |partition: &TopicPartition, row: &Row| {
            state(partition).is_some_and(|(durable, idle)| durable > row.at || idle && row.last.elapsed() > QUIET)
        };
        let gone: Vec<_> = self.0.iter().filter(|(p, row)| over(p, row)).map(|(p, _)| p.clone()).collect();
        gone.iter().for_each(|partition| self.forget(partition));
        gone
    }

    /// How often it has failed in a row.
    pub fn count(&self, partition: &TopicPartition) -> u32 {
        self.0.get(partition).map_or(0, |row| row.count)
    }

    /// Nothing is held against it any more.
    pub fn forget(&mut self, partition: &TopicPartition) {
        self.0.remove(partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p() -> TopicPartition {
        TopicPartition::new("t", 0)
    }

    #[test]
    fn three_in_a_row_at_one_offset_are_named() {
        let mut failures = Failures::default();
        assert_eq!(failures.note(&p(), "g", 5, "x"), "x");
        assert_eq!(failures.note(&p(), "g", 5, "x"), "x");
        assert_eq!(failures.note(&p(), "g", 5, "x"), "cannot get past offset 5 (3 attempts): x");
        assert_eq!(failures.note(&p(), "g", 6, "x"), "x", "another offset begins anew");
        assert_eq!(failures.note(&p(), "h", 6, "x"), "x", "another generation, too");
    }

    #[test]
    fn a_truncation_belongs_to_one_generation() {
        let mut failures = Failures::default();
        failures.note(&p(), "g", 9, "truncated");
        failures.truncated(&p(), Some(7));
        assert_eq!(failures.truncation(&p()), Some(Truncation { generation: "g".to_owned(), at: 7 }));
        assert!(!failures.began(&p(), "g"));
        assert_eq!(failures.truncation(&p()), None, "it was acted on");
        assert!(failures.began(&p(), "h") && failures.count(&p()) == 0);
    }

    #[test]
    fn over_when_it_moves_on() {
        let mut failures = Failures::default();
        failures.note(&p(), "g", 9, "x");
        assert!(failures.take_over(|_| None).is_empty(), "no lane");
        assert!(failures.take_over(|_| Some((9, true))).is_empty(), "idle, but just now");
        assert_eq!(failures.take_over(|_| Some((10, false))), [p()]);
        assert_eq!(failures.count(&p()), 0);
    }

    #[test]
    fn patience_grows_and_ends() {
        assert_eq!(patience(1), Duration::from_millis(400));
        assert!((1..100).all(|n| patience(n) <= patience(n + 1) && patience(n) <= Duration::from_secs(30)));
    }
}
