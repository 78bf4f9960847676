//! `/v1/freezes`: environments where nothing new starts.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{REASON_LIMIT, body, cut, param};
use crate::{
    api::{AuditEntry, Freeze, Freezes},
    config::Verb,
    names::{Environment, Role},
    service::{
        Service,
        api_error::{ApiError, ApiResult, ErrorKind},
        auth::Caller,
        http::{Request, Response},
        now,
    },
};

#[derive(Default, Deserialize)]
#[serde(default)]
struct FrozenPlace {
    environment: Option<Environment>,
    role: Option<Role>,
    reason: Option<String>,
    until: Option<Timestamp>,
}

impl FrozenPlace {
    /// From the body or, where a client sends none with `DELETE`, from the query. The environment, and the rest.
    fn read(request: &Request) -> ApiResult<(Environment, Self)> {
        let scope: Self = body(request)?;
        let environment = match scope.environment.clone() {
            Some(environment) => Some(environment),
            None => param(request, "environment")?,
        };
        let role = match scope.role {
            Some(role) => Some(role),
            None => param(request, "role")?,
        };
        let environment = environment
            .ok_or_else(|| ApiError::new(ErrorKind::BadRequest, "the environment is missing: say which one"))?;
        let reason = scope.reason.map(|reason| cut(reason, REASON_LIMIT));
        Ok((environment, Self { role, reason, ..scope }))
    }
}

/// `GET /v1/freezes`.
pub fn list(service: &Service, caller: &Caller, _: &Request) -> ApiResult<Response> {
    caller.need_anywhere(Verb::Read)?;
    let mut freezes = service.store.freezes()?;
    freezes.retain(|freeze| caller.may(Verb::Read, Some(&freeze.environment)));
    Ok(Response::json(200, &Freezes { freezes }))
}

/// `POST /v1/freezes`.
pub fn freeze(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    let (environment, FrozenPlace { role, reason, until, .. }) = FrozenPlace::read(request)?;
    caller.need(Verb::Start, Some(&environment))?;
    if let Some(until) = until.filter(|until| *until <= Timestamp::now()) {
        return Err(ApiError::new(ErrorKind::BadRequest, format!("until: {until} is over already")));
    }
    service.check_names(role.as_ref(), Some(&environment))?;
    let freeze = Freeze { environment, role, reason, by: caller.by(), at: now(), until };
    service.store.freeze(&freeze)?;
    // What is not told now, the watch tells.
    service.log_once("freezes", service.tell_frozen(&freeze));
    service.notify();
    let until = freeze.until.map(|until| format!("until {until}"));
    let detail: Vec<&str> = freeze.reason.as_deref().into_iter().chain(until.as_deref()).collect();
    service.audit(entry(caller, "freeze", &freeze.environment, freeze.role.as_ref()).detail(detail.join(", ")));
    Ok(Response::json(201, &freeze))
}

/// `DELETE /v1/freezes`.
pub fn unfreeze(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    let (environment, FrozenPlace { role, reason, .. }) = FrozenPlace::read(request)?;
    caller.need(Verb::Start, Some(&environment))?;
    let what = role.as_ref().map_or_else(|| environment.to_string(), |role| format!("{role} in {environment}"));
    if !service.store.unfreeze(&environment, role.as_ref())? {
        return Err(ApiError::new(
            ErrorKind::NotFound,
            format!("{what} is not frozen: see the freezes with deployctl status"),
        ));
    }
    service.audit(entry(caller, "unfreeze", &environment, role.as_ref()).detail(reason.unwrap_or_default()));
    Ok(Response::json(200, &json!({ "environment": environment, "role": role })))
}

fn entry(caller: &Caller, action: &str, environment: &Environment, role: Option<&Role>) -> AuditEntry {
    AuditEntry { environment: Some(environment.clone()), role: role.cloned(), ..AuditEntry::new(&caller.by(), action) }
}
