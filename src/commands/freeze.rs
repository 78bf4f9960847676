//! `deployctl freeze` and `unfreeze`: nothing new starts in an environment.

use anyhow::Result;

use crate::{
    api::NewFreeze,
    cli::{Freeze, Unfreeze},
    config::Config,
    exit::Exit,
    names::{Environment, Role},
};

/// Freezes, and says what goes on regardless.
pub fn freeze(config: &Config, args: &Freeze) -> Result<Exit> {
    let service = super::service(config)?;
    let (environment, role) = (&args.environment, args.role.as_ref());
    service.freeze(&NewFreeze {
        environment: environment.clone(),
        role: role.cloned(),
        reason: Some(args.reason.clone()),
    })?;
    let what = what(environment, role);
    println!("{what} is frozen: nothing new starts there, and what is promoted to it waits");
    println!("these go on regardless: what is rolling, boxes that are new or catch up, rollback, start --force");
    for deploy in service.deploys(role, Some(environment), 100)?.iter().filter(|deploy| !deploy.state.is_ended()) {
        println!(
            "  {} {} is {}, {} of {} boxes to go",
            deploy.role, deploy.tag, deploy.state, deploy.remaining, deploy.size
        );
    }
    println!("deployctl unfreeze {} lets deploys start again", arguments(environment, role));
    Ok(Exit::Done)
}

/// Lets deploys start again.
pub fn unfreeze(config: &Config, args: &Unfreeze) -> Result<Exit> {
    let service = super::service(config)?;
    let (environment, role) = (&args.environment, args.role.as_ref());
    let freeze = NewFreeze { environment: environment.clone(), role: role.cloned(), reason: args.reason.clone() };
    let what = what(environment, role);
    if service.unfreeze(&freeze)? {
        println!("{what} is not frozen any more");
    } else {
        println!("{what} was not frozen");
    }
    for other in service.freezes()?.iter().filter(|other| other.environment == *environment) {
        let what = self::what(environment, other.role.as_ref());
        println!(
            "{what} is still frozen by {}: deployctl unfreeze {}",
            other.by,
            arguments(environment, other.role.as_ref())
        );
    }
    Ok(Exit::Done)
}

fn what(environment: &Environment, role: Option<&Role>) -> String {
    role.map_or_else(|| environment.to_string(), |role| format!("{role} in {environment}"))
}

fn arguments(environment: &Environment, role: Option<&Role>) -> String {
    let role = role.map(|role| format!(" -r {role}")).unwrap_or_default();
    format!("-e {environment}{role}")
}
