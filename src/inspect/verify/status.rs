//! Results of verifications in the bucket, one record for each job and mode: a run on another host and a restart of the
//! daemon both keep them.

use std::sync::Arc;
use std::time::Duration;

use super::report::{Tallies, Tally};
use super::request::Verify;
use crate::clock::now_ms;
use crate::model::key;
use crate::model::verify::Mode;
use crate::model::verify::coverage::{Run, VERIFY_FORMAT_VERSION, Verified};
use crate::storage::retry::retry;
use crate::storage::{Body, Metadata, Store};

/// How long a store may be out of reach.
const PATIENCE: Duration = Duration::from_secs(60);

/// All modes.
const MODES: [Mode; 3] = [Mode::List, Mode::Manifest, Mode::Data];

/// Writes the results of a run down; `false`, and said why, where that cannot be done. That is no failure of the run.
pub async fn store(verify: &Verify, tallies: &Tallies, complete: bool) -> bool {
    let finished_ms = now_ms();
    for (job, tally) in tallies.iter().filter(|(job, _)| !job.is_empty()) {
        if let Err(why) = update(&verify.store, job, verify, run(verify, tally, finished_ms, complete)).await {
            tracing::warn!("the result is not kept in the bucket: {why}");
            return false;
        }
    }
    true
}

fn run(verify: &Verify, tally: &Tally, finished_ms: i64, complete: bool) -> Run {
    Run {
        finished_ms,
        complete,
        subset: verify.subset,
        objects: tally.objects,
        bytes: tally.bytes,
        read_bytes: tally.read_bytes,
        bad: tally.bad.clone(),
    }
}

async fn update(store: &Arc<dyn Store>, job: &str, verify: &Verify, run: Run) -> Result<(), String> {
    let key = key::verify_record(job, verify.mode.name());
    // What cannot be understood is of a newer version, and not ours to replace.
    let before = load_one(store, &key).await?;
    let record = Verified::after(before, job, verify.mode, run);
    let json = serde_json::to_vec_pretty(&record).map_err(|error| error.to_string())?;
    let (body, metadata) = (Body::from(json), Metadata::new());
    retry(PATIENCE, || store.put(&key, &body, &metadata)).await.map_err(|error| error.to_string())
}

async fn load_one(store: &Arc<dyn Store>, key: &str) -> Result<Option<Verified>, String> {
    let bytes = retry(PATIENCE, || store.get(key)).await.map_err(|error| error.to_string())?;
    let Some(bytes) = bytes else { return Ok(None) };
    let record: Verified = serde_json::from_slice(&bytes).map_err(|error| format!("{key}: {error}"))?;
    match record.format_version > VERIFY_FORMAT_VERSION {
        true => Err(format!("{key}: version {} is newer than this program understands", record.format_version)),
        false => Ok(Some(record)),
    }
}

/// What is known of a job's verifications.
///
/// # Errors
/// A record cannot be read or understood.
pub async fn load(store: &Arc<dyn Store>, job: &str) -> Result<Vec<Verified>, String> {
    let mut found = Vec::new();
    for mode in MODES {
        let record = load_one(store, &key::verify_record(job, mode.name())).await?;
        found.extend(record.filter(|record| record.job == job && record.mode == mode));
    }
    Ok(found)
}
