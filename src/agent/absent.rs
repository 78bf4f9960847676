//! A box that cannot take part in a deploy reports that to the deploy. Otherwise the deploy would wait for the box until
//! `join_timeout`, and nobody would know why.

use std::time::Duration;

use anyhow::{Error, Result};
use log::warn;

use super::{
    BoxRole,
    identity::{Identity, coordinator},
};
use crate::{
    api::{Current, Phase, State},
    client::{self, Client},
    config::Config,
    coordination::{Coordinator, Finish, RedisError},
    names::{BoxName, Place, Role, Zones},
    process::never,
    retry::retrying,
};

/// How long Redis or the service may be away meanwhile.
const AWAY: Duration = Duration::from_secs(60);

/// Ends this box's part in a deploy of a `role` that its Serf tag names and its configuration lacks, for the reason
/// `error`. Returns that error.
#[must_use]
pub fn without_configuration(config: &Config, who: &Identity, role: &Role, error: Error) -> Error {
    let place = Place { environment: who.environment.clone(), role: role.clone() };
    let say = || -> Result<()> {
        let service = Client::new(config, who.name.as_str())?;
        let current = retrying(AWAY, &never, client::Error::is_transient, || service.current(&place))?;
        match current {
            Some(Current { deploy, .. }) if deploy.state == State::Rolling => take_part_as(
                &mut coordinator(config, &place)?,
                &who.name,
                &deploy.id,
                Phase::Failed,
                format!("{error:#}"),
            ),
            _ => Ok(()),
        }
    };
    if let Err(unsaid) = say() {
        warn!("{unsaid:#}; the deploy that rolls does not hear of this box");
    }
    error
}

/// Takes the place of the box `name` in the deploy `id`, only to end it at once.
fn take_part_as(locks: &mut Coordinator, name: &BoxName, id: &str, phase: Phase, detail: String) -> Result<()> {
    let finish = Finish { phase: Some(phase), detail: Some(detail), ..Finish::default() };
    retrying(AWAY, &never, RedisError::is_transient, || {
        locks.join(name, id, &[], &Zones::new(), false, None)?;
        locks.finish(name, id, None, &finish)
    })
    .map(drop)
}

impl BoxRole<'_> {
    /// A box that cannot even look at itself has failed in the deploy that rolls, if one does.
    pub(crate) fn unable(&mut self, current: Option<&Current>, error: Error) -> Error {
        let rolling = current.map(|current| &current.deploy).filter(|deploy| deploy.state == State::Rolling);
        if let Some(deploy) = rolling {
            self.take_part_as(&deploy.id.clone(), Phase::Failed, format!("{error:#}"));
        }
        error
    }

    /// Takes the box's place in the deploy `id`, only to end it at once.
    pub(crate) fn take_part_as(&mut self, id: &str, phase: Phase, detail: String) {
        if let Err(error) = take_part_as(&mut self.locks, &self.name, id, phase, detail) {
            warn!("{error:#}; the deploy {id} does not know of this box");
        }
    }
}
