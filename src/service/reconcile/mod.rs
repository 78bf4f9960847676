//! The watch: a loop that looks at every place once a second, and at once when it is woken. In each round it
//!
//! - judges the boxes of a deploy that rolls, and ends the deploy when it is over (by one script);
//! - sends the event of a deploy, again while boxes do not answer;
//! - starts what is queued, and promotes what is due;
//! - writes down what people are to be told, and starts a thread for work that takes time: gates, what the end of a deploy
//!   asks for, telling.
//!
//! It acts on what stands in Redis alone, so it does not matter which service watches, or how many do.

mod alarms;
mod compare;
mod finalize;
mod gates;
mod gates_now;
mod promotion;
mod reboots;
mod repeated_gates;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

pub use self::{
    finalize::SERVICE,
    repeated_gates::{GateResults, Judged},
};
use super::{Service, ids};
use crate::{
    api::{AuditEntry, State},
    coordination::{Coordinator, DeployRecord, Members, Timeouts},
    names::Place,
};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two events for one deploy; also how long a box may be silent before it is asked again.
const RESEND: Duration = Duration::from_secs(30);
/// How old the list of members may be in one round of the watch: many deploys are judged by one list.
const ROUND: Duration = Duration::from_millis(200);
/// Two looks that are further apart mean that this service was away, or its clock jumped: nobody is judged at once.
const LOOK_GAP: Duration = Duration::from_secs(15);
/// A complaint that stays the same is repeated after this long.
const REPEAT: Duration = Duration::from_secs(60);

/// What one process remembers of its watch. Nothing here is needed to go on after a restart.
#[derive(Default)]
pub struct WatchState {
    /// The deploys whose event was sent, by this process or before it.
    announced: BTreeSet<String>,
    /// The deploys that were seen rolling.
    rolling: BTreeMap<String, DeployRecord>,
    /// The epoch of Redis at each place.
    epochs: BTreeMap<Place, String>,
    /// The deploys that a gate holds.
    held: BTreeSet<String>,
    logged: BTreeMap<String, (String, Instant)>,
}

/// Wakes the watch.
#[derive(Default)]
pub struct Wakeup {
    notified: Mutex<bool>,
    changed: Condvar,
}

