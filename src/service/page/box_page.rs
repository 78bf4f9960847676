//! `/boxes/NAME`: one box: what it runs, where it stands, what it holds.

use jiff::Timestamp;
use maud::{Markup, html};

use super::{
    Visitor,
    actions::Forms,
    html::live,
    parts::{age, chip, release},
};
use crate::{
    api::{Deploy, PlaceLocks, StatusAnswer},
    names::{BoxName, Place, quoted},
    screen::one_line,
    service::{
        Service,
        api_error::{ApiError, ApiResult, ErrorKind},
        http::{Request, Response},
    },
};

/// `GET /boxes/NAME`.
pub fn show(service: &Service, visitor: &Visitor, request: &Request) -> ApiResult<Response> {
    let asked = request.path.get(1).map_or("", String::as_str);
    let unknown = || ApiError::new(ErrorKind::NotFound, format!("no box {} has said anything", quoted(asked)));
    let name: BoxName = asked.parse().map_err(|_| unknown())?;
    let (number, snapshot) = service.snapshot(visitor)?;
    let rows: Vec<Markup> = {
        let back = format!("/boxes/{name}");
        let forms = Forms { service, visitor, back: &back };
        let now = Timestamp::now();
        snapshot
            .status
            .places
            .iter()
            .filter_map(|place| at_place(&snapshot.status, place, &name, &forms, now))
            .collect()
    };
    if rows.is_empty() {
        return Err(unknown());
    }
    let main = html! {
        h1 { (name) }
        @for row in rows { (row) }
    };
    Ok(live(visitor, name.as_str(), number, &main))
}

fn at_place(
    status: &StatusAnswer,
    locks: &PlaceLocks,
    name: &BoxName,
    forms: &Forms<'_>,
    now: Timestamp,
) -> Option<Markup> {
    let place = Place { environment: locks.environment.clone(), role: locks.role.clone() };
    let here = |deploy: &&Deploy| deploy.environment == place.environment && deploy.role == place.role;
    let running = status
        .running
        .iter()
        .find(|row| row.name == *name && row.role == place.role && row.environment == place.environment);
    let stands = status.deploys.iter().filter(here).find_map(|deploy| {
        let row = deploy.boxes.iter().find(|row| row.name == *name)?;
        Some((deploy, row))
    });
    let lock = locks.locks.locks.iter().find(|lock| lock.name == *name);
    let out = locks.locks.out.iter().find(|out| out.name == *name);
    (running.is_some() || stands.is_some() || lock.is_some() || out.is_some()).then(|| {
        html! {
            section .card {
                div .heading {
                    h2 { (place.role) " in " (place.environment) }
                    @if out.is_some() { (chip("amber", "out")) }
                }
                dl {
                    @if let Some(zone) = stands.and_then(|(_, row)| row.zone.as_ref()) { dt { "Zone" } dd { (zone) } }
                    @if let Some(running) = running { dt { "Runs" } dd { (release(&place.role, &running.tag)) } }
                    @if let Some((deploy, row)) = stands {
                        dt { "Deploy" }
                        dd {
                            a href=(format!("/deploys/{}", deploy.id)) { (deploy.tag) } ": " (row.phase) " for " (age(now, &row.since))
                            @if let Some(detail) = &row.detail { ", " (one_line(detail)) }
                        }
                    }
                    @if let Some(lock) = lock { dt { "Lock" } dd { (lock.suffix) ", for " (age(now, &lock.since)) } }
                    @if let Some(out) = out {
                        dt { "Out" }
                        dd {
                            "for " (age(now, &out.since))
                            @if let Some(reason) = &out.reason { ", by a person: " (one_line(reason)) }
                            @if let Some(purpose) = &out.purpose { ", for this: " (one_line(purpose)) }
                        }
                    }
                }
                @if lock.is_some() || out.is_some() { div .buttons { (forms.unlock(&place, name)) } }
            }
        }
    })
}
