//! When a scan is complete, and when it, or an owner, was too slow to be right.

use std::collections::BTreeMap;

use super::event::Progress;
use super::message::Message;
use super::settings::{Rule, Rules};
use super::view::{Offsets, OwnRun};

/// When and where each partition was last known to be read to its end.
pub type AtEnds = BTreeMap<i32, AtEnd>;

/// When and where a partition was last known to be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AtEnd {
    /// Where the log ended.
    pub end: i64,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
}

/// Further from the end of a partition than tombstones are certain to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TooLate {
    /// How long the partition was not read to its end, in milliseconds.
    pub took_ms: i64,
    /// Half of the smallest `delete.retention.ms`.
    pub limit_ms: i64,
}

/// Decides whether a scan is complete, and up to where in each partition.
///
/// Complete means: of every partition of the topic the end was seen, at P, after the scan began, and everything below P
/// is durable. Reaching the offsets that the owner had announced is not enough: a key that is superseded and cleaned
/// while the scan is on its way is in neither snapshot.
///
/// `proved` is what the bucket itself shows of the run: less than what the lanes say means that objects are missing.
pub fn complete(progress: &Progress, proved: &OwnRun, announced: Option<&Message>, rules: Rules) -> Option<Offsets> {
    if progress.partitions.is_empty() || progress.run != proved.run {
        return None;
    }
    let mut ends = Offsets::new();
    for (number, reached) in &progress.partitions {
        let end = if rules.keep(Rule::Eof) {
            reached.restorable?
        } else {
            let announced = announced.and_then(|message| message.next.get(number)).copied().unwrap_or(0);
            reached.restorable.or(Some(reached.stored).filter(|stored| *stored >= announced))?
        };
        if proved.stored.get(number).copied().unwrap_or(0) < reached.stored {
            return None;
        }
        ends.insert(*number, end);
    }
    Some(ends)
}

/// Decides whether deleted keys may have survived: whether a partition was away from its end for longer than half of the
/// smallest `delete.retention.ms`, so that a tombstone may have come and gone unseen. A scan counts as away from its
/// beginning on.
///
/// | the partition, since it was last at its end (or the scan began) | then |
/// |---|---|
/// | is at its end now, and nothing was appended | never too late |
/// | is at its end now, and something was appended | too late when that took longer than the limit |
/// | is not, and is being read | too late as soon as the limit has passed |
/// | is not, and nothing was read of it | not known yet; for a scan too late as soon as the limit has passed |
pub fn too_late(last: &AtEnds, began_ms: i64, progress: &Progress, now_ms: i64) -> Option<TooLate> {
    let limit_ms = progress.delete_retention_ms? / 2;
    let away = progress.partitions.iter().filter_map(|(number, reached)| {
        let before = last.get(number);
        let since = before.map_or(began_ms, |at| at.at_ms);
        match (reached.seen_end_ms.filter(|seen| *seen > since), before) {
            (Some(_), Some(before)) if reached.restorable.is_some_and(|end| end <= before.end) => None,
            (Some(seen), _) => Some(seen - since),
            (None, Some(before)) if reached.stored <= before.end => None,
            (None, _) => Some(now_ms - since),
        }
    });
    let took_ms = away.max()?;
    (took_ms > limit_ms).then_some(TooLate { took_ms, limit_ms })
}

