//! Being told to stop: SIGTERM from systemd, SIGINT from a person.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Whether the worker was told to stop, and since when.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    told: Arc<AtomicBool>,
    since: Arc<OnceLock<Instant>>,
}

impl Shutdown {
    /// Listens from now on.
    pub fn listen() -> Result<Self> {
        let shutdown = Self::default();
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&shutdown.told)).context("cannot listen for signals")?;
        }
        Ok(shutdown)
    }

    /// Whether it was told.
    #[must_use]
    pub fn requested(&self) -> bool {
        let told = self.told.load(Ordering::Relaxed);
        if told {
            self.since.get_or_init(Instant::now);
        }
        told
    }

    /// Whether it was told, and `grace` is over.
    #[must_use]
    pub fn is_due(&self, grace: Duration) -> bool {
        self.requested() && self.since.get().is_some_and(|since| since.elapsed() >= grace)
    }
}
