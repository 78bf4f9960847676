//! `deployctl complete`: the names that a shell offers after `--role`, `--environment`, `--tag` and `--box`.
//!
//! A person waits with a finger on the Tab key: one request, with a short limit, and nothing but names on stdout. What goes
//! wrong goes to stderr, which the completion scripts (`examples/manual.rs`) throw away.

use std::{collections::BTreeSet, str::FromStr, time::Duration};

use anyhow::Result;

use crate::{
    api::StatusAnswer,
    cli::{CompleteArgs, CompleteKind},
    client::{self, Client},
    config::Config,
    exit::Exit,
    names::{Environment, Role},
    screen,
};

/// How long the service may take.
const TIME_LIMIT: Duration = Duration::from_secs(1);
/// How many tags are offered, the newest.
const TAGS: u32 = 50;

/// Runs the command.
pub fn run(config: &Config, args: &CompleteArgs) -> Result<Exit> {
    let service = Client::within(TIME_LIMIT, config, &client::claimed_by(&super::variable)?)?;
    let role: Option<Role> = value_of(&args.line, &["-r", "--role"]);
    if args.kind == CompleteKind::Tags {
        let releases = role.map_or(Ok(Vec::new()), |role| service.releases(&role, TAGS))?;
        screen::print(releases.iter().map(|release| release.tag.to_string()))?;
    } else {
        let environment: Option<Environment> = value_of(&args.line, &["-e", "--environment"]);
        // The role that is being typed narrows no roles.
        let role = role.filter(|_| args.kind != CompleteKind::Roles);
        let environment = environment.filter(|_| args.kind == CompleteKind::Boxes);
        screen::print(names(args.kind, &service.status(role.as_ref(), environment.as_ref())?))?;
    }
    Ok(Exit::Done)
}

/// The name that stands behind one of `flags` in `line`, if it is one.
fn value_of<T: FromStr>(line: &[String], flags: &[&str]) -> Option<T> {
    let at = line.iter().position(|word| flags.contains(&word.as_str()))?;
    line.get(at + 1)?.parse().ok()
}

fn names(kind: CompleteKind, status: &StatusAnswer) -> BTreeSet<String> {
    let running = status.running.iter();
    let deploys = status.deploys.iter();
    match kind {
        CompleteKind::Roles => {
            running.map(|row| row.role.to_string()).chain(deploys.map(|deploy| deploy.role.to_string())).collect()
        }
        CompleteKind::Environments => running
            .map(|row| row.environment.to_string())
            .chain(deploys.map(|deploy| deploy.environment.to_string()))
            .collect(),
        CompleteKind::Boxes => running.map(|row| row.name.to_string()).collect(),
        // They stand in no status.
        CompleteKind::Tags => BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_being_typed_names_its_role() {
        let role = |line: &str| -> Option<Role> {
            let line: Vec<String> = line.split(' ').map(str::to_owned).collect();
            value_of(&line, &["-r", "--role"])
        };
        assert_eq!(role("deployctl start -r app -t").unwrap().as_str(), "app");
        assert_eq!(role("deployctl start --role web").unwrap().as_str(), "web");
        assert_eq!(role("deployctl start -t v1 -r"), None);
        assert_eq!(role("deployctl start -r $(x) -t"), None);
    }
}
