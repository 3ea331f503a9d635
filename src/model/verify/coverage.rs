//! What verifications of a job have shown so far: the record that is kept in the bucket, and what follows from it.
//!
//! A share (`--subset n/t`) proves a part only; the shares of one rotation are added up. A run over everything replaces
//! them all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::subset::Subset;
use super::{Mode, Reason};

/// The layout of the record.
pub const VERIFY_FORMAT_VERSION: u32 = 1;

/// How one run went for one job.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Run {
    /// When it ended, in milliseconds since 1970-01-01 UTC.
    pub finished_ms: i64,
    /// It looked at everything it was asked to look at.
    pub complete: bool,
    /// Which objects were read, when not all.
    pub subset: Option<Subset>,
    /// Objects seen.
    pub objects: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Bytes of the objects that were read and decoded.
    pub read_bytes: u64,
    /// Bad objects.
    pub bad: BTreeMap<Reason, u64>,
}

/// The record of a job and mode, under `_kafka_backup/status/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    /// [`VERIFY_FORMAT_VERSION`].
    pub format_version: u32,
    /// The job.
    pub job: String,
    /// How deep it looked.
    pub mode: Mode,
    /// When the last run ended.
    pub last_run_ms: i64,
    /// When the last run ended that was complete and found nothing.
    pub last_success_ms: Option<i64>,
    /// Objects that the last run saw.
    pub objects: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Bad objects, by reason: of the last run, and of the shares that it did not read again.
    pub bad: BTreeMap<Reason, u64>,
    /// What was read and decoded: the last whole run is the one share of 1.
    pub shares: Shares,
}

/// The shares of one rotation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Shares {
    /// How many make up the whole; 0: nothing was read yet.
    pub of: u32,
    /// Those that were read.
    pub read: BTreeMap<u32, Share>,
}

/// One share, or a sample.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Share {
    /// When.
    pub finished_ms: i64,
    /// Bytes read, and bytes there were.
    pub bytes: (u64, u64),
    /// Bad objects found then.
    pub bad: BTreeMap<Reason, u64>,
}

impl Verified {
    /// The record after `run`, where `before` was the record until then.
    pub fn after(before: Option<Self>, job: &str, mode: Mode, run: Run) -> Self {
        let before = before.filter(|before| before.job == job && before.mode == mode);
        let success = (run.complete && run.bad.is_empty()).then_some(run.finished_ms);
        let mut shares = before.as_ref().map(|before| before.shares.clone()).unwrap_or_default();
        let (n, of) = match run.subset {
            Some(Subset::Share { n, t }) => (n, t),
            _ => (1, 1),
        };
        if shares.of != of {
            shares = Shares { of, read: BTreeMap::new() };
        }
        let share = Share { finished_ms: run.finished_ms, bytes: (run.read_bytes, run.bytes), bad: run.bad.clone() };
        if mode == Mode::Data && run.complete {
            shares.read.insert(n, share);
        }
        let mut bad = run.bad;
        for share in shares.read.values() {
            for (reason, count) in &share.bad {
                let known = bad.entry(*reason).or_default();
                *known = (*known).max(*count);
            }
        }
        Self {
            format_version: VERIFY_FORMAT_VERSION,
            job: job.to_owned(),
            mode,
            last_run_ms: run.finished_ms,
            last_success_ms: success.or(before.and_then(|before| before.last_success_ms)),
            objects: run.objects,
            bytes: run.bytes,
            bad,
            shares,
        }
    }

    /// The share of the stored bytes that was read and decoded in the last rotation, from 0 to 1.
    pub fn coverage(&self) -> f64 {
        let share = |share: &Share| match share.bytes {
            (_, 0) => 1.0 / f64::from(self.shares.of.max(1)),
            (read, all) => read as f64 / all as f64,
        };
        self.shares.read.values().map(share).sum::<f64>().min(1.0)
    }
}

