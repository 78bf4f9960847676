//! Broken releases, ways back, and what waits.

use deployctl::api::Phase;
use serde_json::{Value, json};

use crate::service::setup::{SOON, Service, id};
use crate::support::{Scope, require, wait_for, wait_until};

const THREE: [(&str, &str); 3] = [("staging", "box-1"), ("staging", "box-2"), ("staging", "box-3")];
const NAMES: [&str; 3] = ["box-1", "box-2", "box-3"];

fn tag(tag: &str) -> Value {
    json!({ "role": "app", "environment": "staging", "tag": tag })
}

/// Publishes tags in this order and deploys each completely.
fn with_deployed(extra: Value, tags: &[&str]) -> (Service, Vec<String>) {
    let service = Service::with_boxes(&Scope::new(), &THREE, extra);
    let ids = tags.iter().map(|tag| deployed(&service, tag)).collect();
    (service, ids)
}

fn deployed(service: &Service, tag: &str) -> String {
    service.publish(tag);
    let id = service.start_deploy("staging", json!({ "tag": tag }));
    service.complete("staging", &id, &NAMES);
    service.wait_state(&id, "deployed");
    wait_until(SOON, "the end is followed up", || service.audit(&id).last().is_some_and(|action| action == "deployed"));
    id
}

fn blame(name: &str) -> Value {
    json!({ "box": name, "reason": "the container exited with 3", "logs": "fatal: no database called orders\n" })
}

/// box-1 takes the broken release, blames it with proof, and goes back to `old`.
fn breaks(service: &Service, deploy: &str, old: &str) {
    let mut worker = service.worker("staging", "box-1");
    worker.joins(deploy);
    let held = worker.goes_out(deploy);
    let (status, answer) = service.http.post(&format!("/v1/deploys/{deploy}/broken"), &blame("box-1"));
    assert_eq!(status, 200, "{answer}");
    worker.comes_back(deploy, &held, Phase::RolledBack, old);
}

#[test]
fn a_broken_release_is_marked_with_its_evidence_and_refused() {
    require!("redis-server", "serf");
    let (service, _) = with_deployed(json!({}), &["v1"]);
    service.publish("v2");
    let broken = service.start_deploy("staging", tag("v2"));
    breaks(&service, &broken, "v1");
    let ended = service.wait_state(&broken, "broken");
    assert!(ended["reason"].as_str().unwrap().contains("box-1: the container exited with 3"), "{ended}");
    let release = service.release("v2");
    assert_eq!((&release["status"], &release["logs"]), (&json!("broken"), &blame("x")["logs"]), "{release}");
    assert!(release["reason"].as_str().unwrap().contains("exited with 3"), "{release}");
    // Reported again, because the answer got lost, it stays as it was.
    let path = format!("/v1/deploys/{broken}/broken");
    assert_eq!(service.http.post(&path, &json!({ "box": "box-2", "reason": "me too" })).0, 200);
    assert_eq!(service.release("v2"), release);

    let (status, refused) = service.http.post("/v1/deploys", &tag("v2"));
    assert_eq!((status, &refused["error"]["kind"]), (409, &json!("broken")));
    assert!(refused["error"]["message"].as_str().unwrap().contains("exited with 3"), "{refused}");
    let default = json!({ "role": "app", "environment": "staging", "dry_run": true });
    assert_eq!(service.http.post("/v1/deploys", &default).1["tag"], "v1", "the newest that is good");
    let (_, current) = service.http.get("/v1/deploys/current?role=app&environment=staging");
    assert_eq!((&current["tag"], &current["latest"]), (&json!("v1"), &json!("broken")), "{current}");

    // A person who knows better, and is right.
    let forced = service.start_deploy("staging", json!({ "tag": "v2", "force": true }));
    service.complete("staging", &forced, &NAMES);
    wait_for(SOON, "the mark is gone", || {
        let release = service.release("v2");
        if release["status"] == "available" && release["logs"].is_null() { Ok(()) } else { Err(release) }
    });
}

#[test]
fn a_second_failure_of_a_forced_release_shows_its_own_evidence() {
    require!("redis-server", "serf");
    let (service, _) = with_deployed(json!({}), &["v1"]);
    service.publish("v2");
    let fails = |extra: Value, words: &str| {
        let deploy = service.start_deploy("staging", extra);
        service.worker("staging", "box-1").joins(&deploy);
        let body = json!({ "box": "box-1", "reason": words, "logs": format!("fatal: {words}") });
        assert_eq!(service.http.post(&format!("/v1/deploys/{deploy}/broken"), &body).0, 200);
        service.wait_state(&deploy, "broken");
        let release = service.release("v2");
        assert_eq!(release["logs"], json!(format!("fatal: {words}")), "{release}");
        assert!(release["reason"].as_str().unwrap().contains(words), "{release}");
    };
    fails(tag("v2"), "no database");
    fails(json!({ "tag": "v2", "force": true }), "no memory");
}

