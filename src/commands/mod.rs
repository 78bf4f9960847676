//! One file for each subcommand: they read the configuration, call what does the work, and print for a person.

mod cancel;
mod ci;
mod complete;
mod doctor;
mod freeze;
mod handle;
mod init;
mod locks;
mod out;
mod pause;
mod publish;
mod releases;
mod run;
mod service;
mod start;
mod status;
mod sync;
mod token;
mod unlock;
mod watch;
mod why;
mod with_lock;
mod worker;

use std::env;

use anyhow::{Context as _, Result};
use log::LevelFilter;

use crate::{
    cli::{Cli, Command, PlaceArgs, TokenCommand},
    client::{self, Client},
    config::Config,
    exit::Exit,
    names::{Environment, Place},
};

/// How much a command logs: what runs by itself says what it does, what a person runs only what is wrong.
#[must_use]
pub fn log_level(cli: &Cli) -> LevelFilter {
    let by_itself = matches!(
        cli.command,
        Command::Handle(_)
            | Command::Run(_)
            | Command::Sync
            | Command::Out(_)
            | Command::In(_)
            | Command::WithLock(_)
            | Command::Service
            | Command::Worker(_)
    );
    match (by_itself, cli.verbose) {
        (false, 0) => LevelFilter::Warn,
        (true, 0) | (false, 1) => LevelFilter::Info,
        (true, 1) | (false, 2) => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    }
}

/// Does what the command line says.
pub fn run(cli: &Cli) -> Result<Exit> {
    match &cli.command {
        Command::Handle(args) => handle::run(cli, args),
        Command::Publish(args) => publish::run(&configuration(cli)?, args),
        Command::Releases(args) => releases::run(&configuration(cli)?, args),
        Command::Start(args) => start::start(&configuration(cli)?, args, cli.verbose > 0),
        Command::Rollback(args) => start::rollback(&configuration(cli)?, args, cli.verbose > 0),
        Command::Promote(args) => start::promote(&configuration(cli)?, args, cli.verbose > 0),
        Command::Cancel(args) => cancel::run(&configuration(cli)?, args),
        Command::Pause(args) => pause::pause(&configuration(cli)?, args),
        Command::Resume(args) => pause::resume(&configuration(cli)?, args),
        Command::Complete(args) => complete::run(&configuration(cli)?, args),
        Command::Status(args) => status::run(&configuration(cli)?, args),
        Command::Why(args) => why::run(&configuration(cli)?, args),
        Command::Locks(args) => locks::run(&configuration(cli)?, args),
        Command::Doctor => doctor::run(cli),
        Command::Init(what) => init::run(cli, what),
        Command::Token(TokenCommand::New(args)) => token::new(args),
        Command::Freeze(args) => freeze::freeze(&configuration(cli)?, args),
        Command::Unfreeze(args) => freeze::unfreeze(&configuration(cli)?, args),
        Command::Unlock(args) => unlock::run(&configuration(cli)?, args),
        Command::Run(args) => run::run(&configuration(cli)?, args),
        Command::Sync => sync::run(&configuration(cli)?),
        Command::Out(args) => out::take_out(&configuration(cli)?, args),
        Command::In(args) => out::bring_in(&configuration(cli)?, args),
        Command::WithLock(args) => with_lock::run(&configuration(cli)?, args),
        Command::Worker(args) => worker::run(cli, args),
        Command::Service => service::run(configuration(cli)?),
        Command::CheckConfig => service::check(&configuration(cli)?),
    }
}

/// Looks an environment variable up; an empty one counts as absent.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn configuration(cli: &Cli) -> Result<Config> {
    Config::load(cli.config.as_deref(), &variable).map_err(|error| Exit::Usage.because(error))
}

/// The client of the service that the configuration names.
fn service(config: &Config) -> Result<Client> {
    let by = client::claimed_by(&variable)?;
    Client::new(config, &by).map_err(|error| Exit::Usage.because(error))
}

/// The place that the arguments name, the environment by default the configuration's.
fn place(config: &Config, args: &PlaceArgs) -> Result<Place> {
    let environment = environment(config, args.environment.as_ref())?;
    Ok(Place { environment, role: args.role.clone() })
}

fn environment(config: &Config, named: Option<&Environment>) -> Result<Environment> {
    named
        .or(config.environment.as_ref())
        .cloned()
        .context("name the environment with -e ENVIRONMENT, or set DEPLOYCTL_ENVIRONMENT")
        .map_err(|error| Exit::Usage.because(error))
}
