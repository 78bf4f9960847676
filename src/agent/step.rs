//! What every step has: a phase with a deadline that others hear of, words on what it waits for, and a reason to stop.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use log::info;

use super::{BoxRole, heartbeat::Heartbeat, step_error::StepError};
use crate::{api::Phase, compose::Rendered, config::Health, coordination::Held};

/// The lock is renewed for this long after the time that a step may take.
pub(super) const SLACK: Duration = Duration::from_secs(30);

impl BoxRole<'_> {
    pub(crate) fn heartbeat(&self) -> Option<&Heartbeat> {
        self.heartbeat.as_ref()
    }

    /// The lock that this worker holds.
    pub(crate) fn held(&self) -> Option<Held> {
        self.heartbeat.as_ref().and_then(|heartbeat| heartbeat.handle().held())
    }

    pub(crate) fn rest(&self) {
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.rest();
        }
    }

    /// A step begins that may take `within`.
    pub(crate) fn enter(&self, phase: Phase, within: Duration) {
        info!("{}: {phase}", self.place);
        self.step.set(Some((phase, Instant::now())));
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.enter(phase, within + SLACK);
        }
    }

    /// The containers that a step has started may take longer than it knew when it began.
    pub(crate) fn allow(&self, phase: Phase, health: &Health) {
        if let Some(heartbeat) = self.heartbeat.as_ref().filter(|_| health.timeout > self.role.health.timeout) {
            heartbeat.enter(phase, health.timeout + health.stable_for + SLACK);
        }
    }

    /// What a step waits for goes to the log and to everybody who watches the deploy.
    pub(crate) fn progress(&self) -> impl Fn(&str) + Sync + use<> {
        let (place, handle) = (self.place.clone(), self.heartbeat.as_ref().map(Heartbeat::handle));
        move |text: &str| {
            info!("{place}: {text}");
            if let Some(handle) = &handle {
                handle.say(text);
            }
        }
    }

    pub(crate) fn rendered(&self) -> Result<&Rendered> {
        self.rendered.as_ref().context("the compose file is used before it is rendered")
    }

    /// Fails when the worker should stop. The error names the cause (a cancel, a signal), and not how the interrupted step
    /// failed.
    pub(crate) fn check_stop(&self) -> Result<(), StepError> {
        let Some(handle) = self.heartbeat.as_ref().map(Heartbeat::handle) else { return Ok(()) };
        let out = handle.is_out();
        if out && self.shutdown.machine_goes_down() {
            return Err(StepError::PowerOff);
        }
        if self.shutdown.requested() && (!out || self.shutdown.is_due(self.config.stop_grace)) {
            return Err(StepError::Shutdown);
        }
        match handle.cancel() {
            Some(cancel) if cancel.superseded => Err(StepError::Superseded),
            Some(cancel) if cancel.broken || !out => Err(StepError::Cancelled(cancel)),
            _ if handle.ended() && !out => Err(StepError::Ended),
            _ => Ok(()),
        }
    }
}
