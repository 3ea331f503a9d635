//! Feeds the service manager's watchdog, and only when everything that must move has moved: the supervisor, the actor
//! that writes down what is durable, and every running job. A job that waits for Kafka or the store moves all the same
//! (it is degraded, not stuck), and a restart would not help it.

use std::time::Duration;

use actix::Addr;

use crate::notify;
use crate::pipeline::committer;
use crate::process::Process;
use crate::supervisor::{Ping, Supervisor};

/// Fed in so many parts of the interval that the service manager asks for.
const PARTS: u32 = 3;
/// A job that was not heard of for so long is stuck, unless the interval is shorter.
const SILENCE: Duration = Duration::from_secs(20);

/// Runs until dropped.
pub struct Watchdog(Option<actix_rt::task::JoinHandle<()>>);

impl Watchdog {
    /// Starts feeding, where the service manager asks for it.
    pub fn start(process: Process, supervisor: Addr<Supervisor>) -> Self {
        let Some(interval) = sd_notify::watchdog_enabled() else { return Self(None) };
        let every = interval / PARTS;
        Self(Some(actix_rt::spawn(async move {
            loop {
                match stuck(&process, &supervisor, every).await {
                    None => notify::alive(),
                    Some(what) => tracing::error!("{what} is stuck; the watchdog is not fed"),
                }
                tokio::time::sleep(every).await;
            }
        })))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// What does not move.
async fn stuck(process: &Process, supervisor: &Addr<Supervisor>, patience: Duration) -> Option<String> {
    if !answers(supervisor.send(Ping), patience).await {
        return Some("the supervisor".to_owned());
    }
    if !answers(process.committer().send(committer::Ping), patience).await {
        return Some("the committer".to_owned());
    }
    let silent = |job: &std::sync::Arc<crate::pipeline::status::JobStatus>| job.silence() > SILENCE.max(patience);
    process.all_statuses().iter().find(|job| silent(job)).map(|job| format!("job {}", job.job.id))
}

async fn answers<F: Future<Output = Result<(), actix::MailboxError>>>(answer: F, patience: Duration) -> bool {
    matches!(tokio::time::timeout(patience, answer).await, Ok(Ok(())))
}
