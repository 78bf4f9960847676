//! `deployctl with-lock`: a person's command runs while the box is out of service, under locks as for a deploy, in all the
//! roles that it is given at once. The order of the steps is in [`super::rollout`].

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Error, Result, anyhow, bail};
use log::info;

use super::{
    BoxRole, Identity, file_lock::FileLock, identify, lock_wait::Asked, manual::by_hand, plan::Plan, rollout,
    shutdown::Shutdown, step::SLACK, step_error::StepError, worker::PREDECESSOR,
};
use crate::{
    api::Phase,
    config::{Config, duration},
    exit::Exit,
    load_balancer::Waiting,
    names::Role,
    process::{self, Failure, Program, command_line, never},
    sleep::{jittered, sleep},
    tags,
};

/// How long systemd may take to accept a reboot.
const REBOOT: Duration = Duration::from_secs(60);

/// What the box is out for.
#[derive(Debug)]
pub struct Errand {
    /// Why, for everybody who wonders.
    pub reason: String,
    /// What runs meanwhile; nothing where it is empty.
    pub command: Vec<String>,
    /// How long that may take.
    pub timeout: Duration,
    /// The machine reboots after it, and `sync` brings the box back.
    pub reboots: bool,
}

/// One of the roles that are out together.
pub struct Part<'a> {
    pub(super) box_role: BoxRole<'a>,
    pub(super) plan: Plan,
    /// It was out of service before.
    was_out: bool,
    /// It got requests before: where nothing was ever deployed, this says whether it is to get them again.
    served: bool,
}

/// Runs `errand` while the box is out of service in `roles`; in all that its Serf tags name, where none is given.
pub fn run(config: &Config, roles: &[Role], errand: &Errand) -> Result<Exit> {
    let bad = |error: Error| Exit::Usage.because(error);
    errand.check().map_err(bad)?;
    let shutdown = Shutdown::listen()?;
    let who = identify(config, &shutdown)?;
    let roles = roles_of(&who, roles).map_err(bad)?;
    for role in &roles {
        config.role(role).map_err(bad)?;
    }
    let (begun, mut told) = (Instant::now(), false);
    loop {
        if let Some(exit) = attempt(config, &who, &roles, errand, &shutdown)? {
            return Ok(exit);
        }
        if begun.elapsed() > config.lock_timeout {
            bail!(Exit::NoLock.because(anyhow!("no lock within lock_timeout; a deploy of this box's is rolling")));
        }
        if !told {
            info!("{}: waits for the deploy that is rolling", who.name);
            told = true;
        }
        // The worker, which the deploy waits for, gets the box meanwhile.
        if !sleep(jittered(config.poll_interval), &|| shutdown.requested()) {
            bail!(Exit::Cancelled.because(anyhow!("told to stop; {} was not taken out", who.name)));
        }
    }
}

/// In the order of their names, so that two that take several never wait for each other.
fn roles_of(who: &Identity, named: &[Role]) -> Result<BTreeSet<Role>> {
    if !named.is_empty() {
        return Ok(named.iter().cloned().collect());
    }
    let roles: BTreeSet<Role> = tags::roles(&who.images)
        .map(|name| name.parse().map_err(|e| anyhow!("the Serf tag images: {e}")))
        .collect::<Result<_>>()?;
    if roles.is_empty() {
        bail!("the Serf tag images of {} names no role: name one with -r ROLE", who.name);
    }
    Ok(roles)
}

