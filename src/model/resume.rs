//! Where to go on with a partition: the one decision every start, rebalance and repair makes.
//!
//! What was seen of Kafka, of the bucket and of the local hints goes in, one [`Resume`] comes out. First match wins; `S`
//! is the tail's next offset (or the list's origin where there is no object), lo and hi are log start and high watermark.
//!
//! | # | seen | do |
//! |---|---|---|
//! | 1 | no generation record, prefix empty | create it, origin = lo (hi for `start = "latest"`) |
//! | 2 | no generation record, prefix not empty | refuse; with `adopt` generation 1 is what is there, ours is 2 |
//! | 2 | only the record of what was adopted | go on adopting: begin generation 2 |
//! | 3 | cluster id differs | refuse; never a new generation |
//! | 4 | topic id differs | new generation, origin lo; with `on_recreate = "stop"` degraded |
//! | 5 | broker's end offset for the tail's epoch is D < S | new generation with the parent below D, origin D |
//! | 6 | S > hi, neither 4 nor 5 | wait and ask again |
//! | 7 | tail found, lo <= S | begin at S |
//! | 8 | tail found, S < lo | gap link \[S, lo), then lo |
//! | 9 | hint ahead of S, missing objects younger than the retention | alarm, then 7 or 8 |
//! | 10 | hint ahead of S, missing objects older than the retention | expired: begin at the largest valid hint; wait as in 6 where it is above hi |
//! | 11 | no objects, no valid hint | max(origin, lo), noting [origin, lo) as expired or lost |
//!
//! Without retention nothing expires, so objects that are missing were deleted by somebody: what Kafka still holds of
//! them is backed up again (9), and what it does not hold is a gap (8).

/// What was seen of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<'a> {
    /// Kafka's cluster id.
    pub cluster_id: &'a str,
    /// Kafka's topic id; empty when the broker does not tell.
    pub topic_id: &'a str,
    /// Log start offset.
    pub lo: i64,
    /// High watermark.
    pub hi: i64,
    /// The generation the topic is in; `None` when there is no record.
    pub generation: Option<Root<'a>>,
    /// Objects lie under the topic's prefix that no generation record accounts for.
    pub strangers: bool,
    /// The last object of the partition in this generation.
    pub tail: Option<Tail>,
    /// The largest next offset that local state, head record or group commit name *with this generation's uuid*.
    pub hint: Option<i64>,
    /// The broker's end offset for the tail's leader epoch, where it has told that the log was truncated below S.
    pub truncated_at: Option<i64>,
    /// How long the bucket keeps objects, in milliseconds; `None` is for ever.
    pub retention_ms: Option<i64>,
    /// Now, in milliseconds since 1970-01-01 UTC, by the clock that the tail's age is measured with.
    pub now_ms: i64,
    /// `adopt = true`.
    pub adopt: bool,
    /// `on_recreate = "stop"`.
    pub stop_on_recreate: bool,
}

/// What the generation record says that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root<'a> {
    /// N.
    pub number: u32,
    /// The cluster it was read from.
    pub cluster_id: &'a str,
    /// The topic id it was read from; empty when not known.
    pub topic_id: &'a str,
    /// Where this partition's list begins.
    pub origin: i64,
    /// It stands for objects that were there before us, and the generation that was to follow was never begun.
    pub adopted: bool,
}

/// The last object of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// Where its range ends.
    pub next_offset: i64,
    /// When it was written, in milliseconds since 1970-01-01 UTC.
    pub written_ms: i64,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// Create generation `number`, then ask again.
    NewGeneration {
        /// Its number.
        number: u32,
        /// Why.
        why: NewGeneration,
    },
    /// Fetch from here.
    Begin {
        /// The position.
        at: i64,
        /// What to tell the operator, if anything.
        note: Option<Note>,
    },
    /// Write a gap link \[from, to), then fetch from `to`.
    Gap {
        /// Where the records are missing from.
        from: i64,
        /// Where the log starts now.
        to: i64,
        /// What to tell the operator besides.
        note: Option<Note>,
    },
    /// Wait and ask again: this may pass by itself.
    Wait {
        /// S.
        next_offset: i64,
        /// The high watermark.
        hi: i64,
    },
    /// Do nothing until the operator has acted.
    Refuse(Refusal),
}

/// Why a new generation begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewGeneration {
    /// Nothing has been backed up yet.
    First,
    /// What is there is not ours and was adopted as generation 1.
    Adopted,
    /// The topic was deleted and created again.
    Recreated,
    /// The log lost its end (an unclean leader election) and went on differently from `at`.
    Truncated {
        /// The broker's end offset for the tail's leader epoch.
        at: i64,
    },
}

