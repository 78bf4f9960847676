//! Any other load balancer, by three programs of the user's own. It cannot count, so it has no floor.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Setting, TargetState};
use crate::{
    config::CommandLb,
    process::{self, Failure, Program},
};

/// A question, unlike an act, is never worth a long wait.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Commands {
    /// For people.
    pub(super) name: String,
    register: Program,
    deregister: Program,
    look: Program,
}

impl Commands {
    /// Refused: an empty argument list.
    pub(super) fn new(entry: &CommandLb, setting: &Setting<'_>) -> Result<Self> {
        let program = |verb, argv: &[String], timeout| {
            ensure!(!argv.is_empty(), "load_balancers: command.{verb} is empty: write a program and its arguments");
            Ok(Program::new(timeout, argv).envs(setting.variables.to_vec()))
        };
        let timeout = setting.command_timeout;
        Ok(Self {
            name: format!("load balancer command {}", process::command_line(&entry.in_service)),
            register: program("register", &entry.register, timeout)?,
            deregister: program("deregister", &entry.deregister, timeout)?,
            look: program("in_service", &entry.in_service, timeout.min(LOOK_TIMEOUT))?,
        })
    }

    pub(super) fn timeout(&self) -> Duration {
        self.deregister.timeout
    }

    /// Exit code 0: in service; 1: not. Anything else, a missing program included, is an error and no answer.
    pub(super) fn state(&self, interrupted: &dyn Fn() -> bool) -> Result<TargetState> {
        match process::run(&self.look, interrupted) {
            Ok(_) => Ok(TargetState::InService),
            Err(failure) if failure.code() == Some(1) => Ok(TargetState::Between(not_in_service(&failure))),
            Err(failure) => Err(failure).context("load_balancers: command.in_service: exit with 0 or 1"),
        }
    }

    pub(super) fn register(&self, deadline: Instant, interrupted: &dyn Fn() -> bool) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let program = Program { timeout: self.register.timeout.min(left), ..self.register.clone() };
        process::run(&program, interrupted).map(drop).context("load_balancers: command.register failed")
    }

    pub(super) fn deregister(&self, interrupted: &dyn Fn() -> bool) -> Result<()> {
        process::run(&self.deregister, interrupted).map(drop).context("load_balancers: command.deregister failed")
    }
}

fn not_in_service(failure: &Failure) -> String {
    match failure.last_words() {
        words if words.is_empty() => "it says no".to_owned(),
        words => format!("it says no: {words}"),
    }
}

#[cfg(test)]
mod tests;
