//! Is what Kafka held when asked in the bucket? The judgement for one partition.
//!
//! | the bucket's list ends at | judgement |
//! |---|---|
//! | the end asked for, or behind it | durable |
//! | in front of it, and Kafka has no record between (transaction markers, aborted or compacted records) | durable |
//! | in front of it, and Kafka's log begins behind it | lost, as far as the log's beginning: Kafka deleted it unread |
//! | in front of it | pending |
//! | behind the end that Kafka has even now | ahead: the log was cut, or the topic was created again |
//! | (there is no list) | pending, or durable where Kafka holds nothing |

use serde::Serialize;

/// What was seen of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Where Kafka's log began when it was asked.
    pub low: i64,
    /// Where it ended then: what is to be proved.
    pub end: i64,
    /// Where it ends now.
    pub end_now: i64,
    /// Where the bucket's list ends, or begins where it is empty; `None` without a list.
    pub stored: Option<i64>,
    /// The first record at or behind the list's end, where Kafka was asked and has one.
    pub next_record: NextRecord,
}

/// The first record that Kafka has at or behind an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextRecord {
    /// Not asked.
    Unknown,
    /// There is none.
    None,
    /// Here.
    At(i64),
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// Everything is in the bucket.
    Durable,
    /// Not yet.
    Pending,
    /// Something never will be.
    Lost,
    /// The bucket holds more than Kafka.
    Ahead,
}

/// Judges by the table above.
pub fn judge(sight: &Sight) -> Judgement {
    let Sight { low, end, end_now, stored, next_record } = *sight;
    if low >= end && stored.is_none() {
        return Judgement::Durable;
    }
    let Some(stored) = stored else { return Judgement::Pending };
    match next_record {
        _ if stored > end_now.max(end) => Judgement::Ahead,
        _ if stored >= end => Judgement::Durable,
        NextRecord::None => Judgement::Durable,
        NextRecord::At(offset) if offset >= end => Judgement::Durable,
        _ if stored < low => Judgement::Lost,
        _ => Judgement::Pending,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::as_far_as_asked(Some(100), NextRecord::Unknown, Judgement::Durable)]
    #[case::further(Some(110), NextRecord::Unknown, Judgement::Durable)]
    #[case::not_as_far(Some(99), NextRecord::Unknown, Judgement::Pending)]
    #[case::markers_only(Some(99), NextRecord::None, Judgement::Durable)]
    #[case::markers_up_to_the_end(Some(98), NextRecord::At(100), Judgement::Durable)]
    #[case::a_record_is_left(Some(98), NextRecord::At(99), Judgement::Pending)]
    #[case::deleted_before_it_was_read(Some(5), NextRecord::At(10), Judgement::Lost)]
    #[case::deleted_and_empty(Some(5), NextRecord::None, Judgement::Durable)]
    #[case::more_than_there_is(Some(121), NextRecord::Unknown, Judgement::Ahead)]
    #[case::no_list(None, NextRecord::Unknown, Judgement::Pending)]
    fn a_log_from_10_to_100(#[case] stored: Option<i64>, #[case] next_record: NextRecord, #[case] expected: Judgement) {
        assert_eq!(judge(&Sight { low: 10, end: 100, end_now: 120, stored, next_record }), expected);
    }

    #[test]
    fn an_empty_log_needs_no_list() {
        let sight = Sight { low: 7, end: 7, end_now: 7, stored: None, next_record: NextRecord::Unknown };
        assert_eq!(judge(&sight), Judgement::Durable);
    }
}
