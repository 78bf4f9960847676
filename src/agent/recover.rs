//! What follows a failed step: an untouched box gives its lock back; one that is out goes back to what it ran before, and
//! only then says whether the release is to blame.
//!
//! Blame needs proof: the previous tag works on this same box. Nobody takes a lock while the proof is sought (`hold`).

use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, anyhow};
use log::{error, info, warn};

use super::{
    BoxRole,
    journal::{self, Good},
    plan::Plan,
    step_error::{Outcome, StepError, describe},
};
use crate::{
    api::{Phase, STAYS_OUT, State},
    client,
    config::duration,
    load_balancer::Waiting,
    process::{self, Program},
    retry::retrying,
};

/// How long the service may be away before a broken release is cancelled in Redis alone.
const REPORT: Duration = Duration::from_secs(20);

/// How long a machine that goes down gives its load balancers.
const LAST_CALL: Duration = Duration::from_secs(10);

/// How long old images that somebody removed may take to be fetched again, each time that the old release is tried.
const FETCH: Duration = Duration::from_secs(60);

/// How the attempt to bring back the previous tag went.
enum Back {
    /// It runs, healthy.
    Restored,
    /// There is no previous tag.
    NonePrevious,
    /// It does not work either.
    Failed(Error),
}

impl BoxRole<'_> {
    /// Ends the box's part after a step failed with `error`.
    pub(crate) fn recover(&mut self, plan: &Plan, error: StepError) -> Outcome {
        // A step that was interrupted fails in its own words; what interrupted it is the reason.
        let error = match (error, self.check_stop()) {
            (StepError::Box(_) | StepError::Release(_), Err(heard)) => heard,
            (error, _) => error,
        };
        if self.is_out() {
            return self.recover_out(plan, error);
        }
        self.recover_untouched(plan, error).unwrap_or_else(Outcome::Failed)
    }

    /// The box never left: it serves what it served.
    fn recover_untouched(&mut self, plan: &Plan, error: StepError) -> Result<Outcome> {
        let (phase, detail, outcome) = match error {
            StepError::Release(reason) => (Phase::Failed, reason.clone(), Outcome::Failed(anyhow!(reason))),
            StepError::UnknownTag(reason) => {
                let blamed = !plan.joins || plan.may_blame && self.blame(plan, &reason, "");
                let outcome =
                    if blamed { Outcome::Broken(reason.clone()) } else { Outcome::Failed(anyhow!(reason.clone())) };
                (Phase::Failed, reason, outcome)
            }
            StepError::Box(error) => (Phase::Failed, format!("{error:#}"), Outcome::Failed(error)),
            StepError::Cancelled(cancel) if cancel.broken => {
                (Phase::Cancelled, describe(&cancel), Outcome::Broken(describe(&cancel)))
            }
            StepError::Cancelled(cancel) => {
                (Phase::Cancelled, describe(&cancel), Outcome::Cancelled(describe(&cancel)))
            }
            StepError::Superseded | StepError::NotYet(_) => {
                self.give_back(plan)?;
                return Ok(Outcome::Again);
            }
            StepError::Ended => return self.after_the_end(plan),
            StepError::NoLock(what) => (Phase::Failed, format!("no lock: {what}"), Outcome::NoLock(what)),
            StepError::Rolling => return Ok(Outcome::Rolling),
            StepError::Shutdown | StepError::PowerOff => {
                let text = "its worker was told to stop; the next event, run or sync goes on".to_owned();
                (Phase::Expected, text.clone(), Outcome::Cancelled(text))
            }
        };
        self.say(plan, phase, detail, false);
        Ok(outcome)
    }

    /// It may have said that it leaves and not have left yet.
    fn deregister_quickly(&mut self, plan: &Plan) {
        let begun = Instant::now();
        let over = move || begun.elapsed() > LAST_CALL;
        let left = self
            .balancers(plan)
            .and_then(|balancers| balancers.deregister(&Waiting::quietly(&over, Some(&self.looks))));
        if let Err(error) = left {
            warn!("{}: {error:#}; the load balancer must find out by itself", self.place);
        }
    }

    /// The deploy ended, or was never this box's: what came of it?
    fn after_the_end(&mut self, plan: &Plan) -> Result<Outcome> {
        self.give_back(plan)?;
        let id = plan.id.clone();
        let doc = self.retry_transient(self.config.command_timeout, |box_role| box_role.locks.doc(&id))?;
        let reason = doc.as_ref().and_then(|doc| doc.reason.clone()).unwrap_or_default();
        Ok(match doc.map(|doc| doc.state()) {
            Some(State::Broken) => Outcome::Broken(format!("the release is broken: {reason}")),
            Some(State::Cancelled) => Outcome::Cancelled(format!("the deploy was cancelled: {reason}")),
            Some(State::Failed) => Outcome::Failed(anyhow!("the deploy failed: {reason}")),
            Some(State::Rolling) => Outcome::Nothing("its part in the deploy is over".to_owned()),
            _ => Outcome::Nothing("the deploy is over".to_owned()),
        })
    }

    /// The box is out: back to the previous tag, in service, and only then free the lock.
    fn recover_out(&mut self, plan: &Plan, error: StepError) -> Outcome {
        let started = self.journal.state().work.as_ref().is_some_and(|work| work.started);
        match error {
            // The newer deploy takes a box that is out first, under the lock it has.
            StepError::Superseded => Outcome::Again,
            StepError::NotYet(what) => {
                let back = self.go_back(started);
                self.settle(plan, back, Phase::Expected, &format!("went back; waits for {what}"));
                Outcome::Again
            }
            StepError::Release(reason) | StepError::UnknownTag(reason) => self.recover_from_release(plan, reason),
            StepError::Cancelled(cancel) => {
                info!("{}: {}; going back", self.place, describe(&cancel));
                let back = self.go_back(started);
                let text = describe(&cancel);
                self.settle(plan, back, Phase::RolledBack, &text);
                if cancel.broken { Outcome::Broken(text) } else { Outcome::Cancelled(text) }
            }
            // A machine that goes down is not to get requests. Its journal, its lock and its place in `out` stay as they
            // are, and `sync` goes on after the boot, as after a power cut.
            StepError::PowerOff => {
                info!("{}: the machine goes down; the box stays out, and goes on after the boot", self.place);
                self.deregister_quickly(plan);
                Outcome::Cancelled("the machine goes down; the box goes on after the boot".to_owned())
            }
            StepError::Shutdown => {
                info!("{}: told to stop, and stop_grace is over; going back", self.place);
                let back = self.go_back(started);
                let text = "its worker was told to stop; the next event, run or sync goes on".to_owned();
                self.settle(plan, back, Phase::Expected, &text);
                Outcome::Cancelled(text)
            }
            StepError::Box(error) => {
                warn!("{}: {error:#}; going back", self.place);
                let back = self.go_back(started);
                self.settle(plan, back, Phase::Failed, &format!("{error:#}"));
                Outcome::Failed(error)
            }
            StepError::Ended | StepError::NoLock(_) | StepError::Rolling => {
                let back = self.go_back(started);
                self.settle(plan, back, Phase::Failed, "the deploy ended under it");
                Outcome::Failed(anyhow!("the deploy ended while this box was out of service"))
            }
        }
    }

    /// The new container is at fault, or so it looks: the proof is that the previous tag works here.
    fn recover_from_release(&mut self, plan: &Plan, reason: String) -> Outcome {
        warn!("{}: {reason}", self.place);
        let evidence = self.evidence();
        // The old containers ask for as much time as the new ones, as a rule.
        let health = self.project.with_patience(&self.role.health);
        let verify = if self.previous_verify().is_some() { self.config.command_timeout } else { Duration::ZERO };
        let hold = self.config.command_timeout.min(Duration::from_secs(120))
            + 2 * (health.timeout + health.stable_for)
            + verify;
        let blames = plan.may_blame && self.engine_stood() && !self.shutdown.requested();
        if blames {
            let (name, id) = (self.name.clone(), plan.id.clone());
            if let Err(error) = self.retry_transient(REPORT, |box_role| box_role.locks.hold(&name, &id, hold)) {
                warn!("{error:#}; other boxes may go on meanwhile");
            }
        }
        let back = self.go_back(true);
        let proven = blames
            && self.engine_stood()
            && !self.shutdown.requested()
            && matches!(back, Back::Restored | Back::NonePrevious);
        if !proven {
            warn!("{}: the release is not blamed: {}", self.place, why_not(plan, &back));
        }
        let proven = proven && self.previous_verifies();
        let proven = proven && self.blame(plan, &reason, &evidence);
        let phase = if proven && matches!(back, Back::Restored) { Phase::RolledBack } else { Phase::Failed };
        self.settle(plan, back, phase, &reason);
        if proven { Outcome::Broken(reason) } else { Outcome::Failed(anyhow!(reason)) }
    }

    /// What can be told of the step and of the container, before that is replaced.
    fn evidence(&self) -> String {
        let step = match self.step.get() {
            Some((phase, since)) => format!("{phase} for {}", duration::display(since.elapsed())),
            None => "before the first step".to_owned(),
        };
        let container = match self.rendered().and_then(|rendered| self.project.evidence(rendered)) {
            Ok(evidence) => evidence.to_string(),
            Err(error) => format!("no evidence: {error:#}"),
        };
        format!("{step}\n{container}")
    }

    /// Whether the Docker engine was there all the time: one that restarted stops containers through no fault of theirs.
    fn engine_stood(&self) -> bool {
        self.engine.as_ref().is_some_and(|engine| !engine.was_interrupted())
    }

    /// Brings the previous tag back, healthy. Where no container was touched there is nothing to do.
    fn go_back(&mut self, started: bool) -> Back {
        let Some(good) = self.journal.state().good.clone() else {
            return if started { Back::NonePrevious } else { Back::Restored };
        };
        if !started {
            return Back::Restored;
        }
        (self.progress())(&format!("going back to {}", good.tag));
        match self.restore(&good) {
            Ok(()) => Back::Restored,
            Err(error) => Back::Failed(error),
        }
    }

    /// Brings the release that last worked here to run again, healthy. A container that does already stays as it is.
    fn restore(&mut self, good: &Good) -> Result<()> {
        let health = self.setup_of(good).health;
        let within = self.config.command_timeout + health.timeout + health.stable_for;
        // An engine that does not answer now is waited for below.
        let stop = self.project.time_to_stop().unwrap_or_default();
        self.enter(Phase::Starting, within + stop);
        // The engine may be restarting: that is worth waiting for, a container that does not work is not.
        let patience = self.config.command_timeout.min(Duration::from_secs(120));
        let is_transient = |error: &StepError| matches!(error, StepError::Box(_));
        retrying(patience, &|| false, is_transient, || self.start_again(good))
            .map_err(|error| anyhow!(error.to_string()))
    }

    /// The box was out for something that is no deploy: what last worked here runs, healthy, and gets requests again.
    /// `served`: it got them before. A box that cannot stays out, and counts; its next worker tries again.
    pub(crate) fn come_back(&mut self, plan: &Plan, served: bool) -> Result<()> {
        let good = self.journal.state().good.clone();
        let returned = good.map_or(Ok(()), |good| self.restore(&good)).and_then(|()| self.verify_again());
        let returned = returned.and_then(|()| if served { self.return_to_service(plan) } else { Ok(()) });
        match returned {
            Ok(()) => {
                let detail = self.journal.update(|state| state.work = None).err().map(|error| format!("{error:#}"));
                if let Some(detail) = &detail {
                    error!("{}: {detail}", self.place);
                }
                self.report(plan, Phase::Done, detail, true)
            }
            Err(error) => {
                self.purpose = None;
                let forget =
                    |state: &mut journal::RoleState| state.work.iter_mut().for_each(|work| work.purpose = None);
                if let Err(error) = self.journal.update(forget) {
                    error!("{}: {error:#}", self.place);
                }
                self.say(plan, Phase::Failed, format!("{error:#}"), false);
                Err(error)
            }
        }
    }

    /// The last word of the release that runs, if it has one.
    fn verify_again(&self) -> Result<()> {
        let Some(program) = self.previous_verify() else { return Ok(()) };
        self.enter(Phase::Verifying, self.config.command_timeout);
        process::run(&program, &|| false).map(drop).context("verify")
    }

    fn start_again(&self, good: &Good) -> Result<(), StepError> {
        let never = || false;
        // A tag may have been pushed again. Where the old image is gone, what the tag stands for now is worth a try, and so
        // is the registry.
        for (name, id) in &good.images {
            if let Err(error) = self.project.restore_image(name, id) {
                warn!("{}: {error:#}", self.place);
            }
        }
        let setup = self.setup_of(good);
        let project = self.project.way_back(&setup.run_by);
        if let Err(failure) = project.pull_missing(&good.rendered, FETCH.min(self.config.command_timeout)) {
            warn!("{}: an old image is gone from this box: {failure}", self.place);
        }
        let before = project.up(&good.rendered, false, &never)?;
        let health = project.with_patience(&setup.health);
        self.allow(Phase::Starting, &health);
        Ok(project.wait_healthy(&good.rendered, &health, &before, self.engine.as_ref(), &never)?)
    }

    /// The last word that the previous release had to pass.
    fn previous_verify(&self) -> Option<Program> {
        let good = self.journal.state().good.as_ref()?;
        let verify = self.setup_of(good).verify;
        (!verify.is_empty()).then(|| self.verify_program(&verify, good.rendered.vars()))
    }

    /// Whether the release that runs again passes its own `verify`. Where it does not, something that both need is at
    /// fault. The box returns to service all the same: that one worked until now.
    fn previous_verifies(&self) -> bool {
        let Some(program) = self.previous_verify() else { return true };
        self.enter(Phase::Verifying, self.config.command_timeout);
        // A worker that was told to stop proves nothing any more, and has a box to bring back.
        let verified = process::run(&program, &|| self.shutdown.requested());
        if let Err(failure) = &verified {
            warn!("{}: the release is not blamed: the previous one fails its verify, too: {failure}", self.place);
        }
        verified.is_ok()
    }

    /// Returns to service on the previous tag and frees the lock; a box that cannot stays out, loudly, and counts.
    fn settle(&mut self, plan: &Plan, back: Back, phase: Phase, why: &str) {
        let returned = match back {
            Back::Restored => self.return_to_service(plan),
            Back::NonePrevious => Err(anyhow!("there is no previous tag to go back to")),
            Back::Failed(error) => Err(error.context("the previous tag does not work here either")),
        };
        match returned {
            Ok(()) => {
                // Whatever the disk says, the box serves: its lock and its place in `out` must tell so.
                let detail = match self.journal.update(|state| state.work = None) {
                    Ok(()) => why.to_owned(),
                    Err(error) => {
                        error!("{}: {error:#}", self.place);
                        format!("{why}; {error:#}")
                    }
                };
                self.say(plan, phase, detail, true);
            }
            Err(error) => {
                error!("{}: THIS BOX STAYS OUT OF SERVICE: {error:#}; mend it, then `deployctl run`", self.place);
                let detail = format!("{why}{STAYS_OUT}{error:#}");
                self.say(plan, Phase::Failed, detail, false);
            }
        }
    }

    /// Reports how it ended. Where even that fails, what went wrong before is still the news.
    fn say(&mut self, plan: &Plan, phase: Phase, detail: String, in_service: bool) {
        if let Err(error) = self.report(plan, phase, Some(detail), in_service) {
            warn!("{}: {error:#}; the deploy does not know how this box ended", self.place);
        }
    }

    /// Not interrupted by anything but its deadline: nothing is wanted more than a box in service.
    fn return_to_service(&mut self, plan: &Plan) -> Result<()> {
        let within = self.config.command_timeout;
        self.enter(Phase::Registering, within);
        let never = || false;
        let progress = self.progress();
        let balancers = self.balancers(plan)?;
        let waiting =
            Waiting { locks: self.locks_total, interrupted: &never, progress: &progress, looks: Some(&self.looks) };
        balancers.register(Instant::now() + within, &waiting)
    }

    /// Tells the service that the release is broken; while it does not answer, the other boxes are stopped through Redis.
    /// Whether the blame stands: a release that was complete here before is not broken, whatever this box says.
    fn blame(&mut self, plan: &Plan, reason: &str, evidence: &str) -> bool {
        error!("{}: {} is broken: {reason}", self.place, plan.tag);
        let report = || self.service.report_broken(&plan.id, &self.name, reason, evidence);
        match retrying(REPORT, &|| false, client::Error::is_transient, report) {
            Ok(()) => true,
            Err(error) if error.kind() == Some("ended") => true,
            Err(error) if error.is_transient() => {
                warn!("{error:#}; cancelling in Redis instead");
                self.blame_in_redis(plan, reason)
            }
            Err(refusal) => {
                error!("{}: the service does not take the blame: {refusal}", self.place);
                false
            }
        }
    }

    fn blame_in_redis(&mut self, plan: &Plan, reason: &str) -> bool {
        let (name, id) = (self.name.to_string(), plan.id.clone());
        let cancelled = self.retry_transient(REPORT, |box_role| box_role.locks.cancel(Some(&id), &name, reason, true));
        if let Err(error) = cancelled {
            error!("{error:#}: the other boxes do not know that the release is broken");
        }
        true
    }
}

fn why_not(plan: &Plan, back: &Back) -> String {
    match back {
        Back::Failed(error) => format!("the previous tag does not work here either ({error:#})"),
        _ if !plan.may_blame => "it is not a deploy of a release that was never complete here".to_owned(),
        _ => "the Docker engine restarted, or the box is shutting down".to_owned(),
    }
}