impl Wakeup {
    fn notify(&self) {
        *self.notified.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn wait(&self, patience: Duration) {
        let notified = self.notified.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(notified, patience, |notified| !*notified);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

/// Watches until the service stops.
pub fn run(service: &Arc<Service>) {
    while !service.is_stopping() {
        service.log_once("watch", service.tick(ROUND));
        service.wakeup.wait(PAUSE);
    }
}

impl Service {
    /// Makes the watch look now.
    pub fn notify(&self) {
        self.wakeup.notify();
    }

    /// One round: every place, every deploy whose end is open, every promotion, and whoever is still to be told. `members_age`: how old the list of members
    /// may be.
    pub(super) fn tick(self: &Arc<Self>, members_age: Duration) -> Result<()> {
        for place in self.store.places()? {
            self.log_once(&place.to_string(), self.look(&place, members_age));
            self.log_once(&format!("gates of {place}"), self.judge_by_gates(&place));
        }
        self.log_once("reboots", self.judge_reboots(members_age));
        let open: BTreeSet<String> = self.store.all_open()?.into_iter().collect();
        self.notice_lost(&open)?;
        for id in &open {
            self.log_once(id, self.spawn_follow_ups(id));
        }
        self.auto_promote();
        self.log_once("freezes", self.tell_freezes());
        self.empty_outboxes();
        Ok(())
    }

    /// Looks at a place for somebody who waits for the answer; what fails is tried again by the watch.
    pub fn reconcile_place_now(&self, place: &Place) {
        self.log_once(&place.to_string(), self.look(place, Duration::ZERO));
        self.notify();
    }

    fn look(&self, place: &Place, members_age: Duration) -> Result<()> {
        let current = self.store.at(place, Coordinator::current)?;
        if let Some(doc) = current.filter(|doc| doc.state() == State::Rolling) {
            self.judge(place, &doc, members_age)?;
        }
        self.start_queued(place)
    }

    /// Verdicts, the end, or the event again.
    fn judge(&self, place: &Place, doc: &DeployRecord, members_age: Duration) -> Result<()> {
        if !self.watch_state().rolling.contains_key(&doc.id) {
            self.store.open(&doc.id)?;
            self.watch_state().rolling.insert(doc.id.clone(), doc.clone());
        }
        let members = self.members_to_judge_by(place, members_age);
        let patience = self.patience(place);
        let verdict = self.store.at(place, |locks| locks.end(&doc.id, &members, &patience))?;
        if verdict.ended {
            log::info!(
                "{} ended {}: {}",
                doc.id,
                verdict.state,
                verdict.reason.as_deref().unwrap_or("every box is done")
            );
            self.notify();
        } else if doc.gated.is_none() && verdict.state == State::Rolling {
            self.announce(place, doc, verdict.silent > 0)?;
        }
        Ok(())
    }

    /// The members to judge by. Without an agent nobody is seen: so nobody is called gone, and no deploy complete. Anything
    /// else can be judged.
    fn members_to_judge_by(&self, place: &Place, members_age: Duration) -> Members {
        match self.members(place, members_age) {
            Ok(members) => {
                self.log_once("serf", Ok(()));
                members
            }
            Err(refusal) => {
                self.log_once("serf", Err(refusal.into()));
                Members::default()
            }
        }
    }

    fn patience(&self, place: &Place) -> Timeouts {
        Timeouts {
            interval: self.config.renew_interval(),
            ttl: self.config.lock_ttl,
            silence: RESEND,
            join: self.config.service.join_timeout,
            lock: self.config.lock_timeout,
            deploy: self.config.service.role(&place.role).deploy_timeout,
            look_gap: LOOK_GAP.max(self.config.renew_interval()),
        }
    }

    /// Sends the event of a deploy when it is new here, and again while boxes that should speak do not.
    fn announce(&self, place: &Place, doc: &DeployRecord, boxes_are_silent: bool) -> Result<()> {
        let is_new = !self.watch_state().announced.contains(&doc.id);
        if !is_new && !boxes_are_silent {
            return Ok(());
        }
        if self.store.may_send(&doc.id, RESEND)? {
            if let Err(error) = self.fleet.send(place, &|| self.is_stopping()) {
                self.store.not_sent(&doc.id)?;
                return Err(error.context(format!("the boxes do not know of {} yet", doc.id)));
            }
            log::info!("told the boxes of {place} that {} is to be deployed", doc.tag);
        }
        self.watch_state().announced.insert(doc.id.clone());
        Ok(())
    }

    /// What was rolling for this process and is nowhere any more: Redis came back without it.
    fn notice_lost(&self, open: &BTreeSet<String>) -> Result<()> {
        let gone: Vec<DeployRecord> =
            self.watch_state().rolling.values().filter(|doc| !open.contains(&doc.id)).cloned().collect();
        for doc in gone {
            let place = Place { environment: doc.environment.clone(), role: doc.role.clone() };
            let known = self.store.at(&place, |locks| locks.doc(&doc.id))?.is_some();
            self.forget(&doc.id);
            if !known {
                log::error!("Redis no longer knows the deploy {}, which was rolling: start it again", doc.id);
                let entry = AuditEntry::new("service", "lost").place(&place).tag(&doc.tag).deploy(&doc.id);
                self.audit(entry.detail("Redis came back without it; what its boxes do they finish; start it again"));
            }
        }
        Ok(())
    }

    /// Starts the work on an open deploy that takes time, each in a thread of its own and in one service only.
    fn spawn_follow_ups(self: &Arc<Self>, id: &str) -> Result<()> {
        let Some(place) = ids::place(id) else { return self.store.close(id) };
        let doc = self.store.at(&place, |locks| locks.doc(id))?;
        // What an end asks for comes first, and tells of it.
        if let Some(doc) = doc.as_ref().filter(|doc| !doc.state().is_ended()) {
            self.log_once(&format!("turns of {id}"), self.tell_turns(&place, doc));
            self.log_once(&format!("standstill of {id}"), self.tell_if_stuck(&place, doc));
        }
        match doc {
            // It expired, or Redis came back without it, which `notice_lost` has logged.
            None => self.store.close(id),
            Some(doc) if doc.state() == State::Rolling && doc.gated.is_some() => {
                self.in_a_thread(&format!("gates:{id}"), move |service| service.ask_start_gates(&place, &doc))
            }
            Some(doc) if doc.state().is_ended() => {
                self.in_a_thread(&format!("end:{id}"), move |service| service.follow_up(&place, &doc))
            }
            Some(_) => Ok(()),
        }
    }

    /// Does work in a thread, under a lease: one service does it, and another takes over when that one is killed.
    pub fn in_a_thread(
        self: &Arc<Self>,
        name: &str,
        work: impl FnOnce(&Self) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        if !self.store.lease(name)? {
            return Ok(());
        }
        let (service, held) = (Arc::clone(self), name.to_owned());
        let work = move || {
            let outcome = work(&service);
            // One that is not given back runs out by itself.
            service.log_once("leases", service.store.give_back(&held));
            // What failed is tried again, and not at once.
            if outcome.is_ok() {
                service.notify();
            }
            service.log_once(&held, outcome);
        };
        if self.is_stepwise {
            work();
            return Ok(());
        }
        if let Err(error) = thread::Builder::new().name(name.to_owned()).spawn(work) {
            self.store.give_back(name)?;
            return Err(error).context("cannot start a thread");
        }
        Ok(())
    }

    /// Forgets what was remembered of a deploy.
    pub fn forget(&self, id: &str) {
        let mut watch_state = self.watch_state();
        watch_state.rolling.remove(id);
        watch_state.announced.remove(id);
        watch_state.held.remove(id);
    }

    /// The epoch of Redis at a place, as far as this process remembers one.
    pub fn epoch(&self, place: &Place) -> Option<String> {
        self.watch_state().epochs.get(place).cloned()
    }

    /// Remembers the epoch of Redis at a place.
    pub fn remember_epoch(&self, place: &Place, epoch: &str) {
        self.watch_state().epochs.insert(place.clone(), epoch.to_owned());
    }

    /// Logs what failed and is tried again anyway: once, and again from time to time while it stays the same.
    pub fn log_once(&self, about: &str, outcome: Result<()>) {
        let mut watch_state = self.watch_state();
        let Err(error) = outcome else {
            if watch_state.logged.remove(about).is_some() {
                log::info!("{about}: works again");
            }
            return;
        };
        let text = format!("{error:#}");
        let last = watch_state.logged.get(about);
        if last.is_none_or(|(said, at)| *said != text || at.elapsed() > REPEAT) {
            log::error!("{about}: {text}");
            watch_state.logged.insert(about.to_owned(), (text, Instant::now()));
        }
    }

    fn watch_state(&self) -> MutexGuard<'_, WatchState> {
        self.watch_state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
