//! What the daemon knows of the verifications of its jobs: read from the bucket at its start and from time to time, so
//! that runs on other hosts and before a restart show in its metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::status;
use crate::config::Job;
use crate::model::verify::coverage::Verified;
use crate::storage::{self, Store};

/// How often the bucket is asked again.
const EVERY: Duration = Duration::from_secs(600);

/// How often it is looked whether there are jobs that were never asked for.
const LOOK: Duration = Duration::from_secs(5);

type Known = BTreeMap<String, Vec<Verified>>;

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

fn all() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of a job's verifications.
pub fn known(job: &str) -> Vec<Verified> {
    all().get(job).cloned().unwrap_or_default()
}

/// Keeps what is known up to date, for as long as the process runs. `jobs` tells which jobs there are.
pub fn start(io: &Handle, jobs: impl Fn() -> Vec<Arc<Job>> + Send + 'static) {
    let handle = io.clone();
    io.spawn(async move {
        let mut asked: BTreeMap<String, tokio::time::Instant> = BTreeMap::new();
        let mut stores: BTreeMap<String, Arc<dyn Store>> = BTreeMap::new();
        loop {
            let jobs = jobs();
            asked.retain(|id, _| jobs.iter().any(|job| job.id == *id));
            stores.retain(|id, _| jobs.iter().any(|job| job.id == *id));
            all().retain(|id, _| jobs.iter().any(|job| job.id == *id));
            for job in &jobs {
                let now = tokio::time::Instant::now();
                if asked.get(&job.id).is_some_and(|at| now - *at < EVERY) {
                    continue;
                }
                asked.insert(job.id.clone(), now);
                if !stores.contains_key(&job.id)
                    && let Ok(store) = storage::open_existing(&job.storage, handle.clone())
                {
                    stores.insert(job.id.clone(), store);
                }
                let Some(store) = stores.get(&job.id) else { continue };
                match status::load(store, &job.id).await {
                    Ok(records) => _ = all().insert(job.id.clone(), records),
                    // What was known stays shown; its age tells.
                    Err(why) => tracing::info!(job = %job.id, "results of verifications cannot be read: {why}"),
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    });
}
