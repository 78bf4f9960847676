//! Waiting for a lock, and announcing that the box leaves its load balancers. Until then the box serves.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use log::{info, warn};

use super::{BoxRole, journal::Work, plan::Plan, step::SLACK, step_error::StepError};
use crate::{
    api::{Kind, Phase, State},
    client,
    coordination::{
        AcquireReply, Cancel, Finish, Held, LeaveReply, ManualRun, ManualRunZone, Refusal, Survey, new_token,
    },
    load_balancer::Waiting,
    sleep::jittered,
};

/// How long the heartbeat may renew while the box waits: long enough to report the phase once. Afterwards the box is heard
/// of whenever it asks for a lock.
const ONCE: Duration = Duration::from_millis(400);

/// What came of asking for a lock.
pub(crate) enum Asked {
    Granted,
    Waits {
        /// For what.
        wait: String,
        /// Somebody wants it so: no deadline of the box counts meanwhile.
        stands: bool,
    },
}

impl BoxRole<'_> {
    /// Waits until a lock is this box's. A cancel, the deploy's end or being told to stop end the wait at once.
    pub(crate) fn wait_for_lock(&mut self, plan: &Plan) -> Result<(), StepError> {
        if self.held().is_some() && self.not_yet.is_none() {
            return Ok(());
        }
        let manual_run = self.manual_run(plan)?;
        self.enter(Phase::Waiting, ONCE);
        let (mut waits_for, mut since) = (String::new(), Instant::now());
        loop {
            match self.ask_for_lock(plan, manual_run.as_ref())? {
                Asked::Granted => return Ok(()),
                Asked::Waits { wait, stands } => {
                    if stands {
                        since = Instant::now();
                    }
                    if wait != waits_for {
                        info!("{}: waits for {wait}", self.place);
                        (waits_for, since) = (wait, Instant::now());
                    } else if since.elapsed() > self.config.lock_timeout {
                        return Err(StepError::NoLock(wait));
                    }
                }
            }
            self.wait_for_wake()?;
        }
    }

    /// Asks for a lock once.
    pub(crate) fn ask_for_lock(&mut self, plan: &Plan, manual_run: Option<&ManualRun>) -> Result<Asked, StepError> {
        self.check_stop()?;
        let (token, settle) = (new_token()?, 3 * self.config.renew_interval());
        let epoch = self.heartbeat().and_then(|heartbeat| heartbeat.handle().epoch());
        let acquired = self.retry_transient(self.config.command_timeout, |box_role| {
            let (name, ttl) = (box_role.name.clone(), box_role.config.lock_ttl);
            box_role.locks.acquire(&name, &plan.id, &token, (ttl, settle), manual_run, epoch.as_deref())
        })?;
        match acquired {
            AcquireReply::Granted { granted, locks, out, epoch, cancel, not_yet, over, .. } => {
                info!("{}: lock {granted} of {locks}", self.place);
                self.locks_total = locks;
                if let Some(heartbeat) = &self.heartbeat {
                    heartbeat.hold(Held { suffix: granted, token });
                    heartbeat.remember(epoch);
                    heartbeat.set_out(out);
                    heartbeat.heard(cancel.clone());
                    heartbeat.enter(Phase::Waiting, self.config.command_timeout + SLACK);
                }
                self.check_stop()?;
                self.not_yet = not_yet;
                match cancel {
                    Some(cancel) => Err(StepError::Cancelled(cancel)),
                    None if over => Err(StepError::Ended),
                    None => Ok(Asked::Granted),
                }
            }
            AcquireReply::Stop { stop, cancel, .. } => Err(stopped(stop, cancel)),
            AcquireReply::Wait { wait, stands, epoch, .. } => {
                if let Some(heartbeat) = &self.heartbeat {
                    heartbeat.remember(epoch);
                }
                Ok(Asked::Waits { wait, stands })
            }
        }
    }

    /// Blocks on Redis in a thread, so that being told to stop is heard at once.
    pub(crate) fn wait_for_wake(&mut self) -> Result<(), StepError> {
        let mut waiter = match self.waiter.take() {
            Some(waiter) => waiter,
            None => self.another_connection()?,
        };
        let wait = jittered(self.config.poll_interval);
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let woken = waiter.wait_for_wake(wait);
            // Nobody listens when the worker was told to stop meanwhile.
            let _ = tell.send((waiter, woken));
        });
        loop {
            match told.recv_timeout(Duration::from_millis(50)) {
                Ok((waiter, woken)) => {
                    self.waiter = Some(waiter);
                    if let Err(error) = woken {
                        warn!("{error:#}; looking again");
                        self.pause(wait.min(Duration::from_secs(1)));
                    }
                    return Ok(());
                }
                Err(RecvTimeoutError::Timeout) => self.check_stop()?,
                Err(RecvTimeoutError::Disconnected) => return Err(anyhow!("the thread that waits panicked").into()),
            }
        }
    }

    /// Under the lock, asks the service again: is the deploy still current? `false`: the service does not answer; the lock
    /// was given back, and `poll_interval` has passed. Nothing is wrong with the box, so it asks for as long as it would
    /// wait for a lock.
    pub(crate) fn confirm(&mut self, plan: &Plan) -> Result<bool, StepError> {
        if !plan.joins {
            return Ok(true);
        }
        let current = match self.service.current(&self.place) {
            Err(error) if error.is_transient() => return self.wait_for_service(plan, &error),
            current => current.map_err(anyhow::Error::from)?,
        };
        self.service_away_since = None;
        match current.map(|current| current.deploy) {
            Some(deploy) if deploy.id == plan.id && deploy.state == State::Rolling => Ok(true),
            _ => {
                self.check_stop()?;
                Err(StepError::Ended)
            }
        }
    }

    fn wait_for_service(&mut self, plan: &Plan, error: &client::Error) -> Result<bool, StepError> {
        let since = *self.service_away_since.get_or_insert_with(Instant::now);
        if since.elapsed() > self.config.lock_timeout {
            return Err(StepError::NoLock(format!("the deployment service: {error}")));
        }
        if !self.is_out() {
            self.give_back(plan)?;
        }
        self.wait_aloud(&format!("waits: {error}"), jittered(self.config.poll_interval))?;
        Ok(false)
    }

    /// Waits for `time` and says for what; a cancel is heard meanwhile.
    fn wait_aloud(&self, what: &str, time: Duration) -> Result<(), StepError> {
        self.enter(Phase::Waiting, time + ONCE);
        (self.progress())(what);
        self.pause(time);
        self.check_stop()
    }

    /// Announces that the box leaves its load balancers. `false`: they cannot spare it yet; the lock was given back, and
    /// `poll_interval`, or more, has passed.
    pub(crate) fn leave(&mut self, plan: &Plan) -> Result<bool, StepError> {
        let Some(held) = self.held() else { return Ok(true) };
        let manual_run = self.manual_run(plan)?;
        let (balancers, interrupted) = (self.balancers(plan)?, self.interruption());
        let left = self.retry_transient(self.config.command_timeout, |box_role| {
            // Each time anew: what was in service before Redis was away may not be any more.
            let surveys: Vec<Survey> = balancers
                .survey(&Waiting::quietly(&interrupted, Some(&box_role.looks)))?
                .into_iter()
                .map(|survey| Survey { key: survey.key, me: survey.me, in_service: survey.in_service })
                .collect();
            let (name, ttl) = (box_role.name.clone(), box_role.config.lock_ttl);
            box_role.locks.leave(&name, &plan.id, &held, ttl, manual_run.as_ref(), &surveys)
        })?;
        match left {
            LeaveReply::Left { .. } => {
                if let Some(heartbeat) = &self.heartbeat {
                    heartbeat.set_out(true);
                }
                let purpose = self.purpose.clone().filter(|_| !plan.joins);
                let work = Work { deploy: plan.id.clone(), tag: plan.tag.clone(), started: false, purpose };
                self.journal.update(|state| {
                    // An interrupted start is still an interrupted start.
                    let started = state.work.as_ref().is_some_and(|work| work.started);
                    state.work = Some(Work { started, ..work });
                })?;
                Ok(true)
            }
            LeaveReply::Refused { refused: Refusal::Floor, others, floor, key, .. } => {
                self.give_back(plan)?;
                // Longer each time: the box that would mend the floor must find the lock free.
                let pauses = 1 << self.floor_refusals.min(2);
                self.floor_refusals += 1;
                let what = format!(
                    "waits: {} has {} other boxes in service and needs {}",
                    key.unwrap_or_default(),
                    others.unwrap_or(0),
                    floor.unwrap_or(0),
                );
                self.wait_aloud(&what, jittered(self.config.poll_interval * pauses))?;
                Ok(false)
            }
            LeaveReply::Refused { refused: Refusal::Zone, wait, .. } => {
                self.give_back(plan)?;
                let what = format!("waits: {}", wait.unwrap_or_default());
                self.wait_aloud(&what, jittered(self.config.poll_interval))?;
                Ok(false)
            }
            LeaveReply::Refused { refused: Refusal::NotOwner | Refusal::Held, .. } => {
                self.give_back(plan)?;
                Ok(false)
            }
            LeaveReply::Refused { refused, cancel, .. } => Err(stopped(refused, cancel)),
        }
    }

    /// Gives the lock back without having used it.
    pub(crate) fn give_back(&mut self, plan: &Plan) -> Result<()> {
        let Some(held) = self.held() else { return Ok(()) };
        self.rest();
        self.retry_transient(self.config.command_timeout, |box_role| {
            let name = box_role.name.clone();
            let finish = Finish { quiet: true, ..Finish::default() };
            box_role.locks.finish(&name, &plan.id, Some(&held), &finish)
        })
        .map(drop)
    }

    /// Size and `max_parallel` for work by hand; none where the box takes part in a deploy.
    pub(crate) fn manual_run(&mut self, plan: &Plan) -> Result<Option<ManualRun>> {
        if plan.joins {
            return Ok(None);
        }
        let (boxes, zones) = self.live_boxes()?;
        let size = u32::try_from(boxes.len()).unwrap_or(u32::MAX);
        let zone = ManualRunZone::of(&self.name, &boxes, &zones);
        let reason = (plan.kind == Kind::Manual).then(|| self.journal.state().kept_out.clone()).flatten();
        let purpose = self.purpose.clone();
        // Work on machines has one budget with the deploys: the last one says how large it is.
        let last = if purpose.is_some() { self.locks.current()? } else { None };
        let max_parallel = last.map_or(self.config.max_parallel, |deploy| deploy.max_parallel);
        Ok(Some(ManualRun { size, max_parallel, zone, reason, purpose }))
    }
}

fn stopped(refusal: Refusal, cancel: Option<Cancel>) -> StepError {
    match (refusal, cancel) {
        (_, Some(cancel)) if cancel.superseded => StepError::Superseded,
        (Refusal::Rolling, _) => StepError::Rolling,
        (_, Some(cancel)) => StepError::Cancelled(cancel),
        _ => StepError::Ended,
    }
}
