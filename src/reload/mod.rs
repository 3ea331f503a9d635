//! Reload: one path for SIGHUP, `kafka-backup reload`, `systemctl reload`, and files that are watched.
//!
//! ```text
//! load      every file, until it holds still; every error of every file at once
//! plan      what changes (pure: model::reload)
//! build     the clients of what is new or changed, to see that they can be
//! reach     clusters and stores that nothing used so far; who does not answer is a warning (strict_reload: an error)
//! swap      one message to the supervisor; what is unchanged keeps its very definition, and is not touched
//! ```
//!
//! Up to the swap nothing that runs has been touched, so a reload that is refused changes nothing. The supervisor hands
//! over in its own time: this ends with the swap, not with the last drain. It works on threads of its own; the
//! supervisor and the watchdog go on meanwhile.

mod load;
mod reach;
mod snapshot;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

pub use self::load::{Loaded, load};
use self::snapshot::Snapshot;
use crate::config::{Config, Job};
use crate::error::{Error, Exit, Result};
use crate::model::reload::{Picture, Plan, plan};
use crate::model::watch::{Watch, look_every};
use crate::notify;
use crate::pipeline::status::millis;
use crate::process::Process;
use crate::signal::Requests;
use crate::standing::{Drift, ReloadResult};
use crate::supervisor::{Supervisor, Swap};

/// How often the files are compared with what runs.
const DRIFT_EVERY: Duration = Duration::from_secs(60);
/// Signals that come while so much time has not passed since the last reload are answered together.
const SIGNALS_EVERY: Duration = Duration::from_secs(2);
/// Names the log lines of a rejected reload, as `journalctl MESSAGE_ID=` and alerts on logs look for it.
const REJECTED_ID: &str = "3f3c7a1d0e2b4c53a8f0c1d99d0b7e21";

/// What is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Say what would be done.
    pub dry_run: bool,
    /// Also when most jobs go.
    pub allow_removals: bool,
}

/// How a reload ended that was not rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How. `applied` for a dry run that would change something.
    pub result: ReloadResult,
    /// Nothing was done.
    pub dry_run: bool,
    /// What runs now.
    pub generation: u64,
    /// What changed, or would.
    pub plan: Plan,
    /// New clusters and stores that cannot be reached.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl Report {
    /// For people.
    pub fn text(&self) -> String {
        let last = match (self.dry_run, self.result) {
            (_, ReloadResult::Unchanged) => format!("no change, generation {}", self.generation),
            (true, _) => "nothing was done (--dry-run)".to_owned(),
            (false, _) => format!("applied generation {}", self.generation),
        };
        let plan = Some(self.plan.text()).filter(|plan| !plan.is_empty());
        let warnings = self.warnings.iter().map(|warning| format!("warning: {warning}"));
        plan.into_iter().chain(warnings).chain([last]).collect::<Vec<_>>().join("\n")
    }
}

/// One request, and who waits for what comes of it.
#[derive(Debug)]
pub struct Asked {
    options: Options,
    reply: oneshot::Sender<Result<Report>>,
}

/// Where reloads are asked for.
#[derive(Debug, Clone)]
pub struct Reloads(mpsc::UnboundedSender<Asked>);

