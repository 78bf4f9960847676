//! `deployctl worker`: what an event wakes, under systemd or detached from the Serf agent.

use anyhow::Result;
use log::error;

use super::configuration;
use crate::{
    agent::{wake, worker},
    cli::{Cli, WorkerArgs},
    exit::Exit,
};

/// Runs the command.
pub fn run(cli: &Cli, args: &WorkerArgs) -> Result<Exit> {
    if args.new_session {
        wake::new_session()?;
    }
    // Its stderr is a log: what ends it stands there as everything else does.
    Ok(configuration(cli).and_then(|config| worker::woken(&config, &args.role)).unwrap_or_else(|error| {
        error!("{error:#}");
        Exit::of(&error)
    }))
}
