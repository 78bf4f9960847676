//! `/`: from the top what waits for a person, then every environment with its roles, then what has been.

use std::collections::BTreeSet;

use jiff::Timestamp;
use maud::{Markup, html};

use super::{
    Visitor,
    actions::Forms,
    html::{live, said},
    needs::{Need, needs, newest},
    parts::{age, bar, box_name, boxes, change, chip, count, last_words, lasting, moment, release, state, why},
};
use crate::{
    api::{BoxRow, Deploy, Freeze, Phase, PlaceLocks, State, StatusAnswer},
    names::{Environment, Place, Tag},
    screen::{causes, counts, one_line, progress_words, promotion_waits},
    service::{
        Service,
        api_error::ApiResult,
        http::{Request, Response},
        usual_time,
    },
};

/// How many boxes of a deploy are named; its own page has all.
const BOXES_SHOWN: usize = 8;
/// How many past deploys are shown.
const DEPLOYS_SHOWN: usize = 30;

/// `GET /`.
pub fn show(service: &Service, visitor: &Visitor, _: &Request) -> ApiResult<Response> {
    let (number, snapshot) = service.snapshot(visitor)?;
    let forms = Forms { service, visitor, back: "/" };
    let view = View { forms, status: &snapshot.status, now: Timestamp::now() };
    Ok(live(visitor, "deployctl", number, &view.main()))
}

struct View<'a> {
    forms: Forms<'a>,
    status: &'a StatusAnswer,
    now: Timestamp,
}

