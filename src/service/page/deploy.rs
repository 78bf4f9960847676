//! `/deploys/ID`: one deploy with all its boxes, the evidence, and what was done about it.

use jiff::Timestamp;
use maud::{Markup, html};

use super::{
    Visitor,
    actions::Forms,
    html::{live, said},
    overview::progress,
    parts::{audit, bar, boxes, change, chip, last_words, lasting, moment, state},
    snapshot::Snapshot,
};
use crate::{
    api::{AuditEntry, BoxRow, Deploy, PlaceLocks, Release, State},
    config::Verb,
    coordination::Coordinator,
    names::Place,
    screen::one_line,
    service::{
        Service,
        api_error::ApiResult,
        handlers::deploys,
        http::{Request, Response},
        usual_time,
    },
};

/// `GET /deploys/ID`.
pub fn show(service: &Service, visitor: &Visitor, request: &Request) -> ApiResult<Response> {
    let id = request.path.get(1).map_or("", String::as_str);
    let (place, record) =
        deploys::find(service, &visitor.caller, Verb::Read, &Request::call("GET", &["v1", "deploys", id], &[], b""))?;
    let (number, snapshot) = service.snapshot(visitor)?;
    let whole = |deploy: &&Deploy| deploy.id == record.id && !deploy.boxes.is_empty();
    let deploy = match snapshot.status.deploys.iter().find(whole) {
        Some(deploy) => deploy.clone(),
        None => service.linked(service.store.at(&place, |locks| locks.show(&record, true))?)?,
    };
    let release = service.store.release(&deploy.role, &deploy.tag)?.map(|release| visitor.caller.shown(release));
    let view = View { deploy: &deploy, release: release.as_ref(), snapshot: &snapshot, now: Timestamp::now() };
    let back = format!("/deploys/{}", deploy.id);
    let forms = Forms { service, visitor, back: &back };
    let of_deploy = |entry: &AuditEntry| entry.deploy.as_deref() == Some(deploy.id.as_str());
    let mut entries: Vec<AuditEntry> = snapshot.audit.iter().filter(|entry| of_deploy(entry)).cloned().collect();
    if entries.is_empty() {
        entries = service.store.audit(of_deploy)?;
    }
    let locks = service.store.at(&place, Coordinator::locks)?;
    let locks = PlaceLocks { role: place.role.clone(), environment: place.environment.clone(), locks };
    let title = format!("{} in {}: {}", deploy.role, deploy.environment, deploy.tag);
    Ok(live(visitor, &title, number, &view.main(&forms, &place, &locks, &entries)))
}

struct View<'a> {
    deploy: &'a Deploy,
    release: Option<&'a Release>,
    snapshot: &'a Snapshot,
    now: Timestamp,
}

impl View<'_> {
    fn main(&self, forms: &Forms<'_>, place: &Place, locks: &PlaceLocks, entries: &[AuditEntry]) -> Markup {
        let deploy = self.deploy;
        let newest = super::needs::newest(&self.snapshot.status, &deploy.environment, &deploy.role);
        let mut rows: Vec<&BoxRow> = deploy.boxes.iter().collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        html! {
            div .heading {
                h1 { (deploy.role) " in " (deploy.environment) ": " (change(deploy)) }
                (state(deploy))
            }
            section .card {
                @if deploy.state == State::Rolling {
                    (progress(deploy, locks, self.now))
                } @else {
                    (bar(deploy))
                }
                (self.facts())
                div .buttons {
                    (forms.of_deploy(deploy))
                    @if newest.is_some_and(|newest| newest.id == deploy.id) {
                        (forms.of_place(&self.snapshot.status, place))
                    }
                }
            }
            (self.evidence())
            section aria-labelledby="boxes" {
                h2 #boxes { "Boxes" }
                div .card { (boxes(deploy, &rows, &locks.locks.locks, &self.snapshot.status.deploys, self.now)) }
            }
            section aria-labelledby="audit" {
                h2 #audit { "What was done" }
                div .card { (audit(&entries.iter().collect::<Vec<_>>())) }
            }
        }
    }

    fn facts(&self) -> Markup {
        let deploy = self.deploy;
        html! {
            dl {
                dt { "Started" } dd { (moment(&deploy.started_at)) " by " (said(&deploy.by)) }
                @if let Some(reason) = deploy.reason.as_deref().filter(|reason| !reason.is_empty()) {
                    dt { "Why" } dd { (one_line(reason)) }
                }
                @if let Some(ended) = &deploy.ended_at {
                    dt { "Ended" }
                    dd { (moment(ended)) @if let Some(took) = usual_time::took(deploy) { ", after " (lasting(took)) } }
                }
                dt { "Kind" }
                dd {
                    (deploy.kind)
                    @if deploy.force { ", forced" }
                    @if deploy.recreate { ", every box recreated" }
                    @if let Some(source) = &deploy.source { ", of " a href=(format!("/deploys/{source}")) { (source) } }
                }
                dt { "Boxes" } dd { (deploy.size) ", " (deploy.locks) " at a time" }
                @if !deploy.zones.is_empty() {
                    dt { "Zones" }
                    dd {
                        @for zone in &deploy.zones {
                            div {
                                (zone.zone) ": " (zone.size) ", " (zone.locks) " at a time"
                                @if zone.lost { " " (chip("red", "lost")) }
                            }
                        }
                    }
                }
                @if let Some(compare) = &deploy.compare {
                    dt { "Changes" } dd { a href=(compare) rel="noreferrer" { (compare) } }
                }
                dt { "Id" } dd { code { (deploy.id) } }
            }
        }
    }

    fn evidence(&self) -> Markup {
        let release = self.release.filter(|_| self.deploy.state == State::Broken);
        html! {
            @if let Some(release) = release {
                section aria-labelledby="evidence" {
                    h2 #evidence { "The evidence" }
                    div .card {
                        p { (one_line(release.reason.as_deref().unwrap_or("nobody said why"))) }
                        (last_words("words", true, release.logs.as_deref()))
                    }
                }
            }
        }
    }
}
