//! SIGTERM and SIGINT: the first one asks for a clean stop, the second one ends the process at once. SIGHUP asks for a
//! reload, SIGUSR1 for a line that says how everything is.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

use crate::error::{Error, Exit, Result};

/// Asked to stop?
#[derive(Debug, Clone)]
pub struct Stop {
    asked: watch::Receiver<bool>,
    signal: Arc<AtomicI32>,
}

impl Stop {
    /// Listens from now on, on a thread of its own.
    pub fn listen() -> Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])
            .map_err(|e| Error::new(Exit::Failed, "cannot listen for signals").because(e))?;
        let (sender, asked) = watch::channel(false);
        let signal = Arc::new(AtomicI32::new(0));
        let which = signal.clone();
        let listen = move || {
            for number in signals.forever() {
                if which.swap(number, Ordering::AcqRel) != 0 {
                    tracing::warn!("asked to stop again: ending at once");
                    std::process::exit(Self::exit_of(number) as i32);
                }
                sender.send_replace(true);
            }
        };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(listen)
            .map_err(|e| Error::new(Exit::Failed, "cannot start a thread").because(e))?;
        Ok(Self { asked, signal })
    }

    /// Returns when asked to stop.
    pub async fn asked(&self) {
        let mut asked = self.asked.clone();
        if asked.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The exit code that stands for the signal that came; `Ok` when none did.
    pub fn exit(&self) -> Exit {
        Self::exit_of(self.signal.load(Ordering::Acquire))
    }

    fn exit_of(signal: i32) -> Exit {
        match signal {
            SIGINT => Exit::Interrupted,
            SIGTERM => Exit::Terminated,
            _ => Exit::Ok,
        }
    }
}

/// A signal that asks for something, and may come again.
#[derive(Debug, Clone)]
pub struct Requests(watch::Receiver<u64>);

impl Requests {
    /// SIGHUP, for a daemon: its configuration is to be loaded again.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn for_reload() -> Result<Self> {
        Self::listen(SIGHUP, "hangups")
    }

    /// SIGUSR1: somebody wants to know how everything is. Who does not listen is ended by it.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn for_status() -> Result<Self> {
        Self::listen(SIGUSR1, "questions")
    }

    /// Listens from now on, on a thread of its own: what comes before somebody asks is kept.
    fn listen(signal: i32, thread: &str) -> Result<Self> {
        let mut signals =
            Signals::new([signal]).map_err(|e| Error::new(Exit::Failed, "cannot listen for signals").because(e))?;
        let (sender, count) = watch::channel(0);
        let listen = move || signals.forever().for_each(|_| sender.send_modify(|count| *count += 1));
        std::thread::Builder::new()
            .name(thread.to_owned())
            .spawn(listen)
            .map_err(|e| Error::new(Exit::Failed, "cannot start a thread").because(e))?;
        Ok(Self(count))
    }

    /// Returns when at least one has come that was not [forgotten](Self::forget).
    pub async fn came(&mut self) {
        let seen = *self.0.borrow();
        if self.0.has_changed().unwrap_or(false) {
            return;
        }
        if self.0.wait_for(|count| *count != seen).await.is_err() {
            std::future::pending::<()>().await;
        }
        self.0.mark_changed();
    }

    /// All that have come so far are answered.
    pub fn forget(&mut self) {
        self.0.mark_unchanged();
    }
}