/// Notes which partitions are at their end.
pub fn note_ends(last: &mut AtEnds, progress: &Progress) {
    for (number, reached) in &progress.partitions {
        if let (Some(end), Some(at_ms)) = (reached.restorable, reached.seen_end_ms) {
            let noted = last.entry(*number).or_insert(AtEnd { end, at_ms });
            *noted = AtEnd { end: end.max(noted.end), at_ms: at_ms.max(noted.at_ms) };
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::model::compacted::event::Reached;

    fn reached(stored: i64, restorable: Option<i64>, seen_end_ms: Option<i64>) -> Reached {
        Reached { stored, restorable, seen_end_ms }
    }

    fn progress(of: &[Reached]) -> Progress {
        let partitions = of.iter().enumerate().map(|(number, reached)| (number as i32, *reached)).collect();
        Progress { run: "r".into(), partitions, delete_retention_ms: Some(200), lost: false }
    }

    fn proved(stored: &[(i32, i64)]) -> OwnRun {
        OwnRun {
            number: 1,
            run: "r".into(),
            started_ms: 0,
            after_term: 0,
            titled: None,
            voided: false,
            objects: true,
            intact: false,
            stored: stored.iter().copied().collect(),
            gap: false,
            restorable: Offsets::new(),
            seen_end_ms: None,
        }
    }

    #[rstest]
    #[case::at_the_end(&[reached(5, Some(5), None)], &[(0, 5)], Some(&[(0, 5)][..]))]
    #[case::an_empty_partition(&[reached(0, Some(0), None)], &[(0, 0)], Some(&[(0, 0)][..]))]
    #[case::went_on_behind_the_end(&[reached(9, Some(5), None)], &[(0, 9)], Some(&[(0, 5)][..]))]
    #[case::the_log_ends_in_markers(&[reached(5, Some(7), None)], &[(0, 5)], Some(&[(0, 7)][..]))]
    #[case::one_has_not_seen_its_end(&[reached(5, Some(5), None), reached(9, None, None)], &[(0, 5), (1, 9)], None)]
    #[case::an_object_is_missing(&[reached(5, Some(5), None)], &[(0, 3)], None)]
    #[case::nothing_is_there(&[reached(5, Some(5), None)], &[], None)]
    #[case::no_partitions(&[], &[], None)]
    fn completeness(#[case] of: &[Reached], #[case] stored: &[(i32, i64)], #[case] ends: Option<&[(i32, i64)]>) {
        let ends = ends.map(|ends| ends.iter().copied().collect());
        assert_eq!(complete(&progress(of), &proved(stored), None, Rules::default()), ends);
    }

    #[test]
    fn another_run_proves_nothing() {
        let other = OwnRun { run: "other".into(), ..proved(&[(0, 5)]) };
        assert_eq!(complete(&progress(&[reached(5, Some(5), None)]), &other, None, Rules::default()), None);
    }

    /// The limit is 100 ms; the scan began at 1,000.
    #[rstest]
    #[case::scanning(None, reached(3, None, None), 1_100, None)]
    #[case::still_scanning(None, reached(3, None, None), 1_101, Some(101))]
    #[case::scanned(None, reached(3, Some(3), Some(1_100)), 2_000, None)]
    #[case::scanned_too_slowly(None, reached(3, Some(3), Some(1_101)), 2_000, Some(101))]
    #[case::idle(Some((3, 1_050)), reached(3, Some(3), Some(1_900)), 2_000, None)]
    #[case::idle_and_not_asked(Some((3, 1_050)), reached(3, Some(3), Some(1_050)), 2_000, None)]
    #[case::back_in_time(Some((3, 1_050)), reached(4, Some(4), Some(1_150)), 1_150, None)]
    #[case::back_too_late(Some((3, 1_050)), reached(4, Some(4), Some(1_151)), 1_151, Some(101))]
    #[case::only_a_tombstone_that_is_gone(Some((3, 1_050)), reached(3, Some(4), Some(1_151)), 1_151, Some(101))]
    #[case::behind(Some((3, 1_050)), reached(4, Some(3), Some(1_050)), 1_151, Some(101))]
    fn lateness(
        #[case] last: Option<(i64, i64)>,
        #[case] now: Reached,
        #[case] now_ms: i64,
        #[case] took: Option<i64>,
    ) {
        let last = last.map(|(end, at_ms)| (0, AtEnd { end, at_ms })).into_iter().collect();
        let late = took.map(|took_ms| TooLate { took_ms, limit_ms: 100 });
        assert_eq!(too_late(&last, 1_000, &progress(&[now]), now_ms), late);
    }

    #[test]
    fn without_the_topics_setting_nothing_is_late() {
        let progress = Progress { delete_retention_ms: None, ..progress(&[reached(0, None, None)]) };
        assert_eq!(too_late(&AtEnds::new(), 0, &progress, i64::MAX), None);
    }
}
