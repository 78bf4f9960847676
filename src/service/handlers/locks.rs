//! `/v1/locks`: who holds which lock, who is out, and freeing a box by force.

use serde_json::json;

use super::{REASON_LIMIT, cut, required};
use crate::{
    api::AuditEntry,
    config::Verb,
    coordination::{Coordinator, Refusal},
    names::{BoxName, Place},
    service::{
        Service,
        api_error::{ApiError, ApiResult, ErrorKind},
        auth::Caller,
        http::{Request, Response},
    },
};

fn place(request: &Request) -> ApiResult<Place> {
    Ok(Place { environment: required(request, "environment")?, role: required(request, "role")? })
}

/// `GET /v1/locks?role=&environment=`.
pub fn list(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    let place = place(request)?;
    caller.need(Verb::Read, Some(&place.environment))?;
    Ok(Response::json(200, &service.store.at(&place, Coordinator::locks)?))
}

/// `DELETE /v1/locks/BOX?role=&environment=&reason=&force=`.
pub fn free(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    let place = place(request)?;
    caller.need(Verb::Unlock, Some(&place.environment))?;
    let name: BoxName = request
        .path
        .get(2)
        .map_or("", String::as_str)
        .parse()
        .map_err(|error: crate::names::BadName| ApiError::new(ErrorKind::BadRequest, error.to_string()))?;
    let reason = cut(request.param("reason").unwrap_or_default().to_owned(), REASON_LIMIT);
    let force = request.param("force").is_some_and(|word| word == "true" || word == "1");
    let (by, interval) = (caller.by(), service.config.renew_interval());
    let unlocked = service.store.at(&place, |locks| locks.unlock(&name, force, interval, &by, &reason))?;
    match unlocked.refused {
        None => {}
        Some(Refusal::Renewed) => {
            let ago = unlocked.ago.unwrap_or_default() / 1000;
            return Err(ApiError::new(
                ErrorKind::Renewed,
                format!("{name} renewed its lock {ago} s ago, so its worker lives: cancel the deploy, or --force"),
            ));
        }
        Some(_) => {
            return Err(ApiError::new(ErrorKind::NotFound, format!("{name} holds no lock for {place} and is not out")));
        }
    }
    let detail = format!("{name}{}{reason}", if reason.is_empty() { "" } else { ": " });
    service.audit(AuditEntry::new(&by, "unlock").place(&place).detail(detail));
    service.reconcile_place_now(&place);
    Ok(Response::json(200, &json!({ "box": name })))
}
