//! The wish to stop, Ctrl-C or SIGTERM, and the wish to see how far it is, SIGUSR1.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};

use crate::error::{Error, Exit, Result};

/// How often somebody who waits for something else looks whether to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Whether to stop, and because of which signal. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    signal: Arc<AtomicUsize>,
    /// Progress is to be shown now.
    show: Arc<AtomicBool>,
}

impl Stop {
    /// Stops on SIGINT and SIGTERM. The second signal of a kind ends the process at once, as if it were not caught.
    /// SIGUSR1 asks for a line of progress.
    pub fn on_signals() -> Result<Self> {
        let stop = Self::default();
        let failed = |error| Error::new(Exit::Failed, "cannot catch signals").because(error);
        signal_hook::flag::register(SIGUSR1, stop.show.clone()).map_err(failed)?;
        for signal in [SIGINT, SIGTERM] {
            let caught = Arc::new(AtomicBool::new(false));
            // In this order: the first signal finds `caught` unset and sets it, the second finds it set.
            signal_hook::flag::register_conditional_default(signal, caught.clone())
                .and_then(|_| signal_hook::flag::register(signal, caught))
                .and_then(|_| signal_hook::flag::register_usize(signal, stop.signal.clone(), signal as usize))
                .map_err(failed)?;
        }
        Ok(stop)
    }

    /// Asks to stop as the signal of this exit code would.
    pub fn now(&self, exit: Exit) {
        self.signal.store(if exit == Exit::Terminated { SIGTERM } else { SIGINT } as usize, Ordering::Relaxed);
    }

    /// The exit code of the signal, when there was one.
    pub fn asked(&self) -> Option<Exit> {
        match self.signal.load(Ordering::Relaxed) {
            0 => None,
            signal if signal == SIGTERM as usize => Some(Exit::Terminated),
            _ => Some(Exit::Interrupted),
        }
    }

    /// Returns when progress is to be shown: after `every`, where that is not zero, or when somebody asks for it.
    pub async fn progress_due(&self, every: Duration) {
        let until = tokio::time::Instant::now() + every;
        while !self.show.swap(false, Ordering::Relaxed) {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            match left.is_zero() {
                true if !every.is_zero() => return,
                true => tokio::time::sleep(LOOK).await,
                false => tokio::time::sleep(left.min(LOOK)).await,
            }
        }
    }

    /// Returns once a stop is asked for.
    pub async fn wait(&self) {
        while self.asked().is_none() {
            tokio::time::sleep(LOOK).await;
        }
    }
}
