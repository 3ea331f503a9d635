//! Whether a consumer group is shared by jobs that back up to different places.
//!
//! A group divides partitions among its members, whatever they do with them. Two jobs of one name on one cluster, each with
//! a store of its own, would each back up a part of every topic, and neither would miss anything. What tells is the
//! generation that stands beside each committed offset: a generation that the store has no record of is somebody else's.

use std::collections::BTreeMap;

/// A partition that somebody else reads, with a committed offset of a generation that is not in this store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign<P> {
    /// Which partition.
    pub partition: P,
    /// The committed offset.
    pub offset: i64,
    /// Where the log begins.
    pub log_start: i64,
}

/// What was seen of such partitions.
#[derive(Debug)]
pub struct Sharing<P> {
    seen: BTreeMap<P, Seen>,
}

impl<P> Default for Sharing<P> {
    fn default() -> Self {
        Self { seen: BTreeMap::new() }
    }
}

#[derive(Debug)]
struct Seen {
    offset: i64,
    since_ms: i64,
    /// The offset has moved since: somebody is at work there.
    moved: bool,
}

impl<P: Ord + Clone> Sharing<P> {
    /// Takes in what is foreign now, and says which of it is certainly read by a job that backs up to another place.
    ///
    /// An offset that nobody moves may be left over from a store that was replaced. Who shares the store reads such a
    /// partition anew, and has committed something of it within `patience_ms`; unless Kafka has deleted all of it.
    pub fn observe(&mut self, now_ms: i64, patience_ms: i64, foreign: &[Foreign<P>]) -> Vec<P> {
        self.seen.retain(|partition, _| foreign.iter().any(|f| f.partition == *partition));
        let mut sure = Vec::new();
        for Foreign { partition, offset, log_start } in foreign {
            let new = || Seen { offset: *offset, since_ms: now_ms, moved: false };
            let seen = self.seen.entry(partition.clone()).or_insert_with(new);
            seen.moved |= seen.offset != *offset;
            if seen.moved || (now_ms - seen.since_ms >= patience_ms && log_start < offset) {
                sure.push(partition.clone());
            }
        }
        sure
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn at(offset: i64, log_start: i64) -> Vec<Foreign<&'static str>> {
        vec![Foreign { partition: "t/0", offset, log_start }]
    }

    #[rstest]
    #[case::seen_once(&[(0, at(5, 0))], false)]
    #[case::moves(&[(0, at(5, 0)), (1, at(6, 0))], true)]
    #[case::has_moved_and_stands(&[(0, at(5, 0)), (1, at(6, 0)), (2, at(6, 0))], true)]
    #[case::stands_for_too_short_a_time(&[(0, at(5, 0)), (99, at(5, 0))], false)]
    #[case::stands_above_records(&[(0, at(5, 0)), (100, at(5, 0))], true)]
    #[case::stands_where_kafka_has_nothing_any_more(&[(0, at(5, 5)), (100, at(5, 5))], false)]
    #[case::was_ours_in_between(&[(0, at(5, 0)), (50, vec![]), (100, at(6, 0))], false)]
    #[case::is_over(&[(0, at(5, 0)), (1, at(6, 0)), (2, vec![])], false)]
    fn sharing(#[case] looks: &[(i64, Vec<Foreign<&'static str>>)], #[case] is_shared: bool) {
        let mut sharing = Sharing::default();
        let last = looks.iter().map(|(now, foreign)| sharing.observe(*now, 100, foreign)).last();
        assert_eq!(last, Some(if is_shared { vec!["t/0"] } else { vec![] }));
    }
}
