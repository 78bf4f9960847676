//! `deployctl publish`: CI tells the service of a new release.

use std::fs;

use anyhow::Result;

use super::ci;
use crate::{
    api::{NewRelease, ReleaseStatus},
    cli::PublishArgs,
    config::Config,
    exit::Exit,
    screen,
};

/// Runs the command.
pub fn run(config: &Config, args: &PublishArgs) -> Result<Exit> {
    let said = ci::commit(&super::variable, &|path| fs::read_to_string(path).ok());
    let either = |named: &Option<String>, said: Option<String>| named.clone().or(said);
    let release = super::service(config)?.publish(&NewRelease {
        role: args.role.clone(),
        tag: args.tag.clone(),
        commit: either(&args.commit, said.id),
        author: either(&args.author, said.author),
        message: either(&args.message, said.message),
        link: either(&args.link, said.link),
        committed_at: either(&args.committed_at, said.at),
        new_role: args.new,
    })?;
    let (role, tag) = (&release.role, &release.tag);
    let said = match release.status {
        ReleaseStatus::Available => "is published".to_owned(),
        status => format!("was published before and is {status}"),
    };
    let reason = release.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    screen::print([format!("{role} {tag} {said}{reason}")])?;
    Ok(Exit::Done)
}
