//! What an end asks for: remembering what is good, the mark on what is broken, telling people, and the way back.
//!
//! Each step may be done again, so a service that is killed half-way is followed by another that does them all.

use anyhow::Result;

use crate::service::{
    Service,
    api_error::ErrorKind,
    ids,
    start::{DeployRequest, StartOutcome},
    store::{CompleteDeploy, Mark},
};
use crate::{
    api::{AuditEntry, Kind, ReleaseStatus, State},
    coordination::{Coordinator, DeployRecord, rfc3339},
    names::Place,
};

/// The author, in the audit log, of what the service does by itself.
pub const SERVICE: &str = "service";

impl Service {
    /// Does everything that the end of a deploy asks for. The caller holds the lease.
    pub fn follow_up(&self, place: &Place, doc: &DeployRecord) -> Result<()> {
        if !self.store.is_open(&doc.id)? {
            return Ok(());
        }
        match doc.state() {
            State::Deployed => self.remember_good(place, doc)?,
            // A box that could not reach us has cancelled it in Redis, and cannot know that the release has worked.
            State::Broken if !self.has_worked(place, doc)? => self.mark_broken(place, doc, None)?,
            _ => {}
        }
        // Before it is closed: who is killed in between finds it open, and tells it then.
        self.tell_turns(place, doc)?;
        if doc.state() == State::Broken
            && self.store.mark(&place.role, &doc.tag)?.is_some_and(|mark| mark.status == ReleaseStatus::Broken)
        {
            self.auto_rollback(place, doc)?;
        }
        let ended = doc.ended.unwrap_or_default();
        self.store.count_end(place, doc.state(), ended - doc.started.unwrap_or(ended))?;
        let entry = AuditEntry::new(SERVICE, doc.state().as_str()).place(place).tag(&doc.tag).deploy(&doc.id);
        self.audit(entry.detail(doc.reason.as_deref().unwrap_or_default()));
        self.forget(&doc.id);
        self.store.close(&doc.id)
    }

    fn remember_good(&self, place: &Place, doc: &DeployRecord) -> Result<()> {
        let complete = CompleteDeploy {
            id: doc.id.clone(),
            tag: doc.tag.clone(),
            kind: doc.kind,
            ended: doc.ended.unwrap_or_default(),
            // What somebody insisted on here is for somebody to bring further.
            promote: self.config.service.role(&place.role).auto_promote && !doc.force,
        };
        self.store.add_complete(place, &complete)?;
        // What was found out elsewhere is not refuted here.
        let mark = self.store.mark(&place.role, &doc.tag)?.filter(|mark| mark.is_of(&place.environment));
        if doc.force && mark.is_some() && self.store.clear_mark(&place.role, &doc.tag)? {
            let entry = AuditEntry::new(SERVICE, "release").place(place).tag(&doc.tag).deploy(&doc.id);
            self.audit(entry.detail("forced, and complete: no longer broken"));
        }
        Ok(())
    }

    /// Whether an earlier deploy has completely deployed the same release there.
    pub fn has_worked(&self, place: &Place, doc: &DeployRecord) -> Result<bool> {
        let history = self.store.complete(place)?;
        Ok(history.iter().any(|complete| complete.tag == doc.tag && complete.id != doc.id))
    }

    /// Marks the release of a deploy broken, with the evidence if there is any.
    pub fn mark_broken(&self, place: &Place, doc: &DeployRecord, logs: Option<String>) -> Result<()> {
        let reason = match self.store.at(place, |locks| locks.cancel_of(&doc.id))? {
            Some(cancel) => cancel.reason,
            // One that was taken out of the queue has no cancel: its record says why.
            None => self.store.at(place, |locks| locks.doc(&doc.id))?.and_then(|doc| doc.reason).unwrap_or_default(),
        };
        let mark = Mark {
            status: ReleaseStatus::Broken,
            reason,
            logs,
            at: rfc3339(crate::service::now_ms()),
            deploy: Some(doc.id.clone()),
            environment: Some(place.environment.clone()),
        };
        self.store.set_mark(&place.role, &doc.tag, &mark).map(drop)
    }

    /// After a deploy that broke: the last good release again, everywhere, if so configured and some boxes run the
    /// broken one. Once for each broken deploy, and never after a rollback that broke.
    pub fn auto_rollback(&self, place: &Place, doc: &DeployRecord) -> Result<()> {
        if !self.config.service.role(&place.role).auto_rollback {
            return Ok(());
        }
        let entry = AuditEntry::new(SERVICE, "rollback").place(place).deploy(&doc.id);
        if doc.kind == Kind::Rollback {
            let text = "the rollback broke, too: nothing more is done by itself; publish and start a fix";
            log::error!("{}: {text}", doc.id);
            self.audit(entry.tag(&doc.tag).detail(text));
            return Ok(());
        }
        let running = self.store.at(place, Coordinator::running)?;
        if !running.values().any(|tag| tag == doc.tag.as_str()) {
            return Ok(());
        }
        let tag = match self.good_tag(place, Some(&doc.tag)) {
            Ok(tag) => tag,
            Err(refusal) if refusal.kind == ErrorKind::NoGoodRelease => {
                log::error!("{}: {}", doc.id, refusal.message);
                self.audit(entry.tag(&doc.tag).detail(refusal.message));
                return Ok(());
            }
            Err(refusal) => return Err(refusal.into()),
        };
        let request = DeployRequest {
            id: Some(ids::brought_back(&doc.id, place)),
            source: Some(doc.id.clone()),
            reason: Some(format!("{} is broken", doc.tag)),
            ..DeployRequest::new(place, &tag, Kind::Rollback, SERVICE)
        };
        match self.start_deploy(&request) {
            // What rolls there is somebody's fix, or a rollback by hand.
            Ok(StartOutcome::Rolling(_) | StartOutcome::Queued(_) | StartOutcome::Exists) => Ok(()),
            Err(refusal) if matches!(refusal.kind, ErrorKind::Rolling | ErrorKind::NoBox) => {
                self.audit(entry.tag(&tag).detail(format!("not started: {}", refusal.message)));
                Ok(())
            }
            Err(refusal) => Err(refusal.into()),
        }
    }
}
