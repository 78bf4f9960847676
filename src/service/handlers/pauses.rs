//! `/v1/deploys/ID/pause` and `/resume`: a person lets a deploy stand, and go on.

use super::{
    REASON_LIMIT, body, cut,
    deploys::{answer, find},
};
use crate::{
    api::{AuditEntry, NewPause},
    config::Verb,
    coordination::Refusal,
    service::{
        Service,
        api_error::{ApiError, ApiResult, ErrorKind},
        auth::Caller,
        http::{Request, Response},
    },
};

/// `POST /v1/deploys/ID/pause`.
pub fn pause(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    change(service, caller, request, true)
}

/// `POST /v1/deploys/ID/resume`.
pub fn resume(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    change(service, caller, request, false)
}

fn change(service: &Service, caller: &Caller, request: &Request, pauses: bool) -> ApiResult<Response> {
    // To stop it is what `cancel` allows; to let it go on, what `start` does.
    let verb = if pauses { Verb::Cancel } else { Verb::Start };
    let (place, doc) = find(service, caller, verb, request)?;
    let NewPause { reason } = body(request)?;
    let (by, id) = (caller.by(), doc.id.as_str());
    let given = reason.map(|reason| cut(reason, REASON_LIMIT)).filter(|reason| !reason.trim().is_empty());
    let why = pauses.then(|| given.clone().unwrap_or_else(|| "no reason given".to_owned()));
    let reply = service.store.at(&place, |locks| locks.pause(id, &by, why.as_deref()))?;
    match reply.refused {
        None => {}
        Some(Refusal::Paused) => {
            let who = doc.pause.map(|pause| format!(" by {}: {}", pause.by, pause.reason)).unwrap_or_default();
            return Err(ApiError::new(ErrorKind::Paused, format!("{id} is paused already{who}")));
        }
        Some(Refusal::NotPaused) => {
            return Err(ApiError::new(ErrorKind::NotPaused, format!("{id} is not paused: nothing to resume")));
        }
        Some(_) => return Err(ApiError::new(ErrorKind::Ended, format!("{id} does not roll: it is {}", doc.state()))),
    }
    let entry = AuditEntry::new(&by, if pauses { "pause" } else { "resume" }).place(&place).tag(&doc.tag).deploy(id);
    service.audit(entry.detail(given.unwrap_or_default()));
    service.reconcile_place_now(&place);
    answer(service, &place, id)
}
