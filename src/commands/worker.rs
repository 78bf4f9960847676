//! `deployctl worker`: what an event wakes, under systemd or detached from the Serf agent.

use anyhow::Result;

use super::configuration;
use crate::{
    cli::{Cli, Worker},
    exit::Exit,
    wake, worker,
};

/// Runs the command.
pub fn run(cli: &Cli, args: &Worker) -> Result<Exit> {
    if args.new_session {
        wake::new_session()?;
    }
    worker::woken(&configuration(cli)?, &args.role)
}
