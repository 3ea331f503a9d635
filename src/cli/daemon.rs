//! `kafka-backup daemon`: every job in `jobs.d`, until asked to stop.

use std::collections::BTreeSet;
use std::time::Duration;

use actix::prelude::*;

use super::{Context, help};
use crate::control::requests::Daemon;
use crate::control::server::Socket;
use crate::error::{Error, Exit, Result};
use crate::http::{self, Ready};
use crate::inspect::verify::watch;
use crate::process::Process;
use crate::reload::{self, Loaded, Reloader, Reloads};
use crate::signal::{Requests, Stop};
use crate::supervisor::{EndAll, Supervisor, Swap};
use crate::watchdog::Watchdog;
use crate::{metrics, notify};

/// Run all jobs until told to stop (SIGTERM)
#[derive(Debug, clap::Args)]
#[command(after_long_help = help("  kafka-backup daemon\n  kafka-backup daemon --config ./kafka-backup.toml -v"))]
pub struct Args {}

/// Runs the daemon. Starting does not depend on Kafka or the store being there: a job that cannot start is tried again.
///
/// # Errors
/// [`Exit::Config`], or what stopped it.
pub fn run(_args: Args, context: &Context) -> Result<()> {
    // Before anything else: a signal that comes meanwhile must not end the process, and is remembered.
    let (hangups, questions) = (Requests::for_reload()?, Requests::for_status()?);
    let loaded = reload::load(context.config.as_deref(), BTreeSet::new())?;
    context.begin(&loaded.config);
    let stop = Stop::listen()?;
    let io = super::runtime()?;
    let ended = System::new().block_on(serve(loaded, context, hangups, questions, &stop, &io));
    io.shutdown_timeout(Duration::from_secs(2));
    ended
}

async fn serve(
    loaded: Loaded,
    context: &Context,
    hangups: Requests,
    questions: Requests,
    stop: &Stop,
    io: &tokio::runtime::Runtime,
) -> Result<()> {
    let config = &loaded.config;
    metrics::initialise();
    let process = Process::start(config, &config.jobs, io.handle().clone())?;
    let control = Socket::bind(&config.control_socket)?;
    let ready = Ready::default();
    if let Some(listen) = config.http_listen {
        http::serve(listen, &config.http, process.clone(), &ready)?;
    }
    // Begun when nothing can keep the daemon from starting any more: an actor that has not had its turn yet when its
    // system ends, begins at its end, and panics.
    let supervisor = Supervisor::new(process.clone(), config)?.start();
    let (reloads, asked) = Reloads::new();
    control.serve(Daemon { process: process.clone(), supervisor: supervisor.clone(), reloads })?;
    let (jobs, drain_timeout) = (config.jobs.clone(), config.drain_timeout);
    let begun = supervisor.send(Swap { jobs, live: Vec::new(), drain_timeout }).await;
    begun.map_err(|e| Error::new(Exit::Failed, "the supervisor died").because(e))?;
    let there = process.clone();
    let jobs_now = move || there.all_statuses().iter().map(|status| status.job.clone()).collect();
    watch::start(io.handle(), jobs_now);
    crate::retention::keeper::start(&process);
    if let Some(heartbeat) = config.heartbeat.clone() {
        crate::heartbeat::start(&process, heartbeat);
    }
    ready.set(true);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "{}", notify::line(&process));
    notify::ready(&process);
    io.spawn(notify::answer(process.clone(), questions));
    let _watchdog = Watchdog::start(process.clone(), supervisor.clone());
    let main = context.config.clone();
    let reloader = Reloader::new(main, process.clone(), supervisor.clone(), io.handle().clone(), loaded);
    let reloader = io.spawn(reloader.run(asked, hangups));

    let died = tokio::select! {
        () = stop.asked() => false,
        () = committer_died(&process) => true,
    };
    reloader.abort();
    ready.set(false);
    drain(&process, &supervisor, drain_timeout).await;
    process.stop();
    drop(control);
    if died {
        let hint = "nothing is lost: the bucket says where to go on. The service manager starts it again";
        return Err(Error::new(Exit::Failed, "the committer died").hint(hint));
    }
    Ok(())
}

/// Returns when the actor that writes down what is durable is gone. Every lane talks to it, so there is no going on
/// without it, and a process that has lost it must not look well.
async fn committer_died(process: &Process) {
    while process.committer().connected() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tracing::error!("the committer died; the daemon ends, to be started again");
}

/// How often the service manager hears that the end takes longer, and how much longer it may take each time.
const EXTEND_EVERY: Duration = Duration::from_secs(5);
const EXTEND_BY: Duration = Duration::from_secs(30);

async fn drain(process: &Process, supervisor: &Addr<Supervisor>, timeout: Duration) {
    let status = format!("draining, at most {} s", timeout.as_secs());
    notify::stopping(&status);
    tracing::info!("asked to stop: {status}");
    let end = supervisor.send(EndAll { timeout });
    tokio::pin!(end);
    let mut progress = process.progress();
    let drained = loop {
        tokio::select! {
            drained = &mut end => break drained.unwrap_or(false),
            () = tokio::time::sleep(EXTEND_EVERY) => {
                // Only while something moves: what is stuck is for the service manager to end.
                let now = process.progress();
                if now != std::mem::replace(&mut progress, now) {
                    notify::extend(EXTEND_BY, &status);
                }
            }
        }
    };
    if drained {
        tracing::info!("stopped, everything that was read is durable");
    } else {
        tracing::warn!("stopped before everything that was read was durable; it is read again at the next start");
    }
}
