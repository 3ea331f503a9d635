//! Looking at a backup from the store alone: what there is, what is in one object, and whether
//! everything is what it must be.

mod branch;
pub mod cat;
pub mod compacted;
pub mod info;
pub mod proof;
pub mod verify;
