//! A sign of life for a dead-man's switch: a GET of the operator's URL, again and again, for as long as every job is within
//! its target. Who hears nothing any more knows that something is wrong, whatever it is; also that this process is gone.
//!
//! The URL is a secret (whoever has it can pretend that all is well), so that it stands in a file of its own, which is
//! read each time, and is never shown.

use std::time::Duration;

use hyper::client::HttpConnector;
use hyper_tls::HttpsConnector;

use crate::config::Heartbeat;
use crate::control::document::StatusDocument;
use crate::metrics;
use crate::pipeline::status::JobState;
use crate::process::Process;

/// How long the other side may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether all is well: there is something that is being backed up, and none of it is late or has failed. A job that is
/// paused becomes late like any other.
fn is_well(jobs: impl IntoIterator<Item = (JobState, bool)>) -> bool {
    let mut jobs = jobs.into_iter().peekable();
    jobs.peek().is_some() && jobs.all(|(state, is_late)| state != JobState::Failed && !is_late)
}

type Client = hyper::Client<HttpsConnector<HttpConnector>>;

/// Begins to send, for as long as the runtime of `process` lives.
pub fn start(process: &Process, heartbeat: Heartbeat) {
    let (process, io) = (process.clone(), process.io().clone());
    io.spawn(async move {
        let client: Client = hyper::Client::builder().pool_max_idle_per_host(0).build(HttpsConnector::new());
        let mut failing = false;
        let mut beat = tokio::time::interval(heartbeat.interval);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            let document = StatusDocument::of(&process);
            if !is_well(document.jobs.iter().map(|job| (job.state, job.over_rpo))) {
                metrics::heartbeat("withheld");
                continue;
            }
            let sent = send(&client, &heartbeat).await;
            metrics::heartbeat(if sent.is_ok() { "ok" } else { "failed" });
            match &sent {
                Ok(()) if failing => tracing::info!("heartbeats arrive again"),
                Err(why) if !failing => tracing::warn!("the heartbeat did not arrive, and is tried again: {why}"),
                _ => {}
            }
            failing = sent.is_err();
        }
    });
}

async fn send(client: &Client, heartbeat: &Heartbeat) -> Result<(), String> {
    let url = heartbeat.url()?;
    match tokio::time::timeout(PATIENCE, client.get(url)).await {
        Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
        Ok(Ok(answer)) => Err(format!("the answer was {}", answer.status())),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nothing_is_backed_up(&[], false)]
    #[case::one(&[(JobState::Running, false)], true)]
    #[case::degraded_but_in_time(&[(JobState::Running, false), (JobState::Degraded, false)], true)]
    #[case::late(&[(JobState::Running, false), (JobState::Running, true)], false)]
    #[case::failed(&[(JobState::Failed, false), (JobState::Running, false)], false)]
    #[case::paused_for_a_moment(&[(JobState::Paused, false)], true)]
    #[case::paused_for_too_long(&[(JobState::Paused, true)], false)]
    #[case::going(&[(JobState::Draining, false), (JobState::Running, false)], true)]
    fn well(#[case] jobs: &[(JobState, bool)], #[case] expected: bool) {
        assert_eq!(is_well(jobs.iter().copied()), expected);
    }
}
