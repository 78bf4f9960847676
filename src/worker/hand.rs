//! `deployctl out` and `in`: a person takes this box out of service, and brings it back.

use std::time::Instant;

use anyhow::Result;
use log::info;

use super::{PREDECESSOR, file_lock::FileLock};
use crate::{
    api::{Current, Kind, Phase, State},
    config::Config,
    exit::Exit,
    load_balancer::Waiting,
    locks::{Finish, Renewal},
    names::Role,
    site::{
        Setback, Site, identify,
        order::{Look, Order, Wish},
        shutdown::Shutdown,
    },
};

/// Takes the box out of its load balancers, under a lock, and leaves it out until [`bring_in`].
pub fn take_out(config: &Config, role: &Role, reason: &str) -> Result<Exit> {
    let shutdown = Shutdown::listen()?;
    let who = identify(config, &shutdown)?;
    let Some(_lock) = FileLock::take(&config.state_dir, role, PREDECESSOR, &|| shutdown.requested())? else {
        return Ok(Exit::Cancelled);
    };
    let mut site = Site::open(config, &who, role, shutdown)?;
    let name = site.name.clone();
    let out = site.ride_out(config.command_timeout, |site| site.locks.is_out(&name))?;
    let state = site.journal.state();
    // One that was interrupted half-way is not out yet.
    if let Some(kept) = state.kept_out.as_ref().filter(|_| out && state.work.is_none()) {
        info!("{name} is kept out already: {kept}");
        return Ok(Exit::Done);
    }
    let order = by_hand(&site)?;
    // From here on no deploy brings it back, whatever happens to this command.
    site.journal.update(|state| state.kept_out = Some(reason.to_owned()))?;
    match leave(&mut site, &order) {
        Ok(()) => Ok(Exit::Done),
        Err(setback) => {
            let left = site.is_out();
            let outcome = site.recover(&order, setback);
            // It never left, or it came back: deploys are for it again.
            if !left || site.journal.state().work.is_none() {
                site.journal.update(|state| state.kept_out = None)?;
            }
            outcome.into_exit()
        }
    }
}

fn leave(site: &mut Site<'_>, order: &Order) -> Result<(), Setback> {
    site.join(order)?;
    loop {
        site.wait_for_lock(order)?;
        if site.leave(order)? {
            break;
        }
    }
    site.drain(order)?;
    // Out by hand is not work that was interrupted.
    site.journal.update(|state| state.work = None)?;
    site.report(order, Phase::Cancelled, None, false)?;
    Ok(())
}

/// Brings the box to what it should run, and back into its load balancers.
pub fn bring_in(config: &Config, role: &Role, reason: &str) -> Result<Exit> {
    let shutdown = Shutdown::listen()?;
    let who = identify(config, &shutdown)?;
    {
        let Some(_lock) = FileLock::take(&config.state_dir, role, PREDECESSOR, &|| shutdown.requested())? else {
            return Ok(Exit::Cancelled);
        };
        let mut site = Site::open(config, &who, role, shutdown.clone())?;
        if site.journal.state().kept_out.is_none() {
            info!("{} was not kept out", site.name);
        }
        site.journal.update(|state| state.kept_out = None)?;
        info!("{} may serve again: {reason}", site.name);
    }
    super::work(config, &who, role, &Wish::Heal, &shutdown)?;
    // Where nothing was ever deployed there is nothing to bring it to: as it is, then.
    let mut site = Site::open(config, &who, role, shutdown)?;
    let name = site.name.clone();
    if site.locks.is_out(&name)? {
        site.return_as_it_is()?;
    }
    Ok(Exit::Done)
}

fn by_hand(site: &Site<'_>) -> Result<Order> {
    let tag = site.journal.state().good.as_ref().map_or_else(|| "none".parse(), |good| Ok(good.tag.clone()))?;
    Ok(Order {
        id: format!("hand.{}", site.name),
        tag,
        kind: Kind::Manual,
        joins: false,
        locked: true,
        recreate: false,
        may_blame: false,
        retry: false,
    })
}

impl Site<'_> {
    fn return_as_it_is(&mut self) -> Result<()> {
        let order = by_hand(self)?;
        let interrupted = self.interruption();
        let silent = |_: &str| {};
        let waiting = Waiting { locks: 1, interrupted: &interrupted, progress: &silent };
        self.balancers(&order)?.register(Instant::now() + self.config.command_timeout, &waiting)?;
        let (name, finish) = (self.name.clone(), Finish { in_service: true, ..Finish::default() });
        self.ride_out(self.config.command_timeout, |site| site.locks.finish(&name, &order.id, None, &finish)).map(drop)
    }

    /// The schema of the deploy in Redis, which may be newer than this program.
    pub(crate) fn schema(&mut self) -> Result<u32> {
        let doc = self.ride_out(self.config.command_timeout, |site| site.locks.current())?;
        Ok(doc.map_or(0, |doc| doc.schema))
    }

    /// A box that a person keeps out has no part in the deploy that rolls: it says so, and nobody waits for it. A Redis
    /// that came back empty learns that it is out.
    pub(crate) fn say_left_alone(&mut self, current: Option<&Current>, look: &Look) -> Result<()> {
        let Some(reason) = &look.kept_out else { return Ok(()) };
        let (name, id) = (self.name.clone(), format!("hand.{}", self.name));
        let ttl = u64::try_from(self.config.lock_ttl.as_millis()).unwrap_or(u64::MAX);
        let (phase, detail, suffix, token, epoch) = (None, None, None, None, None);
        let hand = Some(reason.as_str());
        let says = Renewal { name: &name, deploy: &id, phase, detail, suffix, token, ttl, out: true, hand, epoch };
        self.ride_out(self.config.command_timeout, |site| site.locks.renew(&says))?;
        let Some(deploy) = current.map(|c| &c.deploy).filter(|deploy| deploy.state == State::Rolling) else {
            return Ok(());
        };
        self.take_part_as(&deploy.id.clone(), Phase::Cancelled, format!("out by hand: {reason}"));
        Ok(())
    }
}
