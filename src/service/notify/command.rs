//! A program on the service's host.

use anyhow::{Context as _, Result};

use super::post::Refused;
use crate::service::variables;
use crate::{
    api::{Deploy, Turn},
    config::Config,
    names::Place,
    process::{self, Failure, Program},
};

/// Runs the program. `deploy`: with its boxes, where the turn is about one.
pub fn send(
    config: &Config,
    argv: &[String],
    turn: &Turn,
    deploy: Option<&Deploy>,
    interrupted: &dyn Fn() -> bool,
) -> Result<(), Refused> {
    match process::run(&program(config, argv, turn, deploy)?, interrupted) {
        Ok(_) => Ok(()),
        Err(Failure::Interrupted { .. }) => Err(Refused::Stopped),
        Err(failure) => Err(Refused::No { why: failure.to_string(), wait: None }),
    }
}

/// On its standard input the program gets the deploy's JSON; the turn's own where it is about none.
fn program(config: &Config, argv: &[String], turn: &Turn, deploy: Option<&Deploy>) -> Result<Program> {
    let told = [("DEPLOY_TURN", turn.turn.as_str()), ("DEPLOY_TEXT", turn.text.as_str())];
    let program = Program::new(config.command_timeout, argv);
    let program = program.envs(told.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let Some(deploy) = deploy else {
        let json = serde_json::to_string(turn).context("cannot write a turn")?;
        let place = [
            ("DEPLOY_ENVIRONMENT", Some(turn.environment.to_string())),
            ("DEPLOY_ROLE", turn.role.as_ref().map(ToString::to_string)),
            ("DEPLOY_TAG", turn.tag.as_ref().map(ToString::to_string)),
        ];
        let place = place.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        return Ok(program.envs(place).stdin(json + "\n"));
    };
    let json = serde_json::to_string(deploy).context("cannot write a deploy")?;
    let place = Place { environment: deploy.environment.clone(), role: deploy.role.clone() };
    let vars = variables(&place, &deploy.tag, &deploy.id, deploy.kind);
    Ok(program.envs(vars.pairs()).stdin(json + "\n"))
}