#[test]
fn only_a_rolling_deploy_blames_and_never_what_has_worked_there() {
    require!("redis-server", "serf");
    let (service, ids) = with_deployed(json!({}), &["v1"]);
    let ended = format!("/v1/deploys/{}/broken", ids[0]);
    assert_eq!(service.refused(&ended, &blame("box-1")), (409, "ended".to_owned()));
    let again = service.start_deploy("staging", json!({ "tag": "v1", "recreate": true }));
    let path = format!("/v1/deploys/{again}/broken");
    assert_eq!(service.refused(&path, &blame("box-1")), (409, "deployed".to_owned()));
    assert_eq!(service.deploy(&again)["state"], "rolling");
    assert_eq!(service.release("v1")["status"], "available");
    assert_eq!(service.refused(&path, &json!({ "box": "../x", "reason": "" })), (400, "bad_request".to_owned()));
    assert_eq!(service.refused("/v1/deploys/app.staging.zzz/broken", &blame("box-1")), (404, "not_found".to_owned()));
}

#[test]
fn a_fix_supersedes_the_bad_one_at_once() {
    require!("redis-server", "serf");
    let (service, _) = with_deployed(json!({}), &["v1"]);
    service.publish("v2");
    service.publish("v3");
    let broken = service.start_deploy("staging", tag("v2"));
    let mut worker = service.worker("staging", "box-1");
    worker.joins(&broken);
    worker.goes_out(&broken);
    assert_eq!(service.http.post(&format!("/v1/deploys/{broken}/broken"), &blame("box-1")).0, 200);
    assert_eq!(service.deploy(&broken)["state"], "rolling", "box-1 is out");
    let fix = service.start_deploy("staging", json!({ "tag": "v3", "supersede": true }));
    assert_eq!(service.wait_state(&broken, "broken")["tag"], "v2");
    // The box that is out goes first, and needs nobody's leave.
    service.worker("staging", "box-1").deploys(&fix, "v3");
    assert_eq!(service.complete("staging", &fix, &NAMES[1..])["state"], "deployed");
    wait_until(SOON, "both ends are followed up", || {
        service.audit(&broken) == ["start", "broken", "broken"] && service.audit(&fix) == ["start", "deployed"]
    });
}

#[test]
fn one_deploy_waits_and_the_newest_wins() {
    require!("redis-server", "serf");
    let (service, _) = with_deployed(json!({}), &["v1"]);
    for tag in ["v2", "v3", "v4"] {
        service.publish(tag);
    }
    let first = service.start_deploy("staging", tag("v2"));
    let queued = |tag: &str| {
        let body = json!({ "role": "app", "environment": "staging", "tag": tag, "queue": true });
        let (status, deploy) = service.http.post("/v1/deploys", &body);
        assert_eq!((status, deploy["state"].as_str()), (202, Some("queued")), "{deploy}");
        id(&deploy)
    };
    let (second, third) = (queued("v3"), queued("v4"));
    let replaced = service.wait_state(&second, "cancelled");
    assert!(replaced["reason"].as_str().unwrap().contains("v4"), "{replaced}");
    service.complete("staging", &first, &NAMES);
    service.wait_state(&third, "rolling");
    service.complete("staging", &third, &NAMES);
    service.wait_state(&third, "deployed");

    service.publish("v5");
    let rolling = service.start_deploy("staging", tag("v5"));
    let waiting = queued("v4");
    let (status, deploy) = service.http.post(&format!("/v1/deploys/{waiting}/cancel"), &json!({ "reason": "no" }));
    assert_eq!((status, deploy["state"].as_str()), (200, Some("cancelled")), "{deploy}");
    assert_eq!(service.deploy(&rolling)["state"], "rolling");

    let bad = queued("v3");
    let body = json!({ "reason": "it leaks", "broken": true });
    assert_eq!(service.http.post(&format!("/v1/deploys/{bad}/cancel"), &body).0, 200);
    let release = service.release("v3");
    assert_eq!((&release["status"], &release["reason"]), (&json!("broken"), &json!("it leaks")), "{release}");
}

