//! The memory of all batches and open objects together, as permits.
//!
//! Memory is charged where it enters, at the consumer, before a byte is copied. The permit travels with the batch; the
//! encoder keeps as much of it as its blocks take and gives the rest back, so nothing downstream ever has to wait for
//! memory while it holds some. Each job owns a share for itself, the rest is common: a job whose bucket is dead fills
//! its own share and the common part, and the others go on in theirs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use actix::{Message, WeakRecipient};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Permits are counted in KiB, so that budgets beyond 4 GiB fit.
const UNIT: u64 = 1024;

/// Put what you hold in memory into the spool.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Spill;

/// How often permits are moved that were held when jobs came or went.
const SETTLE_EVERY: Duration = Duration::from_millis(250);

/// What each of `jobs` jobs has for itself: together half of everything.
fn share_of(total_units: u32, jobs: usize) -> u32 {
    (total_units / 2 / u32::try_from(jobs.max(1)).unwrap_or(u32::MAX)).max(1)
}

/// Bytes to permits, rounded up.
fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// The budget of the process.
#[derive(Debug)]
pub struct Budget {
    total_units: u32,
    common: Arc<Semaphore>,
    /// Half of everything at least is common once permits have gone where they belong.
    common_least: u32,
    shares: Mutex<Shares>,
    /// What is waited for, in permits.
    wanted: AtomicU64,
    pressure: Notify,
    open: Mutex<HashMap<u64, OpenBytes>>,
}

/// How the permits are divided. Their sum never changes: what one has to give goes to where something is missing.
#[derive(Debug)]
struct Shares {
    /// What every share should have.
    target: u32,
    all: Vec<Weak<Share>>,
    common: u32,
    /// Taken from somewhere, and not yet anywhere else.
    loose: u32,
}

/// The share of one job.
#[derive(Debug)]
struct Share {
    permits: Arc<Semaphore>,
    /// What it has, held permits and free ones.
    size: AtomicU32,
    budget: Weak<Budget>,
}

impl Drop for Share {
    /// Permits hold their share, so all of them are back.
    fn drop(&mut self) {
        if let Some(budget) = self.budget.upgrade() {
            budget.settle(|shares| shares.loose += self.size.load(Ordering::Acquire));
        }
    }
}

/// What a lane holds in memory, and how to ask it to spill that.
#[derive(Debug, Clone)]
struct OpenBytes {
    bytes: Arc<AtomicU64>,
    /// Weak: what is asked for memory must not be kept alive by that.
    spill: WeakRecipient<Spill>,
}

impl Budget {
    /// `total` bytes for `jobs` jobs: half of it in shares of their own, half common.
    pub fn new(total: u64, jobs: usize) -> Arc<Self> {
        let total_units = units(total).max(2);
        let shares = Shares { target: share_of(total_units, jobs), all: Vec::new(), common: total_units, loose: 0 };
        Arc::new(Self {
            total_units,
            common: Arc::new(Semaphore::new(total_units as usize)),
            common_least: total_units.div_ceil(2),
            shares: Mutex::new(shares),
            wanted: AtomicU64::new(0),
            pressure: Notify::new(),
            open: Mutex::new(HashMap::new()),
        })
    }

    fn shares(&self) -> std::sync::MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There are `jobs` jobs from now on. Shares that are too large give back what is free at once, and the rest as it
    /// comes back.
    pub fn share_among(&self, jobs: usize) {
        self.settle(|shares| shares.target = share_of(self.total_units, jobs));
    }

    /// The part of one job.
    pub fn job(self: &Arc<Self>) -> JobBudget {
        let (permits, size) = (Arc::new(Semaphore::new(0)), AtomicU32::new(0));
        let share = Arc::new(Share { permits, size, budget: Arc::downgrade(self) });
        self.settle(|shares| shares.all.push(Arc::downgrade(&share)));
        JobBudget { budget: self.clone(), share }
    }

    /// Makes a change, then moves permits towards where they belong, as far as they are free.
    fn settle(&self, change: impl FnOnce(&mut Shares)) {
        // Dropped behind the lock: the last hold on a share takes the lock itself.
        let all: Vec<Arc<Share>>;
        let mut shares = self.shares();
        let shares = &mut *shares;
        change(shares);
        shares.all.retain(|share| share.strong_count() > 0);
        all = shares.all.iter().filter_map(Weak::upgrade).collect();
        let target = shares.target;
        let size = |share: &Share| share.size.load(Ordering::Acquire);
        for share in &all {
            let spare = size(share).saturating_sub(target);
            let freed = share.permits.forget_permits(spare as usize) as u32; // at most `spare`
            share.size.fetch_sub(freed, Ordering::AcqRel);
            shares.loose += freed;
        }
        let missing: u32 = all.iter().map(|share| target.saturating_sub(size(share))).sum();
        // While shares of jobs that are gone or too large are still held, the common part stands in for them.
        let needed = missing.saturating_sub(shares.loose).min(shares.common);
        let freed = self.common.forget_permits(needed as usize) as u32;
        (shares.common, shares.loose) = (shares.common - freed, shares.loose + freed);
        for share in &all {
            let given = target.saturating_sub(size(share)).min(shares.loose);
            share.size.fetch_add(given, Ordering::AcqRel);
            share.permits.add_permits(given as usize);
            shares.loose -= given;
        }
        self.common.add_permits(shares.loose as usize);
        shares.common += std::mem::take(&mut shares.loose);
    }

