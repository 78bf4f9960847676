//! A box and one of its roles: everything that a worker acts on. What it sees and the steps it takes are methods of the same
//! type, in [`super::observe`], [`super::steps`] and the rooms beside them.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use log::warn;

use super::{
    Identity,
    heartbeat::{Heartbeat, HeartbeatHandle},
    identity::{balancers, coordinator, serf},
    journal::{Good, Journal, Setup},
    plan::Plan,
    shutdown::Shutdown,
};
use crate::{
    api::{Current, Kind, Phase, State},
    client::{self, Client},
    compose::{DeployVars, EngineWatch, Inputs, Project, Rendered},
    config::{Config, RoleConfig},
    coordination::{Coordinator, RedisError, RedisLooks},
    load_balancer::LoadBalancers,
    names::{BoxName, Place, Role, Tag},
    process::never,
    retry::retrying,
    serf::Serf,
    sleep::sleep,
};

/// Everything for one role on this box.
pub struct BoxRole<'a> {
    pub(crate) config: &'a Config,
    pub(crate) role: &'a RoleConfig,
    pub(crate) place: Place,
    pub(crate) name: BoxName,
    pub(crate) locks: Coordinator,
    pub(crate) waiter: Option<Coordinator>,
    pub(crate) service: Client,
    pub(crate) serf: Serf,
    pub(crate) project: Project,
    pub(crate) journal: Journal,
    pub(crate) shutdown: Shutdown,
    pub(crate) heartbeat: Option<Heartbeat>,
    pub(crate) rendered: Option<Rendered>,
    /// What the compose file and the files it names held when it was rendered.
    pub(crate) rendered_from: Option<Inputs>,
    pub(crate) balancers: Option<Rc<LoadBalancers>>,
    /// What boxes saw of their load balancers, shared through Redis.
    pub(crate) looks: RedisLooks,
    pub(crate) engine: Option<EngineWatch>,
    pub(crate) locks_total: u32,
    /// How often its load balancers could not spare the box.
    pub(crate) floor_refusals: u32,
    /// What a box that is out already must wait for, although it has its lock.
    pub(crate) not_yet: Option<String>,
    /// What the report of a good end is to say all the same.
    pub(crate) remark: Option<String>,
    /// What the box is out for, where that is no deploy.
    pub(crate) purpose: Option<String>,
    /// Since when the deployment service has not answered a box that held a lock.
    pub(crate) service_away_since: Option<Instant>,
    /// The step that runs, and since when.
    pub(crate) step: Cell<Option<(Phase, Instant)>>,
}

impl<'a> BoxRole<'a> {
    /// Prepares the work on `role`. Refuses a role without a configuration; nothing is sent or changed.
    pub fn open(config: &'a Config, who: &Identity, role: &Role, shutdown: Shutdown) -> Result<Self> {
        let journal = match Journal::open(&config.state_dir, role) {
            Ok(journal) => journal,
            Err(error) => {
                // Nobody is to wait for this box until `join_timeout`: it has failed in the deploy that rolls.
                let nothing = Journal::empty(&config.state_dir, role);
                let mut box_role = Self::with_journal(config, who, role, shutdown, nothing)?;
                let current = box_role.current(config.command_timeout).unwrap_or_else(|unknown| {
                    warn!("{unknown:#}; the deploy that rolls does not hear of this box");
                    None
                });
                return Err(box_role.unable(current.as_ref(), error));
            }
        };
        Self::with_journal(config, who, role, shutdown, journal)
    }

    fn with_journal(
        config: &'a Config,
        who: &Identity,
        role: &Role,
        shutdown: Shutdown,
        journal: Journal,
    ) -> Result<Self> {
        let place = Place { environment: who.environment.clone(), role: role.clone() };
        let name = who.name.clone();
        let purpose = journal.state().work.as_ref().and_then(|work| work.purpose.clone());
        Ok(Self {
            config,
            role: config.role(role)?,
            locks: coordinator(config, &place)?,
            looks: RedisLooks::new(coordinator(config, &place)?),
            waiter: None,
            service: Client::new(config, name.as_str())?,
            serf: serf(config)?,
            project: Project::new(config, role)?,
            journal,
            place,
            name,
            shutdown,
            heartbeat: None,
            rendered: None,
            remark: None,
            rendered_from: None,
            balancers: None,
            engine: None,
            locks_total: 1,
            floor_refusals: 0,
            not_yet: None,
            purpose,
            service_away_since: None,
            step: Cell::new(None),
        })
    }

    /// Another connection to the same keys, for a thread of its own.
    pub(crate) fn another_connection(&self) -> Result<Coordinator> {
        coordinator(self.config, &self.place)
    }