#[test]
fn a_rollback_goes_to_the_last_good_other_tag_and_withholds_what_it_leaves() {
    require!("redis-server", "serf");
    let (service, ids) = with_deployed(json!({}), &["v1", "v2"]);
    // It stands above a freeze and above what rolls.
    service.http.post("/v1/freezes", &json!({ "environment": "staging" }));
    let move_back = json!({ "role": "app", "environment": "staging" });
    let (status, back) = service.http.post("/v1/rollbacks", &move_back);
    assert_eq!((status, &back["tag"], &back["kind"]), (202, &json!("v1"), &json!("rollback")), "{back}");
    assert_eq!(back["source"], ids[1]);
    service.complete("staging", &id(&back), &NAMES);
    service.wait_state(&id(&back), "deployed");
    assert_eq!(service.release("v2")["status"], "withheld");
    assert_eq!(service.http.delete("/v1/freezes?environment=staging").0, 200);

    let default = json!({ "role": "app", "environment": "staging", "dry_run": true });
    assert_eq!(service.http.post("/v1/deploys", &default).1["tag"], "v1", "v2 is not chosen by itself");
    let named = service.start_deploy("staging", tag("v2"));
    assert_eq!(service.release("v2")["status"], "available", "somebody named it");
    let (status, back) = service.http.post("/v1/rollbacks", &move_back);
    assert_eq!((status, &back["tag"]), (202, &json!("v1")), "what rolls is superseded: {back}");
    assert_eq!(service.wait_state(&named, "cancelled")["tag"], "v2");
}

#[test]
fn without_a_good_release_there_is_no_way_back() {
    require!("redis-server", "serf");
    let (service, _) = with_deployed(json!({}), &["v1"]);
    let move_back = json!({ "role": "app", "environment": "staging" });
    assert_eq!(service.refused("/v1/rollbacks", &move_back), (409, "no_good_release".to_owned()));
    assert_eq!(service.release("v1")["status"], "available", "what was refused has changed nothing");
    assert_eq!(service.refused("/v1/rollbacks", &tag("v7")), (404, "not_found".to_owned()));
}

#[test]
fn what_broke_half_way_is_rolled_back_by_itself_and_never_in_a_loop() {
    require!("redis-server", "serf");
    let (service, _) =
        with_deployed(json!({ "service": { "roles": { "app": { "auto_rollback": true } } } }), &["v0", "v1"]);
    service.publish("v2");
    let broken = service.start_deploy("staging", tag("v2"));
    service.worker("staging", "box-2").deploys(&broken, "v2");
    breaks(&service, &broken, "v1");
    service.wait_state(&broken, "broken");
    let back = service.wait_newer("staging", &broken);
    let deploy = service.deploy(&back);
    assert_eq!((&deploy["tag"], &deploy["kind"], &deploy["by"]), (&json!("v1"), &json!("rollback"), &json!("service")));
    // Now a person says that v1 is no good either.
    let cancel = json!({ "reason": "v1 is bad, too", "broken": true });
    assert_eq!(service.http.post(&format!("/v1/deploys/{back}/cancel"), &cancel).0, 200);
    service.wait_state(&back, "broken");
    wait_for(SOON, "the audit log says that it stops here", || {
        let actions = service.audit(&back);
        if actions == ["rollback", "broken", "rollback", "broken"] { Ok(()) } else { Err(format!("{actions:?}")) }
    });
    wait_until(SOON, "nothing is left to do", || service.redis.command(&["SCARD", "deployctl:service:open"]) == "0");
    let (_, body) = service.http.get("/v1/deploys?role=app&environment=staging&limit=1");
    assert_eq!(body["deploys"][0]["id"], back, "nothing newer was started");
}

#[test]
fn a_break_before_any_box_runs_the_release_needs_no_way_back() {
    require!("redis-server", "serf");
    let (service, _) = with_deployed(json!({ "service": { "roles": { "app": { "auto_rollback": true } } } }), &["v1"]);
    service.publish("v2");
    let broken = service.start_deploy("staging", tag("v2"));
    breaks(&service, &broken, "v1");
    service.wait_state(&broken, "broken");
    wait_until(SOON, "nothing is left to do", || service.redis.command(&["SCARD", "deployctl:service:open"]) == "0");
    let (_, body) = service.http.get("/v1/deploys?role=app&environment=staging&limit=1");
    assert_eq!(body["deploys"][0]["id"], broken);
}

#[test]
fn only_a_box_that_works_on_the_deploy_may_blame_it() {
    require!("redis-server", "serf");
    let service = Service::with_boxes(&Scope::new(), &THREE, json!({}));
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    let (status, answer) = service.http.post(&format!("/v1/deploys/{id}/broken"), &blame("box-9"));
    assert_eq!((status, crate::service::setup::kind(&answer)), (409, "not_working"), "{answer}");
    service.worker("staging", "box-1").deploys(&id, "v1");
    let (status, answer) = service.http.post(&format!("/v1/deploys/{id}/broken"), &blame("box-1"));
    assert_eq!((status, crate::service::setup::kind(&answer)), (409, "not_working"), "{answer}");
    assert_eq!(service.complete("staging", &id, &["box-2", "box-3"])["state"], "deployed");
}