/// One attempt; nothing where a deploy rolls, and where the worker of a role does not end soon.
fn attempt(
    config: &Config,
    who: &Identity,
    roles: &BTreeSet<Role>,
    errand: &Errand,
    shutdown: &Shutdown,
) -> Result<Option<Exit>> {
    let mut files = Vec::new();
    for role in roles {
        // With the first one in hand no other worker is kept waiting for long.
        let (begun, patience) = (Instant::now(), if files.is_empty() { PREDECESSOR } else { config.poll_interval });
        let let_go = || shutdown.requested() || begun.elapsed() > patience;
        match FileLock::take(&config.state_dir, role, PREDECESSOR, &let_go)? {
            Some(file) => files.push(file),
            None if shutdown.requested() => return Ok(Some(Exit::Cancelled)),
            None => return Ok(None),
        }
    }
    let mut parts = Vec::new();
    for role in roles {
        parts.push(Part::open(config, who, role, errand, shutdown)?);
    }
    let went = rollout::with_lock(&mut parts, errand);
    match went {
        Err(StepError::Rolling) => Ok(None),
        Err(StepError::PowerOff) => {
            info!("{}: the machine goes down; the box stays out, and comes back after the boot", who.name);
            Ok(Some(Exit::Done))
        }
        went => {
            let was_out = parts.iter().any(|part| part.box_role.is_out());
            let stay: Vec<String> = parts.iter_mut().filter_map(Part::end).collect();
            let stands = match (was_out, stay.is_empty()) {
                (false, true) => format!("{} was not taken out", who.name),
                (true, true) => format!("{} is back in service", who.name),
                (_, false) => stay.join("; "),
            };
            outcome(went, stay.is_empty(), &stands).map(Some)
        }
    }
}

fn outcome(went: Result<(), StepError>, is_back: bool, stands: &str) -> Result<Exit> {
    let (exit, why) = match went {
        Ok(()) if is_back => {
            info!("{stands}");
            return Ok(Exit::Done);
        }
        Ok(()) => return Err(anyhow!("{stands}")),
        Err(StepError::Shutdown) => (Exit::Cancelled, "told to stop".to_owned()),
        Err(error @ StepError::NoLock(_)) => (Exit::NoLock, error.to_string()),
        Err(error) => (Exit::Failed, error.to_string()),
    };
    Err(exit.because(anyhow!("{why}; {stands}")))
}

impl Errand {
    fn check(&self) -> Result<()> {
        let program = self.command.first().map(String::as_str);
        for name in program.into_iter().chain(self.reboots.then_some("systemctl")) {
            if !process::is_there(name) {
                bail!("there is no program {name}: nothing was done");
            }
        }
        Ok(())
    }

