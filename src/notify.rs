//! What the service manager is told (sd_notify(3)); nothing where there is none.

use std::sync::{Mutex, PoisonError};

use sd_notify::NotifyState;

use crate::model::standing::Line;
use crate::pipeline::status::JobState;
use crate::process::Process;
use crate::signal::Requests;
use crate::standing::ReloadResult;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(error = %error, "the service manager was not told");
    }
}

/// The line that `systemctl status` shows.
pub fn line(process: &Process) -> String {
    let config = process.standing.get();
    let jobs = process.all_statuses();
    let of = |state: JobState| -> Vec<&str> {
        jobs.iter().filter(|job| job.state() == state).map(|job| job.job.id.as_str()).collect()
    };
    let rejected = config.last_reload.as_ref().filter(|last| last.result == ReloadResult::Rejected);
    let rejected = rejected.map(|last| {
        let first = last.text.lines().find(|line| !line.starts_with("the configuration has")).unwrap_or_default();
        format!("{}: {first}", time_of_day(last.at_ms))
    });
    let line = Line {
        running: of(JobState::Running).len(),
        degraded: of(JobState::Degraded),
        failed: of(JobState::Failed),
        paused: of(JobState::Paused).len(),
        draining: of(JobState::Draining).len(),
        jobs_dir: &config.jobs_dir.display().to_string(),
        generation: config.generation,
        rejected: rejected.as_deref(),
        drift: config.drift.is_some(),
    };
    line.text()
}

/// Logs that line whenever somebody asks for it by a signal.
pub async fn answer(process: Process, mut questions: Requests) {
    loop {
        questions.came().await;
        questions.forget();
        tracing::info!("{}", line(&process));
    }
}

/// `12:04:11Z`.
fn time_of_day(at_ms: i64) -> String {
    let of_day = at_ms.div_euclid(1000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// What was said last, so that it is said once.
static SAID: Mutex<String> = Mutex::new(String::new());

/// The configuration is applied, the state open, everything that listens does.
pub fn ready(process: &Process) {
    let line = line(process);
    tell(&[NotifyState::Ready, NotifyState::Status(&line)]);
    *SAID.lock().unwrap_or_else(PoisonError::into_inner) = line;
}

/// Says how everything is, where that has changed.
pub fn status(process: &Process) {
    let line = line(process);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if *said != line {
        tell(&[NotifyState::Status(&line)]);
        tracing::debug!("{line}");
        *said = line;
    }
}

/// The daemon ends.
pub fn stopping(line: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(line)]);
}

/// The end takes longer, and goes forward.
pub fn extend(by: std::time::Duration, line: &str) {
    let micros = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::ExtendTimeoutUsec(micros), NotifyState::Status(line)]);
}

/// Everything that must move has moved.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// A reload, for as long as this lives: however it ends, the service manager hears that it has.
pub struct Reloading(Process);

impl Reloading {
    /// It begins.
    pub fn begin(process: &Process) -> Self {
        // In one datagram: without the time the reload would not count.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]),
            Err(error) => tracing::debug!(error = %error, "no monotonic clock"),
        }
        Self(process.clone())
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        ready(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day() {
        assert_eq!(time_of_day(0), "00:00:00Z");
        assert_eq!(time_of_day(1_700_000_000_123), "22:13:20Z");
    }
}
