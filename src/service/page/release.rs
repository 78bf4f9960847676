//! `/releases/ROLE/TAG`: one release: of which commit, where it runs, how its deploys ended, what it broke.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::{
    Visitor,
    html::{live, said},
    overview::deploys,
    parts::{box_name, chip, count, last_words, moment},
};
use crate::{
    api::{Deploy, Release, ReleaseStatus, Running},
    config::Verb,
    names::{BadName, Role, Tag},
    screen::one_line,
    service::{
        Service,
        api_error::{ApiError, ApiResult, ErrorKind},
        http::{Request, Response},
        links,
    },
};

/// `GET /releases/ROLE/TAG`.
pub fn show(service: &Service, visitor: &Visitor, request: &Request) -> ApiResult<Response> {
    visitor.caller.need_anywhere(Verb::Read)?;
    let segment = |at: usize| request.path.get(at).map_or("", String::as_str);
    let bad = |error: BadName| ApiError::new(ErrorKind::NotFound, error.to_string());
    let (role, tag): (Role, Tag) = (segment(1).parse().map_err(bad)?, segment(2).parse().map_err(bad)?);
    let release = visitor.caller.shown(service.release(&role, &tag)?);
    let (number, snapshot) = service.snapshot(visitor)?;
    let repository = service.config.service.role(&role).repository;
    let commit = release.commit.as_deref().zip(repository.as_deref());
    let commit = commit.and_then(|(commit, repository)| links::commit(repository, commit));
    let runs = snapshot.status.running.iter().filter(|row| row.role == role && row.tag == tag);
    let past = snapshot.status.deploys.iter().filter(|deploy| deploy.role == role && deploy.tag == tag);
    let main = main(&release, commit.as_deref(), &runs.collect::<Vec<_>>(), &past.collect::<Vec<_>>());
    Ok(live(visitor, &format!("{role}:{tag}"), number, &main))
}

fn main(release: &Release, commit: Option<&str>, runs: &[&Running], past: &[&Deploy]) -> Markup {
    let class = match release.status {
        ReleaseStatus::Available => "green",
        ReleaseStatus::Broken => "red",
        ReleaseStatus::Withheld => "amber",
    };
    html! {
        div .heading {
            h1 { (release.role) ":" (release.tag) }
            (chip(class, release.status.as_str()))
        }
        section .card {
            @if let Some(message) = &release.message { p .message { (said(message)) } }
            (facts(release, commit))
        }
        @if release.status != ReleaseStatus::Available {
            section aria-labelledby="why" {
                h2 #why { "Why it is " (release.status) }
                div .card {
                    p { (one_line(release.reason.as_deref().unwrap_or("nobody said why"))) }
                    (last_words("words", true, release.logs.as_deref()))
                }
            }
        }
        section aria-labelledby="runs" {
            h2 #runs { "Where it runs" }
            div .card { (places(runs)) }
        }
        @if !past.is_empty() {
            section aria-labelledby="history" {
                h2 #history { "Its deploys" }
                div .card { (deploys(past)) }
            }
        }
    }
}

fn facts(release: &Release, commit: Option<&str>) -> Markup {
    let link = release.link.as_deref().filter(|link| links::is_web(link));
    html! {
        dl {
            dt { "Published" } dd { (moment(&release.published_at)) }
            @if let Some(text) = &release.commit {
                dt { "Commit" }
                dd {
                    @if let Some(address) = commit { a href=(address) rel="noreferrer" { code { (said(text)) } } }
                    @else { code { (said(text)) } }
                    @if let Some(at) = &release.committed_at { ", " (moment(at)) }
                }
            }
            @if let Some(author) = &release.author { dt { "Author" } dd { (said(author)) } }
            @if let Some(link) = link { dt { "Built by" } dd { a href=(link) rel="noreferrer" { (link) } } }
        }
    }
}

fn places(runs: &[&Running]) -> Markup {
    let mut places = BTreeMap::<_, Vec<&Running>>::new();
    for row in runs {
        places.entry(&row.environment).or_default().push(row);
    }
    html! {
        @if places.is_empty() { p .muted { "Nowhere, as far as boxes have said." } }
        @for (environment, rows) in places {
            p {
                strong { (environment) } ": " (count(rows.len())) " "
                span .muted { @for row in rows { (box_name(&row.name)) " " } }
            }
        }
    }
}
