//! `deployctl out` and `in`: take this box out of service by hand, and bring it back.

use anyhow::Result;

use crate::{
    agent,
    cli::{InArgs, OutArgs},
    config::Config,
    exit::Exit,
};

/// Takes the box out.
pub fn take_out(config: &Config, args: &OutArgs) -> Result<Exit> {
    agent::manual::take_out(config, &args.role, &args.reason)
}

/// Brings it back.
pub fn bring_in(config: &Config, args: &InArgs) -> Result<Exit> {
    agent::manual::bring_in(config, &args.role, args.reason.as_deref().unwrap_or("brought back by hand"))
}
