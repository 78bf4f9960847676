//! The worker: what runs on a box, one for each role, between an event and a box in service.
//!
//! It asks what is to be done ([`order`]) and does it ([`deploy`]), until nothing newer has come meanwhile. A lock on a
//! file keeps two workers for one role apart ([`file_lock`]); what a person does to the box by hand is in [`hand`].

mod file_lock;
mod hand;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, anyhow, bail};
use log::{error, info, warn};

use self::file_lock::FileLock;
pub use self::hand::{bring_in, take_out};
use crate::{
    config::Config,
    deploy::deploy,
    exit::Exit,
    names::{Environment, Role, Tag},
    site::{
        Identity, Outcome, Site, identify,
        order::{Decision, Wish, decide},
        shutdown::Shutdown,
    },
    tags, wake,
};

/// How long a worker waits for the one before it to end.
const PREDECESSOR: Duration = Duration::from_secs(3 * 3600);

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
    work(config, &who, role, &Wish::Run(tag), &shutdown)
}

/// The worker that `handle` woke: brings `role` to what it should run, until no further event came meanwhile.
pub fn woken(config: &Config, role: &Role) -> Result<Exit> {
    let shutdown = Shutdown::listen()?;
    let who = identify(config, &shutdown)?;
    work(config, &who, role, &Wish::Heal, &shutdown)
}

/// `deployctl sync`: brings every role of this box to what it should run.
pub fn sync(config: &Config) -> Result<Exit> {
    let shutdown = Shutdown::listen()?;
    let who = identify(config, &shutdown)?;
    let mut worst = Ok(Exit::Done);
    for name in tags::roles(&who.images).collect::<BTreeSet<_>>() {
        let result = name.parse().map_err(|e| Exit::Usage.because(anyhow!("the Serf tag images: {e}"))).and_then(
            |role: Role| {
                config.role(&role).map_err(|e| Exit::Usage.because(e))?;
                work(config, &who, &role, &Wish::Heal, &shutdown)
            },
        );
        if let Err(error) = result {
            if let Err(earlier) = worst {
                error!("{earlier:#}");
            }
            worst = Err(error.context(format!("role {name}")));
        }
    }
    worst
}

/// Works until nothing newer is to be done. One worker for each role: an event that finds one at work leaves its mark
/// to that one.
fn work(config: &Config, who: &Identity, role: &Role, wish: &Wish, shutdown: &Shutdown) -> Result<Exit> {
    let marked = || wake::mark(&config.state_dir, role).exists();
    let had_mark = marked();
    let taken_over = || shutdown.requested() || (*wish == Wish::Heal && had_mark && !marked());
    let mut wish = wish;
    loop {
        let Some(lock) = FileLock::take(&config.state_dir, role, PREDECESSOR, &taken_over)? else {
            return Ok(Exit::Done);
        };
        let exit = work_under_lock(config, who, role, wish, shutdown);
        drop(lock);
        // A mark that came after the last look, while nobody else could take the lock, is an event that nobody else sees.
        if shutdown.requested() || !marked() {
            return exit;
        }
        if let Err(earlier) = exit {
            error!("{earlier:#}");
        }
        wish = &Wish::Heal;
    }
}

fn work_under_lock(config: &Config, who: &Identity, role: &Role, wish: &Wish, shutdown: &Shutdown) -> Result<Exit> {
    let mut wish = wish.clone();
    // Each round follows a newer deploy; a fleet does not get that many within one worker's life.
    for _ in 0..100 {
        wake::take_mark(&config.state_dir, role)?;
        let mut site = Site::open(config, who, role, shutdown.clone())?;
        let current = match (&wish, site.current(if wish.names_tag() { SHORT } else { config.command_timeout })) {
            (Wish::Run(Some(_)), Err(error)) => {
                warn!("{error:#}; going by Redis alone");
                site.current_by_redis()?
            }
            (_, current) => current?,
        };
        let schema = site.schema()?;
        let look = match site.look(current.as_ref()) {
            Ok(look) => look,
            Err(error) => return Err(site.unable(current.as_ref(), error)),
        };
        let outcome = match decide(&wish, current.as_ref(), schema, &look) {
            Decision::Nothing(why) => {
                info!("{}: nothing to do: {why}", site.place);
                site.say_left_alone(current.as_ref(), &look)?;
                return Ok(Exit::Done);
            }
            Decision::Refuse(exit, why) => bail!(exit.because(anyhow!(why))),
            Decision::Do(order) => {
                info!("{}: {} ({}, {})", site.place, order.tag, order.kind, order.id);
                let outcome = deploy(&mut site, &order);
                // A new box that was filled with the last good release joins what rolls, now as one that serves.
                let filled = !order.joins && !order.locked && matches!(outcome, Outcome::Done(_));
                if filled { Outcome::Again } else { outcome }
            }
        };
        match outcome {
            Outcome::Again => {
                // Whoever asked for the deploy that was replaced gets its successor.
                wish = Wish::Heal;
                if shutdown.requested() {
                    return Ok(Exit::Cancelled);
                }
            }
            outcome => {
                if let Outcome::Done(tag) = &outcome {
                    info!("{} on {}: {tag} is in service", site.place, site.name);
                }
                return outcome.into_exit();
            }
        }
    }
    bail!("deploys followed each other too fast for {role}: run `deployctl run` once they are over")
}
