//! Committed offsets of consumer groups: how they are saved, and what they are on the target of a restore.
//!
//! Offsets of the target are not those of the source: what compaction and transactions left out is not there, and the
//! first record may land anywhere. What stays the same is the number of records in front of a group's position.

pub mod plan;
pub mod snapshot;
pub mod target;
pub mod translate;
