//! The steps of a deploy on one box up to its return to the load balancers, but for the wait for a lock
//! ([`super::lock_wait`]). Their order is written in [`super::rollout`], and only there.

use std::time::{Duration, Instant};

use anyhow::Result;
use log::{info, warn};

use super::{
    BoxRole,
    heartbeat::{Heartbeat, Subject},
    plan::Plan,
    step_error::StepError,
};
use crate::{
    api::{Kind, Phase},
    compose::{DeployVars, Project, PullFailure, Rendered},
    coordination::JoinReply,
    exit::Exit,
    load_balancer::Waiting,
    process::{self, Program},
};

/// How long a registry may take to come back when the image is here already.
const REGISTRY: Duration = Duration::from_secs(20);

impl BoxRole<'_> {
    /// Joins the deploy, and starts the heartbeat.
    pub(crate) fn join(&mut self, plan: &Plan) -> Result<(), StepError> {
        let subject = Subject {
            name: self.name.clone(),
            deploy: plan.id.clone(),
            joins: plan.joins,
            ttl: self.config.lock_ttl,
            interval: self.config.renew_interval(),
            purpose: self.purpose.clone().filter(|_| !plan.joins),
        };
        self.heartbeat = Some(Heartbeat::start(subject, self.another_connection()?));
        if !plan.joins {
            return Ok(());
        }
        let (boxes, zones) = self.live_boxes()?;
        let joined = self.retry_transient(self.config.command_timeout, |box_role| {
            let name = box_role.name.clone();
            box_role.locks.join(&name, &plan.id, &boxes, &zones, plan.retry, None)
        })?;
        match joined {
            JoinReply::Refused { .. } | JoinReply::Seated { joined: false, .. } => Err(StepError::Ended),
            JoinReply::Seated { size, locks, epoch, .. } => {
                info!("{}: joined {} of {}: {size} boxes, {locks} at a time", self.place, plan.id, plan.tag);
                self.locks_total = locks;
                if let Some(heartbeat) = &self.heartbeat {
                    heartbeat.remember(epoch);
                }
                Ok(())
            }
        }
    }

    /// A box that is out already takes its lock first: whatever fails from here on, it goes back and into service.
    pub(crate) fn resume(&mut self, plan: &Plan) -> Result<(), StepError> {
        let name = self.name.clone();
        if plan.locked && self.retry_transient(self.config.command_timeout, |box_role| box_role.locks.is_out(&name))? {
            info!("{}: out of service from before; taking the lock first", self.place);
            self.wait_for_lock(plan)?;
            self.wait_under_lock(plan)?;
        }
        Ok(())
    }

    /// A box that is out always gets a lock back, also while gates have not passed or another box finds out whether the
    /// release is broken. Then the box waits under its lock. After `command_timeout` it goes back to its previous tag.
    fn wait_under_lock(&mut self, plan: &Plan) -> Result<(), StepError> {
        let begun = Instant::now();
        while let Some(what) = self.not_yet.clone() {
            if begun.elapsed() > self.config.command_timeout {
                return Err(StepError::NotYet(what));
            }
            (self.progress())(&format!("out of service; waits under its lock for {what}"));
            self.wait_for_wake()?;
            self.wait_for_lock(plan)?;
        }
        Ok(())
    }

    /// Whether the box already runs the release: the image that its tag stands for now, the same rendered configuration,
    /// healthy, in service.
    pub(crate) fn runs_already(&mut self, plan: &Plan) -> Result<bool, StepError> {
        let rendered = self.render(plan)?;
        let state = self.journal.state();
        let Some(good) = state.good.clone().filter(|_| state.work.is_none()) else { return Ok(false) };
        if (plan.recreate && good.deploy != plan.id) || !good.rendered.is_same_as(&rendered) {
            return Ok(false);
        }
        let interrupted = self.interruption();
        let same = self.project.runs(&rendered)? && self.project.is_healthy_now(&rendered, &self.role.health)?;
        if !same || !self.still_the_image(plan, &rendered)? {
            return Ok(false);
        }
        let balancers = self.balancers(plan)?;
        Ok(balancers.in_service(&Waiting::quietly(&interrupted, Some(&self.looks)))?)
    }

    /// Whether the tag still stands for the image that runs, by the registry's word: a deploy is to an image, and the tag
    /// is its name. Healing goes by the image on the box, or every timer of a fleet would ask the registry.
    fn still_the_image(&mut self, plan: &Plan, rendered: &Rendered) -> Result<bool, StepError> {
        if plan.kind == Kind::Sync {
            return Ok(true);
        }
        let before = self.project.images_of(rendered)?;
        self.pull(plan)?;
        let now = self.project.images_of(rendered)?;
        for (name, before) in &before {
            if let Some(now) = now.get(name).filter(|now| *now != before) {
                (self.progress())(&format!("{name} stands for another image now: {now}, and {before} runs"));
            }
        }
        Ok(before == now)
    }

    /// Renders the compose file with the variables of the plan, and keeps the result. Not again while the files are the
    /// same: under its lock a box finds out in a millisecond.
    pub(crate) fn render(&mut self, plan: &Plan) -> Result<Rendered, StepError> {
        let vars = self.vars(&plan.id, &plan.tag, plan.kind);
        let inputs = self.project.inputs();
        if let Some(rendered) = &self.rendered
            && inputs.is_some()
            && inputs == self.rendered_from
            && *rendered.vars() == vars
        {
            return Ok(rendered.clone());
        }
        let rendered = self.project.render(&vars, &self.interruption()).map_err(|e| Exit::Usage.because(e))?;
        self.rendered = Some(rendered.clone());
        self.rendered_from = inputs;
        Ok(rendered)
    }

    /// Refuses a release that the box could not go back from, while it still serves.
    pub(crate) fn check_way_back(&self) -> Result<(), StepError> {
        self.project.check_health(&self.role.health)?;
        let state = self.journal.state();
        let Some(good) = &state.good else { return Ok(self.check_former_role()?) };
        // A box that is out already has no other way than forward.
        if state.work.is_none() {
            Project::check_mounts(&good.rendered)?;
        }
        Ok(self.project.check_way_back(&self.setup_of(good).run_by, &good.rendered, self.rendered()?)?)
    }

    /// A role that was renamed has no release of its own yet: the old one's containers may run behind its load balancers.
    fn check_former_role(&self) -> Result<()> {
        for good in self.journal.good_on_this_box()? {
            let Some(setup) = good.setup else { continue };
            let mut balancers = setup.load_balancers.iter();
            let shared = balancers.any(|entry| self.role.load_balancers.contains(entry));
            if shared && !self.config.roles.contains_key(&good.rendered.vars().role) {
                self.project.check_project(&setup.run_by)?;
            }
        }
        Ok(())
    }

    /// Fetches the images, before any lock: a registry that fails costs no capacity. It may even be away where the tag has
    /// worked on this box and its image is still here: going back must not depend on it.
    pub(crate) fn pull(&mut self, plan: &Plan) -> Result<(), StepError> {
        let rendered = self.rendered()?.clone();
        let state = self.journal.state();
        let worked = [&state.good, &state.before].into_iter().flatten().any(|good| good.tag == plan.tag);
        let here = worked && self.project.image_present(rendered.image())?.is_some();
        let patience = if here { self.config.command_timeout.min(REGISTRY) } else { self.config.command_timeout };
        self.enter(Phase::Pulling, patience);
        match self.project.pull(&rendered, patience, &self.interruption()) {
            Ok(()) => Ok(()),
            Err(PullFailure::UnknownTag(reason)) if !here => Err(StepError::UnknownTag(reason)),
            Err(PullFailure::UnknownTag(reason)) => {
                self.go_on_without_registry(plan, &reason);
                Ok(())
            }
            Err(PullFailure::Other(error)) => {
                self.check_stop()?;
                if !here {
                    return Err(StepError::Box(error));
                }
                self.go_on_without_registry(plan, &format!("{error:#}"));
                Ok(())
            }
        }
    }

    /// Fetches what was removed while the box waited for its lock: `docker image prune` spares no image without a container.
    pub(crate) fn fetch_again(&mut self, plan: &Plan) -> Result<(), StepError> {
        let Some(image) = self.project.first_missing(self.rendered()?)? else { return Ok(()) };
        warn!("{}: somebody removed {image} from this box while it waited", self.place);
        self.pull(plan)
    }

    /// Goes on with the image that is on this box, and says so in the log and in the box's report: the tag may stand for
    /// another image by now.
    fn go_on_without_registry(&mut self, plan: &Plan, why: &str) {
        let remark = format!("{why}; going on with the image of {} that is on this box", plan.tag);
        warn!("{remark}");
        self.remark = Some(remark);
    }

    /// Leaves the load balancers, and waits until they send the box no more requests.
    pub(crate) fn drain(&mut self, plan: &Plan) -> Result<(), StepError> {
        if !plan.locked {
            return Ok(());
        }
        let balancers = self.balancers(plan)?;
        self.enter(Phase::Draining, balancers.deregister_timeout());
        let interrupted = self.interruption();
        let progress = self.progress();
        let waiting = Waiting {
            locks: self.locks_total,
            interrupted: &interrupted,
            progress: &progress,
            looks: Some(&self.looks),
        };
        balancers.deregister(&waiting)?;
        // One that is gone altogether keeps no release from coming.
        if let Err(error) = self.former_balancers(plan).and_then(|former| former.deregister(&waiting)) {
            warn!("{}: {error:#}; this role was behind it before, and is not any more", self.place);
        }
        Ok(())
    }

    /// Starts the new container, and waits until it is healthy and stable.
    pub(crate) fn start(&mut self, plan: &Plan) -> Result<(), StepError> {
        let within = self.config.command_timeout + self.role.health.timeout + self.role.health.stable_for;
        self.enter(Phase::Starting, within + self.project.time_to_stop()?);
        self.engine = self
            .project
            .watch_engine()
            .inspect_err(|e| warn!("{e:#}: a restart of the engine will not be noticed, so the release is not blamed"))
            .ok();
        self.journal.update(|state| {
            if let Some(work) = &mut state.work {
                work.started = true;
            }
        })?;
        let rendered = self.rendered()?.clone();
        let interrupted = self.interruption();
        let before = self.project.up(&rendered, plan.recreate, &interrupted)?;
        let health = self.project.with_patience(&self.role.health);
        self.allow(Phase::Starting, &health);
        Ok(self.project.wait_healthy(&rendered, &health, &before, self.engine.as_ref(), &interrupted)?)
    }

    /// Runs the role's `verify` program: the release is good when it exits with 0.
    pub(crate) fn verify(&mut self, plan: &Plan) -> Result<(), StepError> {
        if self.role.verify.is_empty() {
            return Ok(());
        }
        self.enter(Phase::Verifying, self.config.command_timeout);
        let program = self.verify_program(&self.role.verify, &self.vars(&plan.id, &plan.tag, plan.kind));
        match process::run(&program, &self.interruption()) {
            Ok(_) => Ok(()),
            Err(failure @ process::Failure::NotFound { .. }) => Err(StepError::Box(failure.into())),
            Err(failure) => {
                self.check_stop()?;
                Err(StepError::Release(format!("verify: {failure}")))
            }
        }
    }

    pub(crate) fn verify_program(&self, verify: &[String], vars: &DeployVars) -> Program {
        Program::new(self.config.command_timeout, verify.iter().cloned()).envs(vars.pairs())
    }

    /// Returns to the load balancers, and waits until all of them send requests.
    pub(crate) fn register(&mut self, plan: &Plan) -> Result<(), StepError> {
        let within = self.config.command_timeout;
        self.enter(Phase::Registering, within);
        let balancers = self.balancers(plan)?;
        let interrupted = self.interruption();
        let progress = self.progress();
        let waiting = Waiting {
            locks: self.locks_total,
            interrupted: &interrupted,
            progress: &progress,
            looks: Some(&self.looks),
        };
        balancers.register(Instant::now() + within, &waiting)?;
        Ok(())
    }
}
