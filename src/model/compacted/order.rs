//! What an order to start a turn comes to, for the person who gives it.

use std::fmt;

use super::message::Status;
use super::settings::Now;
use super::state::{Phase, State};

/// For so many of its own announcements a partner may say nothing before it is called silent.
const MISSED: i64 = 3;
/// Nobody announces less often, in milliseconds.
const ANNOUNCED_EVERY_MS: i64 = 60_000;

/// Who scans next.
///
/// | this instance is | and its partner | who scans |
/// |---|---|---|
/// | resting | | [`Self::This`] |
/// | preparing or scanning | | [`Self::Already`] |
/// | handing over or clearing | | [`Self::Afterwards`] |
/// | reclaiming | | [`Self::TakesBack`] |
/// | owning | scans | [`Self::PartnerAlready`] |
/// | | was heard of lately | [`Self::Partner`] |
/// | | was not | [`Self::Nobody`] |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextScan {
    /// This instance.
    This,
    /// This instance, which scans already: the order adds nothing.
    Already,
    /// This instance, when it has handed over and its folder is empty.
    Afterwards,
    /// This instance takes back what its successor did not take: it makes the next TERM of what it has.
    TakesBack,
    /// The partner, which scans already: the order adds nothing.
    PartnerAlready,
    /// The partner.
    Partner {
        /// How long ago it was heard of, in milliseconds.
        ago_ms: i64,
    },
    /// The partner, when it is there again.
    Nobody {
        /// How long ago it was heard of, in milliseconds; `None`: not since this process began.
        ago_ms: Option<i64>,
    },
}

impl State {
    /// Who scans next when a turn is ordered now; `None` as long as nothing has been read.
    pub fn next_scan(&self, now: Now) -> Option<NextScan> {
        Some(match self.phase() {
            Phase::Starting { .. } => return None,
            Phase::Resting => NextScan::This,
            Phase::Preparing { .. } | Phase::Scanning { .. } => NextScan::Already,
            Phase::HandingOver { .. } | Phase::Clearing { .. } => NextScan::Afterwards,
            Phase::Reclaiming { .. } => NextScan::TakesBack,
            Phase::Owning { .. } => match self.heard() {
                None => NextScan::Nobody { ago_ms: None },
                Some((said, at)) => {
                    let ago_ms = now.boot_ms - at;
                    if ago_ms > MISSED * self.settings.publish_every_ms.clamp(0, ANNOUNCED_EVERY_MS).max(SHORTEST_MS) {
                        NextScan::Nobody { ago_ms: Some(ago_ms) }
                    } else if said.status == Status::CatchingUp {
                        NextScan::PartnerAlready
                    } else {
                        NextScan::Partner { ago_ms }
                    }
                }
            },
        })
    }
}

/// Announcements on their way may take that long, in milliseconds.
const SHORTEST_MS: i64 = 5_000;

impl NextScan {
    /// In a word, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::This | Self::Already | Self::Afterwards => "this",
            Self::TakesBack => "none",
            Self::PartnerAlready | Self::Partner { .. } => "partner",
            Self::Nobody { .. } => "nobody",
        }
    }
}

impl fmt::Display for NextScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::This => write!(f, "a turn begins: this instance scans"),
            Self::Already => write!(f, "this instance scans already, which the order does not change"),
            Self::Afterwards => write!(f, "this instance scans when its folder has been cleared"),
            Self::TakesBack => {
                write!(f, "its successor did not catch up: this instance takes the next TERM itself, without a scan")
            }
            Self::PartnerAlready => write!(f, "the partner scans already, which the order does not change"),
            Self::Partner { ago_ms } => {
                write!(f, "a turn begins: the partner, heard of {} s ago, is asked to scan", ago_ms / 1000)
            }
            Self::Nobody { ago_ms } => {
                let heard =
                    ago_ms.map_or("since this daemon started the job".to_owned(), |ms| format!("for {} s", ms / 1000));
                write!(
                    f,
                    "no turn begins yet: the partner has to scan, and has not been heard of {heard}; the order is kept: \
                     start the daemon that runs the other instance (same topic, storage, cluster and coordination_topic)"
                )
            }
        }
    }
}
