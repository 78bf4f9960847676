//! `deployctl run`: deploy on this box now, under the same locks as every deploy.

use anyhow::Result;

use crate::{agent::worker, cli::RunArgs, config::Config, exit::Exit};

/// Runs the command.
pub fn run(config: &Config, args: &RunArgs) -> Result<Exit> {
    worker::run(config, &args.role, args.environment.as_ref(), args.tag.clone())
}