    /// Bytes in use, and how many may be.
    pub fn usage(&self) -> (u64, u64) {
        let shares = self.shares();
        let live: Vec<_> = shares.all.iter().filter_map(Weak::upgrade).collect();
        let free = self.common.available_permits() + live.iter().map(|s| s.permits.available_permits()).sum::<usize>();
        drop(shares); // dropping the last hold on a share locks them, too
        let limit = self.total_units as usize;
        ((limit - free.min(limit)) as u64 * UNIT, limit as u64 * UNIT)
    }

    /// Moves permits that were held when the shares changed; runs for ever.
    pub async fn keep_settled(self: Arc<Self>) {
        let mut every = tokio::time::interval(SETTLE_EVERY);
        loop {
            every.tick().await;
            self.settle(|_| ());
        }
    }

    /// Bytes that can be held altogether by one job.
    pub fn largest(&self) -> u64 {
        u64::from(self.common_least) * UNIT
    }

    /// Registers a lane's open object, so that it can be asked to spill.
    pub fn register(&self, lane: u64, bytes: Arc<AtomicU64>, spill: WeakRecipient<Spill>) {
        self.lanes().insert(lane, OpenBytes { bytes, spill });
    }

    /// The lane is gone.
    pub fn forget(&self, lane: u64) {
        self.lanes().remove(&lane);
    }

    fn lanes(&self) -> std::sync::MutexGuard<'_, HashMap<u64, OpenBytes>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While somebody waits for memory, asks the lanes with the largest open objects to spill them, as many as it takes.
    /// Asks less often when that does not help (the bucket is dead, or what is waited for is another job's share). Runs
    /// for ever.
    pub async fn relieve(self: Arc<Self>) {
        const SOON: Duration = Duration::from_millis(5);
        const LATE: Duration = Duration::from_millis(250);
        loop {
            self.pressure.notified().await;
            let mut pause = SOON;
            while self.wanted.load(Ordering::Acquire) > 0 {
                self.ask_for(self.wanted.load(Ordering::Acquire) * UNIT);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LATE);
            }
        }
    }

    /// Asks for `bytes`, the largest lanes first.
    fn ask_for(&self, bytes: u64) {
        let lanes = self.lanes();
        let mut by_size: Vec<_> = lanes.values().map(|lane| (lane.bytes.load(Ordering::Relaxed), lane)).collect();
        by_size.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let mut asked = 0;
        for (size, lane) in by_size.into_iter().take_while(|(size, _)| *size > 0) {
            if asked >= bytes {
                return;
            }
            // It is shown anew with what it cannot spill; until then it must not be chosen again.
            lane.bytes.store(0, Ordering::Relaxed);
            if let Some(spill) = lane.spill.upgrade() {
                spill.do_send(Spill);
                asked += size;
            }
        }
    }
}

/// The part of one job.
#[derive(Debug, Clone)]
pub struct JobBudget {
    budget: Arc<Budget>,
    share: Arc<Share>,
}

impl JobBudget {
    /// The process's budget.
    pub fn whole(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Memory for `bytes`, if it is there now.
    pub fn try_acquire(&self, bytes: u64) -> Option<Permit> {
        let n = self.clamp(bytes);
        if let Ok(permit) = self.share.permits.clone().try_acquire_many_owned(n) {
            return Some(self.of_share(Some(permit)));
        }
        self.budget.common.clone().try_acquire_many_owned(n).ok().map(|p| Permit { share: None, common: Some(p) })
    }

    /// Memory for `bytes` (at most what can be had at all), when it is there. Open objects are spilled meanwhile.
    pub async fn acquire(&self, bytes: u64) -> Permit {
        if let Some(permit) = self.try_acquire(bytes) {
            return permit;
        }
        let n = self.clamp(bytes);
        let _waiting = Waiting::new(&self.budget, n);
        let common = self.budget.common.clone().acquire_many_owned(n);
        tokio::select! {
            permit = self.share.permits.clone().acquire_many_owned(n) => self.of_share(permit.ok()),
            permit = common => Permit { share: None, common: permit.ok() },
        }
    }

    fn of_share(&self, permit: Option<OwnedSemaphorePermit>) -> Permit {
        Permit { share: permit.map(|permit| Held { permit, share: self.share.clone() }), common: None }
    }

    fn clamp(&self, bytes: u64) -> u32 {
        units(bytes).clamp(1, self.budget.common_least)
    }
}

/// Somebody waits for so many permits for as long as this lives.
struct Waiting<'a>(&'a Budget, u64);

