//! What waits for a person. Pure: it reads what `status` shows.

use crate::{
    api::{BoxRow, Deploy, OutRow, Phase, Promotion, PromotionState, Release, State, StatusAnswer},
    names::{Environment, Place, Role},
};

/// One thing that goes on only when a person does something.
#[derive(Debug, Clone, PartialEq)]
pub enum Need<'a> {
    /// Somebody has paused it.
    Paused(&'a Deploy),
    /// A step that a person lets go on.
    Step(&'a Deploy),
    /// What is complete in one environment, and wants a person's word to go on to the next.
    Approval(&'a Promotion),
    /// The newest deploy broke; with the release, where its last words are known.
    Broken(&'a Deploy, Option<&'a Release>),
    /// The newest deploy failed through boxes or infrastructure.
    Failed(&'a Deploy),
    /// A box that lives, whose lock ran out without a result.
    Lost(&'a Deploy, &'a BoxRow),
    /// A box that a person keeps out of service.
    KeptOut(Place, &'a OutRow),
    /// A box that is out of service, and nothing brings it back.
    StaysOut(Place, &'a OutRow),
}

/// The deploys of a role in an environment that have begun, newest first.
pub fn begun<'a>(
    status: &'a StatusAnswer,
    environment: &'a Environment,
    role: &'a Role,
) -> impl Iterator<Item = &'a Deploy> + Clone {
    let here = move |deploy: &&Deploy| deploy.environment == *environment && deploy.role == *role;
    status.deploys.iter().filter(here).filter(|deploy| deploy.state != State::Queued)
}

/// The newest deploy of a role in an environment that has begun.
#[must_use]
pub fn newest<'a>(status: &'a StatusAnswer, environment: &'a Environment, role: &'a Role) -> Option<&'a Deploy> {
    begun(status, environment, role).next()
}

/// Everything that waits for a person, place by place.
#[must_use]
pub fn needs(status: &StatusAnswer) -> Vec<Need<'_>> {
    let wait = |promotion: &&Promotion| promotion.state == PromotionState::WaitsForApproval;
    let mut found: Vec<Need<'_>> = status.promotions.iter().filter(wait).map(Need::Approval).collect();
    for place in &status.places {
        let newest = newest(status, &place.environment, &place.role);
        if let Some(deploy) = newest {
            found.extend(of_deploy(status, deploy));
        }
        for out in &place.locks.out {
            let place = Place { environment: place.environment.clone(), role: place.role.clone() };
            if out.reason.is_some() {
                found.push(Need::KeptOut(place, out));
            } else if out.purpose.is_none() && !newest.is_some_and(|deploy| works_on(deploy, out)) {
                found.push(Need::StaysOut(place, out));
            }
        }
    }
    found
}

fn of_deploy<'a>(status: &'a StatusAnswer, deploy: &'a Deploy) -> Vec<Need<'a>> {
    let mut found = Vec::new();
    match deploy.state {
        State::Rolling if deploy.pause.is_some() => found.push(Need::Paused(deploy)),
        State::Rolling => {
            let waits = deploy.step.as_ref().is_some_and(|step| step.lasts_ms.is_none() && step.since.is_some());
            found.extend(waits.then_some(Need::Step(deploy)));
        }
        State::Broken => {
            let blamed = |release: &&Release| release.role == deploy.role && release.tag == deploy.tag;
            found.push(Need::Broken(deploy, status.broken.iter().find(blamed)));
        }
        State::Failed => found.push(Need::Failed(deploy)),
        State::Queued | State::Deployed | State::Cancelled => {}
    }
    found.extend(deploy.boxes.iter().filter(|row| row.phase == Phase::Lost).map(|row| Need::Lost(deploy, row)));
    found
}

fn works_on(deploy: &Deploy, out: &OutRow) -> bool {
    deploy.state == State::Rolling && deploy.boxes.iter().any(|row| row.name == out.name && row.phase.is_unfinished())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(deploy: serde_json::Value, out: &serde_json::Value) -> StatusAnswer {
        let mut whole = json!({
            "id": "app.staging.1", "role": "app", "environment": "staging", "tag": "v2", "kind": "deploy", "size": 2,
            "locks": 1, "remaining": 1, "by": "ci", "started_at": "2026-01-01T00:00:00Z",
        });
        let serde_json::Value::Object(mut deploy) = deploy else { panic!("an object") };
        whole.as_object_mut().unwrap().append(&mut deploy);
        let place = json!({"role": "app", "environment": "staging", "locks": [], "out": out});
        let status = json!({"deploys": [whole], "running": [], "places": [place], "freezes": [], "broken": []});
        serde_json::from_value(status).unwrap()
    }

    fn out(name: &str, reason: Option<&str>) -> serde_json::Value {
        let at = "2026-01-01T00:00:00Z";
        json!({"box": name, "deploy": "app.staging.1", "since": at, "renewed": at, "reason": reason})
    }

    fn row(name: &str, phase: &str) -> serde_json::Value {
        json!({"box": name, "phase": phase, "since": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn a_box_at_work_needs_nobody() {
        let boxes = json!([row("a", "starting"), row("b", "waiting")]);
        let status = status(json!({"state": "rolling", "boxes": boxes}), &json!([out("a", None)]));
        assert_eq!(needs(&status), []);
    }

    #[test]
    fn a_box_that_comes_back_by_itself_needs_nobody() {
        let mut out = out("a", None);
        out["purpose"] = json!("kernel");
        let status = status(json!({"state": "deployed", "boxes": [row("a", "done")]}), &json!([out]));
        assert_eq!(needs(&status), []);
    }

    #[test]
    fn a_box_that_is_out_without_work_does() {
        let boxes = json!([row("a", "failed"), row("b", "lost")]);
        let outs = json!([out("a", None), out("c", Some("disk"))]);
        let status = status(json!({"state": "failed", "boxes": boxes}), &outs);
        let [Need::Failed(_), Need::Lost(_, lost), Need::StaysOut(_, stays), Need::KeptOut(_, kept)] =
            &needs(&status)[..]
        else {
            panic!("{:?}", needs(&status));
        };
        assert_eq!((lost.name.as_str(), stays.name.as_str(), kept.name.as_str()), ("b", "a", "c"));
    }

    #[test]
    fn a_step_waits_for_a_person_once_its_boxes_are_done() {
        let step = |since: Option<&str>, lasts: Option<u64>| {
            let step = json!({"number": 1, "of": 1, "boxes": 1, "since": since, "lasts_ms": lasts});
            needs(&status(json!({"state": "rolling", "step": step}), &json!([]))).len()
        };
        let since = Some("2026-01-01T00:00:00Z");
        assert_eq!((step(since, None), step(None, None), step(since, Some(1000))), (1, 0, 0));
    }
}
