//! `verify`: is the backup what it must be? From storage alone, with the daemon dead and credentials that only read.
//!
//! ```text
//! walk    listing ──> HEAD (many at a time) ──> model::verify::chain ──┐
//! data         └──bounded──> fetch, decode, model::verify::content ────┴──> report ──> status, in the bucket
//! ```
//!
//! Listings are used page by page and findings are printed as they are made, so that memory does not grow with the
//! number of objects. What is found bad is read once more before it is called so.

mod compacted;
mod data;
mod report;
mod request;
pub mod status;
mod walk;
pub mod watch;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Mutex, mpsc};

use self::report::Report;
pub use self::request::Verify;
use self::walk::Walk;
use crate::error::{Error, Exit, Result};
use crate::model::verify::subset::{Picker, Subset};
use crate::restore::gather;
use crate::restore::stop::Stop;
use crate::storage::Store;

/// Topics that are looked at beside each other.
const TOPICS: usize = 4;

/// Objects that are read and decoded beside each other: while some are decoded, others are on their way.
const READERS: usize = 4;

/// Objects that wait to be read.
const WAITING: usize = 16;

/// Verifies, prints what is found, and says how it went: 0 or 4.
///
/// # Errors
/// It could not be done, and what was seen until then was sound.
pub async fn run(verify: Verify, stop: Stop) -> Result<Exit> {
    let report = Arc::new(Report::new(verify.mode, verify.subset, verify.json));
    let looked = tokio::select! {
        looked = look(&verify, &report) => looked,
        () = report.progress(&stop) => unreachable!("progress is shown until it is dropped"),
        () = stop.wait() => Err(Error::new(stop.asked().unwrap_or(Exit::Interrupted), "stopped before the end")),
    };
    let finished = looked.is_ok();
    // What was asked for as a part says nothing about the job as a whole.
    let stored = match finished && verify.record && verify.topic.is_none() {
        true => status::store(&verify, &report.tallies(), finished).await,
        false => false,
    };
    report.end(finished, stored)?;
    match looked {
        Err(error) if report.damaged() > 0 => {
            tracing::error!("not everything was looked at: {error}");
            Ok(Exit::ProblemFound)
        }
        Err(error) => Err(error),
        Ok(()) if report.damaged() > 0 => Ok(Exit::ProblemFound),
        Ok(()) => Ok(Exit::Ok),
    }
}

async fn look(verify: &Verify, report: &Arc<Report>) -> Result<()> {
    let store = &verify.store;
    let topics = match &verify.topic {
        Some(topic) => vec![topic.clone()],
        None => gather::topics(store).await?,
    };
    let total = match verify.subset {
        Some(Subset::Bytes(_)) => bytes(store, &topics).await?,
        _ => 0,
    };
    let picker = Picker::new(verify.subset, total, fastrand::u64(..));
    let (work, todo) = mpsc::channel(WAITING);
    let todo = Arc::new(Mutex::new(todo));
    let readers = (0..READERS).map(|_| data::read_all(store.clone(), todo.clone(), report.clone()));
    let readers = futures_util::future::try_join_all(readers);
    let walk = async move {
        let walk = Walk { verify, picker, work, report };
        let walk = &walk;
        let found = stream::iter(topics).map(|topic| async move { walk.topic(&topic).await });
        let found: Vec<bool> = found.buffer_unordered(TOPICS).try_collect().await?;
        Result::<_, Error>::Ok(found.contains(&true))
    };
    let (found, _) = futures_util::future::try_join(walk, readers).await?;
    if found {
        return Ok(());
    }
    let what = match (&verify.topic, &verify.job) {
        (Some(topic), _) => format!("topic {topic} is not in {}", store.url()),
        (None, Some(job)) => format!("nothing of job {job} is in {}", store.url()),
        (None, None) => format!("nothing is backed up in {}", store.url()),
    };
    Err(Error::new(Exit::NotFound, what).hint("kafka-backup info shows what there is"))
}

/// Bytes of everything under the topics, from listings alone.
async fn bytes(store: &Arc<dyn Store>, topics: &[String]) -> Result<u64> {
    let mut total = 0;
    for topic in topics {
        let sizes = gather::entries(store, format!("{topic}/")).map_ok(|entry| entry.size);
        total += sizes.try_fold(0, |sum, size| async move { Ok(sum + size) }).await.map_err(gather::failed)?;
    }
    Ok(total)
}
