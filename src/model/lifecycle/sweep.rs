//! Which objects of a store without rules have expired.

use std::collections::BTreeSet;

use crate::model::key::{self, OFFSET_DIGITS, PartitionPath};

/// Judges the objects of one topic in the order of a listing.
///
/// Of each partition only the beginning goes: behind the first object that is young enough nothing is removed, whatever
/// its age, so that expiry never makes a hole in the middle.
#[derive(Debug)]
pub struct Sweep<'a> {
    topic: &'a str,
    /// Objects written before this have expired, in milliseconds since 1970-01-01 UTC.
    before_ms: i64,
    kept: BTreeSet<PartitionPath>,
}

impl<'a> Sweep<'a> {
    /// A sweep of `topic` at `now_ms`, whose objects expire after `days` of `day_ms`.
    pub fn new(topic: &'a str, days: u32, now_ms: i64, day_ms: i64) -> Self {
        let before_ms = now_ms.saturating_sub(i64::from(days).saturating_mul(day_ms));
        Self { topic, before_ms, kept: BTreeSet::new() }
    }

    /// Whether the object `key`, written at `modified_ms`, has expired. What is not an object of records of ours never
    /// does.
    pub fn expires(&mut self, key: &str, modified_ms: i64) -> bool {
        let Some(name) = key::parse(key).filter(|name| name.path.topic == self.topic) else { return false };
        let ours = name.digits == OFFSET_DIGITS && key::generation_of(name.path.branch.as_deref()).is_some();
        if !ours || self.kept.contains(&name.path) {
            return false;
        }
        let expires = modified_ms < self.before_ms;
        if !expires {
            self.kept.insert(name.path);
        }
        expires
    }
}
