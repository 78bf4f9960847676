//! `/v1/deploys`, `/v1/rollbacks`, `/v1/promotions`, `/v1/running`: starts, stops and answers.

use std::collections::HashMap;

use super::{REASON_LIMIT, body, cut, limit, param, required};
use crate::{
    api::{
        AuditEntry, Completed, Current, Deploy, Deploys, NewBlame, NewCancel, NewDeploy, NewMove, Phase, Promoted,
        Running, RunningBoxes, State,
    },
    config::Verb,
    coordination::{CancelReply, Coordinator, DeployRecord},
    names::{Environment, Place, Role},
    service::{
        Service,
        api_error::{ApiError, ApiResult, ErrorKind},
        auth::Caller,
        http::{Request, Response},
        ids,
    },
};

/// The longest evidence that is kept, in bytes.
const LOGS_LIMIT: usize = 128 * 1024;

/// `POST /v1/deploys`.
pub fn start(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    let asked: NewDeploy = body(request)?;
    caller.need(Verb::Start, Some(&asked.environment))?;
    let deploy = service.linked(service.start(&asked, caller)?)?;
    Ok(Response::json(if asked.dry_run { 200 } else { 202 }, &deploy))
}

/// `POST /v1/rollbacks`.
pub fn roll_back(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    let asked: NewMove = body(request)?;
    caller.need(Verb::Start, Some(&asked.environment))?;
    Ok(Response::json(202, &service.linked(service.roll_back(&asked, caller)?)?))
}

/// `POST /v1/promotions`: `environment` is the source; the scope is asked where the deploy starts. An approval that is not
/// the last one that is needed answers with what it waits for.
pub fn promote(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    let asked: NewMove = body(request)?;
    let policy = service.config.service.role(&asked.role);
    let target = policy.next(&asked.environment).unwrap_or(&asked.environment);
    if asked.force {
        caller.need(Verb::Start, Some(target))?;
    } else {
        caller.need_approval(target)?;
    }
    match service.promote(&asked, caller)? {
        Promoted::Deploy(deploy) => Ok(Response::json(202, &service.linked(*deploy)?)),
        Promoted::Waits(promotion) => Ok(Response::json(200, &promotion)),
    }
}

/// `GET /v1/deploys`: of one place, or of all that the caller may read.
pub fn list(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    let limit = limit(request, 20)?;
    let most = u32::try_from(limit).unwrap_or(u32::MAX);
    let mut deploys: Vec<Deploy> = Vec::new();
    for place in places(service.store.places()?, caller, request)? {
        deploys.extend(service.store.at(&place, |locks| locks.deploys(most))?);
    }
    deploys.sort_by(|a, b| b.started_at.cmp(&a.started_at));
    deploys.truncate(limit);
    Ok(Response::json(200, &Deploys { deploys }))
}

/// `GET /v1/running`: what each box runs.
pub fn running(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    let mut running = Vec::new();
    for place in places(service.store.places()?, caller, request)? {
        running.extend(running_boxes(&place, service.store.at(&place, Coordinator::running)?));
    }
    running.sort_by(|a, b| (&a.role, &a.environment, &a.name).cmp(&(&b.role, &b.environment, &b.name)));
    Ok(Response::json(200, &RunningBoxes { running }))
}

/// The rows of the boxes of `place`; one that no box can have written is left out.
pub(super) fn running_boxes(place: &Place, running: HashMap<String, String>) -> impl Iterator<Item = Running> {
    let Place { environment, role } = place.clone();
    running.into_iter().filter_map(move |(name, tag)| {
        let (name, tag) = (name.parse().ok()?, tag.parse().ok()?);
        Some(Running { role: role.clone(), environment: environment.clone(), name, tag })
    })
}

/// `GET /v1/deploys/current`: the deploy that is rolling, else the last complete one.
pub fn current(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    let place = Place { environment: required(request, "environment")?, role: required(request, "role")? };
    caller.need(Verb::Read, Some(&place.environment))?;
    let found = service.store.at(&place, |locks| {
        let Some(newest) = locks.current()? else { return Ok(None) };
        let latest = newest.state();
        let doc = if latest == State::Rolling { Some(newest) } else { locks.complete()? };
        doc.map(|doc| Ok(Current { deploy: locks.show(&doc, false)?, latest })).transpose()
    })?;
    match found {
        Some(current) => Ok(Response::json(200, &current)),
        None => Err(ApiError::new(ErrorKind::NotFound, format!("nothing was ever completely deployed for {place}"))),
    }
}

/// `GET /v1/deploys/ID`.
pub fn show(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    let (place, doc) = find(service, caller, Verb::Read, request)?;
    answer(service, &place, &doc.id)
}

/// `POST /v1/deploys/ID/complete`: a box believes that it was the last.
pub fn complete(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    let (place, doc) = find(service, caller, Verb::Box, request)?;
    let _: Completed = body(request)?;
    service.reconcile_place_now(&place);
    answer(service, &place, &doc.id)
}

