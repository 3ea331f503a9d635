//! How long one waits for the members of a group to leave it that may be dead, before they are taken for alive.

use std::time::Duration;

/// What has been seen of a group that is to become empty. Times are since the first look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    limit: Duration,
    /// The fewest members there were.
    least: usize,
    /// Since when.
    since: Duration,
}

impl Departure {
    /// Somebody who is dead is gone after `limit`.
    pub fn new(limit: Duration) -> Self {
        Self { limit, least: usize::MAX, since: Duration::ZERO }
    }

    /// Whether so many members may all be dead. Each that goes gives the others `limit` anew: Kafka lets nobody go who
    /// waits for a rebalance to end, and that waits for others who are dead.
    pub fn may_go_on(&mut self, members: usize, now: Duration) -> bool {
        if members < self.least {
            (self.least, self.since) = (members, now);
        }
        now.saturating_sub(self.since) <= self.limit
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nobody_goes(&[(0, 2), (10, 2), (11, 2)], &[true, true, false])]
    #[case::one_goes_and_then_the_other(&[(0, 2), (9, 1), (19, 1), (20, 0)], &[true, true, true, true])]
    #[case::one_goes_and_the_other_does_not(&[(0, 2), (9, 1), (20, 1)], &[true, true, false])]
    #[case::who_comes_is_alive(&[(0, 1), (5, 2), (9, 1), (11, 1)], &[true, true, true, false])]
    fn members_that_go_are_waited_for(#[case] looks: &[(u64, usize)], #[case] expected: &[bool]) {
        let mut departure = Departure::new(Duration::from_secs(10));
        let goes_on = |(now, members): &(u64, usize)| departure.may_go_on(*members, Duration::from_secs(*now));
        assert_eq!(looks.iter().map(goes_on).collect::<Vec<_>>(), expected);
    }

    proptest! {
        /// However members come and go: it ends, after `limit` for each that was there in the beginning.
        #[test]
        fn it_ends(members in proptest::collection::vec(1_usize..6, 61..100)) {
            let mut departure = Departure::new(Duration::from_secs(10));
            let goes_on = |(now, members): (usize, &usize)| departure.may_go_on(*members, Duration::from_secs(now as u64));
            prop_assert!(!members.iter().enumerate().all(goes_on));
        }
    }
}
