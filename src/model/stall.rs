//! Which lanes have lost a wake-up somewhere and are built anew.

/// A lane that does not move for so long, while another does, is stalled, in milliseconds.
pub const STALLED_MS: i64 = 300_000;

/// What is seen of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// When it last took records, in milliseconds since 1970-01-01 UTC.
    pub moved_ms: i64,
    /// The offset it reads next.
    pub read_next: i64,
    /// Where its partition ended when that was last asked; `None`: never answered yet.
    pub end: Option<i64>,
    /// Its uploads fail: it is known why it does not move.
    pub troubled: bool,
    /// Somebody waits for it: always in a daemon; in a one-shot run until it has reached its end.
    pub wanted: bool,
}

impl Seen {
    fn rests(&self, now_ms: i64) -> bool {
        now_ms - self.moved_ms > STALLED_MS
    }

    fn unread(&self) -> bool {
        self.end.is_some_and(|end| end > self.read_next)
    }
}

/// Which of all lanes of a job are to be built anew at `now_ms`, by their place in `lanes`; first match wins:
///
/// | # | lane, seen among all lanes | it |
/// |---|---|---|
/// | 1 | no lane of the job moves | stays: it is the brokers, the bucket or a machine that slept, and building anew helps nobody |
/// | 2 | it moved within [`STALLED_MS`] | stays |
/// | 3 | its uploads fail | stays: it goes on by itself when they succeed |
/// | 4 | nobody waits for it | stays |
/// | 5 | nothing is known to be unread | stays: the partition is idle |
/// | 6 | anything else | is built anew |
pub fn stalled(lanes: &[Seen], now_ms: i64) -> Vec<usize> {
    if lanes.iter().all(|lane| lane.rests(now_ms)) {
        return Vec::new();
    }
    let stuck = |lane: &Seen| lane.rests(now_ms) && !lane.troubled && lane.wanted && lane.unread();
    lanes.iter().enumerate().filter(|(_, lane)| stuck(lane)).map(|(at, _)| at).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const NOW: i64 = 10_000_000;
    /// Has moved just now.
    const BUSY: Seen = Seen { moved_ms: NOW, read_next: 50, end: Some(100), troubled: false, wanted: true };
    /// Has not moved for a millisecond too long, and there is something to read.
    const STUCK: Seen = Seen { moved_ms: NOW - STALLED_MS - 1, ..BUSY };

    #[rstest]
    #[case::none(&[], &[])]
    #[case::row_1_nothing_moves(&[STUCK, STUCK], &[])]
    #[case::row_1_the_only_lane(&[STUCK], &[])]
    #[case::row_1_all_rest_and_one_is_idle(&[STUCK, Seen { end: Some(50), ..STUCK }], &[])]
    #[case::row_2_all_move(&[BUSY, BUSY], &[])]
    #[case::row_2_just_not_too_long(&[BUSY, Seen { moved_ms: NOW - STALLED_MS, ..BUSY }], &[])]
    #[case::row_2_a_clock_that_went_back(&[BUSY, Seen { moved_ms: NOW + 60_000, ..BUSY }], &[])]
    #[case::row_3_uploads_fail(&[BUSY, Seen { troubled: true, ..STUCK }], &[])]
    #[case::row_4_has_reached_its_end(&[BUSY, Seen { wanted: false, ..STUCK }], &[])]
    #[case::row_5_idle(&[BUSY, Seen { end: Some(50), ..STUCK }], &[])]
    #[case::row_5_the_end_is_older_than_the_position(&[BUSY, Seen { end: Some(40), ..STUCK }], &[])]
    #[case::row_5_the_end_is_not_known(&[BUSY, Seen { end: None, ..STUCK }], &[])]
    #[case::row_6_stuck(&[BUSY, STUCK], &[1])]
    #[case::row_6_one_record_is_unread(&[Seen { end: Some(51), ..STUCK }, BUSY], &[0])]
    #[case::row_6_several(&[STUCK, BUSY, Seen { troubled: true, ..STUCK }, STUCK], &[0, 3])]
    #[case::row_6_the_one_that_moves_fails_to_upload(&[Seen { troubled: true, ..BUSY }, STUCK], &[1])]
    fn rows(#[case] lanes: &[Seen], #[case] anew: &[usize]) {
        assert_eq!(stalled(lanes, NOW), anew);
    }

    fn seen() -> impl Strategy<Value = Seen> {
        let moved = prop_oneof![Just(NOW), (0..2 * STALLED_MS).prop_map(|ago| NOW - ago)];
        let end = prop::option::of(0..20i64);
        (moved, 0..20i64, end, any::<bool>(), any::<bool>()).prop_map(|(moved_ms, read_next, end, troubled, wanted)| {
            Seen { moved_ms, read_next, end, troubled, wanted }
        })
    }

    proptest! {
        /// Whatever is rebuilt has something to do that it does not do, and never are all lanes rebuilt.
        #[test]
        fn a_lane_that_moves_or_has_nothing_to_do_is_left_alone(lanes in prop::collection::vec(seen(), 0..12)) {
            let anew = stalled(&lanes, NOW);
            prop_assert!(anew.is_empty() || anew.len() < lanes.len());
            for at in anew {
                prop_assert!(NOW - lanes[at].moved_ms > STALLED_MS);
                prop_assert!(lanes[at].end > Some(lanes[at].read_next));
            }
        }
    }
}
