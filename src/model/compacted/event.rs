//! What an instance learns, and what it wants done.
//!
//! A *request* ([`Effect::is_request`]) is answered by exactly one event, also when it fails; there is at most one
//! outstanding. Everything else is done and not answered. Every effect is idempotent: doing it twice, or dying before,
//! during or after it and starting again with a new machine, does no harm.

use std::collections::BTreeMap;

use super::message::Message;
use super::settings::Name;
use super::view::{Offsets, View};

/// What an instance learns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// The coordination topic was read to its end; the first event there is. Carries the last message of this
    /// instance, if any; the partner's follows as [`Event::Recalled`].
    Started {
        /// What this instance said last.
        own: Option<Message>,
    },
    /// Time has passed.
    Tick,
    /// The partner says this; received now.
    Heard(Message),
    /// The partner's last word, which was there before this process began.
    Recalled {
        /// What it said.
        message: Message,
        /// How long ago, by the timestamp of its record, in milliseconds.
        age_ms: i64,
    },
    /// How far the lanes of the run are that is followed. After every change, at most a few times a second.
    Progress(Progress),
    /// Where a lane must create its next object lies one of another run. It waits until [`Effect::Follow`] comes again.
    Blocked,
    /// The operator wants a turn (`kafka-backup swap`).
    Swap,
    /// Answer to [`Effect::Look`].
    Bucket(View),
    /// Answer to [`Effect::CreateRun`].
    RunCreated {
        /// The id of the run whose record now exists under the number that was asked for.
        run: Name,
        /// When its scan begins, as the record says.
        started_ms: i64,
    },
    /// Answer to [`Effect::CreateTerm`].
    Term(TermAnswer),
    /// Answer to [`Effect::Stop`]: nothing is fetched any more, what was fetched is durable up to here.
    Stopped {
        /// Where the acknowledged objects of each partition end; empty where no lane was running.
        stored: Offsets,
    },
    /// Answer to [`Effect::Delete`].
    Deleted {
        /// Every DELETE that was sent got a definite answer. `false`: one may still take effect.
        all_answered: bool,
    },
    /// Answer to a request that failed, or was refused, without any effect now or later.
    Failed,
}

/// What came of an attempt to create a TERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TermAnswer {
    /// It is there and it is ours.
    Created,
    /// There was one with that number.
    Taken,
    /// No answer: it may be there now, or later.
    Unknown,
}

/// How far the lanes of a run are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Progress {
    /// The run.
    pub run: Name,
    /// Every partition the topic has.
    pub partitions: BTreeMap<i32, Reached>,
    /// The smallest `delete.retention.ms` of the topic that was seen since the run began; `None` before it was read.
    pub delete_retention_ms: Option<i64>,
    /// Kafka had deleted records before these lanes could read them.
    pub lost: bool,
}

/// How far one partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Reached {
    /// Where its acknowledged objects end.
    pub stored: i64,
    /// The largest P for which: the end of the partition was seen at P after the run began, every record below P that
    /// was there is durable, and no object reaches over P.
    pub restorable: Option<i64>,
    /// When the log was last known to end where the lane had read to, in milliseconds since 1970-01-01 UTC. Goes on
    /// while the partition is idle and its end is asked for.
    pub seen_end_ms: Option<i64>,
}

/// What an instance wants done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Request: look at the bucket. Answer: [`Event::Bucket`] or [`Event::Failed`].
    Look {
        /// Everything is read again now: the answer is a proof. Otherwise what has not changed since the last look may
        /// be taken from there as long as there is no new TERM record.
        fresh: bool,
    },
    /// Request: create the run record with this number (`If-None-Match: *`) and a new id, or read it when it exists.
    /// Answer: [`Event::RunCreated`] or [`Event::Failed`].
    CreateRun {
        /// The number of the record.
        number: u64,
        /// The last TERM there is.
        after_term: u64,
    },
    /// Run the lanes of this run, from where its objects end; lanes that wait (see [`Event::Blocked`]) go on.
    Follow {
        /// The run.
        run: Name,
    },
    /// Request: stop fetching, make durable what was fetched, close the lanes. Answer: [`Event::Stopped`] or
    /// [`Event::Failed`].
    Stop,
    /// Request: make sure that this process is not fenced, then create this TERM (`If-None-Match: *`), in one attempt.
    /// Answer: [`Event::Term`], or [`Event::Failed`] when nothing was sent.
    CreateTerm {
        /// N.
        number: u64,
        /// What it says.
        claim: Claim,
    },
    /// Request: make sure that this process is not fenced, then delete objects of the instance's own folder that the
    /// last look listed, each with one attempt and none after `good_until_boot_ms`. Not all need to go at once.
    /// Answer: [`Event::Deleted`] or [`Event::Failed`] when nothing was sent.
    Delete {
        /// Objects of this run stay.
        keep: Option<Name>,
        /// No DELETE is sent later than this, by [`super::settings::Now::boot_ms`].
        good_until_boot_ms: i64,
    },
    /// Announce this on the coordination topic.
    Publish(Message),
    /// Create the mark that says that the TERM is tainted.
    MarkTainted {
        /// Which TERM.
        number: u64,
    },
    /// Tell the operator.
    Say(Notice),
}

