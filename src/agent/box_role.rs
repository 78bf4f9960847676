//! A box and one of its roles: everything that a worker acts on. The steps it takes are methods of the same type, in
//! [`super::steps`] and [`super::lock_wait`].

use std::{
    cell::Cell,
    env,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, bail};
use log::warn;

use super::{
    heartbeat::{Heartbeat, HeartbeatHandle},
    journal::{Good, Journal, Setup},
    plan::{Observation, Plan},
    shutdown::Shutdown,
};
use crate::{
    api::{Current, Kind, Phase, State},
    client::{self, Client},
    compose::{DeployVars, EngineWatch, Inputs, Project, Rendered},
    config::{Config, LoadBalancer, RoleConfig},
    coordination::{Coordinator, Finish, RedisConnection, RedisLooks, RenewRequest, Trouble},
    load_balancer::{Auto, LoadBalancers, Setting, Waiting},
    metadata::Metadata,
    names::{BoxName, Environment, Place, Role, Tag},
    pause::pause,
    process::never,
    retry::retrying,
    serf::Serf,
};

/// How long a Serf agent may take to start.
const AGENT: Duration = Duration::from_secs(30);
/// How long a Docker engine may take to come back before the box counts as failed.
const ENGINE: Duration = Duration::from_secs(60);

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
    /// What the boxes behind them share.
    pub(crate) looks: RedisLooks,
    pub(crate) engine: Option<EngineWatch>,
    pub(crate) locks_total: u32,
    /// How often its load balancers could not spare the box.
    pub(crate) floor_refusals: u32,
    /// What a box that is out already must wait for, although it has its lock.
    pub(crate) not_yet: Option<String>,
    /// Since when the deployment service has not answered a box that held a lock.
    pub(crate) service_away_since: Option<Instant>,
    /// The step that runs, and since when.
    pub(crate) step: Cell<Option<(Phase, Instant)>>,
}

/// This box, by its configuration and its Serf agent.
pub struct Identity {
    /// Its name.
    pub name: BoxName,
    /// Its environment.
    pub environment: Environment,
    /// The roles that its Serf tags name; empty where the agent was not asked.
    pub images: String,
}

/// The Serf agent that `config` names.
pub fn serf(config: &Config) -> Result<Serf> {
    Ok(Serf { rpc_addr: config.serf_rpc_addr.clone(), rpc_auth: config.serf_rpc_auth()? })
}

/// The load balancers of a role on this box, with what their programs are told.
pub fn balancers(
    config: &Config,
    entries: &[LoadBalancer],
    vars: &DeployVars,
    interrupted: &(dyn Fn() -> bool + Sync),
) -> Result<LoadBalancers> {
    let metadata = Metadata::new(|name| env::var(name).ok());
    let auto = |what: Auto| match what {
        Auto::InstanceId => metadata.instance_id(),
        Auto::LocalIpv4 => metadata.local_ipv4(),
        Auto::Region => metadata.region(),
    };
    let variables = vars.pairs();
    let setting = Setting { auto: &auto, variables: &variables, command_timeout: config.command_timeout };
    LoadBalancers::resolve(entries, &setting, interrupted)
}

/// Finds out who this box is. Waits for an agent that is still starting.
pub fn identify(config: &Config, shutdown: &Shutdown) -> Result<Identity> {
    let serf = serf(config)?;
    let interrupted = || shutdown.requested();
    let node = retrying(AGENT, &interrupted, |_| true, || serf.local_node(&interrupted))?;
    let name = match &config.box_name {
        Some(name) => name.clone(),
        None => node.name.parse().context("the Serf node name; write another as \"box\"")?,
    };
    let environment = match (&config.environment, node.tags.get("environment")) {
        (Some(environment), _) => environment.clone(),
        (None, Some(tag)) => tag.parse().context("the Serf tag environment")?,
        (None, None) => bail!("this box has no environment: set the Serf tag environment, or \"environment\""),
    };
    let images = node.tags.get("images").cloned().unwrap_or_default();
    Ok(Identity { name, environment, images })
}

fn coordinator(config: &Config, place: &Place) -> Result<Coordinator> {
    Ok(Coordinator::new(RedisConnection::new(&config.redis_url()?, &config.redis_prefix)?, place))
}

