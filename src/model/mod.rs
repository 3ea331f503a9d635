//! Everything that decides, as pure functions and plain data.
//!
//! **Invariant:** nothing in here knows an actor, a thread, the network, a disk, a clock or a random source. Times,
//! nonces and what the servers said are arguments. `tests/architecture.rs` holds this module to it.

pub mod avro;
pub mod batch;
pub mod catalog;
pub mod chain;
pub mod compacted;
pub mod deadline;
pub mod departure;
pub mod groups;
pub mod hex;
pub mod key;
pub mod lifecycle;
pub mod object;
pub mod reload;
pub mod restore;
pub mod resume;
pub mod rotation;
pub mod sharing;
pub mod slot;
pub mod stall;
pub mod standing;
pub mod tail;
pub mod verify;
pub mod watch;
pub mod watermark;
