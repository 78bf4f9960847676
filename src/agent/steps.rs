//! The steps of a deploy on one box, but for the wait for a lock ([`super::lock_wait`]). Their order is written in
//! [`crate::deploy`], and only there.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use log::{error, info, warn};

use super::{
    BoxRole,
    heartbeat::{Heartbeat, Subject},
    journal::Good,
    plan::Plan,
    step_error::StepError,
};
use crate::{
    api::{Kind, Phase},
    compose::{DeployVars, ImageId, PullFailure, Rendered},
    coordination::{Finish, Held, JoinReply},
    exit::Exit,
    load_balancer::Waiting,
    process::{self, Program},
};

/// On top of what a step may take, before its lock is no longer renewed.
pub(crate) const SLACK: Duration = Duration::from_secs(30);
/// How long a registry may take to come back when the image is here already.
const REGISTRY: Duration = Duration::from_secs(20);
/// How long Redis may be away when a box that holds nothing says how its part ended.
const LAST_WORD: Duration = Duration::from_secs(30);

impl BoxRole<'_> {
    /// Takes the box's place in the deploy, and starts to be heard of.
    pub(crate) fn join(&mut self, plan: &Plan) -> Result<(), StepError> {
        let subject = Subject {
            name: self.name.clone(),
            deploy: plan.id.clone(),
            joins: plan.joins,
            ttl: self.config.lock_ttl,
            interval: self.config.renew_interval(),
        };
        self.heartbeat = Some(Heartbeat::start(subject, self.another_connection()?));
        if !plan.joins {
            return Ok(());
        }
        let boxes = self.live_boxes()?;
        let joined = self.retry_transient(self.config.command_timeout, |box_role| {
            let name = box_role.name.clone();
            box_role.locks.join(&name, &plan.id, &boxes, plan.retry, None)
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

    /// The lock that a box which is out gets back is for going back, or for waiting: it does not run past the gates, nor
    /// past a box that finds out whether the release is broken. After `command_timeout` it goes back instead.
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
        let before = self.project.image_present(rendered.image())?;
        self.pull(plan)?;
        let now = self.project.image_present(rendered.image())?;
        if let (Some(before), Some(now)) = (&before, &now)
            && before != now
        {
            let text = format!("{} stands for another image now: {now}, and {before} runs", plan.tag);
            (self.progress())(&text);
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
        let Some(good) = &self.journal.state().good else { return Ok(()) };
        Ok(self.project.check_way_back(&self.setup_of(good).run_by, &good.rendered, self.rendered()?)?)
    }

    /// Fetches the images, before any lock: a registry that fails costs no capacity. It may even be away where the tag has
    /// worked on this box and its image is still here: going back must not depend on it.
    pub(crate) fn pull(&mut self, plan: &Plan) -> Result<(), StepError> {
        let rendered = self.rendered()?.clone();
        let state = self.journal.state();
        let worked = [&state.good, &state.before].into_iter().flatten().any(|good| good.tag == plan.tag);
        let here = worked && self.project.image_present(rendered.image())?.is_some();
        let patience = if here { self.config.command_timeout.min(REGISTRY) } else { self.config.command_timeout };
        self.enter(Phase::Pulling, patience + SLACK);
        match self.project.pull(&rendered, patience, &self.interruption()) {
            Ok(()) => Ok(()),
            Err(PullFailure::UnknownTag(reason)) if !here => Err(StepError::UnknownTag(reason)),
            Err(PullFailure::UnknownTag(reason)) => {
                warn!("{reason}; going on with the image of {} that is on this box", plan.tag);
                Ok(())
            }
            Err(PullFailure::Other(error)) => {
                self.check_stop()?;
                if !here {
                    return Err(StepError::Box(error));
                }
                warn!("{error:#}; going on with the image of {} that is on this box", plan.tag);
                Ok(())
            }
        }
    }

    /// Leaves the load balancers and waits until they have let go.
    pub(crate) fn drain(&mut self, plan: &Plan) -> Result<(), StepError> {
        if !plan.locked {
            return Ok(());
        }
        let balancers = self.balancers(plan)?;
        self.enter(Phase::Draining, balancers.deregister_timeout() + SLACK);
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
        self.enter(Phase::Starting, within + SLACK);
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
        self.allow(Phase::Starting, self.project.time_to_start(&self.role.health) + self.role.health.stable_for);
        Ok(self.project.wait_healthy(&rendered, &self.role.health, &before, self.engine.as_ref(), &interrupted)?)
    }

    /// Gives the role's own program the last word.
    pub(crate) fn verify(&mut self, plan: &Plan) -> Result<(), StepError> {
        if self.role.verify.is_empty() {
            return Ok(());
        }
        self.enter(Phase::Verifying, self.config.command_timeout + SLACK);
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
        self.enter(Phase::Registering, within + SLACK);
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

    /// The box runs the release, in service: remembers it, and says so in one step.
    ///
    /// From here on it serves, and no file that cannot be written sends it back: what failed stands in the report.
    pub(crate) fn finish(&mut self, plan: &Plan) -> Result<(), StepError> {
        let good = Good {
            tag: plan.tag.clone(),
            deploy: plan.id.clone(),
            kind: plan.kind,
            at: Self::now(),
            rendered: self.rendered()?.clone(),
            images: self.project.images_of(self.rendered()?).unwrap_or_else(|error| {
                warn!("{}: {error:#}", self.place);
                BTreeMap::new()
            }),
            setup: Some(self.setup()),
        };
        let detail = self.journal.remember(good).err().map(|error| format!("{error:#}"));
        if let Some(detail) = &detail {
            error!("{}: {detail}; the box serves, and its next worker does this again", self.place);
        }
        self.report(plan, Phase::Done, detail, true)?;
        self.prune();
        Ok(())
    }

    /// Out by hand is not work that was interrupted: the box stays out, and its lock is free for others.
    pub(crate) fn stay_out(&mut self, plan: &Plan) -> Result<()> {
        let detail = self.journal.update(|state| state.work = None).err().map(|error| format!("{error:#}"));
        if let Some(detail) = &detail {
            error!("{}: {detail}", self.place);
        }
        self.report(plan, Phase::Cancelled, detail, false)
    }

    /// Ends the box's part in Redis, however long Redis takes to come back, and tells the service of the last one.
    pub(crate) fn report(&mut self, plan: &Plan, phase: Phase, detail: Option<String>, in_service: bool) -> Result<()> {
        let held = self.held();
        self.rest();
        let tag = self.journal.state().good.as_ref().map(|good| good.tag.clone());
        let finish = Finish {
            phase: plan.joins.then_some(phase),
            tag: tag.clone(),
            detail,
            in_service,
            running: tag.filter(|_| in_service),
            quiet: false,
        };
        let patience = if held.is_some() { self.config.lock_ttl } else { LAST_WORD };
        let remaining = self.retry_transient(patience, |box_role| {
            let name = box_role.name.clone();
            box_role.locks.finish(&name, &plan.id, held.as_ref(), &finish)
        })?;
        if remaining == Some(0)
            && let Err(error) = self.service.complete(&plan.id, &self.name)
        {
            info!("{error}; the service sees by itself that the deploy is complete");
        }
        Ok(())
    }

    fn prune(&self) {
        let Some(good) = &self.journal.state().good else { return };
        let pruned =
            self.images_to_keep().and_then(|kept| self.project.prune(&good.rendered, self.role.keep_images, &kept));
        if let Err(error) = pruned {
            warn!("{error:#}; old images stay");
        }
    }

    /// The images that any role on this box may go back to. Where that is not known, nothing is removed.
    fn images_to_keep(&self) -> Result<Vec<ImageId>> {
        let mut kept = Vec::new();
        for good in self.journal.good_on_this_box()? {
            kept.extend(self.project.image_present(good.rendered.image())?);
            kept.extend(good.images.into_values());
        }
        Ok(kept)
    }

    // What the steps share -------------------------------------------------------------------------------------------

    pub(crate) fn heartbeat(&self) -> Option<&Heartbeat> {
        self.heartbeat.as_ref()
    }

    /// The lock that this worker holds.
    pub(crate) fn held(&self) -> Option<Held> {
        self.heartbeat.as_ref().and_then(|heartbeat| heartbeat.handle().held())
    }

    pub(crate) fn rest(&self) {
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.rest();
        }
    }

    pub(crate) fn enter(&self, phase: Phase, within: Duration) {
        info!("{}: {phase}", self.place);
        self.step.set(Some((phase, Instant::now())));
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.enter(phase, within);
        }
    }

    /// The step that runs may take so long from now on.
    pub(crate) fn allow(&self, phase: Phase, within: Duration) {
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.enter(phase, within + SLACK);
        }
    }

    /// What a step waits for goes to the log and to everybody who watches the deploy.
    pub(crate) fn progress(&self) -> impl Fn(&str) + Sync + use<> {
        let (place, handle) = (self.place.clone(), self.heartbeat.as_ref().map(Heartbeat::handle));
        move |text: &str| {
            info!("{place}: {text}");
            if let Some(handle) = &handle {
                handle.say(text);
            }
        }
    }

    pub(crate) fn rendered(&self) -> Result<&Rendered> {
        self.rendered.as_ref().context("the compose file is used before it is rendered")
    }

    /// Whether the worker should not go on, and why: what was heard, rather than what it did to the step.
    pub(crate) fn check_stop(&self) -> Result<(), StepError> {
        let Some(handle) = self.heartbeat.as_ref().map(Heartbeat::handle) else { return Ok(()) };
        let out = handle.is_out();
        if out && self.shutdown.machine_goes_down() {
            return Err(StepError::PowerOff);
        }
        if self.shutdown.requested() && (!out || self.shutdown.is_due(self.config.stop_grace)) {
            return Err(StepError::Shutdown);
        }
        match handle.cancel() {
            Some(cancel) if cancel.superseded => Err(StepError::Superseded),
            Some(cancel) if cancel.broken || !out => Err(StepError::Cancelled(cancel)),
            _ if handle.ended() && !out => Err(StepError::Ended),
            _ => Ok(()),
        }
    }
}