impl Effect {
    /// Whether it is answered, and no other request is made before.
    pub fn is_request(&self) -> bool {
        match self {
            Self::Look { .. } | Self::CreateRun { .. } | Self::Stop | Self::CreateTerm { .. } | Self::Delete { .. } => {
                true
            }
            Self::Follow { .. } | Self::Publish(_) | Self::MarkTainted { .. } | Self::Say(_) => false,
        }
    }
}

/// What a TERM says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Claim {
    /// The run's snapshot is complete.
    Title {
        /// The run.
        run: Name,
        /// When its scan began, in milliseconds since 1970-01-01 UTC.
        started_ms: i64,
        /// When it was found complete, in the same unit.
        ended_ms: i64,
        /// Per partition the offset below which it is complete. The objects that make it so are listed in the record.
        ends: Offsets,
    },
    /// The number is used up, so that no TERM that names the run can appear: its objects are about to be deleted.
    Void {
        /// The run.
        run: Name,
    },
}

/// What the operator is told: each at the moment it becomes true.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Notice {
    /// It scans.
    ScanBegan {
        /// Its run.
        run: Name,
        /// Why.
        why: WhyScan,
    },
    /// It is the owner.
    TookOver {
        /// Its TERM.
        term: u64,
    },
    /// The other is the owner; this one waits until it has caught up.
    HandingOver {
        /// The successor's TERM.
        term: u64,
    },
    /// Its folder is empty.
    Cleared,
    /// The scan took too long: its objects are deleted and it begins again.
    ScanTooSlow {
        /// How long it has taken, or how long a partition was away from its end, in milliseconds.
        took_ms: i64,
        /// Half of the smallest `delete.retention.ms`.
        limit_ms: i64,
    },
    /// It was further behind than the topic keeps tombstones: deleted keys may have survived in the snapshot.
    Tainted {
        /// How long it was away from the end of a partition, in milliseconds.
        behind_ms: i64,
        /// Half of the smallest `delete.retention.ms`.
        limit_ms: i64,
    },
    /// Kafka deleted records before they were read: keys that are gone, and old values, may have survived.
    RecordsLost {
        /// It was a scan: its objects are deleted and it begins again. Otherwise the snapshot is tainted.
        discarded: bool,
    },
    /// It asks the other to take over.
    WantsSuccessor,
    /// The scan is not needed any more: the other one owns the snapshot by a newer TERM.
    ScanAbandoned {
        /// Its TERM.
        term: u64,
    },
    /// The successor did not catch up in time: this one goes on.
    SuccessorTooSlow {
        /// The successor's TERM.
        term: u64,
    },
    /// Nothing was heard of an active partner for `partner_timeout`.
    PartnerSilent,
    /// Both instances have the same `initial_status`.
    SameInitialStatus,
    /// The objects of this instance's own TERM are not all there: somebody deleted them.
    SnapshotDamaged {
        /// Its TERM.
        term: u64,
    },
    /// Deletion was wanted and is not allowed.
    DeletionRefused(super::deletion::Refused),
}

/// Why a scan begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhyScan {
    /// Nobody has a snapshot, and this one is to begin.
    First,
    /// The owner asks for it.
    Asked,
    /// The partner is silent.
    Silence,
    /// By hand.
    Swap,
    /// It had begun before the restart.
    Resumed,
}
