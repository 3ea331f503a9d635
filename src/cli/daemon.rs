//! `kafka-backup daemon`: every job in `jobs.d`, until asked to stop.

use std::time::Duration;

use actix::prelude::*;

use super::{Context, help};
use crate::config::Config;
use crate::control::requests::Daemon;
use crate::control::server::Socket;
use crate::error::Result;
use crate::http::{self, Ready};
use crate::signal::Stop;
use crate::supervisor::{EndAll, Process, Supervisor, Swap};

/// Run all jobs until told to stop (SIGTERM)
#[derive(Debug, clap::Args)]
#[command(after_long_help = help("  kafka-backup daemon\n  kafka-backup daemon --config ./kafka-backup.toml -v"))]
pub struct Args {}

/// Runs the daemon. Starting does not depend on Kafka or the store being there: a job that cannot start is tried again.
///
/// # Errors
/// [`Exit::Config`], or what stopped it.
pub fn run(_args: Args, context: &Context) -> Result<()> {
    let config = &context.load()?;
    let stop = Stop::listen()?;
    let io = super::runtime()?;
    let ended = System::new().block_on(serve(config, &stop, &io));
    io.shutdown_timeout(Duration::from_secs(2));
    ended
}

async fn serve(config: &Config, stop: &Stop, io: &tokio::runtime::Runtime) -> Result<()> {
    let process = Process::start(config, &config.jobs, io.handle().clone())?;
    let supervisor = Supervisor::new(process.clone(), config)?.start();
    let control = Socket::bind(&config.control_socket)?;
    let ready = Ready::default();
    if let Some(listen) = config.http_listen {
        http::serve(listen, &config.http, process.clone(), &ready)?;
    }
    control.serve(Daemon { process: process.clone(), supervisor: supervisor.clone() })?;
    supervisor.do_send(Swap { jobs: config.jobs.clone(), drain_timeout: config.drain_timeout });
    ready.set(true);
    let jobs = config.jobs.len();
    let status = match jobs {
        0 => format!("idle: no jobs in {}", config.jobs_dir.display()),
        1 => "running 1 job".to_owned(),
        n => format!("running {n} jobs"),
    };
    tracing::info!(jobs, version = env!("CARGO_PKG_VERSION"), "{status}");
    notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(&status)]);
    let _watchdog = Watchdog::start();

    stop.asked().await;

    ready.set(false);
    let status = format!("draining, at most {} s", config.drain_timeout.as_secs());
    notify(&[sd_notify::NotifyState::Stopping, sd_notify::NotifyState::Status(&status)]);
    tracing::info!("asked to stop: {status}");
    let drained = supervisor.send(EndAll { timeout: config.drain_timeout }).await.unwrap_or(false);
    process.stop();
    if drained {
        tracing::info!("stopped, everything that was read is durable");
    } else {
        tracing::warn!("stopped before everything that was read was durable; it is read again at the next start");
    }
    Ok(())
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(error = %error, "systemd was not told");
    }
}

/// Tells systemd that the main loop turns, where it asks for that.
struct Watchdog(Option<actix_rt::task::JoinHandle<()>>);

impl Watchdog {
    fn start() -> Self {
        let Some(interval) = sd_notify::watchdog_enabled() else { return Self(None) };
        Self(Some(actix_rt::spawn(async move {
            loop {
                notify(&[sd_notify::NotifyState::Watchdog]);
                tokio::time::sleep(interval / 3).await;
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