/// Bad objects by reason, from the records of one job: of each reason the latest run that could have seen it. What only
/// reading shows stays until it is read again; a list says nothing of what objects say of themselves.
pub fn bad_objects(records: &[Verified]) -> BTreeMap<Reason, u64> {
    let of = |mode: Mode| records.iter().find(|record| record.mode == mode);
    let latest = of(Mode::Data).into_iter().chain(of(Mode::Manifest)).max_by_key(|record| record.last_run_ms);
    let latest = latest.or(of(Mode::List));
    let count = |record: Option<&Verified>, reason| record.and_then(|record| record.bad.get(&reason)).copied();
    let judged = Reason::ALL.into_iter().map(|reason| {
        let seen = count(latest, reason).unwrap_or(0);
        let read = match reason {
            Reason::Size | Reason::Checksum | Reason::Decode => count(of(Mode::Data), reason).unwrap_or(0),
            Reason::Missing | Reason::Gap | Reason::Metadata | Reason::Foreign => 0,
        };
        (reason, seen.max(read))
    });
    judged.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(finished_ms: i64, subset: Option<Subset>, read_bytes: u64, bad: &[(Reason, u64)]) -> Run {
        let bad = bad.iter().copied().collect();
        Run { finished_ms, complete: true, subset, objects: 10, bytes: 100, read_bytes, bad }
    }

    #[test]
    fn a_rotation_adds_up_to_everything() {
        let mut record = None;
        for n in 1..=4 {
            let share = run(i64::from(n), Some(Subset::Share { n, t: 4 }), 25, &[]);
            record = Some(Verified::after(record, "j", Mode::Data, share));
            assert!((record.as_ref().unwrap().coverage() - f64::from(n) / 4.0).abs() < 1e-9);
        }
        let record = Verified::after(record, "j", Mode::Data, run(9, Some(Subset::Share { n: 1, t: 3 }), 33, &[]));
        assert!((record.coverage() - 0.33).abs() < 1e-9, "another rotation begins anew");
        let record = Verified::after(Some(record), "j", Mode::Data, run(9, None, 100, &[]));
        assert!((record.coverage() - 1.0).abs() < 1e-9);
        let record = Verified::after(Some(record), "j", Mode::Data, run(10, Some(Subset::Percent(10.0)), 9, &[]));
        assert!((record.coverage() - 0.09).abs() < 1e-9, "a sample proves what it read");
    }

    #[test]
    fn damage_is_remembered_until_its_share_is_read_again() {
        let share = |n| Some(Subset::Share { n, t: 2 });
        let bad = Verified::after(None, "j", Mode::Data, run(1, share(1), 50, &[(Reason::Checksum, 2)]));
        assert_eq!((bad.last_run_ms, bad.last_success_ms), (1, None));
        let next = Verified::after(Some(bad), "j", Mode::Data, run(2, share(2), 50, &[]));
        assert_eq!((next.bad[&Reason::Checksum], next.last_success_ms), (2, Some(2)));
        let again = Verified::after(Some(next), "j", Mode::Data, run(3, share(1), 50, &[]));
        assert!(again.bad.is_empty());
    }

    #[test]
    fn a_run_that_was_broken_off_is_no_success_and_covers_nothing() {
        let broken = Run { complete: false, ..run(5, None, 60, &[]) };
        let before = Verified::after(None, "j", Mode::Data, run(1, None, 100, &[]));
        let record = Verified::after(Some(before), "j", Mode::Data, broken);
        assert_eq!((record.last_run_ms, record.last_success_ms), (5, Some(1)));
        assert!((record.coverage() - 1.0).abs() < 1e-9, "what was proved before stays proved");
        let manifest = Verified::after(None, "j", Mode::Manifest, run(1, None, 0, &[]));
        assert!(manifest.coverage().abs() < 1e-9);
    }

    #[test]
    fn what_only_reading_shows_stays_until_it_is_read_again() {
        let record = |mode, at, bad: &[(Reason, u64)]| Verified::after(None, "j", mode, run(at, None, 100, bad));
        let data = record(Mode::Data, 1, &[(Reason::Checksum, 2), (Reason::Missing, 1)]);
        let manifest = record(Mode::Manifest, 2, &[]);
        let bad = bad_objects(&[data.clone(), manifest]);
        assert_eq!((bad[&Reason::Checksum], bad[&Reason::Missing]), (2, 0));
        assert_eq!(bad_objects(&[data])[&Reason::Missing], 1);
        assert_eq!(bad_objects(&[record(Mode::List, 1, &[(Reason::Foreign, 3)])])[&Reason::Foreign], 3);
        assert!(bad_objects(&[]).values().all(|count| *count == 0) && bad_objects(&[]).len() == Reason::ALL.len());
    }

    #[test]
    fn the_record_comes_back() {
        let record = Verified::after(None, "j", Mode::Data, run(1, None, 100, &[(Reason::Missing, 1)]));
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Verified>(&text).unwrap(), record);
    }
}
