//! What stands where, read once a second however many look: pages are made of it, and whoever watches is told when it has
//! changed.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::Visitor;
use crate::{
    api::{AuditEntry, StatusAnswer},
    config::Verb,
    names::Environment,
    service::{
        Service,
        api_error::{ApiError, ApiResult, ErrorKind},
        handlers::status,
        http::{Changes, Request, Response},
    },
};

/// How old what a page shows may be.
const AGE: Duration = Duration::from_secs(1);
/// How many entries of the audit log belong to a snapshot.
const ENTRIES: usize = 1000;

/// What the service knew at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// As `status` shows it, of every place.
    pub status: StatusAnswer,
    /// Newest first.
    pub audit: Vec<AuditEntry>,
}

/// The newest snapshot, and who is told of newer ones.
#[derive(Debug, Default)]
pub struct Snapshots {
    last: Mutex<Last>,
    changes: Changes,
}

#[derive(Debug, Default)]
struct Last {
    /// When its reading began.
    read: Option<(Instant, Arc<Snapshot>)>,
    /// When a reading failed that began later, and how.
    failed: Option<(Instant, ErrorKind, String)>,
}

impl Snapshots {
    /// Ends every stream: the service stops.
    pub fn end(&self) {
        self.changes.end();
    }
}

impl Snapshot {
    /// What of it a visitor may read.
    fn seen_by(&self, visitor: &Visitor) -> Self {
        let may = |environment: &Environment| visitor.caller.may(Verb::Read, Some(environment));
        let (mut status, mut audit) = (self.status.clone(), self.audit.clone());
        status.deploys.retain(|deploy| may(&deploy.environment));
        status.running.retain(|row| may(&row.environment));
        status.places.retain(|place| may(&place.environment));
        status.freezes.retain(|freeze| may(&freeze.environment));
        status.promotions.retain(|promotion| may(&promotion.from) && may(&promotion.environment));
        status.closed.retain(|closed| may(&closed.environment));
        let role_is_seen = |role| status.places.iter().any(|place| place.role == role);
        status.broken.retain(|release| role_is_seen(release.role.clone()));
        status.broken = status.broken.into_iter().map(|release| visitor.caller.shown(release)).collect();
        audit.retain(|entry| entry.environment.as_ref().is_none_or(may));
        Self { status, audit }
    }
}

impl Service {
    /// What the visitor may see, at most a second old, and its number.
    pub fn snapshot(&self, visitor: &Visitor) -> ApiResult<(u64, Snapshot)> {
        visitor.caller.need_anywhere(Verb::Read)?;
        // The number first: what is newer than it is told again.
        let number = self.snapshots.changes.number();
        Ok((number, self.whole_snapshot()?.seen_by(visitor)))
    }

    /// The next page shows what is then.
    pub fn forget_snapshot(&self) {
        if let Some((at, _)) = &mut self.last_snapshot().read {
            *at = at.checked_sub(AGE).unwrap_or(*at);
        }
    }

    /// Who comes while another reads gets what that one has read, or its failure: a Redis that hangs delays all of them
    /// once, not each.
    fn whole_snapshot(&self) -> ApiResult<Arc<Snapshot>> {
        let asked = Instant::now();
        let mut last = self.last_snapshot();
        if let Some((at, kind, message)) = &last.failed
            && *at >= asked
        {
            return Err(ApiError::new(*kind, message.clone()));
        }
        if let Some((at, snapshot)) = &last.read
            && *at + AGE > asked
        {
            return Ok(Arc::clone(snapshot));
        }
        let snapshot = self.read_snapshot().inspect_err(|error| {
            last.failed = Some((Instant::now(), error.kind, error.message.clone()));
        })?;
        let snapshot = match last.read.take() {
            Some((_, known)) if *known == snapshot => known,
            _ => {
                self.snapshots.changes.tell();
                Arc::new(snapshot)
            }
        };
        last.read = Some((asked, Arc::clone(&snapshot)));
        Ok(snapshot)
    }

    fn last_snapshot(&self) -> MutexGuard<'_, Last> {
        self.snapshots.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_snapshot(&self) -> ApiResult<Snapshot> {
        let mut status = status::read(self, &self.store.places()?)?;
        // A renewal changes nothing that anybody has to see.
        for locks in status.places.iter_mut().map(|place| &mut place.locks) {
            locks.locks.iter_mut().for_each(|lock| (lock.renewed, lock.expires_in_ms) = (String::new(), 0));
            locks.out.iter_mut().for_each(|out| out.renewed = String::new());
        }
        Ok(Snapshot { status, audit: self.store.newest_audit(ENTRIES)? })
    }
}

/// `GET /events`: a stream that says when something has changed, and nothing else.
pub fn events(service: &Service, _: &Visitor, request: &Request) -> ApiResult<Response> {
    if request.header("sec-fetch-site").is_some_and(|site| site != "same-origin") {
        return Err(ApiError::new(ErrorKind::Forbidden, "only a page of this service may watch it"));
    }
    let watcher = service.snapshots.changes.watch();
    let watcher =
        watcher.ok_or_else(|| ApiError::new(ErrorKind::Unavailable, "as many watch as can: reload the page"))?;
    Ok(Response::events(watcher))
}

/// Looks once a second while somebody watches; never returns.
pub fn run(service: &Arc<Service>) {
    while !service.is_stopping() {
        if service.snapshots.changes.watchers() > 0 {
            service.log_once("page", service.whole_snapshot().map(drop).map_err(Into::into));
        }
        thread::sleep(AGE);
    }
}
