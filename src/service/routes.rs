//! Which call a path and a method mean.

use super::{
    Service, calls,
    http::{Request, Response},
    refusal::{Answer, Kind, Refusal},
};
use crate::service::auth::Caller;

type Call = fn(&Service, &Caller, &Request) -> Answer<Response>;

/// Answers a request, whatever it is.
pub fn answer(service: &Service, request: &Request) -> Response {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let response = match path[..] {
        // A load balancer that asks whether the service lives has no token.
        ["healthz"] if request.method == "GET" => Ok(health(service)),
        _ => route(service, request, &path),
    }
    .unwrap_or_else(Response::from);
    log::debug!("{} /{} → {}", request.method, request.path.join("/"), response.status);
    response
}

fn route(service: &Service, request: &Request, path: &[&str]) -> Answer<Response> {
    let caller = service.auth.caller(request)?;
    let methods: &[(&str, Call)] = match path {
        ["v1", "releases"] => &[("GET", calls::releases::list), ("POST", calls::releases::publish)],
        ["v1", "freezes"] => {
            &[("GET", calls::freezes::list), ("POST", calls::freezes::freeze), ("DELETE", calls::freezes::unfreeze)]
        }
        ["v1", "deploys"] => &[("GET", calls::deploys::list), ("POST", calls::deploys::start)],
        ["v1", "deploys", "current"] => &[("GET", calls::deploys::current)],
        ["v1", "deploys", _] => &[("GET", calls::deploys::show)],
        ["v1", "deploys", _, "broken"] => &[("POST", calls::deploys::broken)],
        ["v1", "deploys", _, "complete"] => &[("POST", calls::deploys::complete)],
        ["v1", "deploys", _, "cancel"] => &[("POST", calls::deploys::cancel)],
        ["v1", "rollbacks"] => &[("POST", calls::deploys::roll_back)],
        ["v1", "promotions"] => &[("POST", calls::deploys::promote)],
        ["v1", "running"] => &[("GET", calls::deploys::running)],
        ["v1", "locks"] => &[("GET", calls::locks::list)],
        ["v1", "locks", _] => &[("DELETE", calls::locks::free)],
        ["v1", "audit"] => &[("GET", calls::audit::list)],
        ["metrics"] => &[("GET", super::metrics::show)],
        ["healthz"] => &[("GET", |service, _, _| Ok(health(service)))],
        _ => return Err(Refusal::new(Kind::NotFound, format!("there is no /{}", path.join("/")))),
    };
    if let Some((_, call)) = methods.iter().find(|(method, _)| *method == request.method) {
        return call(service, &caller, request);
    }
    let allowed: Vec<&str> = methods.iter().map(|(method, _)| *method).collect();
    Ok(Response::method_not_allowed(&request.method, &allowed.join(", ")))
}

/// Liveness: the service answers. A Redis that does not is told, but is no reason to restart the service.
fn health(service: &Service) -> Response {
    let redis = if service.records.ping().is_ok() { "ok" } else { "unreachable" };
    Response::json(200, &serde_json::json!({ "status": "ok", "redis": redis }))
}
