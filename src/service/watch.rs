//! The watch: looks at every place once a second, and whenever somebody rings. It passes verdicts and ends deploys (by
//! one script), sends events, starts what is queued, and hands out the work that takes time: gates and ends.
//!
//! It acts on what stands in Redis alone, so it does not matter which service watches, or how many do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Service, ids};
use crate::{
    api::{AuditEntry, State},
    locks::{Doc, Locks, Members, Patience},
    names::Place,
};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two events for one deploy; also how long a box may be silent before it is asked again.
const RESEND: Duration = Duration::from_secs(30);
/// How old the list of members may be in one round of the watch: many deploys are judged by one list.
const ROUND: Duration = Duration::from_millis(200);
/// A complaint that stays the same is repeated after this long.
const REPEAT: Duration = Duration::from_secs(60);

/// What one process remembers of its watch. Nothing here is needed to go on after a restart.
#[derive(Default)]
pub struct Memory {
    /// The deploys whose event was sent, by this process or before it.
    announced: BTreeSet<String>,
    /// The deploys that were seen rolling.
    rolling: BTreeMap<String, Doc>,
    /// The epoch of Redis at each place.
    epochs: BTreeMap<Place, String>,
    complaints: BTreeMap<String, (String, Instant)>,
}

/// Wakes the watch.
#[derive(Default)]
pub struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn wait(&self, patience: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(rung, patience, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

/// Watches until the service stops.
pub fn run(service: &Arc<Service>) {
    while !service.is_stopping() {
        service.complain("watch", service.tick());
        service.bell.wait(PAUSE);
    }
}

impl Service {
    /// Makes the watch look now.
    pub fn ring(&self) {
        self.bell.ring();
    }

    fn tick(self: &Arc<Self>) -> Result<()> {
        for place in self.records.places()? {
            self.complain(&place.to_string(), self.look(&place, ROUND));
        }
        let open: BTreeSet<String> = self.records.all_open()?.into_iter().collect();
        self.notice_lost(&open)?;
        for id in &open {
            self.complain(id, self.hand_out(id));
        }
        self.promote_by_itself();
        Ok(())
    }

    /// Looks at a place for somebody who waits for the answer; what fails is tried again by the watch.
    pub fn look_soon(&self, place: &Place) {
        self.complain(&place.to_string(), self.look(place, Duration::ZERO));
        self.ring();
    }

    fn look(&self, place: &Place, members_age: Duration) -> Result<()> {
        let current = self.records.at(place, Locks::current)?;
        if let Some(doc) = current.filter(|doc| doc.state() == State::Rolling) {
            self.judge(place, &doc, members_age)?;
        }
        self.start_queued(place)
    }

    /// Verdicts, the end, or the event again.
    fn judge(&self, place: &Place, doc: &Doc, members_age: Duration) -> Result<()> {
        if !self.memory().rolling.contains_key(&doc.id) {
            self.records.open(&doc.id)?;
            self.memory().rolling.insert(doc.id.clone(), doc.clone());
        }
        let Some(members) = self.witnesses(place, doc, members_age)? else { return Ok(()) };
        let patience = self.patience(place);
        let verdict = self.records.at(place, |locks| locks.end(&doc.id, &members, &patience))?;
        if verdict.ended {
            log::info!(
                "{} ended {}: {}",
                doc.id,
                verdict.state,
                verdict.reason.as_deref().unwrap_or("every box is done")
            );
            self.ring();
        } else if doc.gated.is_none() && verdict.state == State::Rolling {
            self.announce(place, doc, verdict.silent > 0)?;
        }
        Ok(())
    }

    /// The members to judge by. Without an agent nobody can be called gone, and a deploy not called complete; anything
    /// else can be judged.
    fn witnesses(&self, place: &Place, doc: &Doc, members_age: Duration) -> Result<Option<Members>> {
        let refusal = match self.members(place, members_age) {
            Ok(members) => {
                self.complain("serf", Ok(()));
                return Ok(Some(members));
            }
            Err(refusal) => refusal,
        };
        self.complain("serf", Err(refusal.into()));
        let (cancel, deploy) =
            self.records.at(place, |locks| Ok((locks.cancel_of(&doc.id)?, locks.show(doc, false)?)))?;
        Ok((cancel.is_some() || deploy.remaining > 0).then(Members::default))
    }

    fn patience(&self, place: &Place) -> Patience {
        Patience {
            interval: self.config.renew_interval(),
            ttl: self.config.lock_ttl,
            silence: RESEND,
            join: self.config.service.join_timeout,
            lock: self.config.lock_timeout,
            deploy: self.config.service.role(&place.role).deploy_timeout,
        }
    }

    /// Sends the event of a deploy when it is new here, and again while boxes that should speak do not.
    fn announce(&self, place: &Place, doc: &Doc, boxes_are_silent: bool) -> Result<()> {
        let is_new = !self.memory().announced.contains(&doc.id);
        if !is_new && !boxes_are_silent {
            return Ok(());
        }
        if self.records.may_send(&doc.id, RESEND)? {
            if let Err(error) = self.fleet.send(place, &|| self.is_stopping()) {
                self.records.not_sent(&doc.id)?;
                return Err(error.context(format!("the boxes do not know of {} yet", doc.id)));
            }
            log::info!("told the boxes of {place} that {} is to be deployed", doc.tag);
        }
        self.memory().announced.insert(doc.id.clone());
        Ok(())
    }

    /// What was rolling for this process and is nowhere any more: Redis came back without it.
    fn notice_lost(&self, open: &BTreeSet<String>) -> Result<()> {
        let gone: Vec<Doc> = self.memory().rolling.values().filter(|doc| !open.contains(&doc.id)).cloned().collect();
        for doc in gone {
            let place = Place { environment: doc.environment.clone(), role: doc.role.clone() };
            let known = self.records.at(&place, |locks| locks.doc(&doc.id))?.is_some();
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
    fn hand_out(self: &Arc<Self>, id: &str) -> Result<()> {
        let Some(place) = ids::place(id) else { return self.records.close(id) };
        match self.records.at(&place, |locks| locks.doc(id))? {
            // It expired, or Redis came back without it; whoever saw it rolling has said so.
            None => self.records.close(id),
            Some(doc) if doc.state() == State::Rolling && doc.gated.is_some() => {
                self.in_a_thread(&format!("gates:{id}"), move |service| service.ask_start_gates(&place, &doc))
            }
            Some(doc) if doc.state().is_ended() => {
                self.in_a_thread(&format!("end:{id}"), move |service| service.follow_up(&place, &doc))
            }
            Some(_) => Ok(()),
        }
    }

    /// Does work in a thread, unless a service is at it: whoever is killed at it is followed by another.
    pub fn in_a_thread(
        self: &Arc<Self>,
        name: &str,
        work: impl FnOnce(&Self) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        if !self.records.lease(name)? {
            return Ok(());
        }
        let (service, held) = (Arc::clone(self), name.to_owned());
        let work = move || {
            let outcome = work(&service);
            // One that is not given back runs out by itself.
            service.complain("leases", service.records.give_back(&held));
            // What failed is tried again, and not at once.
            if outcome.is_ok() {
                service.ring();
            }
            service.complain(&held, outcome);
        };
        if let Err(error) = thread::Builder::new().name(name.to_owned()).spawn(work) {
            self.records.give_back(name)?;
            return Err(error).context("cannot start a thread");
        }
        Ok(())
    }

    /// Forgets what was remembered of a deploy.
    pub fn forget(&self, id: &str) {
        let mut memory = self.memory();
        memory.rolling.remove(id);
        memory.announced.remove(id);
    }

    /// The epoch of Redis at a place, as far as this process remembers one.
    pub fn epoch(&self, place: &Place) -> Option<String> {
        self.memory().epochs.get(place).cloned()
    }

    /// Remembers the epoch of Redis at a place.
    pub fn remember_epoch(&self, place: &Place, epoch: &str) {
        self.memory().epochs.insert(place.clone(), epoch.to_owned());
    }

    /// Logs what failed and is tried again anyway: once, and again from time to time while it stays the same.
    pub fn complain(&self, about: &str, outcome: Result<()>) {
        let mut memory = self.memory();
        let Err(error) = outcome else {
            if memory.complaints.remove(about).is_some() {
                log::info!("{about}: works again");
            }
            return;
        };
        let text = format!("{error:#}");
        let last = memory.complaints.get(about);
        if last.is_none_or(|(said, at)| *said != text || at.elapsed() > REPEAT) {
            log::error!("{about}: {text}");
            memory.complaints.insert(about.to_owned(), (text, Instant::now()));
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
