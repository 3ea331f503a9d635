//! What the bucket says of one compacted topic, as one instance sees it.

use std::collections::BTreeMap;

use super::settings::Name;

/// Offsets by partition.
pub type Offsets = BTreeMap<i32, i64>;

/// What the bucket says, made of one look at it by [`super::look::look`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct View {
    /// The largest number of any TERM record, valid or not; 0 without one.
    pub last_number: u64,
    /// A TERM that is not void was ever created: there is, or was, something that must not be lost.
    pub ever_titled: bool,
    /// The highest valid TERM: the snapshot that a restore takes.
    pub owner: Option<Owner>,
    /// The instance's own folder.
    pub own: Own,
    /// The latest expiry of the pins on this instance's objects, in milliseconds since 1970-01-01 UTC.
    pub pinned_until_ms: Option<i64>,
}

/// The highest valid TERM: every object it lists exists, as it was when the record was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// N.
    pub number: u64,
    /// Whose it is.
    pub instance: Name,
    /// Which run of it.
    pub run: Name,
    /// When the record was made, in milliseconds since 1970-01-01 UTC.
    pub created_ms: i64,
    /// Its owner has marked it tainted.
    pub tainted: bool,
    /// Behind what the TERM lists, records were gone before its owner read them: it is to be marked.
    pub gap: bool,
    /// Up to where it can be restored now (C6): the end of the last object flagged `at-eof`, at least the TERM's own
    /// range.
    pub reached: Offsets,
}

impl Owner {
    /// Whether deleted keys, or old values, may have survived in what is restored of it.
    pub fn is_tainted(&self) -> bool {
        self.tainted || self.gap
    }
}

/// The instance's own folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Own {
    /// Its latest run.
    pub run: Option<OwnRun>,
    /// There are objects that do not belong to that run.
    pub strays: bool,
}

impl Own {
    /// Whether nothing lies in the folder.
    pub fn is_empty(&self) -> bool {
        !self.strays && self.run.as_ref().is_none_or(|run| !run.objects)
    }

    /// The largest number of a run record, 0 without one.
    pub fn last_number(&self) -> u64 {
        self.run.as_ref().map_or(0, |run| run.number)
    }
}

/// The instance's latest run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OwnRun {
    /// The number of its record.
    pub number: u64,
    /// Its id.
    pub run: Name,
    /// When the scan began, in milliseconds since 1970-01-01 UTC.
    pub started_ms: i64,
    /// The last TERM there was when it began.
    pub after_term: u64,
    /// The highest TERM that names it, valid or not.
    pub titled: Option<u64>,
    /// A TERM was taken away from it: it never gets another one.
    pub voided: bool,
    /// There are objects of it.
    pub objects: bool,
    /// Every object that its highest TERM lists exists. Meaningless without one.
    pub intact: bool,
    /// Where the unbroken list of its objects ends; where it begins, for a partition without objects.
    pub stored: Offsets,
    /// Records were gone before the run could read them, behind others that it had read.
    pub gap: bool,
    /// Up to where it can be restored: the end of the last object in that list that is flagged `at-eof`, at least what
    /// its highest TERM says; per partition that has either.
    pub restorable: Offsets,
    /// When its TERM, or the newest object flagged `at-eof` of the partition where that is the oldest, was written, in
    /// milliseconds since 1970-01-01 UTC: every partition was read to its end then or later. `None` without a TERM.
    pub seen_end_ms: Option<i64>,
}
