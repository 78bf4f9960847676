//! `deployctl with-lock`: run a command while this box is out of service.

use anyhow::Result;

use crate::{
    agent::with_lock::{self, Errand},
    cli::WithLockArgs,
    config::Config,
    exit::Exit,
};

/// Runs the command.
pub fn run(config: &Config, args: &WithLockArgs) -> Result<Exit> {
    let errand = Errand {
        reason: args.reason.clone(),
        command: args.command.clone(),
        timeout: args.timeout,
        reboots: args.reboot,
    };
    with_lock::run(config, &args.role, &errand)
}
