//! Compacted topics: two instances that take turns, so that the bucket always holds one complete snapshot and little
//! more.
//!
//! One instance is ACTIVE: the owner. After `length_hours` it asks the other one to ACTIVATE, which scans the topic
//! from the beginning into its own folder, takes the next TERM when it is complete, and goes on as the owner; the old one
//! waits until everything it has is in the new one's objects, and clears its folder.
//!
//! **Safety lives in the bucket**: TERM records are created once, and a folder is cleared by its own instance only,
//! after proof read from the bucket. The coordination topic carries state and wakes people up; whatever is lost,
//! repeated or reordered there costs time and nothing else.
//!
//! | rule | what it says | where |
//! |---|---|---|
//! | C1 | deletion only when the highest valid TERM names the other instance | [`deletion::may_delete`] |
//! | C2 | TERM N+1 is created once, by a complete scan | [`complete::complete`], [`title::title`], [`Effect::CreateTerm`] |
//! | | complete: the end of every partition was seen after the scan began, everything below is durable | [`complete::complete`] |
//! | | tombstones: from the scan's begin to the end, and between two ends, less than half of `delete.retention.ms` | [`complete::too_late`] |
//! | | gaps: no record was gone before it was read, behind others of the run | [`view::OwnRun::gap`], [`Progress::lost`] |
//! | C3 | batches, each under C1 read again; no DELETE of an earlier run hits a later one | `phase::delete`, `Turn::deletes_may_come` |
//! | C4 | the old owner waits for its successor, also after a restart | `phase::hand_over` |
//! | C5 | silence by local receive time | `phase::is_partner_silent` |
//! | C6 | what a restore takes | [`look::newest`], [`record::Pin`] |
//!
//! The coordinator feeds [`step`] with what it hears and reads and does what it asks for. `tests/compacted_model.rs`
//! drives the same function through crashes, delays, lost messages and Kafka's log cleaner.

pub mod complete;
pub mod deletion;
pub mod event;
pub mod look;
#[cfg(test)]
pub(in crate::model) mod look_tests;
pub mod message;
pub mod order;
pub mod partner;
mod phase;
pub mod record;
#[cfg(test)]
mod record_tests;
pub mod settings;
pub mod state;
mod step;
#[cfg(test)]
mod step_tests;
pub mod title;
mod turn;
pub mod view;
pub mod wire;

pub use event::{Claim, Effect, Event, Notice, Progress, Reached, TermAnswer, WhyScan};
pub use look::look;
pub use message::{Message, Status};
pub use order::NextScan;
pub use settings::{Initial, Name, Now, Rule, Rules, Settings};
pub use state::{Phase, State};
pub use step::step;
pub use view::{Offsets, View};
pub use wire::MessageKey;
