//! `/v1/status`: all that `deployctl status` shows, in one answer.

use super::{
    deploys::{places, running_boxes},
    param,
};
use crate::{
    api::{NextRelease, PlaceLocks, State, StatusAnswer},
    config::Verb,
    coordination::Coordinator,
    names::{Environment, Place, Role},
    service::{
        Service,
        api_error::ApiResult,
        auth::Caller,
        http::{Request, Response},
    },
};

/// How many past deploys of a place are looked at.
const DEPLOYS_READ: u32 = 20;

/// `GET /v1/status[?role=&environment=]`.
pub fn show(service: &Service, caller: &Caller, request: &Request) -> ApiResult<Response> {
    let (role, environment): (Option<Role>, Option<Environment>) =
        (param(request, "role")?, param(request, "environment")?);
    service.check_names(role.as_ref(), environment.as_ref())?;
    let places = places(service.known_places()?, caller, request)?;
    let mut answer = read(service, &places)?;
    // Where nothing was ever deployed somebody may ask why.
    let asked = role.clone().zip(environment.clone()).map(|(role, environment)| Place { environment, role });
    for place in places.iter().chain(asked.iter().filter(|place| !places.contains(place))) {
        answer.next.extend(next(service, caller, place)?);
    }
    answer.broken = answer.broken.into_iter().map(|release| caller.shown(release)).collect();
    answer.freezes.retain(|freeze| {
        caller.may(Verb::Read, Some(&freeze.environment))
            && environment.as_ref().is_none_or(|environment| freeze.environment == *environment)
            && role.as_ref().is_none_or(|role| freeze.role.as_ref().is_none_or(|frozen| frozen == role))
    });
    answer.promotions.retain(|promotion| {
        let ends = [&promotion.from, &promotion.environment];
        ends.iter().all(|end| caller.may(Verb::Read, Some(end)))
            && environment.as_ref().is_none_or(|environment| ends.contains(&environment))
            && role.as_ref().is_none_or(|role| *role == promotion.role)
    });
    answer.closed.retain(|closed| {
        caller.may(Verb::Read, Some(&closed.environment))
            && environment.as_ref().is_none_or(|environment| *environment == closed.environment)
            && role.as_ref().is_none_or(|role| *role == closed.role)
    });
    Ok(Response::json(200, &answer))
}

/// What stands at these places; and every freeze, promotion and closed place, wherever it is.
pub fn read(service: &Service, places: &[Place]) -> ApiResult<StatusAnswer> {
    let mut answer = StatusAnswer {
        freezes: service.store.freezes()?,
        promotions: service.promotions()?,
        closed: service.closed_places(),
        ..StatusAnswer::default()
    };
    for place in places {
        add_place(service, place, &mut answer)?;
    }
    answer.deploys.sort_by(|a, b| b.started_at.cmp(&a.started_at));
    answer.running.sort_by(|a, b| (&a.role, &a.environment, &a.name).cmp(&(&b.role, &b.environment, &b.name)));
    Ok(answer)
}

fn add_place(service: &Service, place: &Place, answer: &mut StatusAnswer) -> ApiResult<()> {
    let (deploys, locks) = service.store.at(place, |keys| {
        let mut deploys = keys.deploys(DEPLOYS_READ)?;
        for (number, deploy) in deploys.iter_mut().enumerate() {
            if (number == 0 || !deploy.state.is_ended())
                && let Some(with_boxes) = keys.deploy(&deploy.id)?
            {
                *deploy = with_boxes;
            }
        }
        Ok((deploys, keys.locks()?))
    })?;
    if let Some(newest) = deploys.first().filter(|deploy| deploy.state == State::Broken)
        && let Some(release) = service.store.release(&place.role, &newest.tag)?
    {
        answer.broken.push(release);
    }
    answer.running.extend(running_boxes(place, service.store.at(place, Coordinator::running)?));
    for deploy in deploys {
        // What changes is asked of what is shown whole; a long past costs nothing.
        answer.deploys.push(if deploy.boxes.is_empty() { deploy } else { service.linked(deploy)? });
    }
    answer.places.push(PlaceLocks { role: place.role.clone(), environment: place.environment.clone(), locks });
    Ok(())
}

/// What a start without a tag would take at `place`; nothing where that is not the caller's to read.
fn next(service: &Service, caller: &Caller, place: &Place) -> ApiResult<Option<NextRelease>> {
    let Place { environment, role } = place.clone();
    let policy = service.config.service.role(&role);
    let from = policy.previous(&environment).cloned();
    let release = match &from {
        None => service.store.releases(&role, 1)?.into_iter().next(),
        Some(from) if !caller.may(Verb::Read, Some(from)) => return Ok(None),
        Some(from) => {
            let source = Place { environment: from.clone(), role: role.clone() };
            match service.store.at(&source, Coordinator::complete)? {
                Some(complete) => service.store.release(&role, &complete.tag)?,
                None => None,
            }
        }
    };
    let (tag, status, reason) = match release.map(|release| caller.shown(release)) {
        Some(release) => (Some(release.tag), Some(release.status), release.reason),
        None => (None, None, None),
    };
    Ok(Some(NextRelease { role, environment, tag, status, reason, from }))
}
