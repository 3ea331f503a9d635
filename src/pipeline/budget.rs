//! The memory of all batches and open objects together, as permits.
//!
//! Memory is charged where it enters, at the consumer, before a byte is copied. The permit travels with the batch; the
//! encoder keeps as much of it as its blocks take and gives the rest back, so nothing downstream ever has to wait for
//! memory while it holds some. Each job owns a share for itself, the rest is common: a job whose bucket is dead fills
//! its own share and the common part, and the others go on in theirs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Permits are counted in KiB, so that budgets beyond 4 GiB fit.
const UNIT: u64 = 1024;

/// Bytes to permits, rounded up.
fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// The budget of the process.
#[derive(Debug)]
pub struct Budget {
    common: Arc<Semaphore>,
    common_units: u32,
    share_units: u32,
    shares: Mutex<Vec<std::sync::Weak<Semaphore>>>,
    /// What is waited for, in permits.
    wanted: AtomicU64,
    pressure: Notify,
    open: Mutex<HashMap<u64, OpenBytes>>,
}

/// What a lane holds in memory, and how to ask it to spill that.
#[derive(Debug, Clone)]
struct OpenBytes {
    bytes: Arc<AtomicU64>,
    /// Weak: what is asked for memory must not be kept alive by that.
    spill: actix::WeakRecipient<super::message::Spill>,
}

impl Budget {
    /// `total` bytes for `jobs` jobs: half of it in shares of their own, half common.
    pub fn new(total: u64, jobs: usize) -> Arc<Self> {
        let total = units(total).max(2);
        let share_units = (total / 2 / (jobs.max(1) as u32)).max(1);
        let common_units = total.saturating_sub(share_units.saturating_mul(jobs.max(1) as u32)).max(1);
        Arc::new(Self {
            common: Arc::new(Semaphore::new(common_units as usize)),
            common_units,
            share_units,
            shares: Mutex::default(),
            wanted: AtomicU64::new(0),
            pressure: Notify::new(),
            open: Mutex::new(HashMap::new()),
        })
    }

    /// The part of one job.
    pub fn job(self: &Arc<Self>) -> JobBudget {
        let share = Arc::new(Semaphore::new(self.share_units as usize));
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|share| share.strong_count() > 0);
        shares.push(Arc::downgrade(&share));
        JobBudget { budget: self.clone(), share }
    }

    /// Bytes in use, and how many may be.
    pub fn usage(&self) -> (u64, u64) {
        let shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let live: Vec<_> = shares.iter().filter_map(std::sync::Weak::upgrade).collect();
        let free = self.common.available_permits() + live.iter().map(|s| s.available_permits()).sum::<usize>();
        let limit = self.common_units as usize + live.len() * self.share_units as usize;
        ((limit - free.min(limit)) as u64 * UNIT, limit as u64 * UNIT)
    }

    /// Bytes that can be held altogether by one job.
    pub fn largest(&self) -> u64 {
        u64::from(self.common_units) * UNIT
    }

    /// Registers a lane's open object, so that it can be asked to spill.
    pub fn register(&self, lane: u64, bytes: Arc<AtomicU64>, spill: actix::WeakRecipient<super::message::Spill>) {
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
                spill.do_send(super::message::Spill);
                asked += size;
            }
        }
    }
}

/// The part of one job.
#[derive(Debug, Clone)]
pub struct JobBudget {
    budget: Arc<Budget>,
    share: Arc<Semaphore>,
}

impl JobBudget {
    /// The process's budget.
    pub fn whole(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Memory for `bytes`, if it is there now.
    pub fn try_acquire(&self, bytes: u64) -> Option<Permit> {
        let n = self.clamp(bytes);
        if let Ok(permit) = self.share.clone().try_acquire_many_owned(n) {
            return Some(Permit { share: Some(permit), common: None });
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
        if n > self.budget.share_units {
            let permit = common.await.ok();
            return Permit { share: None, common: permit };
        }
        tokio::select! {
            permit = self.share.clone().acquire_many_owned(n) => Permit { share: permit.ok(), common: None },
            permit = common => Permit { share: None, common: permit.ok() },
        }
    }

    fn clamp(&self, bytes: u64) -> u32 {
        units(bytes).clamp(1, self.budget.common_units.max(self.budget.share_units))
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

/// Memory that may be used; given back when dropped.
#[derive(Debug, Default)]
pub struct Permit {
    share: Option<OwnedSemaphorePermit>,
    common: Option<OwnedSemaphorePermit>,
}

impl Permit {
    /// Bytes it stands for.
    pub fn bytes(&self) -> u64 {
        let count = |p: &Option<OwnedSemaphorePermit>| p.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        (count(&self.share) + count(&self.common)) as u64 * UNIT
    }

    /// Adds another one.
    pub fn merge(&mut self, other: Self) {
        for (mine, theirs) in [(&mut self.share, other.share), (&mut self.common, other.common)] {
            match (mine.as_mut(), theirs) {
                (Some(mine), Some(theirs)) => mine.merge(theirs),
                (None, theirs) => *mine = theirs,
                (Some(_), None) => {}
            }
        }
    }

    /// Splits off permits for up to `bytes`, the common ones last: they are the ones others wait for.
    #[must_use]
    pub fn take(&mut self, bytes: u64) -> Self {
        let mut left = units(bytes) as usize;
        let mut part = |from: &mut Option<OwnedSemaphorePermit>| {
            let n = left.min(from.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
            left -= n;
            from.as_mut().filter(|_| n > 0).and_then(|p| p.split(n))
        };
        let share = part(&mut self.share);
        Self { share, common: part(&mut self.common) }
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
}