impl View<'_> {
    fn main(&self) -> Markup {
        let needs = needs(self.status);
        html! {
            h1 .hidden { "What runs where" }
            @if !needs.is_empty() {
                section .needs aria-labelledby="needs" {
                    h2 #needs { "Needs a person" }
                    ul .plain { @for need in &needs { li .card .need { (self.need(need)) } } }
                }
            }
            @for environment in self.environments() { (self.environment(&environment)) }
            @if self.status.places.is_empty() {
                section .card {
                    h2 { "Nothing was deployed yet" }
                    p { "Publish a release with " code { "deployctl publish" } " and start it with " code { "deployctl start" } "." }
                }
            }
            (self.history())
        }
    }

    /// In the order of promotion, then by name.
    fn environments(&self) -> Vec<Environment> {
        let mut there: BTreeSet<&Environment> = self.status.places.iter().map(|place| &place.environment).collect();
        there.extend(self.status.freezes.iter().map(|freeze| &freeze.environment));
        let policies = self.forms.service.config.service.roles.values();
        let stage = |environment: &Environment| {
            let stages =
                policies.clone().filter_map(|policy| policy.environments.iter().position(|e| e == environment));
            stages.max().unwrap_or(usize::MAX)
        };
        let mut ordered: Vec<Environment> = there.into_iter().cloned().collect();
        ordered.sort_by_key(|environment| (stage(environment), environment.clone()));
        ordered
    }

    fn environment(&self, environment: &Environment) -> Markup {
        let freezes: Vec<&Freeze> =
            self.status.freezes.iter().filter(|freeze| freeze.environment == *environment).collect();
        let whole = freezes.iter().find(|freeze| freeze.role.is_none());
        html! {
            section .environment aria-labelledby=(format!("environment-{environment}")) {
                div .heading {
                    h2 id=(format!("environment-{environment}")) { (environment) }
                    @if whole.is_some() { (chip("amber", "frozen")) } @else { (self.forms.freeze(environment)) }
                }
                @for freeze in freezes { (self.freeze(freeze)) }
                @for place in self.status.places.iter().filter(|place| place.environment == *environment) {
                    (self.place(place))
                }
            }
        }
    }

    fn freeze(&self, freeze: &Freeze) -> Markup {
        html! {
            div .frozen {
                p {
                    @if let Some(role) = &freeze.role { strong { (role) } " is frozen " } @else { "Frozen " }
                    "for " (age(self.now, &freeze.at))
                    @if let Some(until) = &freeze.until { ", until " (moment(&until.to_string())) }
                    ", by " (said(&freeze.by)) ": "
                    (one_line(freeze.reason.as_deref().filter(|reason| !reason.is_empty()).unwrap_or("no reason given")))
                }
                (self.forms.unfreeze(freeze))
            }
        }
    }

    fn place(&self, locks: &PlaceLocks) -> Markup {
        let place = Place { environment: locks.environment.clone(), role: locks.role.clone() };
        let here = |deploy: &&Deploy| deploy.environment == place.environment && deploy.role == place.role;
        let newest = newest(self.status, &place.environment, &place.role);
        let queued = self.status.deploys.iter().filter(here).find(|deploy| deploy.state == State::Queued);
        html! {
            article .card .place {
                div .heading {
                    h3 { (place.role) }
                    (self.running(&place))
                    @if let Some(deploy) = newest { (state(deploy)) }
                }
                @match newest {
                    Some(deploy) if deploy.state == State::Rolling => (self.rolling(deploy, locks)),
                    Some(deploy) => p .muted {
                        (change(deploy)) " " (ended(deploy))
                        @if let Some(at) = &deploy.ended_at { " " (age(self.now, at)) " ago" } " by " (why(deploy))
                    },
                    None => {}
                }
                @if let Some(deploy) = queued {
                    p .muted { (release(&deploy.role, &deploy.tag)) " waits behind it, by " (why(deploy)) }
                }
                (self.waits(&place))
                div .buttons {
                    @if let Some(deploy) = newest {
                        a .more href=(format!("/deploys/{}", deploy.id)) { "Details" }
                        (self.forms.of_deploy(deploy))
                    }
                    @if let Some(deploy) = queued { (self.forms.of_deploy(deploy)) }
                    (self.forms.of_place(self.status, &place))
                }
            }
        }
    }

    /// What keeps something from starting here, or from going on from here.
    fn waits(&self, place: &Place) -> Markup {
        let on = self.status.promotions.iter().filter(|one| one.from == place.environment && one.role == place.role);
        let closed = self.status.closed.iter().find(|c| c.environment == place.environment && c.role == place.role);
        html! {
            @for promotion in on {
                p .muted {
                    (release(&promotion.role, &promotion.tag)) " is to go on to " (promotion.environment) ": "
                    (promotion_waits(promotion))
                }
            }
            @if let Some(closed) = closed {
                p .muted {
                    "Nothing new starts here now"
                    @if let Some(opens) = &closed.opens { ": the next window opens " (moment(&opens.to_string())) }
                }
            }
        }
    }

    /// `v42 on 6 boxes`, for each tag that runs.
    fn running(&self, place: &Place) -> Markup {
        let here =
            self.status.running.iter().filter(|row| row.environment == place.environment && row.role == place.role);
        let tags: Vec<&Tag> = here.map(|row| &row.tag).collect();
        let different: BTreeSet<&Tag> = tags.iter().copied().collect();
        html! {
            span .running {
                @for tag in &different {
                    span { (release(&place.role, tag)) " on " (count(tags.iter().filter(|t| t == &tag).count())) }
                }
                @if different.is_empty() { span .muted { "no box has said what it runs" } }
            }
        }
    }

    fn rolling(&self, deploy: &Deploy, locks: &PlaceLocks) -> Markup {
        let matters = |row: &&BoxRow| row.phase.is_working() || matches!(row.phase, Phase::Failed | Phase::Lost);
        let (mut rows, mut rest): (Vec<&BoxRow>, Vec<&BoxRow>) = deploy.boxes.iter().partition(matters);
        // A few that wait are named, too: a small fleet is seen whole.
        let room = BOXES_SHOWN.saturating_sub(rows.len());
        rest.sort_by_key(|row| row.phase >= Phase::Done);
        let others = rest.split_off(room.min(rest.len()));
        rows.extend(rest);
        html! {
            (progress(deploy, locks, self.now))
            (boxes(deploy, &rows, &locks.locks.locks, &self.status.deploys, self.now))
            @if !others.is_empty() {
                p .muted { "and " (count(others.len())) " more: " (counts(others.iter().copied())) }
            }
        }
    }

    fn need(&self, need: &Need<'_>) -> Markup {
        let at = |deploy: &Deploy| {
            html! { a href=(format!("/deploys/{}", deploy.id)) { (deploy.role) " in " (deploy.environment) } }
        };
        html! {
            @match need {
                Need::Paused(deploy) => p {
                    (at(deploy)) " is paused"
                    @if let Some(pause) = &deploy.pause {
                        " for " (age(self.now, &pause.at)) " by " (said(&pause.by)) ": " (one_line(&pause.reason))
                    }
                },
                Need::Approval(promotion) => p {
                    (promotion.role) ": " (release(&promotion.role, &promotion.tag)) ", complete in " (promotion.from) " for "
                    (age(self.now, &promotion.since)) ", is to go on to " (promotion.environment) ": "
                    (promotion_waits(promotion))
                },
                Need::Step(deploy) => p {
                    (at(deploy)) ": a step of " (release(&deploy.role, &deploy.tag)) " is done and waits for “Resume”"
                    @if let Some(since) = deploy.step.as_ref().and_then(|step| step.since.as_deref()) {
                        ", for " (age(self.now, since)) " now"
                    }
                },
                Need::Broken(deploy, broken) => {
                    p {
                        (at(deploy)) ": " (release(&deploy.role, &deploy.tag)) " is broken. "
                        (one_line(deploy.reason.as_deref().unwrap_or_default()))
                    }
                    (last_words(&format!("words-{}", deploy.id), false, broken.and_then(|release| release.logs.as_deref())))
                },
                Need::Failed(deploy) => p {
                    (at(deploy)) ": the deploy of " (release(&deploy.role, &deploy.tag)) " failed. "
                    (one_line(deploy.reason.as_deref().unwrap_or_default()))
                },
                Need::Lost(deploy, row) => p {
                    (at(deploy)) ": " (box_name(&row.name)) " is lost: it lives, and its worker does not answer. "
                    (one_line(row.detail.as_deref().unwrap_or_default()))
                },
                Need::KeptOut(place, out) => p {
                    (box_name(&out.name)) " is kept out of " (place) " for " (age(self.now, &out.since)) ": "
                    (one_line(out.reason.as_deref().unwrap_or_default()))
                },
                Need::StaysOut(place, out) => {
                    p {
                        (box_name(&out.name)) " has been out of " (place) " for " (age(self.now, &out.since))
                        ", and nothing brings it back by itself"
                    }
                    div .buttons { (self.forms.unlock(place, &out.name)) }
                },
            }
        }
    }

    fn history(&self) -> Markup {
        let past: Vec<&Deploy> =
            self.status.deploys.iter().filter(|d| d.state.is_ended()).take(DEPLOYS_SHOWN).collect();
        html! {
            @if !past.is_empty() {
                section aria-labelledby="history" {
                    h2 #history { "History" }
                    div .card { (deploys(&past)) }
                }
            }
        }
    }
}