/// Something the operator should know although the backup goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// Objects between S and `hint` are gone although nothing expires them.
    DeletedBySomebody {
        /// Up to where there had been objects.
        hint: i64,
    },
    /// Everything up to here had been backed up and has expired.
    Expired {
        /// Up to where.
        up_to: i64,
    },
    /// \[origin, to) has no objects: expired, lost, or never there.
    NothingBelow {
        /// Where the list began.
        origin: i64,
        /// Where it goes on.
        to: i64,
    },
}

/// Why nothing is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The prefix holds objects that are not ours.
    Strangers,
    /// The backup is of another cluster.
    OtherCluster {
        /// The cluster the backup is of.
        backed_up: String,
        /// The cluster that answers now.
        seen: String,
    },
    /// The topic was deleted and created again, and `on_recreate = "stop"`.
    Recreated,
}

/// Decides where to go on: the table of this module, row by row.
pub fn resume(seen: &Seen<'_>) -> Resume {
    let Some(root) = seen.generation else {
        return match (seen.strangers, seen.adopt) {
            (false, _) => Resume::NewGeneration { number: 1, why: NewGeneration::First },
            (true, true) => Resume::NewGeneration { number: 2, why: NewGeneration::Adopted },
            (true, false) => Resume::Refuse(Refusal::Strangers),
        };
    };
    if root.cluster_id != seen.cluster_id {
        let (backed_up, seen) = (root.cluster_id.to_owned(), seen.cluster_id.to_owned());
        return Resume::Refuse(Refusal::OtherCluster { backed_up, seen });
    }
    if root.adopted {
        return Resume::NewGeneration { number: root.number + 1, why: NewGeneration::Adopted };
    }
    if !root.topic_id.is_empty() && !seen.topic_id.is_empty() && root.topic_id != seen.topic_id {
        if seen.stop_on_recreate {
            return Resume::Refuse(Refusal::Recreated);
        }
        return Resume::NewGeneration { number: root.number + 1, why: NewGeneration::Recreated };
    }
    let next = seen.tail.map_or(root.origin, |tail| tail.next_offset);
    if let Some(at) = seen.truncated_at.filter(|at| *at < next) {
        return Resume::NewGeneration { number: root.number + 1, why: NewGeneration::Truncated { at } };
    }
    if next > seen.hi {
        return Resume::Wait { next_offset: next, hi: seen.hi };
    }
    let hint = seen.hint.filter(|hint| *hint > next);
    let expired = match (seen.retention_ms, seen.tail) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(retention), Some(tail)) => seen.now_ms - tail.written_ms > retention,
    };
    match hint {
        // Below the end of the log there must be what was backed up: as in row 6.
        Some(hint) if expired && hint > seen.hi => Resume::Wait { next_offset: hint, hi: seen.hi },
        Some(hint) if expired => go_on(hint, seen.lo, Some(Note::Expired { up_to: hint })),
        Some(hint) => go_on(next, seen.lo, Some(Note::DeletedBySomebody { hint })),
        None if seen.tail.is_none() && next < seen.lo => {
            Resume::Begin { at: seen.lo, note: Some(Note::NothingBelow { origin: next, to: seen.lo }) }
        }
        None => go_on(next, seen.lo, None),
    }
}

