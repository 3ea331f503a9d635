//! What ends the restore of a partition early.

use crate::kafka::KafkaError;
use crate::storage::StoreError;

/// Why a partition ended early.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// An object cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The target does not take a record.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A record did not land where it belongs.
    #[error(
        "a record got offset {offset} instead of {expected}: somebody else writes to the target, or a record was lost or \
         doubled; delete the target (or choose another one) and restore again with nobody else writing to it"
    )]
    Offset {
        /// base + n.
        expected: i64,
        /// What the broker said.
        offset: i64,
    },
    /// The last record on the target is not the one that an earlier run of this restore put there.
    #[error(
        "the record at offset {offset} of the target is not the planned one (source offset {source_offset}): somebody \
         else writes to the target; nothing was produced; delete the target and the plan and restore again"
    )]
    Differs {
        /// Where, on the target.
        offset: i64,
        /// Where the planned record comes from.
        source_offset: i64,
    },
    /// The target holds more than there is to restore.
    #[error(
        "the target ends at offset {end}, and what there is to restore at {planned_end}: what stands from offset \
         {planned_end} on is somebody else's; delete the target and the plan and restore again"
    )]
    Foreign {
        /// The target's end.
        end: i64,
        /// Where it should end.
        planned_end: i64,
    },
    /// An object is damaged.
    #[error("object {key} is damaged: {why}; {produced} of its records were produced before that was seen")]
    Damaged {
        /// Its key.
        key: String,
        /// What is wrong.
        why: String,
        /// Records of it that had been produced.
        produced: u64,
    },
    /// A signal.
    #[error("stopped")]
    Stopped,
    /// The thread panicked, which is a bug.
    #[error("internal error: the thread of the partition ended ({0})")]
    Died(String),
}

impl Failure {
    /// Whether the same restore started again can go on: what is on the target is what was planned, and what could not be
    /// read or written may be possible then.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Kafka(_) | Self::Stopped | Self::Died(_))
    }
}
