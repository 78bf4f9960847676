//! `deployctl unlock`: free a box's lock and out-mark by force.

use anyhow::Result;

use crate::{cli::UnlockArgs, config::Config, exit::Exit, screen};

/// Runs the command.
pub fn run(config: &Config, args: &UnlockArgs) -> Result<Exit> {
    let place = super::place(config, &args.place)?;
    super::service(config)?.unlock(&place, &args.name, &args.reason, args.force)?;
    let name = &args.name;
    screen::print([
        format!("{name} holds no lock for {place} and does not count as out any more"),
        format!("if it is out of its load balancer, `deployctl run -r {}` on {name} brings it back", place.role),
    ])?;
    Ok(Exit::Done)
}
