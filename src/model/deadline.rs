//! When Kafka may delete what is not backed up yet.

/// The earliest moment (milliseconds since 1970-01-01 UTC) at which Kafka may delete a record of a partition that is not
/// durable yet; `None` when nothing is waiting (`lag` is 0), when it is not known what is, or when the topic keeps
/// records whatever their age (`retention_ms` is `None`).
///
/// What is not durable became visible after `protected_ms`, the moment up to which everything is: so its age is at most
/// the time since then. Records whose producers dated them back are deleted earlier, and nobody can know by how much.
pub fn retention_deadline_ms(protected_ms: Option<i64>, lag: Option<i64>, retention_ms: Option<i64>) -> Option<i64> {
    lag.filter(|lag| *lag > 0)?;
    Some(protected_ms?.saturating_add(retention_ms?))
}

/// `retention.ms` as far as it deletes: not for a topic that is only compacted (`cleanup.policy`), nor for -1.
pub fn effective_retention_ms(cleanup_policy: Option<&str>, retention_ms: Option<&str>) -> Option<i64> {
    let deletes = cleanup_policy.is_none_or(|policy| policy.split(',').any(|part| part.trim() == "delete"));
    retention_ms?.parse().ok().filter(|ms| *ms >= 0 && deletes)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::waiting(Some(1_000), Some(5), Some(60_000), Some(61_000))]
    #[case::nothing_waits(Some(1_000), Some(0), Some(60_000), None)]
    #[case::the_end_is_not_known(Some(1_000), None, Some(60_000), None)]
    #[case::never_protected(None, Some(5), Some(60_000), None)]
    #[case::kept_for_ever(Some(1_000), Some(5), None, None)]
    #[case::as_good_as_for_ever(Some(1_000), Some(5), Some(i64::MAX), Some(i64::MAX))]
    fn deadline(
        #[case] protected: Option<i64>,
        #[case] lag: Option<i64>,
        #[case] retention: Option<i64>,
        #[case] expected: Option<i64>,
    ) {
        assert_eq!(retention_deadline_ms(protected, lag, retention), expected);
    }

    #[rstest]
    #[case::by_age(Some("delete"), Some("604800000"), Some(604_800_000))]
    #[case::both(Some("compact, delete"), Some("1"), Some(1))]
    #[case::compacted(Some("compact"), Some("604800000"), None)]
    #[case::for_ever(Some("delete"), Some("-1"), None)]
    #[case::not_told(None, None, None)]
    fn retention(#[case] policy: Option<&str>, #[case] ms: Option<&str>, #[case] expected: Option<i64>) {
        assert_eq!(effective_retention_ms(policy, ms), expected);
    }
}
