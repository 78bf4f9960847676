//! `/v1/releases`: CI makes releases known; people and dashboards read them.

use std::time::Instant;

use super::{body, cut, limit, required, segment};
use crate::{
    api::{AuditEntry, NewRelease, Release, ReleaseStatus, Releases},
    config::Verb,
    names::{Role, Tag},
    service::{
        Service,
        api_error::ApiResult,
        auth::Caller,
        http::{Request, Response},
        links::is_web,
        policy,
    },
};

/// The longest commit and author that are kept, in bytes.
const NAME_LIMIT: usize = 256;
/// The longest message and link, in bytes.
const TEXT_LIMIT: usize = 2048;

/// `POST /v1/releases`.
pub fn publish(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    caller.need_anywhere(Verb::Publish)?;
    let asked: NewRelease = body(request)?;
    if !asked.new_role {
        service.check_new_role(&asked.role)?;
    }
    let known = service.store.release(&asked.role, &asked.tag)?.is_some();
    if !known {
        service.quota.take(caller, Instant::now())?;
    }
    let short = |text: Option<String>, most| text.map(|text| cut(text, most));
    let now = jiff::Timestamp::now();
    let release = Release {
        role: asked.role,
        tag: asked.tag,
        published_at: format!("{now:.3}"),
        status: ReleaseStatus::Available,
        reason: None,
        logs: None,
        environment: None,
        commit: short(asked.commit, NAME_LIMIT),
        author: short(asked.author, NAME_LIMIT),
        message: short(asked.message, TEXT_LIMIT),
        link: short(asked.link, TEXT_LIMIT).filter(|link| is_web(link)),
        committed_at: asked.committed_at.filter(|at| at.parse::<jiff::Timestamp>().is_ok()),
    };
    let (known, new) = service.store.publish(&release, now.as_millisecond())?;
    policy::same_commit(&known, release.commit.as_deref())?;
    if new {
        let entry = AuditEntry { role: Some(known.role.clone()), ..AuditEntry::new(&caller.by(), "publish") };
        service.audit(entry.tag(&known.tag));
    }
    Ok(Response::json(if new { 201 } else { 200 }, &caller.shown(known)))
}

/// `GET /v1/releases/ROLE/TAG`.
pub fn show(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    caller.need_anywhere(Verb::Read)?;
    let role: Role = segment(request, 2)?;
    let tag: Tag = segment(request, 3)?;
    Ok(Response::json(200, &caller.shown(service.release(&role, &tag)?)))
}

/// `GET /v1/releases?role=`.
pub fn list(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    caller.need_anywhere(Verb::Read)?;
    let role: Role = required(request, "role")?;
    let releases = service.store.releases(&role, limit(request, 50)?)?;
    let releases = releases.into_iter().map(|release| caller.shown(release)).collect();
    Ok(Response::json(200, &Releases { releases }))
}
