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

use crate::process::{self, Program};

/// Whether the worker was told to stop, and since when.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    told: Arc<AtomicBool>,
    since: Arc<OnceLock<Instant>>,
    machine: Arc<OnceLock<bool>>,
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

    /// Whether it was told because the whole machine goes down. systemd is asked once, when the signal has come.
    #[must_use]
    pub fn machine_goes_down(&self) -> bool {
        self.requested() && *self.machine.get_or_init(systemd_is_stopping)
    }

    /// Whether it was told, and `grace` is over.
    #[must_use]
    pub fn is_due(&self, grace: Duration) -> bool {
        self.requested() && self.since.get().is_some_and(|since| since.elapsed() >= grace)
    }
}

/// Whether systemd says `stopping`: see systemctl(1), is-system-running. Without systemd nobody says so.
fn systemd_is_stopping() -> bool {
    let ask = Program::new(Duration::from_secs(5), ["systemctl", "is-system-running"]);
    let said = match process::run(&ask, &process::never) {
        Ok(output) => output.stdout,
        // Its exit code is 0 for `running` alone.
        Err(failure) => failure.stdout().to_owned(),
    };
    said.trim() == "stopping"
}
