//! Which objects of a topic retention may have removed, by their age.

use super::Expiry;
use crate::model::lifecycle::record::RetentionRecord;

/// What is known of the retention of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aging {
    /// There is no record of anything that ever expired, and what is known elsewhere holds for all objects.
    Unrecorded(Expiry),
    /// What the topic's retention record says.
    Recorded {
        /// The record.
        record: RetentionRecord,
        /// The time now, in milliseconds since 1970-01-01 UTC.
        now_ms: i64,
        /// How long a day of a rule is, in milliseconds.
        day_ms: i64,
    },
}

impl Default for Aging {
    /// Nobody knows anything.
    fn default() -> Self {
        Self::Unrecorded(Expiry::Possible)
    }
}

impl Aging {
    /// Whether an object that was written at `written_ms` may be gone without anybody having done wrong. `None`: nobody
    /// knows when.
    pub fn expiry(&self, written_ms: Option<i64>) -> Expiry {
        match self {
            Self::Unrecorded(expiry) => *expiry,
            Self::Recorded { record, now_ms, day_ms } => {
                let may = record.may_have_expired(written_ms, *now_ms, *day_ms);
                if may { Expiry::Possible } else { Expiry::Never }
            }
        }
    }

    /// Whether what is missing directly behind an object that was written at `in_front_ms` has expired, as far as anybody can
    /// know: that object is to go, and what is gone was written after it and before what is young. `None`: nothing is in
    /// front. Lists of objects are judged by this alone, whether they are verified or restored.
    pub fn may_be_gone_behind(&self, in_front_ms: Option<i64>) -> bool {
        in_front_ms.is_some_and(|written_ms| self.is_due(written_ms))
    }

    /// Whether an object that was written at `written_ms` is to go by what is in force now. Stores remove what is to go
    /// when it suits them and in any order, so the ones behind it that are as old may be gone before it.
    fn is_due(&self, written_ms: i64) -> bool {
        match self {
            Self::Unrecorded(_) => false,
            Self::Recorded { record, now_ms, day_ms } => {
                let days = record.last().flatten();
                days.is_some_and(|days| now_ms - written_ms >= i64::from(days).saturating_mul(*day_ms))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use Expiry::{Never, Possible};

    fn recorded(terms: &[(Option<u32>, i64)]) -> Aging {
        let mut record = RetentionRecord::new("t");
        terms.iter().for_each(|(days, from_ms)| _ = record.begin(*days, *from_ms, "j"));
        Aging::Recorded { record, now_ms: 100, day_ms: 10 }
    }

    #[rstest]
    #[case::kept(Aging::Unrecorded(Never), 0, Never, false)]
    #[case::nobody_knows(Aging::Unrecorded(Possible), 0, Possible, false)]
    #[case::young(recorded(&[(Some(3), 0)]), 71, Never, false)]
    #[case::old(recorded(&[(Some(3), 0)]), 70, Possible, true)]
    #[case::old_when_it_was_kept_again(recorded(&[(Some(3), 0), (None, 50)]), 20, Possible, false)]
    #[case::young_when_it_was_kept_again(recorded(&[(Some(3), 0), (None, 50)]), 21, Never, false)]
    #[case::longer_now(recorded(&[(Some(3), 0), (Some(9), 50)]), 20, Possible, false)]
    fn by_age(#[case] aging: Aging, #[case] written_ms: i64, #[case] expiry: Expiry, #[case] due: bool) {
        assert_eq!((aging.expiry(Some(written_ms)), aging.is_due(written_ms)), (expiry, due));
    }

    #[test]
    fn of_unknown_age() {
        assert_eq!(recorded(&[(Some(3), 90)]).expiry(None), Possible);
        assert_eq!(recorded(&[]).expiry(None), Never);
    }
}
