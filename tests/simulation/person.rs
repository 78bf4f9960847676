//! A person who starts, cancels, supersedes, queues, rolls back, freezes, unlocks, takes out and in.

use deployctl::{agent::plan::Trigger, names::Tag};
use serde_json::{Value as Json, json};

use crate::simulation::{
    dice::Dice,
    fleet::{Fleet, Quality},
    service, worker,
};

const PLACE: [(&str, &str); 2] = [("role", "app"), ("environment", "staging")];

/// A release that nobody has had yet.
pub fn publish(fleet: &Fleet, quality: Quality) -> Option<Tag> {
    let tag: Tag = format!("v{}", fleet.releases.borrow().len() + 1).parse().unwrap();
    if !tell_of(fleet, &tag) {
        return None;
    }
    fleet.releases.borrow_mut().insert(tag.clone(), quality);
    Some(tag)
}

/// Tells the service of a release.
pub fn tell_of(fleet: &Fleet, tag: &Tag) -> bool {
    let told = service::call(fleet, "POST", &["v1", "releases"], &[], &json!({"role": "app", "tag": tag}));
    told.is_some_and(|(status, _)| status < 300)
}

pub fn start(fleet: &Fleet, tag: &Tag, how: &Json) -> Option<u16> {
    let mut body = json!({"role": "app", "environment": "staging", "tag": tag});
    for (name, value) in how.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    let (status, answer) = service::call(fleet, "POST", &["v1", "deploys"], &[], &body)?;
    if status >= 300 {
        fleet.tell(format!("ann may not start {tag}: {}", answer["error"]["kind"]));
    }
    Some(status)
}

/// The id of the newest deploy.
fn newest(fleet: &Fleet) -> Option<String> {
    let query = [PLACE[0], PLACE[1], ("limit", "1")];
    let (_, answer) = service::call(fleet, "GET", &["v1", "deploys"], &query, &Json::Null)?;
    answer["deploys"][0]["id"].as_str().map(str::to_owned)
}

/// Does something, whatever it is.
pub fn act(fleet: &Fleet) {
    let (what, at) = fleet.dice(|dice| (dice.below(100), dice.below(fleet.size())));
    match what {
        0..45 => start_something(fleet),
        45..55 => {
            let broken = fleet.dice(|dice| dice.percent(25));
            stop(fleet, broken);
        }
        55..62 => {
            fleet.tell("ann rolls back");
            let body = json!({"role": "app", "environment": "staging"});
            service::call(fleet, "POST", &["v1", "rollbacks"], &[], &body);
        }
        62..67 => {
            fleet.tell("ann freezes");
            service::call(fleet, "POST", &["v1", "freezes"], &[], &json!({"environment": "staging", "reason": "x"}));
        }
        67..72 => unfreeze(fleet),
        72..76 => pause(fleet),
        76..80 => resume(fleet),
        80..84 => unlock(fleet, at, fleet.dice(|dice| dice.percent(20))),
        84..89 => worker::take_out(fleet, at),
        89..95 => worker::bring_in(fleet, at),
        _ => {
            fleet.tell(format!("ann runs a worker on {}", fleet.name(at)));
            worker::wake(fleet, at, Trigger::Run(None));
        }
    }
}

fn start_something(fleet: &Fleet) {
    let quality = fleet.dice(|dice| match dice.below(100) {
        0..70 => Quality::Good,
        70..94 => Quality::Bad,
        _ => Quality::Unknown,
    });
    let old: Vec<Tag> = fleet.releases.borrow().keys().cloned().collect();
    let again = fleet.dice(|dice| dice.percent(20));
    let tag = if again { Some(fleet.dice(|dice| dice.of(&old))) } else { publish(fleet, quality) };
    let Some(tag) = tag else { return };
    let how = fleet.dice(|dice: &mut Dice| match dice.below(100) {
        0..40 => json!({}),
        40..65 => json!({"supersede": true}),
        65..85 => json!({"queue": true}),
        85..93 => json!({"force": true, "supersede": true}),
        _ => json!({"recreate": true}),
    });
    fleet.tell(format!("ann starts {tag} {how}, {:?}", fleet.releases.borrow()[&tag]));
    start(fleet, &tag, &how);
}

fn stop(fleet: &Fleet, broken: bool) {
    let Some(id) = newest(fleet) else { return };
    fleet.tell(format!("ann cancels{}", if broken { ": it is broken" } else { "" }));
    let body = json!({"reason": "ann has had enough", "broken": broken});
    service::call(fleet, "POST", &["v1", "deploys", &id, "cancel"], &[], &body);
}

pub fn unfreeze(fleet: &Fleet) {
    service::call(fleet, "DELETE", &["v1", "freezes"], &[], &json!({"environment": "staging"}));
}

fn pause(fleet: &Fleet) {
    let Some(id) = newest(fleet) else { return };
    fleet.tell("ann pauses");
    service::call(fleet, "POST", &["v1", "deploys", &id, "pause"], &[], &json!({"reason": "errors?"}));
}

pub fn resume(fleet: &Fleet) {
    let current = service::call(fleet, "GET", &["v1", "deploys", "current"], &PLACE, &Json::Null);
    let Some(id) = current.and_then(|(_, body)| body["id"].as_str().map(str::to_owned)) else { return };
    service::call(fleet, "POST", &["v1", "deploys", &id, "resume"], &[], &json!({}));
}

/// Frees a box's lock and its place in `out`.
pub fn unlock(fleet: &Fleet, at: usize, force: bool) {
    let name = fleet.name(at).to_string();
    let query = [PLACE[0], PLACE[1], ("reason", "x"), ("force", if force { "true" } else { "false" })];
    // Whoever frees a box that is out takes it upon himself.
    let before = fleet.machine(at, |machine| std::mem::replace(&mut machine.excused, true));
    let freed = service::call(fleet, "DELETE", &["v1", "locks", &name], &query, &Json::Null);
    match freed {
        Some((200, _)) => fleet.tell(format!("ann unlocks {name}{}", if force { " by force" } else { "" })),
        _ => fleet.machine(at, |machine| machine.excused = before),
    }
    fleet.machine(at, |machine| machine.excused &= machine.out || machine.leaving);
}
