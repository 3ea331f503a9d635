//! What one instance is told by its job, and the rules it keeps.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A topic's instance, or a run of one, or an entity tag: short, and copied often.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Name(Arc<str>);

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        (*name.0).to_owned()
    }
}

/// Times at which something happens: both are arguments, nothing in here reads a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Now {
    /// Milliseconds since 1970-01-01 UTC: for what is written down and compared over restarts and machines.
    pub wall_ms: i64,
    /// Milliseconds of a clock that only goes forward and counts the time the machine slept (CLOCK_BOOTTIME): for
    /// spans inside one process.
    pub boot_ms: i64,
}

/// What one instance of a compacted topic is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name: the folder under TOPIC/.
    pub instance: Name,
    /// Who scans first, used only where nothing else says it.
    pub initial: Initial,
    /// How long it stays the owner before it asks for a successor (`length_hours`).
    pub length_ms: i64,
    /// After how many new durable offsets (over all partitions) the owner announces them (`interval_offsets`).
    pub interval_offsets: i64,
    /// How long a silent partner is waited for (`partner_timeout`).
    pub partner_timeout_ms: i64,
    /// Whether a passive instance starts a scan when its partner was silent that long (`takeover`).
    pub takeover: bool,
    /// How long a DELETE that was sent, or was about to be sent by a process that sleeps or is dead, may still take
    /// effect. For S3 that is how long a signed request is accepted (15 minutes) and a margin.
    pub delete_lifetime_ms: i64,
    /// For how long the proof a batch of deletions rests on is good (30 s).
    pub batch_ms: i64,
    /// How often the bucket is looked at without a reason.
    pub look_every_ms: i64,
    /// How often the state is announced without a reason.
    pub publish_every_ms: i64,
    /// The rules it keeps: all of them, but for tests.
    pub rules: Rules,
}

/// Settings never change during a run: they say nothing about which state a machine is in.
impl Hash for Settings {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// `initial_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Initial {
    /// Scans at once when nobody owns the topic.
    Activate,
    /// Waits for its partner.
    Passivate,
}

/// One rule of the protocol. Each is needed: `tests/compacted_model.rs` shows what is lost without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// C1: proof, read from the bucket, that the other instance is complete. Without it: the partner's word.
    Proof,
    /// A scan is complete when it has seen the end of every partition. Without it: when it has reached the offsets that
    /// the owner announced.
    Eof,
    /// A scan, and every later return to the end of a partition, is faster than half of `delete.retention.ms`.
    Tombstones,
    /// A scan that lacks records behind others that it has read is discarded; an owner's snapshot is tainted by them.
    Gaps,
    /// C4: the old owner waits until its successor has reached all that it has itself.
    Reach,
    /// C4 after a restart: what that is, is made of its own objects again.
    RebuildReach,
    /// The next TERM is taken away from a run before its objects are deleted, so that no late request can name it.
    Void,
    /// Nothing is written where a DELETE of an earlier process may still arrive.
    Quarantine,
}

/// The rules that are kept. [`Rules::default`] keeps all; only a test takes one out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    missing: u8,
}

impl Rules {
    /// The same without `rule`. For tests that show that the rule is needed; `tests/architecture.rs` sees to it that
    /// nothing else asks for it.
    #[must_use]
    pub fn without_for_a_test(self, rule: Rule) -> Self {
        Self { missing: self.missing | 1 << rule as u8 }
    }

    /// Whether `rule` is kept.
    pub fn keep(self, rule: Rule) -> bool {
        self.missing & (1 << rule as u8) == 0
    }
}
