//! `deployctl out` and `in`: a person takes this box out of service, and brings it back.

use std::time::Instant;

use anyhow::Result;
use log::info;

use super::{file_lock::FileLock, worker::PREDECESSOR};
use crate::{
    agent::{
        BoxRole, identify,
        plan::{Observation, Plan, Trigger},
        rollout,
        shutdown::Shutdown,
    },
    api::{Current, Kind, Phase, State},
    config::Config,
    coordination::{Finish, RenewRequest},
    exit::Exit,
    load_balancer::Waiting,
    names::Role,
};

/// Takes the box out of its load balancers, under a lock, and leaves it out until [`bring_in`].
pub fn take_out(config: &Config, role: &Role, reason: &str) -> Result<Exit> {
    let shutdown = Shutdown::listen()?;
    let who = identify(config, &shutdown)?;
    let Some(_lock) = FileLock::take(&config.state_dir, role, PREDECESSOR, &|| shutdown.requested())? else {
        return Ok(Exit::Cancelled);
    };
    let mut box_role = BoxRole::open(config, &who, role, shutdown)?;
    let name = box_role.name.clone();
    let out = box_role.retry_transient(config.command_timeout, |box_role| box_role.locks.is_out(&name))?;
    let state = box_role.journal.state();
    // One that was interrupted half-way is not out yet.
    if let Some(kept) = state.kept_out.as_ref().filter(|_| out && state.work.is_none()) {
        info!("{name} is kept out already: {kept}");
        return Ok(Exit::Done);
    }
    let plan = by_hand(&box_role)?;
    // From here on no deploy brings it back, whatever happens to this command.
    box_role.journal.update(|state| state.kept_out = Some(reason.to_owned()))?;
    match rollout::take_out(&mut box_role, &plan) {
        Ok(()) => Ok(Exit::Done),
        Err(error) => {
            let left = box_role.is_out();
            let outcome = box_role.recover(&plan, error);
            // The box never left, or it came back: it takes part in deploys again.
            if !left || box_role.journal.state().work.is_none() {
                box_role.journal.update(|state| state.kept_out = None)?;
            }
            outcome.into_exit()
        }
    }
}

/// Brings the box to what it should run, and back into its load balancers.
pub fn bring_in(config: &Config, role: &Role, reason: &str) -> Result<Exit> {
    let shutdown = Shutdown::listen()?;
    let who = identify(config, &shutdown)?;
    {
        let Some(_lock) = FileLock::take(&config.state_dir, role, PREDECESSOR, &|| shutdown.requested())? else {
            return Ok(Exit::Cancelled);
        };
        let mut box_role = BoxRole::open(config, &who, role, shutdown.clone())?;
        // It comes back like any box that is out, also where Redis has forgotten it, or somebody has freed it there.
        match box_role.journal.state().kept_out.clone() {
            Some(kept) => box_role.assert_kept_out(&kept)?,
            None => info!("{} was not kept out", box_role.name),
        }
        box_role.journal.update(|state| state.kept_out = None)?;
        info!("{} may serve again: {reason}", box_role.name);
    }
    super::worker::work(config, &who, role, &Trigger::Return, &shutdown)?;
    // Where nothing was ever deployed there is no release to bring: the box comes back with what it runs.
    let mut box_role = BoxRole::open(config, &who, role, shutdown)?;
    let name = box_role.name.clone();
    if box_role.locks.is_out(&name)? {
        box_role.return_as_it_is()?;
    }
    Ok(Exit::Done)
}

/// Work on the box without a deploy, on the release that it runs.
pub(super) fn by_hand(box_role: &BoxRole<'_>) -> Result<Plan> {
    let tag = box_role.journal.state().good.as_ref().map_or_else(|| "none".parse(), |good| Ok(good.tag.clone()))?;
    Ok(Plan {
        id: format!("hand.{}", box_role.name),
        tag,
        kind: Kind::Manual,
        joins: false,
        locked: true,
        recreate: false,
        may_blame: false,
        retry: false,
    })
}

impl BoxRole<'_> {
    fn return_as_it_is(&mut self) -> Result<()> {
        let plan = by_hand(self)?;
        let interrupted = self.interruption();
        let silent = |_: &str| {};
        let balancers = self.balancers(&plan)?;
        let waiting = Waiting { locks: 1, interrupted: &interrupted, progress: &silent, looks: Some(&self.looks) };
        balancers.register(Instant::now() + self.config.command_timeout, &waiting)?;
        let (name, finish) = (self.name.clone(), Finish { in_service: true, ..Finish::default() });
        self.retry_transient(self.config.command_timeout, |box_role| {
            box_role.locks.finish(&name, &plan.id, None, &finish)
        })
        .map(drop)
    }

    /// The schema of the deploy in Redis, which may be newer than this program.
    pub(crate) fn schema(&mut self) -> Result<u32> {
        let doc = self.retry_transient(self.config.command_timeout, |box_role| box_role.locks.current())?;
        Ok(doc.map_or(0, |doc| doc.schema))
    }

    /// Tells Redis, which may have come back empty, that a person keeps the box out, and why.
    fn assert_kept_out(&mut self, reason: &str) -> Result<()> {
        let (name, id) = (self.name.clone(), format!("hand.{}", self.name));
        let ttl = u64::try_from(self.config.lock_ttl.as_millis()).unwrap_or(u64::MAX);
        let (phase, detail, suffix, token, epoch) = (None, None, None, None, None);
        let (kept_out_reason, purpose) = (Some(reason), None);
        let says = RenewRequest {
            name: &name,
            deploy: &id,
            phase,
            detail,
            suffix,
            token,
            ttl,
            out: true,
            kept_out_reason,
            purpose,
            epoch,
        };
        self.retry_transient(self.config.command_timeout, |box_role| box_role.locks.renew(&says)).map(drop)
    }

    /// A box that a person keeps out has no part in the deploy that rolls: it says so, and nobody waits for it.
    pub(crate) fn say_left_alone(&mut self, current: Option<&Current>, observed: &Observation) -> Result<()> {
        let Some(reason) = &observed.kept_out else { return Ok(()) };
        self.assert_kept_out(reason)?;
        let Some(deploy) = current.map(|c| &c.deploy).filter(|deploy| deploy.state == State::Rolling) else {
            return Ok(());
        };
        self.take_part_as(&deploy.id.clone(), Phase::Cancelled, format!("out by hand: {reason}"));
        Ok(())
    }
}