impl<'a> Waiting<'a> {
    fn new(budget: &'a Budget, permits: u32) -> Self {
        let permits = u64::from(permits);
        budget.wanted.fetch_add(permits, Ordering::AcqRel);
        budget.pressure.notify_one();
        Self(budget, permits)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(self.1, Ordering::AcqRel);
    }
}

/// Permits of a share. Fields are dropped in this order: a share that goes has all its permits back.
#[derive(Debug)]
struct Held {
    permit: OwnedSemaphorePermit,
    share: Arc<Share>,
}

/// Memory that may be used; given back when dropped.
#[derive(Debug, Default)]
pub struct Permit {
    share: Option<Held>,
    common: Option<OwnedSemaphorePermit>,
}

impl Permit {
    fn of_share(&self) -> usize {
        self.share.as_ref().map_or(0, |held| held.permit.num_permits())
    }

    fn of_common(&self) -> usize {
        self.common.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Bytes it stands for.
    pub fn bytes(&self) -> u64 {
        (self.of_share() + self.of_common()) as u64 * UNIT
    }

    /// Adds another one, of the same job.
    pub fn merge(&mut self, other: Self) {
        match (self.share.as_mut(), other.share) {
            (Some(mine), Some(theirs)) => mine.permit.merge(theirs.permit),
            (None, theirs) => self.share = theirs,
            (Some(_), None) => {}
        }
        match (self.common.as_mut(), other.common) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (None, theirs) => self.common = theirs,
            (Some(_), None) => {}
        }
    }

    /// Splits off permits for up to `bytes`, the common ones last: they are the ones others wait for.
    #[must_use]
    pub fn take(&mut self, bytes: u64) -> Self {
        let left = units(bytes) as usize;
        let of_share = left.min(self.of_share());
        let of_common = (left - of_share).min(self.of_common());
        let share = self
            .share
            .as_mut()
            .filter(|_| of_share > 0)
            .and_then(|held| Some(Held { permit: held.permit.split(of_share)?, share: held.share.clone() }));
        Self { share, common: self.common.as_mut().filter(|_| of_common > 0).and_then(|p| p.split(of_common)) }
    }

    /// Gives back what exceeds `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        *self = self.take(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_cannot_take_the_share_of_another() {
        let budget = Budget::new(8 << 20, 2);
        let (a, b) = (budget.job(), budget.job());
        let mut held = Vec::new();
        while let Some(permit) = a.try_acquire(512 << 10) {
            held.push(permit);
        }
        assert_eq!(held.iter().map(Permit::bytes).sum::<u64>(), 6 << 20);
        assert!(b.try_acquire(2 << 20).is_some());
    }

    #[tokio::test]
    async fn split_and_merge_keep_the_sum() {
        let job = Budget::new(8 << 20, 1).job();
        let mut a = job.try_acquire(1 << 20).unwrap();
        a.merge(job.acquire(4 << 20).await);
        assert_eq!(a.bytes(), 5 << 20);
        let b = a.take(3 << 20);
        assert_eq!((a.bytes(), b.bytes()), (2 << 20, 3 << 20));
        a.shrink_to(1 << 20);
        assert_eq!(a.bytes(), 1 << 20);
        drop((a, b));
        assert_eq!(job.try_acquire(4 << 20).unwrap().bytes(), 4 << 20);
    }

    #[tokio::test]
    async fn more_than_there_is_gets_all_there_is() {
        let job = Budget::new(8 << 20, 1).job();
        assert_eq!(job.acquire(1 << 40).await.bytes(), 4 << 20);
    }

    #[tokio::test]
    async fn jobs_that_come_and_go_share_what_there_is() {
        let budget = Budget::new(8 << 20, 1);
        let first = budget.job();
        let held = first.try_acquire(3 << 20).unwrap();
        assert_eq!(first.share.size.load(Ordering::Acquire), 4 << 10, "half of everything");
        budget.share_among(2);
        let second = budget.job();
        let size = |job: &JobBudget| job.share.size.load(Ordering::Acquire);
        assert_eq!(
            (size(&first), size(&second)),
            (3 << 10, 2 << 10),
            "what is held cannot go; the common part stands in"
        );
        drop(held);
        budget.settle(|_| ());
        assert_eq!((size(&first), size(&second), budget.shares().common), (2 << 10, 2 << 10, 4 << 10));
        // The share of a job that goes lives on in its permits.
        let held = second.try_acquire(1 << 20).unwrap();
        drop(second);
        assert_eq!(budget.usage(), (1 << 20, 8 << 20));
        drop(held);
        budget.share_among(1);
        assert_eq!((size(&first), budget.shares().common), (4 << 10, 4 << 10));
        assert_eq!(budget.usage(), (0, 8 << 20));
    }
}