impl Reloads {
    /// Somewhere to ask, and what is asked.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Asked>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Asks and waits.
    ///
    /// # Errors
    /// It was rejected, with all reasons; [`Exit::Unavailable`]: the daemon stops.
    pub async fn ask(&self, options: Options) -> Result<Report> {
        let stopping = || Error::new(Exit::Unavailable, "the daemon is stopping");
        let (reply, answer) = oneshot::channel();
        self.0.send(Asked { options, reply }).map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

/// Carries out reloads, one at a time.
pub struct Reloader {
    /// The main file, where one was named.
    main: Option<PathBuf>,
    process: Process,
    supervisor: Addr<Supervisor>,
    io: tokio::runtime::Handle,
    running: Loaded,
    picture: Picture,
    watch: Watch<Snapshot>,
    began: Instant,
}

impl Reloader {
    /// A reloader for what was loaded at the start from `main`.
    pub fn new(
        main: Option<PathBuf>,
        process: Process,
        supervisor: Addr<Supervisor>,
        io: tokio::runtime::Handle,
        running: Loaded,
    ) -> Self {
        let picture = running.config.picture();
        let (watch, began) = (Watch::default(), Instant::now());
        Self { main, process, supervisor, io, running, picture, watch, began }
    }

    /// Works for as long as the process lives.
    pub async fn run(mut self, mut asked: mpsc::UnboundedReceiver<Asked>, mut hangups: Requests) {
        // Every signal that has come up to a reload is answered by it; the first one at once, a storm of them together.
        let mut due = Instant::now();
        let mut looked = Instant::now();
        self.look_for_drift().await;
        loop {
            let signalled = async {
                hangups.came().await;
                sleep_until(due).await;
            };
            let (options, reply) = tokio::select! {
                request = asked.recv() => match request {
                    Some(Asked { options, reply }) => (options, Some(reply)),
                    None => return,
                },
                () = signalled => (Options::default(), None),
                () = sleep_until(looked + self.look_every()) => {
                    self.look().await;
                    looked = Instant::now();
                    continue;
                }
            };
            if !options.dry_run {
                hangups.forget();
                due = Instant::now() + SIGNALS_EVERY;
            }
            let outcome = self.reload(options, None).await;
            if let Some(reply) = reply {
                let _ = reply.send(outcome); // who asked may have given up waiting
            }
        }
    }

    /// What is `loaded` already is not loaded again.
    async fn reload(&mut self, options: Options, loaded: Option<Result<Loaded>>) -> Result<Report> {
        let _reloading = (!options.dry_run).then(|| notify::Reloading::begin(&self.process));
        let outcome = self.transact(options, loaded).await;
        if options.dry_run {
            return outcome;
        }
        let (result, text) = match &outcome {
            Ok(report) => (report.result, report.text()),
            Err(error) => (ReloadResult::Rejected, error.to_string()),
        };
        crate::metrics::reloaded(result.name());
        self.process.standing.reloaded(result, &text);
        match &outcome {
            Ok(report) => {
                for warning in &report.warnings {
                    tracing::warn!("reload: a new target cannot be reached: {warning}");
                }
                tracing::info!(result = result.name(), generation = report.generation, "reload:\n{text}");
            }
            Err(error) => self.log_rejection(error),
        }
        self.look_for_drift().await;
        outcome
    }

    fn log_rejection(&self, error: &Error) {
        let generation = self.process.standing.get().generation;
        let mut lines: Vec<String> = Vec::new();
        for line in error.to_string().lines() {
            match lines.last_mut() {
                // A hint belongs to the error above it.
                Some(last) if line.starts_with("  hint:") => last.push_str(&format!(" ({})", line.trim())),
                _ => lines.push(line.to_owned()),
            }
        }
        for line in lines {
            tracing::error!(MESSAGE_ID = REJECTED_ID, generation, "reload rejected: {line}");
        }
    }

    async fn load(&self) -> Result<Loaded> {
        let (main, known) = (self.main.clone(), self.running.files.paths());
        aside(&self.io, move || load(main.as_deref(), known)).await?
    }

    async fn transact(&mut self, options: Options, loaded: Option<Result<Loaded>>) -> Result<Report> {
        let loaded = match loaded {
            Some(loaded) => loaded?,
            None => self.load().await?,
        };
        let picture = loaded.config.picture();
        let plan = plan(&self.picture, &picture, options.allow_removals).map_err(|refusals| {
            let all: Vec<String> = refusals.iter().map(ToString::to_string).collect();
            Error::new(Exit::Config, all.join("\n"))
        })?;
        let (jobs, live) = self.definitions(&loaded.config, &plan);
        let new: Vec<Arc<Job>> = jobs
            .iter()
            .filter(|job| plan.added.contains(&job.id) || plan.changed.get(&job.id).is_some_and(|c| c.restart))
            .cloned()
            .collect();
        let targets = reach::new_targets(&self.running.config.jobs, &new);
        let io = self.io.clone();
        aside(&self.io, move || load::build(&new, &io)).await??;
        let warnings = reach::judge(loaded.config.strict_reload, reach::unreached(&targets, &self.io).await)?;
        let generation = self.process.standing.get().generation;
        let result = if plan.is_empty() { ReloadResult::Unchanged } else { ReloadResult::Applied };
        if options.dry_run {
            return Ok(Report { result, dry_run: true, generation, plan, warnings });
        }
        if !plan.is_empty() {
            let swap = Swap { jobs: jobs.clone(), live, drain_timeout: loaded.config.drain_timeout };
            let stopping = |_| Error::new(Exit::Unavailable, "the daemon is stopping");
            self.supervisor.send(swap).await.map_err(stopping)?;
            crate::logging::set_level(&loaded.config.log_level);
        }
        // Unchanged or not: the files that were read are the ones that run now.
        self.running = Loaded { config: Config { jobs, ..loaded.config }, files: loaded.files };
        self.picture = picture;
        let generation = self.process.standing.applied(result == ReloadResult::Applied, &self.running.config.jobs_dir);
        Ok(Report { result, dry_run: false, generation, plan, warnings })
    }

    /// The jobs from now on, unchanged ones with the very definition they have, and those whose changes need no restart.
    fn definitions(&self, config: &Config, plan: &Plan) -> (Vec<Arc<Job>>, Vec<Arc<Job>>) {
        let before = |job: &Arc<Job>| self.running.config.job(&job.id).filter(|_| plan.unchanged.contains(&job.id));
        let jobs: Vec<_> = config.jobs.iter().map(|job| before(job).unwrap_or(job).clone()).collect();
        let is_live = |job: &&Arc<Job>| plan.changed.get(&job.id).is_some_and(|change| !change.restart);
        let live = jobs.iter().filter(is_live).cloned().collect();
        (jobs, live)
    }

    fn look_every(&self) -> Duration {
        let config = &self.running.config;
        if config.watch { look_every(config.watch_settle) } else { DRIFT_EVERY }
    }

    /// Looks at the files, and reloads where that is wanted and they have settled.
    async fn look(&mut self) {
        let Some((files, differ)) = self.look_for_drift().await else { return };
        if !self.running.config.watch {
            self.watch = Watch::default();
            return;
        }
        let [now_ms, settle_ms] = [self.began.elapsed(), self.running.config.watch_settle].map(millis);
        if !self.watch.due(files.clone(), differ, now_ms, settle_ms) {
            return;
        }
        let loaded = self.load().await;
        // What was read is what has settled only if nothing has moved meanwhile; if it has, another look is taken later.
        if self.look_for_drift().await.is_some_and(|(now, _)| now == files) {
            self.watch.tried(files);
            tracing::info!("the files have changed and held still: reloading");
            let _ = self.reload(Options::default(), Some(loaded)).await; // it has said what came of it
        }
    }

    /// The files as they are now, and whether they differ from what runs, which is shown everywhere.
    async fn look_for_drift(&self) -> Option<(Snapshot, bool)> {
        let (main, known) = (self.main.clone(), self.running.files.clone());
        let (jobs_dir, watched) = (self.running.config.jobs_dir.clone(), self.running.config.watch);
        let look = move || {
            let now = load::look(main.as_deref(), &known, &jobs_dir);
            let (files, since) = known.edited(&now);
            (now, files, since)
        };
        let (now, files, since) = aside(&self.io, look).await.ok()?;
        let drift = Drift { files, since_ms: since.unwrap_or_else(crate::clock::now_ms) };
        let drift = Some(drift).filter(|drift| !drift.files.is_empty());
        let differ = drift.is_some();
        self.process.standing.drifted(drift, watched);
        Some((now, differ))
    }
}

/// Does something that blocks where that disturbs nobody. A panic in it is an error like any other.
async fn aside<T: Send + 'static>(io: &tokio::runtime::Handle, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let died = |e: tokio::task::JoinError| {
        Error::new(Exit::Failed, "the reload died; nothing was changed").because(e).hint("this is a bug: report it")
    };
    io.spawn_blocking(work).await.map_err(died)
}
