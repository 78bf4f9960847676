//! Tells people of the end of a deploy, by the program that they configured.

use anyhow::{Context, Result};

use super::variables;
use crate::{
    api::Deploy,
    config::Config,
    names::Place,
    process::{self, Failure, Program},
};

/// Runs the `notify` program with the deploy's JSON on its standard input. One that fails is not asked again: what it did
/// before it failed, nobody knows.
pub fn tell(config: &Config, deploy: &Deploy, interrupted: &dyn Fn() -> bool) -> Result<()> {
    if config.service.notify.is_empty() {
        return Ok(());
    }
    match process::run(&program(config, deploy)?, interrupted) {
        Err(stopped @ Failure::Interrupted { .. }) => Err(stopped).context("nobody was told of the end yet"),
        Err(failure) => {
            log::error!("nobody may know that {} ended {}: {failure}; see service.notify", deploy.id, deploy.state);
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

fn program(config: &Config, deploy: &Deploy) -> Result<Program> {
    let json = serde_json::to_string(deploy).context("cannot write a deploy")?;
    let program = Program::new(config.command_timeout, config.service.notify.clone());
    let place = Place { environment: deploy.environment.clone(), role: deploy.role.clone() };
    let vars = variables(&place, &deploy.tag, &deploy.id, deploy.kind);
    Ok(program.envs(vars.pairs()).stdin(json + "\n"))
}
