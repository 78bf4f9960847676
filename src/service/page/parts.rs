//! What several pages show: times, states, tags, bars, tables of boxes.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use maud::{Markup, html};

use super::html::said;
use crate::{
    api::{AuditEntry, BoxRow, Deploy, LockRow, Phase, State},
    config::duration,
    names::{BoxName, Role, Tag},
    screen::{age as age_text, news, one_line},
    service::usual_time::is_slow,
};

/// How long ago a time was; the script counts on.
pub fn age(now: Timestamp, at: &str) -> Markup {
    html! { time .age datetime=(at) title=(at) { (age_text(now, at)) } }
}

/// A moment; the script shows it in the visitor's zone.
pub fn moment(at: &str) -> Markup {
    let text = at.split('.').next().unwrap_or(at).trim_end_matches('Z').replace('T', " ");
    html! { time .moment datetime=(at) { (text) " UTC" } }
}

/// A duration for people.
pub fn lasting(time: Duration) -> String {
    if time < Duration::from_secs(60) { format!("{}s", time.as_secs()) } else { duration::display(time) }
}

/// A release, with its page behind it.
pub fn release(role: &Role, tag: &Tag) -> Markup {
    html! { a .tag href=(format!("/releases/{role}/{tag}")) { (tag) } }
}

/// A box, with its page behind it.
pub fn box_name(name: &BoxName) -> Markup {
    html! { a href=(format!("/boxes/{name}")) { (name) } }
}

/// `v41 → v42`.
pub fn change(deploy: &Deploy) -> Markup {
    html! {
        @if let Some(last) = deploy.last_good.as_ref().filter(|last| **last != deploy.tag) {
            (release(&deploy.role, last)) " → "
        }
        (release(&deploy.role, &deploy.tag))
    }
}

/// `1 box`, `2 boxes`.
pub fn count(boxes: usize) -> String {
    if boxes == 1 { "1 box".to_owned() } else { format!("{boxes} boxes") }
}

/// Where a deploy stands, as a word that has its colour.
pub fn state(deploy: &Deploy) -> Markup {
    let (class, word) = match (deploy.state, &deploy.pause, &deploy.gate) {
        (State::Rolling, Some(_), _) => ("amber", "paused"),
        (State::Rolling, None, Some(_)) => ("amber", "held"),
        (State::Rolling, None, None) => ("blue", "rolling"),
        (State::Queued, _, _) => ("grey", "queued"),
        (State::Deployed, _, _) => ("green", "deployed"),
        (State::Broken, _, _) => ("red", "broken"),
        (State::Failed, _, _) => ("red", "failed"),
        (State::Cancelled, _, _) => ("amber", "cancelled"),
    };
    chip(class, word)
}

/// A word on its colour.
pub fn chip(class: &str, word: &str) -> Markup {
    html! { span .chip .(class) { (word) } }
}

fn colour(phase: Phase) -> &'static str {
    match phase {
        Phase::Done => "green",
        Phase::Failed | Phase::Lost => "red",
        Phase::RolledBack | Phase::Cancelled | Phase::Gone => "amber",
        Phase::Expected | Phase::Waiting | Phase::Pulling => "grey",
        Phase::Draining | Phase::Starting | Phase::Verifying | Phase::Registering => "blue",
    }
}

/// The boxes of a deploy as one bar: done, at work, not well, still to come.
pub fn bar(deploy: &Deploy) -> Markup {
    let order = ["green", "blue", "amber", "red", "grey"];
    let mut counts = BTreeMap::<usize, usize>::new();
    for row in &deploy.boxes {
        let at = order.iter().position(|class| *class == colour(row.phase)).unwrap_or_default();
        *counts.entry(at).or_default() += 1;
    }
    let mut x = 0;
    let parts = counts.into_iter().map(|(at, boxes)| {
        x += boxes;
        (order[at], x - boxes, boxes)
    });
    let parts: Vec<_> = parts.collect();
    let done = deploy.size.saturating_sub(deploy.remaining);
    html! {
        svg .bar viewBox=(format!("0 0 {} 1", deploy.boxes.len().max(1))) preserveAspectRatio="none" role="img"
            aria-label=(format!("{done} of {} finished", deploy.size)) {
            @for (class, x, width) in parts { rect .(class) x=(x) y="0" width=(width) height="1" {} }
        }
    }
}

/// Who started a deploy and why, in one line.
pub fn why(deploy: &Deploy) -> Markup {
    html! {
        (said(&deploy.by))
        @if let Some(reason) = deploy.reason.as_deref().filter(|reason| !reason.is_empty()) {
            ": " (one_line(reason))
        }
    }
}

/// Boxes of a deploy, where each stands and what it waits for. `past`: what is slow goes by these deploys.
pub fn boxes(deploy: &Deploy, rows: &[&BoxRow], locks: &[LockRow], past: &[Deploy], now: Timestamp) -> Markup {
    let zones = rows.iter().any(|row| row.zone.is_some());
    html! {
        div .wide {
            table .boxes {
                thead {
                    tr {
                        th scope="col" { "Box" }
                        @if zones { th scope="col" { "Zone" } }
                        th scope="col" { "Phase" }
                        th scope="col" { "For" }
                        th scope="col" { "Lock" }
                        th scope="col" { "Tag" }
                        th scope="col" { "Waits for, or why" }
                    }
                }
                tbody {
                    @for row in rows {
                        tr {
                            th scope="row" { (box_name(&row.name)) }
                            @if zones { td { @if let Some(zone) = &row.zone { (zone) } } }
                            td {
                                (chip(colour(row.phase), row.phase.as_str()))
                                @if is_slow(row, deploy, past, now) { " " (chip("amber", "slow")) }
                            }
                            td .number { (age(now, &row.since)) }
                            td .number {
                                @if let Some(lock) = locks.iter().find(|lock| lock.name == row.name) { (lock.suffix) }
                            }
                            td { @if let Some(tag) = &row.tag { (release(&deploy.role, tag)) } }
                            td .words { (news(deploy, row).unwrap_or_default()) }
                        }
                    }
                }
            }
        }
    }
}

/// What people and the service did, newest first.
pub fn audit(entries: &[&AuditEntry]) -> Markup {
    html! {
        div .wide {
            table {
                thead {
                    tr {
                        th scope="col" { "When" }
                        th scope="col" { "Who" }
                        th scope="col" { "What" }
                        th scope="col" { "Release" }
                        th scope="col" { "Why" }
                    }
                }
                tbody {
                    @for entry in entries {
                        tr {
                            td .number { (moment(&entry.at)) }
                            td .words { (said(&entry.by)) }
                            td { (said(&entry.action)) }
                            td {
                                @if let (Some(role), Some(tag)) = (&entry.role, &entry.tag) { (release(role, tag)) }
                            }
                            td .words { (one_line(entry.detail.as_deref().unwrap_or_default())) }
                        }
                    }
                }
            }
        }
    }
}

/// The last words of what failed, to be unfolded where `id` is one of many.
pub fn last_words(id: &str, open: bool, logs: Option<&str>) -> Markup {
    html! {
        @if let Some(logs) = logs.filter(|logs| !logs.trim().is_empty()) {
            details .logs id=(id) open[open] { summary { "Its last words" } pre { (said(logs)) } }
        }
    }
}