/// `POST /v1/deploys/ID/cancel`.
pub fn cancel(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    let (place, doc) = find(service, caller, Verb::Cancel, request)?;
    let NewCancel { reason, broken } = body(request)?;
    if broken {
        may_mark(service, caller, &place, &doc)?;
    }
    let by = caller.by();
    let reason =
        cut(reason.filter(|r| !r.trim().is_empty()).unwrap_or_else(|| format!("cancelled by {by}")), REASON_LIMIT);
    stop(service, &place, &doc, &by, &reason, broken)?;
    if broken {
        service.mark_broken(&place, &doc, None)?;
    }
    let action = if broken { "broken" } else { "cancel" };
    service.audit(AuditEntry::new(&by, action).place(&place).tag(&doc.tag).deploy(&doc.id).detail(reason));
    service.reconcile_place_now(&place);
    answer(service, &place, &doc.id)
}

/// Refuses to call a release broken that runs where the caller may not cancel: the mark counts in every environment.
fn may_mark(service: &Service, caller: &Caller, place: &Place, doc: &DeployRecord) -> ApiResult<()> {
    for other in service.store.places()? {
        let allowed = other.role != place.role || caller.may(Verb::Cancel, Some(&other.environment));
        if !allowed && service.store.at(&other, Coordinator::running)?.values().any(|tag| tag == doc.tag.as_str()) {
            let Place { environment, role } = other;
            let message = format!(
                "{role}:{} runs in {environment}, where this token may not cancel, and broken counts there, too: cancel \
                 without it",
                doc.tag
            );
            return Err(ApiError::new(ErrorKind::Forbidden, message));
        }
    }
    Ok(())
}

/// `POST /v1/deploys/ID/broken`: a box has the proof. Only a worker of a rolling deploy blames, and never a release that
/// an earlier deploy has completely deployed there.
pub fn broken(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    let (place, doc) = find(service, caller, Verb::Box, request)?;
    let blame: NewBlame = body(request)?;
    if service.has_worked(&place, &doc)? {
        let message = format!("{}:{} has worked in {}: the box is at fault", place.role, doc.tag, place.environment);
        return Err(ApiError::new(ErrorKind::Deployed, message));
    }
    let (phase, _) = service.store.at(&place, |locks| locks.standing(&doc.id, &blame.name))?;
    if doc.state() == State::Rolling && !phase.is_some_and(Phase::is_unfinished) {
        let message = format!("{} does not work on {}: only a box that does may call it broken", blame.name, doc.id);
        return Err(ApiError::new(ErrorKind::NotWorking, message));
    }
    let reason = cut(format!("{}: {}", blame.name, blame.reason), REASON_LIMIT);
    // A box that reports again because an answer got lost finds the deploy ended.
    if doc.state() != State::Broken {
        stop(service, &place, &doc, blame.name.as_str(), &reason, true)?;
        let entry = AuditEntry::new(&caller.by(), "broken").place(&place).tag(&doc.tag).deploy(&doc.id);
        service.audit(entry.detail(&reason));
    }
    let logs = Some(cut(blame.logs, LOGS_LIMIT)).filter(|logs| !logs.is_empty());
    service.mark_broken(&place, &doc, logs)?;
    service.reconcile_place_now(&place);
    answer(service, &place, &doc.id)
}

fn stop(service: &Service, place: &Place, doc: &DeployRecord, by: &str, reason: &str, broken: bool) -> ApiResult<()> {
    match service.store.at(place, |locks| locks.cancel(Some(&doc.id), by, reason, broken))? {
        CancelReply::Stopped { .. } => Ok(()),
        CancelReply::Refused { .. } => {
            let state = service.store.at(place, |locks| locks.doc(&doc.id))?.map_or(doc.state(), |doc| doc.state());
            Err(ApiError::new(ErrorKind::Ended, format!("{} has ended already: {state}", doc.id)))
        }
    }
}

/// The deploy that the path names. Whether the caller may do `verb` there is asked first: an id of an environment that is
/// not theirs has the same answer whether there is such a deploy or not.
pub fn find(service: &Service, caller: &Caller, verb: Verb, request: &Request) -> ApiResult<(Place, DeployRecord)> {
    let id = request.path.get(2).map_or("", String::as_str);
    let unknown = || ApiError::new(ErrorKind::NotFound, format!("there is no deploy {}", crate::names::quoted(id)));
    let place = ids::place(id).ok_or_else(unknown)?;
    caller.need(verb, Some(&place.environment))?;
    let doc = service.store.at(&place, |locks| locks.doc(id))?.ok_or_else(unknown)?;
    Ok((place, doc))
}

pub(super) fn answer(service: &Service, place: &Place, id: &str) -> ApiResult<Response> {
    match service.store.at(place, |locks| locks.deploy(id))? {
        Some(deploy) => Ok(Response::json(200, &service.linked(deploy)?)),
        None => Err(ApiError::new(ErrorKind::NotFound, format!("there is no deploy {id}"))),
    }
}

/// Those of these places that the caller asks about and may read.
pub(super) fn places(mut places: Vec<Place>, caller: &Caller, request: &Request) -> ApiResult<Vec<Place>> {
    let (role, environment): (Option<Role>, Option<Environment>) =
        (param(request, "role")?, param(request, "environment")?);
    match &environment {
        Some(environment) => caller.need(Verb::Read, Some(environment))?,
        None => caller.need_anywhere(Verb::Read)?,
    }
    places.retain(|place| {
        role.as_ref().is_none_or(|role| *role == place.role)
            && environment.as_ref().is_none_or(|environment| *environment == place.environment)
            && caller.may(Verb::Read, Some(&place.environment))
    });
    Ok(places)
}