/// How far a deploy is: the bar, the numbers, and what holds it.
pub fn progress(deploy: &Deploy, locks: &PlaceLocks, now: Timestamp) -> Markup {
    html! {
        (bar(deploy))
        p {
            (change(deploy)) ": " strong .number { (progress_words(deploy, locks.locks.out.len(), now)) }
            ", " (deploy.locks) " at a time, for " (age(now, &deploy.started_at))
            span .muted { " by " (why(deploy)) }
        }
        @for cause in causes(deploy).iter().filter(|cause| cause.starts_with("cause")) { p .note .amber { (cause) } }
        @if let Some(step) = &deploy.step {
            p .note {
                "Step " (step.number) " of " (step.of) ": " (count(step.boxes as usize)) " first"
                @match (&step.since, step.lasts_ms) {
                    (Some(since), Some(lasts)) => {
                        ", serving for " (age(now, since)) " of " (lasting(std::time::Duration::from_millis(lasts)))
                    }
                    (Some(since), None) => { ", serving for " (age(now, since)) "; a person lets it go on" }
                    (None, _) => {}
                }
            }
        }
        @if let Some(gate) = &deploy.gate { p .note .amber { "Held by a gate: " (one_line(gate)) } }
        @if let Some(pause) = &deploy.pause {
            p .note .amber {
                "Paused for " (age(now, &pause.at)) " by " (said(&pause.by)) ": " (one_line(&pause.reason))
            }
        }
    }
}

fn ended(deploy: &Deploy) -> &'static str {
    match deploy.state {
        State::Deployed => "was deployed",
        State::Broken => "broke",
        State::Cancelled => "was cancelled",
        State::Failed => "failed",
        State::Queued | State::Rolling => "",
    }
}

/// Deploys that have ended: when, what, how, how long, who and why.
pub fn deploys(past: &[&Deploy]) -> Markup {
    html! {
        div .wide {
            table .history {
                thead {
                    tr {
                        th scope="col" { "When" }
                        th scope="col" { "Where" }
                        th scope="col" { "What" }
                        th scope="col" { "Ended" }
                        th scope="col" { "Took" }
                        th scope="col" { "Who and why" }
                    }
                }
                tbody {
                    @for deploy in past {
                        tr {
                            td .number { a href=(format!("/deploys/{}", deploy.id)) { (moment(&deploy.started_at)) } }
                            td { (deploy.role) " " span .muted { "in " (deploy.environment) } }
                            td { (change(deploy)) @if deploy.kind != crate::api::Kind::Deploy { " " span .muted { (deploy.kind) } } }
                            td { (state(deploy)) }
                            td .number { @if let Some(took) = usual_time::took(deploy) { (lasting(took)) } }
                            td .words { (why(deploy)) }
                        }
                    }
                }
            }
        }
    }
}
