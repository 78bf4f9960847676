//! `deployctl pause` and `resume`: let the deploy that rolls stand, and go on.

use anyhow::{Result, anyhow};

use crate::{
    api::{Deploy, State},
    cli::{PauseArgs, ResumeArgs},
    client::Client,
    config::Config,
    exit::Exit,
    names::Place,
    screen,
};

/// Lets nobody begin.
pub fn pause(config: &Config, args: &PauseArgs) -> Result<Exit> {
    let place = super::place(config, &args.place)?;
    let service = super::service(config)?;
    let deploy = service.pause(&rolling(&service, &place)?.id, &args.reason)?;
    let working = deploy.boxes.iter().filter(|row| row.phase.is_working()).count();
    let mut lines = vec![format!("paused: the deploy of {} for {place}; no box takes a lock", deploy.tag)];
    if working > 0 {
        lines.push(format!("  {working} out of service now: they finish and return"));
    }
    lines.push(format!("`deployctl resume -r {} -e {}` lets it go on", place.role, place.environment));
    screen::print(lines)?;
    Ok(Exit::Done)
}

/// Lets it go on.
pub fn resume(config: &Config, args: &ResumeArgs) -> Result<Exit> {
    let place = super::place(config, &args.place)?;
    let service = super::service(config)?;
    let deploy = service.resume(&rolling(&service, &place)?.id, args.reason.as_deref())?;
    screen::print([format!("goes on: {}", screen::headline(&deploy))])?;
    Ok(Exit::Done)
}

fn rolling(service: &Client, place: &Place) -> Result<Deploy> {
    let newest = service.deploys(Some(&place.role), Some(&place.environment), 20)?;
    if let Some(rolling) = newest.into_iter().find(|deploy| deploy.state == State::Rolling) {
        return Ok(rolling);
    }
    // It says so, where no such place is known.
    service.status(Some(&place.role), Some(&place.environment))?;
    Err(anyhow!("nothing rolls for {place}: see deployctl status"))
}
