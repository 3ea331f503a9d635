//! What one instance of one topic knows, and what it is doing.

use std::sync::Arc;

use super::complete::{AtEnds, TooLate};
use super::event::{Notice, Progress, WhyScan};
use super::message::{Message, Status};
use super::settings::{Name, Now, Rule, Settings};
use super::view::{Offsets, View};

/// One instance of one topic. Made new at every start: what matters is in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub(super) settings: Arc<Settings>,
    pub(super) phase: Phase,
    /// The request that is not answered yet.
    pub(super) asked: Option<Asked>,
    /// What the bucket said last; `None` before it was asked, and after something happened that it may not show.
    pub(super) view: Option<View>,
    /// The run whose lanes were told to run.
    pub(super) follows: Option<Name>,
    /// What the lanes said last of the run that is followed.
    pub(super) progress: Option<Progress>,
    /// When and where each partition was last read to its end.
    pub(super) at_ends: AtEnds,
    /// What this instance said before it started, until that was made use of.
    pub(super) before: Option<Message>,
    /// What the partner said last, and when that was received (`boot_ms`).
    pub(super) heard: Option<(Message, i64)>,
    /// When something was last heard of a partner that is not passive, or this process began (`boot_ms`).
    pub(super) active_partner_at: i64,
    /// What this instance announced last, and when (`boot_ms`).
    pub(super) said: Option<(Message, i64)>,
    /// When the bucket was last looked at (`boot_ms`).
    pub(super) looked_at: i64,
    /// No DELETE that was sent before now is alive after this (`boot_ms`).
    pub(super) deletes_die_at: i64,
    /// A TERM that names the latest run may be on its way: of an earlier process, or of this one without an answer.
    pub(super) term_may_come: bool,
    /// A lane found an object of another run where its own belongs.
    pub(super) blocked: bool,
    /// The operator asked for a turn.
    pub(super) swap: bool,
    /// The last request (but a look) was refused or has no answer: the next one is made when a look is due.
    pub(super) refused: bool,
    /// The last look did not agree that the run is complete: the next one is made when it is due.
    pub(super) not_yet: bool,
    /// A partition was away from its end for longer than tombstones are certain to be kept.
    pub(super) too_late: Option<TooLate>,
    /// Kafka deleted records before the lanes of the run could read them.
    pub(super) lost: bool,
    /// The snapshot is tainted.
    pub(super) tainted: bool,
    /// What the operator was told and what still holds, so that it is told once.
    pub(super) told: Vec<Notice>,
}

/// What an instance is doing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The coordination topic, then the bucket, are read first.
    Starting {
        /// The coordination topic has been read.
        topic_read: bool,
    },
    /// Passive.
    Resting,
    /// Lets earlier DELETEs die, then begins a run in the empty folder.
    Preparing {
        /// Why there is to be a scan.
        why: WhyScan,
    },
    /// Reads the topic from the beginning, then takes the next TERM.
    Scanning {
        /// The run.
        run: Name,
        /// When the scan began (wall clock).
        started_ms: i64,
        /// The last TERM there was then.
        after_term: u64,
    },
    /// Owner of the highest valid TERM.
    Owning {
        /// The TERM.
        term: u64,
        /// The run.
        run: Name,
        /// When the TERM was made (wall clock).
        created_ms: i64,
    },
    /// Another one owns a newer TERM: stopped, waits until that one has reached everything that this one has.
    HandingOver {
        /// The run that is handed over.
        run: Name,
        /// The successor's TERM.
        successor: u64,
        /// What the successor must reach: F. `None` until the lanes have stopped.
        until: Option<Offsets>,
        /// Since when (`boot_ms`).
        since: i64,
    },
    /// The successor did not catch up: follows the log again and takes the next TERM with the same run.
    Reclaiming {
        /// The run.
        run: Name,
        /// When its scan began (wall clock).
        started_ms: i64,
    },
    /// Deletes the objects of its run, then rests.
    Clearing {
        /// The run's next TERM is to be used up first.
        void: bool,
    },
}

impl Phase {
    /// What it is, as status, logs and the reference call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting { .. } => "starting",
            Self::Resting => "resting",
            Self::Preparing { .. } => "preparing",
            Self::Scanning { .. } => "scanning",
            Self::Owning { .. } => "owning",
            Self::HandingOver { .. } => "handing over",
            Self::Reclaiming { .. } => "reclaiming",
            Self::Clearing { .. } => "clearing",
        }
    }
}

/// The request that is not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asked {
    /// To look at the bucket.
    Look,
    /// To create a run.
    Run {
        /// The last TERM there was.
        after_term: u64,
    },
    /// To stop.
    Stop,
    /// To create a TERM for the run.
    Title,
    /// To use a TERM up.
    Void,
    /// To delete.
    Delete,
}

