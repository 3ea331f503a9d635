//! Which records are wanted: by their own timestamps and by their offsets.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::model::batch::TimestampType;

/// What Kafka writes for "no timestamp" (`RecordBatch.NO_TIMESTAMP`).
const NO_TIMESTAMP: i64 = -1;

/// A stretch of time, `from <= t < until`, in milliseconds since 1970-01-01 UTC. An absent end is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Times {
    /// The first moment inside.
    pub from_ms: Option<i64>,
    /// The first moment behind it.
    pub until_ms: Option<i64>,
}

/// What a stretch of time makes of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Inside.
    Wanted,
    /// It has no timestamp: kept, and counted, because nobody can say that it is not wanted.
    Untimed,
    /// Outside.
    Outside,
}

/// How much of an object a stretch of time takes, as far as its smallest and largest timestamp tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    /// Every record.
    All,
    /// Perhaps some: each record must be asked.
    Some,
    /// None.
    Nothing,
}

impl Times {
    /// Whether there is no limit at all.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nothing can be inside.
    pub fn is_empty(&self) -> bool {
        matches!((self.from_ms, self.until_ms), (Some(from), Some(until)) if from >= until)
    }

    fn contains(&self, ms: i64) -> bool {
        self.from_ms.is_none_or(|from| from <= ms) && self.until_ms.is_none_or(|until| ms < until)
    }

    /// Judges one record by its own timestamp.
    pub fn judge(&self, timestamp: i64, kind: TimestampType) -> Verdict {
        match () {
            () if self.is_unlimited() => Verdict::Wanted,
            () if timestamp == NO_TIMESTAMP || kind == TimestampType::NotAvailable => Verdict::Untimed,
            () if self.contains(timestamp) => Verdict::Wanted,
            () => Verdict::Outside,
        }
    }

    /// Judges an object by its smallest and largest timestamp; only used to leave objects unread.
    ///
    /// | the object says | taken |
    /// |---|---|
    /// | no timestamps: no record has one | all |
    /// | both inside | all |
    /// | smallest is -1: some records have none | some |
    /// | largest in front of `from`, or smallest not in front of `until` | nothing |
    /// | anything else | some |
    pub fn cover(&self, timestamps: Option<(i64, i64)>) -> Cover {
        let Some((oldest, newest)) = timestamps else { return Cover::All };
        let before = self.from_ms.is_some_and(|from| newest < from);
        let behind = self.until_ms.is_some_and(|until| oldest >= until);
        match () {
            () if self.contains(oldest) && self.contains(newest) => Cover::All,
            () if oldest == NO_TIMESTAMP => Cover::Some,
            () if before || behind => Cover::Nothing,
            () => Cover::Some,
        }
    }

    /// What is left of an object's timestamps inside; `None` when that is nothing.
    pub fn clip(&self, (oldest, newest): (i64, i64)) -> Option<(i64, i64)> {
        let from = self.from_ms.map_or(oldest, |from| oldest.max(from));
        let until = self.until_ms.map_or(newest, |until| newest.min(until.saturating_sub(1)));
        (from <= until).then_some((from, until))
    }
}

/// Offsets wanted of one partition, `from <= offset < until`. An absent end is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Offsets {
    /// The first offset.
    pub from: Option<i64>,
    /// Where it ends (exclusive).
    pub until: Option<i64>,
}

impl Offsets {
    /// As a range.
    pub fn range(&self) -> Range<i64> {
        self.from.unwrap_or(i64::MIN)..self.until.unwrap_or(i64::MAX)
    }
}

/// What both ranges have in common, perhaps nothing.
pub fn intersect(a: &Range<i64>, b: &Range<i64>) -> Range<i64> {
    a.start.max(b.start)..a.end.min(b.end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const WINDOW: Times = Times { from_ms: Some(100), until_ms: Some(200) };
    const SINCE: Times = Times { from_ms: Some(100), until_ms: None };
    const UP_TO: Times = Times { from_ms: None, until_ms: Some(200) };
    const ALWAYS: Times = Times { from_ms: None, until_ms: None };
    use TimestampType::{CreateTime, LogAppendTime, NotAvailable};

    #[rstest]
    #[case(WINDOW, 99, CreateTime, Verdict::Outside)]
    #[case(WINDOW, 100, CreateTime, Verdict::Wanted)]
    #[case(WINDOW, 199, LogAppendTime, Verdict::Wanted)]
    #[case(WINDOW, 200, CreateTime, Verdict::Outside)]
    #[case(WINDOW, -1, NotAvailable, Verdict::Untimed)]
    #[case(WINDOW, -1, CreateTime, Verdict::Untimed)]
    #[case(WINDOW, -2, CreateTime, Verdict::Outside)]
    #[case(SINCE, i64::MAX, CreateTime, Verdict::Wanted)]
    #[case(UP_TO, i64::MIN, CreateTime, Verdict::Wanted)]
    #[case(ALWAYS, -1, NotAvailable, Verdict::Wanted)]
    fn records(#[case] times: Times, #[case] ms: i64, #[case] kind: TimestampType, #[case] expected: Verdict) {
        assert_eq!(times.judge(ms, kind), expected);
    }

    #[rstest]
    #[case::no_timestamps(WINDOW, None, Cover::All)]
    #[case::inside(WINDOW, Some((100, 199)), Cover::All)]
    #[case::some_have_none(WINDOW, Some((-1, 50)), Cover::Some)]
    #[case::in_front(WINDOW, Some((1, 99)), Cover::Nothing)]
    #[case::behind(WINDOW, Some((200, 300)), Cover::Nothing)]
    #[case::across_the_beginning(WINDOW, Some((99, 100)), Cover::Some)]
    #[case::across_the_end(WINDOW, Some((199, 200)), Cover::Some)]
    #[case::around(WINDOW, Some((1, 300)), Cover::Some)]
    #[case::none_and_inside(UP_TO, Some((-1, 199)), Cover::All)]
    #[case::none_and_around(UP_TO, Some((-1, 200)), Cover::Some)]
    #[case::no_limit(ALWAYS, Some((-5, 5)), Cover::All)]
    fn objects(#[case] times: Times, #[case] timestamps: Option<(i64, i64)>, #[case] expected: Cover) {
        assert_eq!(times.cover(timestamps), expected);
    }

    proptest! {
        /// An object that is left unread holds no wanted record, and of one taken whole every record is wanted.
        #[test]
        fn objects_are_judged_as_their_records_are(
            records in prop::collection::vec(-1i64..12, 1..6),
            from in prop::option::of(0i64..12),
            until in prop::option::of(0i64..12),
        ) {
            let times = Times { from_ms: from, until_ms: until };
            let (oldest, newest) = (*records.iter().min().unwrap(), *records.iter().max().unwrap());
            let kept = |ms: &i64| times.judge(*ms, CreateTime) != Verdict::Outside;
            match times.cover(Some((oldest, newest))) {
                Cover::All => prop_assert!(records.iter().all(kept)),
                Cover::Nothing => prop_assert!(!records.iter().any(kept)),
                Cover::Some => {}
            }
            for ms in records.iter().filter(|ms| **ms >= 0 && kept(ms)) {
                let (oldest, newest) = times.clip((oldest, newest)).expect("something is inside");
                prop_assert!((oldest..=newest).contains(ms));
            }
        }
    }
}
