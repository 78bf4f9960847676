//! `deployctl publish`: CI tells the service of a new release.

use anyhow::Result;

use crate::{
    api::{NewRelease, ReleaseStatus},
    cli::Publish,
    config::Config,
    exit::Exit,
    screen,
};

/// Runs the command.
pub fn run(config: &Config, args: &Publish) -> Result<Exit> {
    let release = super::service(config)?.publish(&NewRelease {
        role: args.role.clone(),
        tag: args.tag.clone(),
        commit: args.commit.clone(),
        author: args.author.clone(),
        message: args.message.clone(),
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