impl State {
    /// An instance that has just started and knows nothing.
    pub fn new(settings: Arc<Settings>, now: Now) -> Self {
        Self {
            settings,
            phase: Phase::Starting { topic_read: false },
            asked: None,
            view: None,
            follows: None,
            progress: None,
            at_ends: AtEnds::new(),
            before: None,
            heard: None,
            active_partner_at: now.boot_ms,
            said: None,
            looked_at: now.boot_ms,
            deletes_die_at: 0,
            term_may_come: true,
            blocked: false,
            swap: false,
            refused: false,
            not_yet: false,
            too_late: None,
            lost: false,
            tainted: false,
            told: Vec::new(),
        }
    }

    /// What it is doing.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// What it is doing, as it says to its partner and to people.
    pub fn status(&self) -> Status {
        match self.phase {
            Phase::Starting { .. } | Phase::Resting | Phase::HandingOver { .. } | Phase::Clearing { .. } => {
                Status::Passivate
            }
            Phase::Preparing { .. } | Phase::Scanning { .. } | Phase::Reclaiming { .. } => Status::CatchingUp,
            Phase::Owning { .. } => Status::Activate,
        }
    }

    /// The run whose lanes run, or are to run.
    pub fn followed(&self) -> Option<&Name> {
        match &self.phase {
            Phase::Scanning { run, .. } | Phase::Owning { run, .. } | Phase::Reclaiming { run, .. } => Some(run),
            _ => None,
        }
    }

    /// The latest message of the partner, and when it was received by [`Now::boot_ms`].
    pub fn heard(&self) -> Option<&(Message, i64)> {
        self.heard.as_ref()
    }

    /// What the bucket said last.
    pub fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// Whether its snapshot is tainted.
    pub fn is_tainted(&self) -> bool {
        self.tainted
    }

    /// Whether it owns the snapshot and asks the other to take over.
    pub fn wants_successor(&self) -> bool {
        match self.phase {
            Phase::Owning { .. } => self.swap || self.tainted,
            Phase::Resting => self.lost_its_run().is_some(),
            _ => false,
        }
    }

    /// The TERM of its own that is the highest valid one, though it rests: somebody deleted the record of the run, and
    /// without it nobody can go on with those objects or restore them.
    pub(super) fn lost_its_run(&self) -> Option<u64> {
        let view = self.view.as_ref()?;
        let owner = view.owner.as_ref().filter(|owner| owner.instance == self.settings.instance)?;
        let is_there = view.own.run.as_ref().is_some_and(|own| own.run == owner.run);
        (!is_there).then_some(owner.number)
    }

    /// When the scan began that its run is (wall clock); for an owner since when it is looked at.
    pub(super) fn began_ms(&self) -> i64 {
        match self.phase {
            Phase::Scanning { started_ms, .. } | Phase::Reclaiming { started_ms, .. } => started_ms,
            Phase::Owning { created_ms, .. } => created_ms,
            _ => 0,
        }
    }

    /// Whether the lanes say that the run is complete; the bucket has to agree before that counts.
    pub(super) fn seems_complete(&self) -> bool {
        let keep = self.settings.rules.keep(Rule::Eof);
        self.progress.as_ref().is_some_and(|progress| {
            progress.delete_retention_ms.is_some()
                && !progress.partitions.is_empty()
                && (!keep || progress.partitions.values().all(|reached| reached.restorable.is_some()))
        })
    }

    /// What it says of itself.
    pub fn message(&self) -> Message {
        let last_term = self.view.as_ref().and_then(|view| view.owner.as_ref()).map(|owner| owner.number);
        let heard_term = || self.said.as_ref().map_or(0, |(said, _)| said.term);
        let term = match self.phase {
            Phase::Owning { term, .. } => term,
            _ => last_term.unwrap_or_else(heard_term),
        };
        let progress = self.progress.as_ref().filter(|progress| self.followed() == Some(&progress.run));
        let partitions = progress.iter().flat_map(|progress| &progress.partitions);
        Message {
            run: self.followed().cloned().unwrap_or_else(|| "".into()),
            term,
            status: self.status(),
            next: partitions.map(|(number, reached)| (*number, reached.stored)).collect(),
            complete: matches!(self.phase, Phase::Owning { .. }) || progress.is_some() && self.seems_complete(),
            wants_successor: self.wants_successor(),
            tainted: self.tainted,
            initial: self.settings.initial,
            seen_end_ms: self.at_ends.values().map(|at| at.at_ms).min(),
        }
    }
}
