//! The worker: what runs on a box, one for each role, between an event and a box in service.
//!
//! It asks what is to be done ([`super::plan`]) and does it ([`super::rollout`]), until nothing newer has come meanwhile. A lock on a
//! file keeps two workers for one role apart ([`super::file_lock`]); what a person does to the box by hand is in [`super::manual`].

use std::{collections::BTreeSet, thread, time::Duration};

use anyhow::{Result, anyhow, bail};
use log::{error, info, warn};

use super::file_lock::FileLock;
use crate::{
    agent::rollout::deploy,
    agent::wake,
    agent::{
        BoxRole, Identity, Outcome, identify,
        plan::{Decision, Trigger, decide},
        shutdown::Shutdown,
        without_configuration,
    },
    config::Config,
    exit::Exit,
    names::{Environment, Role, Tag},
    tags,
};

/// How long a worker waits for the one before it to end.
pub(super) const PREDECESSOR: Duration = Duration::from_secs(3 * 3600);

/// How long the service may be away when a person has named the tag.
const SHORT: Duration = Duration::from_secs(5);

/// `deployctl run`: brings the release of the deploy that rolls, or `tag`, to this box.
pub fn run(config: &Config, role: &Role, environment: Option<&Environment>, tag: Option<Tag>) -> Result<Exit> {
    config.role(role).map_err(|e| Exit::Usage.because(e))?;
    let shutdown = Shutdown::listen()?;
    let who = identify(config, &shutdown)?;
    if let Some(other) = environment.filter(|environment| **environment != who.environment) {
        let error = anyhow!("this box is in {}, not in {other}: leave -e out, or run it there", who.environment);
        return Err(Exit::Usage.because(error));
    }
    work(config, &who, role, &Trigger::Run(tag), &shutdown)
}

/// The worker that `handle` woke: brings `role` to what it should run, until no further event came meanwhile.
pub fn woken(config: &Config, role: &Role) -> Result<Exit> {
    let shutdown = Shutdown::listen()?;
    let who = identify(config, &shutdown)?;
    heal(config, &who, role, &shutdown)
}

/// `deployctl sync`: brings every role of this box to what it should run. Side by side: one that is stuck keeps no other
/// waiting. All errors are logged, and one of them is returned.
pub fn sync(config: &Config) -> Result<Exit> {
    let shutdown = Shutdown::listen()?;
    let who = identify(config, &shutdown)?;
    let names: BTreeSet<&str> = tags::roles(&who.images).collect();
    let outcomes: Vec<(&str, Result<Exit>)> = thread::scope(|scope| {
        let (who, shutdown) = (&who, &shutdown);
        let workers: Vec<_> =
            names.into_iter().map(|name| (name, scope.spawn(move || sync_role(config, who, name, shutdown)))).collect();
        let panicked = |_| Err(anyhow!("its worker panicked"));
        workers.into_iter().map(|(name, worker)| (name, worker.join().unwrap_or_else(panicked))).collect()
    });
    let mut worst = Ok(Exit::Done);
    for (name, outcome) in outcomes {
        if let Err(error) = outcome {
            if let Err(earlier) = worst {
                error!("{earlier:#}");
            }
            worst = Err(error.context(format!("role {name}")));
        }
    }
    worst
}

fn sync_role(config: &Config, who: &Identity, name: &str, shutdown: &Shutdown) -> Result<Exit> {
    let role: Role = name.parse().map_err(|e| Exit::Usage.because(anyhow!("the Serf tag images: {e}")))?;
    heal(config, who, &role, shutdown)
}

fn heal(config: &Config, who: &Identity, role: &Role, shutdown: &Shutdown) -> Result<Exit> {
    match config.role(role) {
        Ok(_) => work(config, who, role, &Trigger::Heal, shutdown),
        Err(error) => Err(Exit::Usage.because(without_configuration(config, who, role, error))),
    }
}

/// Works until nothing newer is to be done. One worker for each role: an event that finds one at work leaves its mark
/// to that one.
pub(super) fn work(
    config: &Config,
    who: &Identity,
    role: &Role,
    trigger: &Trigger,
    shutdown: &Shutdown,
) -> Result<Exit> {
    let marked = || wake::mark(&config.state_dir, role).exists();
    let had_mark = marked();
    let taken_over = || shutdown.requested() || (*trigger == Trigger::Heal && had_mark && !marked());
    let mut trigger = trigger;
    loop {
        let Some(lock) = FileLock::take(&config.state_dir, role, PREDECESSOR, &taken_over)? else {
            return Ok(Exit::Done);
        };
        let exit = work_under_lock(config, who, role, trigger, shutdown);
        drop(lock);
        // A mark that came after the last look, while nobody else could take the lock, is an event that nobody else sees.
        if shutdown.requested() || !marked() {
            return exit;
        }
        if let Err(earlier) = exit {
            error!("{earlier:#}");
        }
        trigger = &Trigger::Heal;
    }
}

fn work_under_lock(
    config: &Config,
    who: &Identity,
    role: &Role,
    trigger: &Trigger,
    shutdown: &Shutdown,
) -> Result<Exit> {
    let mut trigger = trigger.clone();
    // Each round follows a newer deploy; a fleet does not get that many within one worker's life.
    for _ in 0..100 {
        wake::take_mark(&config.state_dir, role)?;
        let mut box_role = BoxRole::open(config, who, role, shutdown.clone())?;
        box_role.assert_out()?;
        let current =
            match (&trigger, box_role.current(if trigger.names_tag() { SHORT } else { config.command_timeout })) {
                (Trigger::Run(Some(_)), Err(error)) => {
                    warn!("{error:#}; going by Redis alone");
                    box_role.current_by_redis()?
                }
                (_, current) => current?,
            };
        let schema = box_role.schema()?;
        let observed = match box_role.observe(current.as_ref()) {
            Ok(observed) => observed,
            Err(error) => return Err(box_role.unable(current.as_ref(), error)),
        };
        let outcome = match decide(&trigger, current.as_ref(), schema, &observed) {
            Decision::Nothing(why) => {
                info!("{}: nothing to do: {why}", box_role.place);
                box_role.say_left_alone(current.as_ref(), &observed)?;
                return Ok(Exit::Done);
            }
            // A box that is too old for the deploy: nobody is to wait for it until `join_timeout`.
            Decision::Refuse(Exit::Failed, why) => {
                let error = Exit::Failed.because(anyhow!(why));
                return Err(box_role.unable(current.as_ref(), error));
            }
            Decision::Refuse(exit, why) => bail!(exit.because(anyhow!(why))),
            Decision::Do(plan) => {
                info!("{}: {} ({}, {})", box_role.place, plan.tag, plan.kind, plan.id);
                let outcome = deploy(&mut box_role, &plan);
                // A new box that was filled with the last good release joins what rolls, now as one that serves.
                let filled = !plan.joins && !plan.locked && matches!(outcome, Outcome::Done(_));
                if filled { Outcome::Again } else { outcome }
            }
        };
        match outcome {
            Outcome::Again => {
                // A newer deploy took its place: the box follows that one.
                trigger = Trigger::Heal;
                if shutdown.requested() {
                    return Ok(Exit::Cancelled);
                }
            }
            outcome => {
                if let Outcome::Done(tag) = &outcome {
                    info!("{} on {}: {tag} is in service", box_role.place, box_role.name);
                }
                return outcome.into_exit();
            }
        }
    }
    bail!("deploys followed each other too fast for {role}: run `deployctl run` once they are over")
}
