//! `deployctl start`, `rollback` and `promote`: what begins a deploy.

use anyhow::Result;
use jiff::Timestamp;

use super::watch;
use crate::{
    api::{Deploy, NewDeploy, Promoted, State},
    cli::{PromoteArgs, RollbackArgs, StartArgs},
    client::{Client, Error},
    config::Config,
    exit::Exit,
    names::Place,
    screen::{self, Style},
};

/// Starts a deploy.
pub fn start(config: &Config, args: &StartArgs, verbose: bool) -> Result<Exit> {
    let place = super::place(config, &args.place)?;
    let service = super::service(config)?;
    let deploy = service.start(&NewDeploy {
        role: place.role.clone(),
        environment: place.environment.clone(),
        tag: args.tag.clone(),
        supersede: args.supersede,
        queue: args.queue,
        recreate: args.recreate,
        force: args.force,
        all_at_once: args.all_at_once,
        dry_run: args.dry_run,
        reason: args.reason.clone(),
    });
    if args.dry_run {
        let deploy = deploy?;
        screen::print([format!("would start {place}: {}", screen::headline(&deploy))])?;
        screen::print(screen::zones(&deploy))?;
        screen::print(deploy.compare.iter().map(|compare| format!("what changes: {compare}")))?;
        return Ok(Exit::Done);
    }
    follow(&service, &place, deploy, args.wait.then_some(verbose))
}

/// Deploys the last complete other tag.
pub fn rollback(config: &Config, args: &RollbackArgs, verbose: bool) -> Result<Exit> {
    let place = super::place(config, &args.place)?;
    let service = super::service(config)?;
    let deploy = service.rollback(&place, args.tag.as_ref(), args.reason.as_deref());
    follow(&service, &place, deploy, args.wait.then_some(verbose))
}

/// Starts in the next environment what one runs.
pub fn promote(config: &Config, args: &PromoteArgs, verbose: bool) -> Result<Exit> {
    let service = super::service(config)?;
    let source = Place { environment: args.from.clone(), role: args.role.clone() };
    match service.promote(&source, args.force, args.reason.as_deref()) {
        Ok(Promoted::Deploy(deploy)) => {
            let place = Place { environment: deploy.environment.clone(), role: deploy.role.clone() };
            follow(&service, &place, Ok(*deploy), args.wait.then_some(verbose))
        }
        Ok(Promoted::Waits(promotion)) => {
            screen::print([screen::promotion(Style::for_stdout(), &promotion, Timestamp::now())])?;
            // Who wants to see the end has not seen it.
            Ok(if args.wait { Exit::Blocked } else { Exit::Done })
        }
        Err(error) => follow(&service, &source, Err(error), args.wait.then_some(verbose)),
    }
}

/// Says what began, and watches it where that was asked for: `watch` says whether each change has a line.
fn follow(service: &Client, place: &Place, deploy: Result<Deploy, Error>, watch: Option<bool>) -> Result<Exit> {
    let deploy = match deploy {
        Ok(deploy) => deploy,
        // With --wait, a broken release has its own exit code.
        Err(error) if watch.is_some() && error.kind() == Some("broken") => return Err(Exit::Broken.because(error)),
        Err(error) => return Err(error.into()),
    };
    screen::print([screen::headline(&deploy)])?;
    screen::print(screen::zones(&deploy))?;
    screen::print(deploy.compare.iter().map(|compare| format!("what changes: {compare}")))?;
    if deploy.state == State::Queued {
        screen::print([format!("queued: it starts when what rolls for {place} has ended")])?;
    }
    if let Some(verbose) = watch {
        return watch::to_its_end(service, deploy, verbose);
    }
    let (role, environment) = (&place.role, &place.environment);
    screen::print([format!("`deployctl status -r {role} -e {environment} --watch` shows it")])?;
    Ok(Exit::Done)
}
