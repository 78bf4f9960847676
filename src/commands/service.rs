//! `deployctl service`: runs the deployment service in the foreground, for systemd or a person.

use anyhow::{Context as _, Result};

use crate::{config::Config, exit::Exit, service};

/// Runs until SIGTERM or SIGINT.
pub fn run(config: Config) -> Result<Exit> {
    check(&config)?;
    for (name, usable) in service::check_targets(&config) {
        usable
            .with_context(|| format!("service.notify: the target {name} cannot be used"))
            .map_err(|error| Exit::Usage.because(error))?;
    }
    service::run(config).map(|()| Exit::Done)
}

/// Whether the service could run with this configuration.
pub fn check(config: &Config) -> Result<Exit> {
    service::check(config).map_err(|error| Exit::Usage.because(error))?;
    Ok(Exit::Done)
}
