//! Which call a path and a method mean.

use super::{
    Service,
    api_error::{ApiError, ApiResult, ErrorKind},
    handlers,
    http::{Request, Response},
    page,
};
use crate::service::auth::Caller;

type Call = fn(&Service, &Caller, &Request) -> ApiResult<Response>;

/// Answers a request, whatever it is.
pub fn answer(service: &Service, request: &Request) -> Response {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let response = match path[..] {
        // A load balancer that asks whether the service lives has no token.
        ["healthz"] if request.method == "GET" => Ok(health(service)),
        // Its clients know neither our tokens nor the shape of our errors.
        ["v1", "pre-reboot"] => Ok(handlers::fleet_lock::pre_reboot(service, request)),
        ["v1", "steady-state"] => Ok(handlers::fleet_lock::steady_state(service, request)),
        // A browser shows a session, and no token.
        _ => match page::answer(service, request, &path) {
            Some(response) => Ok(response),
            None => route(service, request, &path),
        },
    }
    .unwrap_or_else(Response::from);
    log::debug!("{} /{} → {}", request.method, request.path.join("/"), response.status);
    response
}

fn route(service: &Service, request: &Request, path: &[&str]) -> ApiResult<Response> {
    let caller = service.auth.caller(request)?;
    let methods: &[(&str, Call)] = match path {
        ["v1", "releases"] => &[("GET", handlers::releases::list), ("POST", handlers::releases::publish)],
        ["v1", "releases", _, _] => &[("GET", handlers::releases::show)],
        ["v1", "freezes"] => &[
            ("GET", handlers::freezes::list),
            ("POST", handlers::freezes::freeze),
            ("DELETE", handlers::freezes::unfreeze),
        ],
        ["v1", "deploys"] => &[("GET", handlers::deploys::list), ("POST", handlers::deploys::start)],
        ["v1", "deploys", "current"] => &[("GET", handlers::deploys::current)],
        ["v1", "deploys", _] => &[("GET", handlers::deploys::show)],
        ["v1", "deploys", _, "broken"] => &[("POST", handlers::deploys::broken)],
        ["v1", "deploys", _, "complete"] => &[("POST", handlers::deploys::complete)],
        ["v1", "deploys", _, "cancel"] => &[("POST", handlers::deploys::cancel)],
        ["v1", "deploys", _, "pause"] => &[("POST", handlers::pauses::pause)],
        ["v1", "deploys", _, "resume"] => &[("POST", handlers::pauses::resume)],
        ["v1", "rollbacks"] => &[("POST", handlers::deploys::roll_back)],
        ["v1", "promotions"] => &[("POST", handlers::deploys::promote)],
        ["v1", "status"] => &[("GET", handlers::status::show)],
        ["v1", "token"] => &[("GET", handlers::token::show)],
        ["v1", "running"] => &[("GET", handlers::deploys::running)],
        ["v1", "locks"] => &[("GET", handlers::locks::list)],
        ["v1", "locks", _] => &[("DELETE", handlers::locks::free)],
        ["v1", "events"] => &[("GET", handlers::events::follow)],
        ["v1", "audit"] => &[("GET", handlers::audit::list)],
        ["metrics"] => &[("GET", super::metrics::show)],
        ["healthz"] => &[("GET", |service, _, _| Ok(health(service)))],
        _ => return Err(ApiError::new(ErrorKind::NotFound, format!("there is no /{}", path.join("/")))),
    };
    if let Some((_, call)) = methods.iter().find(|(method, _)| *method == request.method) {
        return call(service, &caller, request);
    }
    let allowed: Vec<&str> = methods.iter().map(|(method, _)| *method).collect();
    Ok(Response::method_not_allowed(&request.method, &allowed.join(", ")))
}

/// Liveness: the service answers. A Redis that does not, or that cannot be written, is told, but is no reason to restart
/// the service.
fn health(service: &Service) -> Response {
    Response::json(200, &serde_json::json!({ "status": "ok", "redis": service.redis_health.ask() }))
}
