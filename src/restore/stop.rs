//! The wish to stop: Ctrl-C or SIGTERM.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::error::{Error, Exit, Result};

/// How often somebody who waits for something else looks whether to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Whether to stop, and because of which signal. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// Stops on SIGINT and SIGTERM. The second signal of a kind ends the process at once, as if it were not caught.
    pub fn on_signals() -> Result<Self> {
        let stop = Self::default();
        for signal in [SIGINT, SIGTERM] {
            let caught = Arc::new(std::sync::atomic::AtomicBool::new(false));
            // In this order: the first signal finds `caught` unset and sets it, the second finds it set.
            signal_hook::flag::register_conditional_default(signal, caught.clone())
                .and_then(|_| signal_hook::flag::register(signal, caught))
                .and_then(|_| signal_hook::flag::register_usize(signal, stop.0.clone(), signal as usize))
                .map_err(|error| Error::new(Exit::Failed, "cannot catch signals").because(error))?;
        }
        Ok(stop)
    }

    /// Asks to stop as the signal of this exit code would.
    pub fn now(&self, exit: Exit) {
        self.0.store(if exit == Exit::Terminated { SIGTERM } else { SIGINT } as usize, Ordering::Relaxed);
    }

    /// The exit code of the signal, when there was one.
    pub fn asked(&self) -> Option<Exit> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal if signal == SIGTERM as usize => Some(Exit::Terminated),
            _ => Some(Exit::Interrupted),
        }
    }

    /// Returns once a stop is asked for.
    pub async fn wait(&self) {
        while self.asked().is_none() {
            tokio::time::sleep(LOOK).await;
        }
    }
}