    /// Runs the command.
    pub(super) fn run(&self, parts: &[Part<'_>]) -> Result<(), StepError> {
        let Some(first) = parts.first() else { return Ok(()) };
        let shutdown = &first.box_role.shutdown;
        if shutdown.requested() {
            return Err(told_to_stop(shutdown));
        }
        if self.command.is_empty() {
            return Ok(());
        }
        keep_for(parts, self.timeout);
        info!("{} is out of service; runs {}", first.box_role.name, command_line(&self.command));
        let program = Program::new(self.timeout, self.command.iter().cloned());
        match process::run_attached(&program, &|| shutdown.requested()) {
            Ok(()) => Ok(()),
            Err(Failure::Interrupted { .. }) => Err(told_to_stop(shutdown)),
            Err(Failure::TimedOut { command, after, .. }) => {
                Err(anyhow!("{command}: ended, for it took longer than --timeout {}", duration::display(after)).into())
            }
            Err(failure) => Err(Error::from(failure).into()),
        }
    }

    /// Reboots, if that is wanted. The only way out of it is down.
    pub(super) fn reboot(&self, parts: &[Part<'_>]) -> Result<(), StepError> {
        let Some(first) = parts.first().filter(|_| self.reboots) else { return Ok(()) };
        let BoxRole { shutdown, config, name, .. } = &first.box_role;
        info!("{name} reboots; `deployctl sync` brings it back after the boot");
        process::run(&Program::new(REBOOT, ["systemctl", "reboot"]), &never).map_err(Error::from)?;
        keep_for(parts, config.command_timeout);
        // Whoever ends this now: the machine is on its way down.
        if sleep(config.command_timeout, &|| shutdown.requested()) {
            let after = duration::display(config.command_timeout);
            return Err(anyhow!("the machine did not go down within {after}").into());
        }
        Err(StepError::PowerOff)
    }
}

fn told_to_stop(shutdown: &Shutdown) -> StepError {
    if shutdown.machine_goes_down() { StepError::PowerOff } else { StepError::Shutdown }
}

/// The locks are renewed for so long, and some time more.
fn keep_for(parts: &[Part<'_>], time: Duration) {
    for part in parts {
        if let Some(heartbeat) = part.box_role.heartbeat() {
            heartbeat.keep_for(time + SLACK);
        }
    }
}

/// Waits until each part has its lock. Where one must wait, the others give theirs back meanwhile.
pub(super) fn take_locks(parts: &mut [Part<'_>]) -> Result<(), StepError> {
    let (mut waits_for, mut since) = (String::new(), Instant::now());
    while let Some((at, wait)) = first_without(parts)? {
        for part in &mut parts[..at] {
            part.box_role.give_back(&part.plan)?;
        }
        let box_role = &mut parts[at].box_role;
        if wait != waits_for {
            info!("{}: waits for {wait}", box_role.place);
            (waits_for, since) = (wait, Instant::now());
        } else if since.elapsed() > box_role.config.lock_timeout {
            return Err(StepError::NoLock(wait));
        }
        box_role.wait_for_wake()?;
    }
    Ok(())
}

/// The first part that must wait for its lock, and for what.
fn first_without(parts: &mut [Part<'_>]) -> Result<Option<(usize, String)>, StepError> {
    for (at, Part { box_role, plan, .. }) in parts.iter_mut().enumerate() {
        let manual_run = box_role.manual_run(plan)?;
        if let Asked::Waits { wait, .. } = box_role.ask_for_lock(plan, manual_run.as_ref())? {
            return Ok(Some((at, wait)));
        }
    }
    Ok(None)
}

/// Announces that all parts leave. `false`: the load balancers of one cannot spare the box yet; every lock was given back.
pub(super) fn leave(parts: &mut [Part<'_>]) -> Result<bool, StepError> {
    for at in 0..parts.len() {
        let Part { box_role, plan, .. } = &mut parts[at];
        if box_role.leave(plan)? {
            continue;
        }
        for (other, part) in parts.iter_mut().enumerate() {
            if other < at { part.stay()? } else { part.box_role.give_back(&part.plan)? }
        }
        return Ok(false);
    }
    Ok(true)
}

impl<'a> Part<'a> {
    fn open(config: &'a Config, who: &Identity, role: &Role, errand: &Errand, shutdown: &Shutdown) -> Result<Self> {
        let mut box_role = BoxRole::open(config, who, role, shutdown.clone())?;
        if let Some(reason) = &box_role.journal.state().kept_out {
            let text = format!("{role} is kept out by hand on {} ({reason}): `deployctl in -r {role}` first", who.name);
            bail!(Exit::Blocked.because(anyhow!(text)));
        }
        box_role.assert_out()?;
        let name = who.name.clone();
        let out = box_role.retry_transient(config.command_timeout, |box_role| box_role.locks.is_out(&name))?;
        let (plan, interrupted) = (by_hand(&box_role)?, box_role.interruption());
        let served = box_role.journal.state().good.is_some()
            || box_role.balancers(&plan)?.in_service(&Waiting::quietly(&interrupted, Some(&box_role.looks)))?;
        box_role.purpose = Some(errand.reason.clone());
        Ok(Self { box_role, plan, was_out: out, served })
    }

    /// It has said that it leaves, and does not.
    fn stay(&mut self) -> Result<()> {
        if self.was_out {
            return self.box_role.give_back(&self.plan);
        }
        self.box_role.journal.update(|state| state.work = None)?;
        self.box_role.report(&self.plan, Phase::Done, None, true)
    }

    /// Ends the part: a box that is out comes back. Why it does not, and what can be done, if it does not.
    fn end(&mut self) -> Option<String> {
        let Self { box_role, plan, served, .. } = self;
        if !box_role.is_out() {
            let given_back = box_role.give_back(plan).err();
            return given_back.map(|error| format!("its lock frees itself after lock_ttl: {error:#}"));
        }
        let error = box_role.come_back(plan, *served).err()?;
        let (name, role) = (&box_role.name, &box_role.place.role);
        let next = format!("mend it, then there: `deployctl run -r {role}`");
        Some(format!("{name} STAYS OUT OF SERVICE as {role}: {error:#}; {next}"))
    }
}
