//! Why a restore does not begin.

use std::collections::BTreeSet;

use super::change::Change;
use crate::error::{Error, Exit};

/// One reason not to begin, with the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The backup knows no such topic.
    #[error("topic {topic} is not in this backup; `kafka-backup info` shows what is")]
    NoSuchTopic {
        /// The source.
        topic: String,
    },
    /// The pattern matches no topic of the backup.
    #[error("no topic of this backup matches {pattern:?}; `kafka-backup info` shows what there is")]
    NoTopicMatches {
        /// The pattern.
        pattern: String,
    },
    /// The topic has no such generation.
    #[error("topic {topic} has no generation {generation}; the newest is {newest}")]
    NoSuchGeneration {
        /// The source.
        topic: String,
        /// What was asked for.
        generation: u32,
        /// What there is.
        newest: u32,
    },
    /// The topic has no such partition.
    #[error("partition {topic}/{partition} is not part of this restore: the topic has {partitions} partitions in it")]
    NoSuchPartition {
        /// The source.
        topic: String,
        /// What was asked for.
        partition: i32,
        /// How many there are.
        partitions: u32,
    },
    /// Offsets of a partition that is not restored.
    #[error(
        "from_offset or until_offset names partition {topic}/{partition}, which partitions leaves out; add it there or \
         remove the offset"
    )]
    PartitionLeftOut {
        /// The source.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// The topic was backed up as a compacted one.
    #[error(
        "topic {topic} was backed up as a compacted topic, and no complete snapshot of it is there; name an instance to restore what it has so far"
    )]
    OnlyInstances {
        /// The source.
        topic: String,
    },
    /// Two topics would be mixed.
    #[error("topics {first} and {second} would both be restored to {target}; give them different targets")]
    SameTarget {
        /// One source.
        first: String,
        /// The other.
        second: String,
        /// The target of both.
        target: String,
    },
    /// Kafka takes no such name.
    #[error("{topic:?} is not a name Kafka accepts for a topic (1 to 249 of a-z A-Z 0-9 . _ -)")]
    BadTopicName {
        /// The target.
        topic: String,
    },
    /// Kafka writes it itself.
    #[error("target topic {topic} is Kafka's own, and nobody else may write to it; choose another name")]
    KafkasOwn {
        /// The target.
        topic: String,
    },
    /// No record would be restored.
    #[error(
        "nothing matched: no record would be restored; `kafka-backup info` shows the times and offsets that there are"
    )]
    NothingMatched,
    /// An object is not what it must be.
    #[error("object {key}: {why}; `kafka-backup verify` examines all of them")]
    BadObject {
        /// Its key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// The topic that was backed up is the target.
    #[error(
        "topic {topic} on this cluster is the one that was backed up; restore to another name ({topic}:{topic}-restored) \
         or set in_place = true"
    )]
    SourceItself {
        /// The topic.
        topic: String,
    },
    /// The target does not exist.
    #[error("target topic {topic} does not exist and create_topics is false")]
    TargetMissing {
        /// The target.
        topic: String,
    },
    /// The target holds records.
    #[error(
        "target topic {topic} is not empty (partitions {partitions:?}); choose another name or set if_not_empty = \"append\""
    )]
    NotEmpty {
        /// The target.
        topic: String,
        /// Those that hold records.
        partitions: Vec<i32>,
    },
    /// The target is not as an unfinished restore left it.
    #[error("target topic {topic} is not as this unfinished restore left it: {change}")]
    TargetChanged {
        /// The target.
        topic: String,
        /// In which way.
        change: Change,
    },
    /// The target has not enough partitions.
    #[error("target topic {topic} has {has} partitions, {needed} are needed; add partitions or choose another name")]
    TooFewPartitions {
        /// The target.
        topic: String,
        /// Partitions there.
        has: u32,
        /// Partitions needed.
        needed: u32,
    },
    /// The user may not do what must be done.
    #[error("this user has no {permission} permission on target topic {topic}; grant it, or restore as another user")]
    NotPermitted {
        /// The target.
        topic: String,
        /// As Kafka's ACLs call it.
        permission: &'static str,
    },
    /// The target cannot be created.
    #[error("target topic {topic} cannot be created: {why}")]
    CannotCreate {
        /// The target.
        topic: String,
        /// What the broker says.
        why: String,
        /// For lack of a permission.
        denied: bool,
    },
    /// The target does not take the largest record.
    #[error(
        "target topic {topic} takes {limit} bytes (max.message.bytes), the largest record has {largest}; set max.message.bytes to at least {needed}"
    )]
    RecordTooLarge {
        /// The target.
        topic: String,
        /// What it takes.
        limit: u64,
        /// Key, value and headers of the largest record.
        largest: u64,
        /// What it must take.
        needed: u64,
    },
    /// The target takes records with keys only.
    #[error(
        "target topic {topic} is compacted and refuses records without a key, of which there are {records} to restore; \
         set cleanup.policy = delete for the restore, or choose another name"
    )]
    NoKeys {
        /// The target.
        topic: String,
        /// So many at least.
        records: u64,
    },
    /// The target does not take timestamps this old.
    #[error(
        "target topic {topic} refuses timestamps older than message.timestamp.before.max.ms = {limit_ms}; \
         the oldest record is {age_ms} ms old; raise that setting for the restore"
    )]
    TimestampTooOld {
        /// The target.
        topic: String,
        /// The setting.
        limit_ms: i64,
        /// The age of the oldest record.
        age_ms: i64,
    },
    /// The target does not take timestamps this far ahead.
    #[error(
        "target topic {topic} refuses timestamps more than message.timestamp.after.max.ms = {limit_ms} ahead of now; \
         the newest record is {ahead_ms} ms ahead; raise that setting for the restore"
    )]
    TimestampTooNew {
        /// The target.
        topic: String,
        /// The setting.
        limit_ms: i64,
        /// How far the newest record is ahead.
        ahead_ms: i64,
    },
    /// The target would replace the timestamps.
    #[error(
        "target topic {topic} has message.timestamp.type = LogAppendTime and would replace every timestamp; \
         set it to CreateTime for the restore"
    )]
    TimestampsReplaced {
        /// The target.
        topic: String,
    },
    /// The group reads on the target.
    #[error(
        "consumer group {group} is active on the target ({}); stop its members, or leave it out with groups_exclude_regex",
        members.join(", ")
    )]
    GroupActive {
        /// The group.
        group: String,
        /// Its members, as people know them.
        members: Vec<String>,
    },
    /// The user may not commit offsets for the group.
    #[error(
        "this user has no READ permission on consumer group {group}; grant it, or leave the group out with \
         groups_exclude_regex"
    )]
    GroupNotPermitted {
        /// The group.
        group: String,
    },
    /// The group stands elsewhere on the target.
    #[error(
        "consumer group {group} has committed offsets of {topic} on the target that are not the planned ones (partition \
         {partition}: {found}, planned {planned}; {partitions} partitions); delete them, or leave the group out with \
         groups_exclude_regex"
    )]
    GroupElsewhere {
        /// The group.
        group: String,
        /// The target.
        topic: String,
        /// The first partition of which that is so.
        partition: i32,
        /// What is committed there.
        found: i64,
        /// What would be.
        planned: i64,
        /// Of so many partitions it is so.
        partitions: usize,
    },
    /// The saved positions are of another topic than the one that is restored.
    #[error(
        "the saved offsets of consumer group {group} do not belong to what is restored of {topic}: {why}; leave the group \
         out with groups_exclude_regex"
    )]
    GroupOfOtherTopic {
        /// The group.
        group: String,
        /// The source.
        topic: String,
        /// Which other one.
        why: String,
    },
}

impl Refusal {
    /// The exit code of a command that ends with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::NoSuchTopic { .. }
            | Self::NoTopicMatches { .. }
            | Self::NoSuchGeneration { .. }
            | Self::NoSuchPartition { .. }
            | Self::NothingMatched => Exit::NotFound,
            Self::BadObject { .. } => Exit::ProblemFound,
            Self::NotPermitted { .. } | Self::GroupNotPermitted { .. } | Self::CannotCreate { denied: true, .. } => {
                Exit::Auth
            }
            _ => Exit::Failed,
        }
    }
}

/// All refusals as one error. "Not found" only when that is all that is wrong.
pub fn refused(refusals: Vec<Refusal>) -> Error {
    let exits: BTreeSet<u8> = refusals.iter().map(|refusal| refusal.exit() as u8).collect();
    let exit = match refusals.first() {
        Some(first) if exits.len() == 1 => first.exit(),
        _ => Exit::Failed,
    };
    let reasons: Vec<String> = refusals.iter().map(|refusal| format!("\n  - {refusal}")).collect();
    Error::new(exit, format!("the restore is refused, nothing was produced:{}", reasons.concat()))
}
