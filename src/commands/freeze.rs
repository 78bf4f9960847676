//! `deployctl freeze` and `unfreeze`: nothing new starts in an environment.

use anyhow::Result;
use jiff::Timestamp;

use crate::{
    api::NewFreeze,
    cli::{FreezeArgs, UnfreezeArgs},
    config::Config,
    exit::Exit,
    names::{Environment, Role},
    screen,
};

/// Freezes, and says what goes on regardless.
pub fn freeze(config: &Config, args: &FreezeArgs) -> Result<Exit> {
    let service = super::service(config)?;
    let (environment, role) = (&args.environment, args.role.as_ref());
    let until = args.until.map(|until| until.from(Timestamp::now())).transpose()?;
    service.freeze(&NewFreeze {
        environment: environment.clone(),
        role: role.cloned(),
        reason: Some(args.reason.clone()),
        until,
    })?;
    let what = what(environment, role);
    let mut lines = vec![
        format!("{what} is frozen{}: nothing new starts there, and what is promoted to it waits", ends(until)),
        "these go on regardless: what is rolling, boxes that are new or catch up, rollback, start --force".to_owned(),
    ];
    let deploys = service.deploys(role, Some(environment), 100)?;
    lines.extend(deploys.iter().filter(|deploy| !deploy.state.is_ended()).map(|deploy| {
        let (role, tag, state) = (&deploy.role, &deploy.tag, deploy.state);
        format!("  {role} {tag} is {state}, {} of {} boxes to go", deploy.remaining, deploy.size)
    }));
    lines.push(format!("deployctl unfreeze {} lets deploys start again", arguments(environment, role)));
    screen::print(lines)?;
    Ok(Exit::Done)
}

/// Lets deploys start again.
pub fn unfreeze(config: &Config, args: &UnfreezeArgs) -> Result<Exit> {
    let service = super::service(config)?;
    let (environment, role) = (&args.environment, args.role.as_ref());
    let freeze =
        NewFreeze { environment: environment.clone(), role: role.cloned(), reason: args.reason.clone(), until: None };
    let what = what(environment, role);
    let was_frozen = service.unfreeze(&freeze)?;
    if !was_frozen {
        // Refuses a name that nothing has: the environment that was meant may be frozen.
        service.status(role, Some(environment))?;
    }
    let was = if was_frozen { "is not frozen any more" } else { "was not frozen" };
    let mut lines = vec![format!("{what} {was}")];
    let others = service.freezes()?.into_iter().filter(|other| other.environment == *environment);
    lines.extend(others.map(|other| {
        let (role, by) = (other.role.as_ref(), &other.by);
        let what = self::what(environment, role);
        format!("{what} is still frozen by {by}: deployctl unfreeze {}", arguments(environment, role))
    }));
    screen::print(lines)?;
    Ok(Exit::Done)
}

fn ends(until: Option<Timestamp>) -> String {
    until.map(|until| format!(" until {}", screen::time(until))).unwrap_or_default()
}

fn what(environment: &Environment, role: Option<&Role>) -> String {
    role.map_or_else(|| environment.to_string(), |role| format!("{role} in {environment}"))
}

fn arguments(environment: &Environment, role: Option<&Role>) -> String {
    let role = role.map(|role| format!(" -r {role}")).unwrap_or_default();
    format!("-e {environment}{role}")
}
