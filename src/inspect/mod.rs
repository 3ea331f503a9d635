//! Looking at a backup from the store alone: what there is, and what is in one object.

pub mod cat;
pub mod info;
