//! What each request does.

use actix::Addr;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;

use super::document::StatusDocument;
use super::protocol::{Flushed, Request};
use crate::error::{Error, Exit, Result, no_such_job};
use crate::process::Process;
use crate::reload::{Options, Reloads};
use crate::supervisor::{Flush, Pause, Resume, Supervisor, Turn};

/// What requests act on.
#[derive(Clone)]
pub struct Daemon {
    /// What the jobs share, and how they are.
    pub process: Process,
    /// Who starts and ends them.
    pub supervisor: Addr<Supervisor>,
    /// Where reloads are asked for.
    pub reloads: Reloads,
}

/// Lines for a person who waits.
pub type Notes = UnboundedSender<String>;

/// Does what is asked and says what came of it.
///
/// # Errors
/// It was not done, and why.
pub async fn answer(daemon: &Daemon, request: Request, notes: &Notes) -> Result<Value> {
    match request {
        Request::Status { job } => value(&status(daemon, job)?),
        Request::Metrics => value(&crate::scrape::metrics_text(&daemon.process)),
        Request::Flush { job, wait } => value(&flush(daemon, job, wait, notes).await?),
        Request::Pause { job, reason, until_ms } => {
            value(&asked(daemon.supervisor.send(Pause { job, reason, until_ms }).await)?)
        }
        Request::Swap { job } => value(&asked(daemon.supervisor.send(Turn { job }).await)?.swap().await),
        Request::Resume { job } => value(&asked(daemon.supervisor.send(Resume { job }).await)?),
        Request::Reload { dry_run, allow_removals } => {
            value(&daemon.reloads.ask(Options { dry_run, allow_removals }).await?)
        }
        Request::LastReload => value(&daemon.process.standing.get().last_reload),
    }
}

fn value(of: &impl Serialize) -> Result<Value> {
    serde_json::to_value(of).map_err(|e| Error::new(Exit::Failed, "the answer cannot be written as JSON").because(e))
}

/// The answer of the supervisor, which is not there any more while the daemon stops.
fn asked<T>(answer: Result<Result<T>, actix::MailboxError>) -> Result<T> {
    answer.unwrap_or_else(|_| Err(Error::new(Exit::Unavailable, "the daemon is stopping").hint("try again later")))
}

fn status(daemon: &Daemon, job: Option<String>) -> Result<StatusDocument> {
    let mut document = StatusDocument::of(&daemon.process);
    if let Some(id) = job {
        if !document.jobs.iter().any(|job| job.job == id) {
            return Err(no_such_job(&id, document.jobs.iter().map(|job| job.job.as_str())));
        }
        document.only(&id);
    }
    Ok(document)
}

async fn flush(daemon: &Daemon, job: String, wait: bool, notes: &Notes) -> Result<Flushed> {
    let flushed = asked(daemon.supervisor.send(Flush { job: job.clone() }).await)?;
    if !wait {
        return Ok(Flushed { job, durable: false });
    }
    let _ = notes.send(format!("{job}: making durable what was read"));
    if flushed.await != Ok(true) {
        let what = format!("job {job}: a partition was lost or began anew meanwhile");
        return Err(Error::new(Exit::Busy, what).hint(format!("kafka-backup status --job {job}; then try again")));
    }
    Ok(Flushed { job, durable: true })
}
