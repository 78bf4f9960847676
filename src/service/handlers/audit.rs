//! `GET /v1/audit`: who did what, when.

use super::{limit, param};
use crate::{
    api::{Audit, AuditEntry},
    config::Verb,
    names::{Environment, Role},
    service::{
        Service,
        api_error::ApiResult,
        auth::Caller,
        http::{Request, Response},
    },
};

/// `GET /v1/audit`, narrowed by `role`, `environment` and what the caller may read.
pub fn list(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    caller.need_anywhere(Verb::Read)?;
    let (role, environment): (Option<Role>, Option<Environment>) =
        (param(request, "role")?, param(request, "environment")?);
    let wanted = |entry: &AuditEntry| {
        (role.is_none() || entry.role == role)
            && (environment.is_none() || entry.environment == environment)
            && entry.environment.as_ref().is_none_or(|place| caller.may(Verb::Read, Some(place)))
    };
    let mut entries = service.store.audit(wanted)?;
    entries.truncate(limit(request, 100)?);
    Ok(Response::json(200, &Audit { entries }))
}
