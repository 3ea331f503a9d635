//! What has become of the target of an unfinished restore.

/// Why an unfinished restore cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Change {
    /// The topic is not there.
    #[error("it was deleted")]
    Gone,
    /// It was deleted and created again.
    #[error("it was deleted and created again (topic id {found} instead of {planned})")]
    Recreated {
        /// The id it had.
        planned: String,
        /// The id it has.
        found: String,
    },
    /// A partition is not there.
    #[error("partition {partition} is not there")]
    NoPartition {
        /// Which.
        partition: i32,
    },
    /// The end is in front of where the restore began.
    #[error("partition {partition} ends at offset {end}, and the restore began at {base}: its log was truncated")]
    Truncated {
        /// Which.
        partition: i32,
        /// Its end.
        end: i64,
        /// Where the restore began.
        base: i64,
    },
    /// The last record cannot be looked at.
    #[error(
        "partition {partition} does not hold the record at offset {offset} any more, so that it cannot be compared"
    )]
    Emptied {
        /// Which.
        partition: i32,
        /// Where the last record was.
        offset: i64,
    },
    /// It holds more than was planned.
    #[error(
        "partition {partition} ends at offset {end}, but all that there is to restore ends at {planned_end} at the \
         latest: what stands from offset {planned_end} on is somebody else's"
    )]
    Foreign {
        /// Which.
        partition: i32,
        /// Its end.
        end: i64,
        /// Where it should end at the latest.
        planned_end: i64,
    },
}
