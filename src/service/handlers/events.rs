//! `GET /v1/events`: what happens, as it happens, for programs.

use super::param;
use crate::{
    config::Verb,
    names::{Environment, Role},
    service::{
        Service,
        api_error::{ApiError, ApiResult, ErrorKind},
        auth::Caller,
        http::{Request, Response, Story},
        notify::feed::About,
    },
};

/// How many turns that were told before one stream tells.
const BEFORE: usize = 500;

/// `GET /v1/events`, narrowed by `role`, `environment` and what the caller may read. After the turn that `Last-Event-ID`, or
/// `after`, names; without either from now on.
pub fn follow(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    let (role, environment): (Option<Role>, Option<Environment>) =
        (param(request, "role")?, param(request, "environment")?);
    match &environment {
        Some(environment) => caller.need(Verb::Read, Some(environment))?,
        None => caller.need_anywhere(Verb::Read)?,
    }
    let after = match request.header("last-event-id") {
        Some(text) => Some(text.trim().parse::<u64>().map_err(|_| {
            ApiError::new(ErrorKind::BadRequest, "Last-Event-ID: it is the id of an event that was told, a number")
        })?),
        None => param(request, "after")?,
    };
    // First listened, then read: so nothing falls in between.
    let listener = service.turns.listen();
    let listener = listener.ok_or_else(|| ApiError::new(ErrorKind::Unavailable, "as many listen as can: try again"))?;
    let (after, before) = match after {
        Some(after) => (after, service.turns_as_told(after, BEFORE)?),
        None => (service.store.newest_turn()?, Vec::new()),
    };
    let is_cut = before.len() == BEFORE;
    let caller = caller.clone();
    let wants = move |about: &About| {
        caller.may(Verb::Read, Some(&about.environment))
            && environment.as_ref().is_none_or(|environment| *environment == about.environment)
            && role.as_ref().is_none_or(|role| about.role.as_ref().is_none_or(|about| about == role))
    };
    Ok(Response::stream(listener.hear(Story { after, before, is_cut, wants: Box::new(wants) })))
}