/// Ends this box's part in a deploy of a `role` that its Serf tag names and its configuration lacks, for the reason
/// `error`, which is given back. Else the deploy would wait for it until `join_timeout`, and not know why.
#[must_use]
pub fn without_configuration(config: &Config, who: &Identity, role: &Role, error: Error) -> Error {
    let place = Place { environment: who.environment.clone(), role: role.clone() };
    let say = || -> Result<()> {
        let service = Client::new(config, who.name.as_str())?;
        let current = retrying(AGENT, &never, client::Error::may_pass, || service.current(&place))?;
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
    retrying(ENGINE, &never, Trouble::may_pass, || {
        locks.join(name, id, &[], false, None)?;
        locks.finish(name, id, None, &finish)
    })
    .map(drop)
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
            rendered_from: None,
            balancers: None,
            engine: None,
            locks_total: 1,
            floor_refusals: 0,
            not_yet: None,
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

    fn resolve_balancers(&self, vars: &DeployVars, interrupted: &(dyn Fn() -> bool + Sync)) -> Result<LoadBalancers> {
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
        retrying(patience, &|| !out && shutdown.requested(), Trouble::may_pass, || work(self))
    }

    /// What the service says is current here. Waits for a service that restarts.
    pub(crate) fn current(&self, patience: Duration) -> Result<Option<Current>> {
        let ask = || self.service.current(&self.place);
        Ok(retrying(patience, &self.interruption(), client::Error::may_pass, ask)?)
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

    /// Looks at the box: its journal, its container, its load balancers, and its place in Redis. Waits a while for a
    /// Docker engine that restarts.
    pub(crate) fn observe(&mut self, current: Option<&Current>) -> Result<Observation> {
        let interrupted = self.interruption();
        let rolling = current.map(|current| &current.deploy).filter(|deploy| deploy.state == State::Rolling);
        let (out, complete, (row, done)) = self.retry_transient(self.config.command_timeout, |box_role| {
            let name = box_role.name.clone();
            let standing = rolling.map(|deploy| box_role.locks.standing(&deploy.id, &name)).transpose()?;
            Ok((box_role.locks.is_out(&name)?, box_role.locks.complete()?, standing.unwrap_or_default()))
        })?;
        let patience = self.config.command_timeout.min(ENGINE);
        let joins = rolling.is_some();
        let (has_container, serves, unseen) =
            retrying(patience, &interrupted, |_| true, || self.look_outside(joins, &interrupted))?;
        let state = self.journal.state().clone();
        Ok(Observation {
            name: self.name.clone(),
            out: out || state.work.is_some(),
            kept_out: state.kept_out,
            is_new: state.good.is_none() && !has_container && unseen && !out,
            serves,
            good: state.good.map(|good| (good.tag, (good.kind == Kind::Manual).then_some(good.at))),
            row,
            proven: done > u32::from(row == Some(Phase::Done)),
            complete_at: complete.and_then(|doc| doc.ended),
        })
    }

    /// Whether there is a container; whether it is the last good one, healthy and in service; and whether no load balancer
    /// knows this box. A box that joins a deploy is not asked for more than it takes to see that it is no new one.
    fn look_outside(&self, joins: bool, interrupted: &(dyn Fn() -> bool + Sync)) -> Result<(bool, bool, bool)> {
        let good = self.journal.state().good.as_ref();
        let has_container = self.project.container()?.is_some();
        if joins && (has_container || good.is_some()) {
            return Ok((has_container, false, false));
        }
        let tag = good.map_or_else(|| "none".parse(), |good| Ok(good.tag.clone()))?;
        let vars = self.vars("look", &tag, Kind::Sync);
        let balancers = self.resolve_balancers(&vars, interrupted)?;
        let in_service = balancers.in_service(&Waiting::quietly(interrupted, Some(&self.looks)))?;
        let healthy = match good {
            Some(good) if has_container => self.is_good_now(good)?,
            _ => false,
        };
        Ok((has_container, healthy && in_service, !in_service || self.role.load_balancers.is_empty()))
    }

    fn is_good_now(&self, good: &Good) -> Result<bool> {
        let setup = self.setup_of(good);
        let project = self.project.as_run_by(&setup.run_by);
        Ok(project.runs(&good.rendered)? && project.is_healthy_now(&good.rendered, &setup.health)?)
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

    /// A box whose journal says that it is out says so to Redis before anything else. It may have been called gone while
    /// it was down, and its place given away: from here on it counts again, and gets a lock first.
    pub(crate) fn assert_out(&mut self) -> Result<()> {
        let Some(work) = self.journal.state().work.clone() else { return Ok(()) };
        let name = self.name.clone();
        let still_out = RenewRequest {
            name: &name,
            deploy: &work.deploy,
            phase: None,
            detail: None,
            suffix: None,
            token: None,
            ttl: u64::try_from(self.config.lock_ttl.as_millis()).unwrap_or(u64::MAX),
            out: true,
            hand: None,
            epoch: None,
        };
        self.retry_transient(self.config.command_timeout, |box_role| box_role.locks.renew(&still_out)).map(drop)
    }

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

    /// Live boxes of this place, by this box's own agent; itself always among them.
    pub(crate) fn live_boxes(&mut self) -> Result<Vec<BoxName>> {
        let interrupted = self.interruption();
        let ask = || self.serf.members(&interrupted);
        let members = retrying(self.config.command_timeout, &interrupted, |_| true, ask)?;
        let mut boxes: Vec<BoxName> = members
            .iter()
            .filter(|member| member.is_live_in(&self.place))
            .filter_map(|member| match member.name.parse() {
                Ok(name) => Some(name),
                Err(error) => {
                    warn!("a member of the fleet is left out: {error}");
                    None
                }
            })
            .collect();
        if !boxes.contains(&self.name) {
            boxes.push(self.name.clone());
        }
        Ok(boxes)
    }

    /// Milliseconds since 1970.
    pub(crate) fn now() -> i64 {
        jiff::Timestamp::now().as_millisecond()
    }

    /// Waits, unless interrupted.
    pub(crate) fn pause(&self, time: Duration) {
        // The next step asks what interrupted it.
        let _ = pause(time, &self.interruption());
    }
}