    /// The load balancers, with what their programs are told of `plan`'s deploy. Found out when they are first needed,
    /// under the lock as a rule: a thousand boxes that hear of a deploy at once must not all ask AWS.
    pub(crate) fn balancers(&mut self, plan: &Plan) -> Result<Rc<LoadBalancers>> {
        if let Some(known) = &self.balancers {
            return Ok(Rc::clone(known));
        }
        // Not interrupted: a box that goes back after a cancel needs them too.
        let known = Rc::new(self.resolve_balancers(&self.vars(&plan.id, &plan.tag, plan.kind), &never)?);
        self.balancers = Some(Rc::clone(&known));
        Ok(known)
    }

    /// Those that sent requests to the release that runs here, and are no longer configured.
    pub(crate) fn former_balancers(&self, plan: &Plan) -> Result<LoadBalancers> {
        let before = self.journal.state().good.as_ref().map(|good| self.setup_of(good).load_balancers);
        let mut former = before.unwrap_or_default();
        former.retain(|entry| !self.role.load_balancers.contains(entry));
        balancers(self.config, &former, &self.vars(&plan.id, &plan.tag, plan.kind), &never)
    }

    pub(super) fn resolve_balancers(
        &self,
        vars: &DeployVars,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Result<LoadBalancers> {
        balancers(self.config, &self.role.load_balancers, vars, interrupted)
            .with_context(|| format!("load_balancers of {}", self.place.role))
    }

    /// What programs are told.
    pub(crate) fn vars(&self, id: &str, tag: &Tag, kind: Kind) -> DeployVars {
        DeployVars {
            tag: tag.clone(),
            role: self.place.role.clone(),
            environment: self.place.environment.clone(),
            id: id.to_owned(),
            kind,
        }
    }

    /// Does `work` on Redis, again and again while the trouble may pass, for `patience` at most.
    pub(crate) fn retry_transient<T>(
        &mut self,
        patience: Duration,
        mut work: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let (shutdown, out) = (self.shutdown.clone(), self.is_out());
        retrying(patience, &|| !out && shutdown.requested(), RedisError::is_transient, || work(self))
    }

    /// What the service says is current here. Waits for a service that restarts.
    pub(crate) fn current(&self, patience: Duration) -> Result<Option<Current>> {
        let ask = || self.service.current(&self.place);
        Ok(retrying(patience, &self.interruption(), client::Error::is_transient, ask)?)
    }

    /// The same by Redis alone, for a person who names the tag while the service is away.
    pub(crate) fn current_by_redis(&mut self) -> Result<Option<Current>> {
        self.retry_transient(self.config.command_timeout, |box_role| {
            let Some(newest) = box_role.locks.current()? else { return Ok(None) };
            let rolling = (newest.state() == State::Rolling).then(|| newest.clone());
            let Some(doc) = rolling.map_or_else(|| box_role.locks.complete(), |doc| Ok(Some(doc)))? else {
                return Ok(None);
            };
            Ok(Some(Current { deploy: box_role.locks.show(&doc, false)?, latest: newest.state() }))
        })
    }

    /// Whether the box is out of service, as far as this worker brought it there.
    pub(crate) fn is_out(&self) -> bool {
        self.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.handle().is_out())
    }

    /// Asks whether a step should stop: before the box is out, when it was told to stop or the deploy was cancelled or
    /// ended; when it is out, only where going back or on to a newer deploy is wanted, or `stop_grace` is over.
    pub(crate) fn interruption(&self) -> impl Fn() -> bool + Sync + Clone + use<> {
        let (shutdown, grace) = (self.shutdown.clone(), self.config.stop_grace);
        let handle: Option<HeartbeatHandle> = self.heartbeat.as_ref().map(Heartbeat::handle);
        move || match &handle {
            None => shutdown.requested(),
            Some(handle) if handle.is_out() => {
                shutdown.is_due(grace)
                    || shutdown.machine_goes_down()
                    || handle.cancel().is_some_and(|cancel| cancel.broken || cancel.superseded)
            }
            Some(handle) => shutdown.requested() || handle.cancel().is_some() || handle.ended(),
        }
    }

    /// How today's configuration runs the role.
    pub(crate) fn setup(&self) -> Setup {
        Setup {
            run_by: self.project.run_by(),
            health: self.role.health.clone(),
            verify: self.role.verify.clone(),
            load_balancers: self.role.load_balancers.clone(),
        }
    }

    /// How `good` was run; as today where that was not kept.
    pub(crate) fn setup_of(&self, good: &Good) -> Setup {
        good.setup.clone().unwrap_or_else(|| self.setup())
    }

    /// Milliseconds since 1970.
    pub(crate) fn now() -> i64 {
        jiff::Timestamp::now().as_millisecond()
    }

    /// Waits, unless interrupted.
    pub(crate) fn pause(&self, time: Duration) {
        // The next step asks what interrupted it.
        let _ = sleep(time, &self.interruption());
    }
}
