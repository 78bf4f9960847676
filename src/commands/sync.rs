//! `deployctl sync`: bring every role of this box to what it should run, at boot and by timer.

use anyhow::Result;

use crate::{agent::worker, config::Config, exit::Exit};

/// Runs the command.
pub fn run(config: &Config) -> Result<Exit> {
    worker::sync(config)
}