fn go_on(next: i64, lo: i64, note: Option<Note>) -> Resume {
    if lo <= next { Resume::Begin { at: next, note } } else { Resume::Gap { from: next, to: lo, note } }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const ROOT: Root<'static> = Root { number: 3, cluster_id: "c", topic_id: "t", origin: 10, adopted: false };

    fn seen() -> Seen<'static> {
        Seen {
            cluster_id: "c",
            topic_id: "t",
            lo: 0,
            hi: 1000,
            generation: Some(ROOT),
            strangers: false,
            tail: Some(Tail { next_offset: 100, written_ms: 0 }),
            hint: None,
            truncated_at: None,
            retention_ms: None,
            now_ms: 50,
            adopt: false,
            stop_on_recreate: false,
        }
    }

    fn begin(at: i64) -> Resume {
        Resume::Begin { at, note: None }
    }

    #[rstest]
    #[case::row_1(Seen { generation: None, tail: None, ..seen() },
        Resume::NewGeneration { number: 1, why: NewGeneration::First })]
    #[case::row_2_refused(Seen { generation: None, tail: None, strangers: true, ..seen() }, Resume::Refuse(Refusal::Strangers))]
    #[case::row_2_adopted(Seen { generation: None, tail: None, strangers: true, adopt: true, ..seen() },
        Resume::NewGeneration { number: 2, why: NewGeneration::Adopted })]
    #[case::row_2_half_done(Seen { generation: Some(Root { number: 1, adopted: true, ..ROOT }), tail: None, ..seen() },
        Resume::NewGeneration { number: 2, why: NewGeneration::Adopted })]
    #[case::row_3(Seen { cluster_id: "other", topic_id: "u", ..seen() },
        Resume::Refuse(Refusal::OtherCluster { backed_up: "c".into(), seen: "other".into() }))]
    #[case::row_4(Seen { topic_id: "u", hi: 5, ..seen() },
        Resume::NewGeneration { number: 4, why: NewGeneration::Recreated })]
    #[case::row_4_longer(Seen { topic_id: "u", hi: 5000, ..seen() },
        Resume::NewGeneration { number: 4, why: NewGeneration::Recreated })]
    #[case::row_4_stop(Seen { topic_id: "u", stop_on_recreate: true, ..seen() }, Resume::Refuse(Refusal::Recreated))]
    #[case::row_4_ids_unknown(Seen { topic_id: "", ..seen() }, begin(100))]
    #[case::row_5(Seen { truncated_at: Some(90), ..seen() },
        Resume::NewGeneration { number: 4, why: NewGeneration::Truncated { at: 90 } })]
    #[case::row_5_not_below_the_tail(Seen { truncated_at: Some(100), ..seen() }, begin(100))]
    #[case::row_6(Seen { hi: 99, ..seen() }, Resume::Wait { next_offset: 100, hi: 99 })]
    #[case::row_7(seen(), begin(100))]
    #[case::row_7_at_the_end(Seen { hi: 100, ..seen() }, begin(100))]
    #[case::row_7_at_the_start(Seen { lo: 100, ..seen() }, begin(100))]
    #[case::row_7_hint_behind(Seen { hint: Some(60), ..seen() }, begin(100))]
    #[case::row_8(Seen { lo: 130, ..seen() }, Resume::Gap { from: 100, to: 130, note: None })]
    #[case::row_9_then_7(Seen { hint: Some(200), ..seen() },
        Resume::Begin { at: 100, note: Some(Note::DeletedBySomebody { hint: 200 }) })]
    #[case::row_9_then_8(Seen { hint: Some(200), lo: 130, ..seen() },
        Resume::Gap { from: 100, to: 130, note: Some(Note::DeletedBySomebody { hint: 200 }) })]
    #[case::row_9_young(Seen { hint: Some(200), retention_ms: Some(60), ..seen() },
        Resume::Begin { at: 100, note: Some(Note::DeletedBySomebody { hint: 200 }) })]
    #[case::row_9_everything_gone(Seen { hint: Some(200), tail: None, ..seen() },
        Resume::Begin { at: 10, note: Some(Note::DeletedBySomebody { hint: 200 }) })]
    #[case::row_10(Seen { hint: Some(200), retention_ms: Some(40), ..seen() },
        Resume::Begin { at: 200, note: Some(Note::Expired { up_to: 200 }) })]
    #[case::row_10_no_objects(Seen { hint: Some(200), retention_ms: Some(40), tail: None, ..seen() },
        Resume::Begin { at: 200, note: Some(Note::Expired { up_to: 200 }) })]
    #[case::row_10_then_8(Seen { hint: Some(200), retention_ms: Some(40), lo: 300, ..seen() },
        Resume::Gap { from: 200, to: 300, note: Some(Note::Expired { up_to: 200 }) })]
    #[case::row_10_above_the_log(Seen { hint: Some(1001), retention_ms: Some(40), tail: None, ..seen() },
        Resume::Wait { next_offset: 1001, hi: 1000 })]
    #[case::row_11(Seen { tail: None, lo: 30, ..seen() },
        Resume::Begin { at: 30, note: Some(Note::NothingBelow { origin: 10, to: 30 }) })]
    #[case::row_11_origin(Seen { tail: None, ..seen() }, begin(10))]
    fn every_row(#[case] seen: Seen<'_>, #[case] expected: Resume) {
        assert_eq!(resume(&seen), expected);
    }

    proptest! {
        /// Nothing is ever skipped silently: what lies between S and the position is a gap link, expired, or noted.
        #[test]
        fn never_skips_silently(
            lo in 0i64..200, len in 0i64..200, next in 0i64..300, has_tail in any::<bool>(),
            hint in prop::option::of(0i64..300), retention in prop::option::of(0i64..100), written in 0i64..100,
        ) {
            let tail = has_tail.then_some(Tail { next_offset: next, written_ms: written });
            let seen = Seen {
                lo, hi: lo + len, tail, hint, retention_ms: retention, now_ms: 100,
                generation: Some(Root { origin: next, ..ROOT }), ..seen()
            };
            match resume(&seen) {
                Resume::Begin { at, note } => {
                    prop_assert!(at >= next && at >= lo && at <= lo + len);
                    let said = matches!(note, Some(Note::Expired { .. } | Note::NothingBelow { .. }));
                    prop_assert!(at == next || said);
                }
                Resume::Gap { from, to, .. } => prop_assert!(from < to && to == lo && (from == next || retention.is_some())),
                Resume::Wait { next_offset, .. } => prop_assert!(next_offset > lo + len && (next_offset == next || retention.is_some())),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
