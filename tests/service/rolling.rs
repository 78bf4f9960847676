//! Rolling deploys: started, watched, ended, stopped; also with the service killed, or with two of them.

use std::time::Duration;

use deployctl::api::Phase;
use serde_json::{Value, json};

use crate::service::setup::{SOON, Service, id};
use crate::support::{Http, Scope, free_port, require, wait_for, wait_until};

const THREE: [(&str, &str); 3] = [("staging", "box-1"), ("staging", "box-2"), ("staging", "box-3")];
const NAMES: [&str; 3] = ["box-1", "box-2", "box-3"];

fn place() -> Value {
    json!({ "role": "app", "environment": "staging" })
}

#[test]
fn a_deploy_rolls_from_the_event_to_its_end() {
    require!("redis-server", "serf");
    let service = Service::with_boxes(&Scope::new(), &THREE, json!({}));
    assert_eq!(service.http.get("/v1/deploys/current?role=app&environment=staging").0, 404);
    service.publish("v1");
    service.publish("v2");
    let (status, deploy) = service.http.post("/v1/deploys", &place());
    assert_eq!((status, deploy["tag"].as_str(), deploy["state"].as_str()), (202, Some("v2"), Some("rolling")));
    assert_eq!((&deploy["size"], &deploy["locks"], &deploy["remaining"]), (&json!(3), &json!(1), &json!(3)));
    assert!(deploy["boxes"].as_array().unwrap().iter().all(|row| row["phase"] == "expected"), "{deploy}");
    let id = id(&deploy);
    // Serf may pass over a box that has only just joined: then it is asked again after 30 s.
    wait_for(Duration::from_secs(45), "every box gets the event", || {
        let events: Vec<_> = NAMES.iter().map(|name| service.events(name)).collect();
        let payload = r#"{"role":"app","environment":"staging"}"#;
        let heard = |events: &Vec<String>| !events.is_empty() && events.iter().all(|event| event == payload);
        if events.iter().all(heard) { Ok(()) } else { Err(format!("{events:?}")) }
    });
    let (_, current) = service.http.get("/v1/deploys/current?role=app&environment=staging");
    assert_eq!(
        (&current["id"], &current["latest"], &current["last_good"]),
        (&json!(id), &json!("rolling"), &Value::Null)
    );

    let ended = service.complete("staging", &id, &NAMES);
    assert_eq!((ended["state"].as_str(), &ended["remaining"]), (Some("deployed"), &json!(0)), "{ended}");
    assert!(ended["ended_at"].as_str().unwrap() >= ended["started_at"].as_str().unwrap(), "{ended}");
    let (_, current) = service.http.get("/v1/deploys/current?role=app&environment=staging");
    assert_eq!((&current["id"], &current["last_good"]), (&json!(id), &json!("v2")));
    let (_, running) = service.http.get("/v1/running?role=app");
    assert_eq!(running["running"].as_array().unwrap().len(), 3);
    assert_eq!(running["running"][0], json!({ "role": "app", "environment": "staging", "box": "box-1", "tag": "v2" }));
    let (_, locks) = service.http.get("/v1/locks?role=app&environment=staging");
    assert_eq!(locks, json!({ "locks": [], "out": [] }));
    wait_for(SOON, "the audit log tells the story", || {
        let actions = service.audit(&id);
        if actions == ["start", "deployed"] { Ok(()) } else { Err(format!("{actions:?}")) }
    });
    assert_eq!(service.http.get(&format!("/v1/deploys/{id}x")).0, 404);
    assert_eq!(service.http.get("/v1/deploys?environment=staging").1["deploys"][0]["boxes"], json!([]));
}

#[test]
fn what_cannot_start_is_refused_with_its_reason() {
    require!("redis-server", "serf");
    let service = Service::with_boxes(&Scope::new(), &THREE, json!({}));
    assert_eq!(service.refused("/v1/deploys", &place()), (404, "not_found".to_owned()), "no release");
    service.publish("v1");
    let tag = |tag: &str| json!({ "role": "app", "environment": "staging", "tag": tag });
    assert_eq!(service.refused("/v1/deploys", &tag("v9")), (404, "not_found".to_owned()));
    let elsewhere = json!({ "role": "app", "environment": "production" });
    assert_eq!(service.refused("/v1/deploys", &elsewhere), (409, "no_box".to_owned()));
    let freeze = json!({ "environment": "staging", "reason": "sale" });
    service.http.post("/v1/freezes", &freeze);
    assert_eq!(service.refused("/v1/deploys", &place()), (409, "frozen".to_owned()));
    assert_eq!(service.http.delete("/v1/freezes?environment=staging").0, 200);

    let dry = json!({ "role": "app", "environment": "staging", "dry_run": true });
    let (status, deploy) = service.http.post("/v1/deploys", &dry);
    assert_eq!((status, &deploy["size"], &deploy["locks"], &deploy["tag"]), (200, &json!(3), &json!(1), &json!("v1")));
    assert_eq!(service.http.get("/v1/deploys").1, json!({ "deploys": [] }), "a rehearsal starts nothing");

    let first = service.start_deploy("staging", json!({}));
    assert_eq!(service.refused("/v1/deploys", &place()), (409, "rolling".to_owned()));
    assert_eq!(service.refused("/v1/deploys", &dry), (409, "rolling".to_owned()));
    assert_eq!(service.deploy(&first)["state"], "rolling");
}

#[test]
fn a_service_that_is_killed_goes_on_where_it_was() {
    require!("redis-server", "serf");
    let mut service = Service::with_boxes(&Scope::new(), &THREE, json!({}));
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    service.process().kill();
    // The last box tells nobody: the service has to see by itself that nothing remains.
    for name in NAMES {
        service.worker("staging", name).deploys(&id, "v1");
    }
    service.resume();
    service.wait_state(&id, "deployed");
    wait_until(SOON, "the end is followed up", || service.audit(&id).last().is_some_and(|action| action == "deployed"));
    assert_eq!(service.release("v1")["status"], "available");
}

#[test]
fn two_services_do_no_harm() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let told = scope.dir().join("told");
    let notify = scope.script("notify", &format!("echo \"$DEPLOY_ID $(cat)\" >>{}", told.display()));
    let service = Service::with_boxes(&scope, &THREE, json!({ "service": { "notify": [notify] } }));
    let port = free_port();
    let _second = service.another(port);
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    let other = Http::new(&format!("http://127.0.0.1:{port}"));
    assert_eq!(other.get(&format!("/v1/deploys/{id}")).1["state"], "rolling");
    assert_eq!(other.post("/v1/deploys", &place()).0, 409);
    service.complete("staging", &id, &NAMES);
    let text = || std::fs::read_to_string(&told).unwrap_or_default();
    wait_until(SOON, "somebody is told", || !text().is_empty());
    wait_until(SOON, "nothing is left to do", || service.redis.command(&["SCARD", "deployctl:service:open"]) == "0");
    let (named, json) = text().trim().split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(named, id);
    assert_eq!(text().lines().count(), 1, "once: {}", text());
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["state"], "deployed");
    assert_eq!(service.audit(&id), ["start", "deployed"]);
    // Serf may pass over a box that has only just joined; none may hear it twice.
    let heard: Vec<usize> = NAMES.iter().map(|name| service.events(name).len()).collect();
    assert!(heard.contains(&1) && heard.iter().all(|count| *count <= 1), "events: {heard:?}");
}

#[test]
fn a_cancelled_deploy_ends_when_nobody_works() {
    require!("redis-server", "serf");
    let service = Service::with_boxes(&Scope::new(), &THREE, json!({}));
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    let mut worker = service.worker("staging", "box-1");
    worker.joins(&id);
    let held = worker.goes_out(&id);
    let (status, deploy) = service.http.post(&format!("/v1/deploys/{id}/cancel"), &json!({ "reason": "lunch" }));
    assert_eq!((status, deploy["state"].as_str()), (200, Some("rolling")), "box-1 still works: {deploy}");
    worker.comes_back(&id, &held, Phase::Done, "v1");
    let ended = service.wait_state(&id, "cancelled");
    assert_eq!(ended["reason"], "lunch");
    let again = format!("/v1/deploys/{id}/cancel");
    assert_eq!(service.refused(&again, &json!({})), (409, "ended".to_owned()));
    assert_eq!(service.release("v1")["status"], "available", "a person's cancel blames nobody");
}

#[test]
fn a_box_that_joins_the_fleet_while_a_deploy_rolls_takes_part() {
    require!("redis-server", "serf");
    let mut service = Service::with_boxes(&Scope::new(), &THREE[..2], json!({}));
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    service.add_box("staging", "box-9");
    let deploy = service.complete("staging", &id, &NAMES[..2]);
    assert_eq!((deploy["state"].as_str(), &deploy["remaining"]), (Some("rolling"), &json!(1)), "{deploy}");
    service.complete("staging", &id, &["box-9"]);
    assert_eq!(service.wait_state(&id, "deployed")["size"], 3);
}

#[test]
fn boxes_that_die_leave_the_deploy() {
    require!("redis-server", "serf");
    let mut service = Service::with_boxes(&Scope::new(), &THREE, json!({ "lock_ttl": "3s" }));
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    service.complete("staging", &id, &NAMES[..2]);
    service.agents[3].leave();
    let ended = service.wait_state(&id, "deployed");
    assert_eq!(ended["size"], 2, "{ended}");
    assert_eq!(ended["boxes"][2]["phase"], "gone", "{ended}");
}

#[test]
fn nothing_rolls_for_ever() {
    require!("redis-server", "serf");
    let extra = json!({ "service": { "join_timeout": "2s", "roles": { "app": { "deploy_timeout": "5s" } } } });
    let service = Service::with_boxes(&Scope::new(), &THREE, extra);
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    let ended = service.wait_state(&id, "failed");
    assert!(ended["reason"].as_str().unwrap().contains("box-1"), "{ended}");
    assert_eq!(service.release("v1")["status"], "available");
}

#[test]
fn a_lock_is_freed_by_force_once_nobody_renews_it() {
    require!("redis-server", "serf");
    let service = Service::with_boxes(&Scope::new(), &THREE, json!({ "lock_ttl": "3s" }));
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    let mut worker = service.worker("staging", "box-1");
    worker.joins(&id);
    worker.goes_out(&id);
    let (_, locks) = service.http.get("/v1/locks?role=app&environment=staging");
    assert_eq!((&locks["locks"][0]["box"], &locks["out"][0]["box"]), (&json!("box-1"), &json!("box-1")), "{locks}");
    let free = |more: &str| {
        let (status, body) =
            service.http.delete(&format!("/v1/locks/box-1?role=app&environment=staging&reason=dead{more}"));
        (status, body["error"]["kind"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(free(""), (409, "renewed".to_owned()));
    assert_eq!(free("&force=true"), (200, String::new()));
    assert_eq!(free(""), (404, "not_found".to_owned()));
    let (_, locks) = service.http.get("/v1/locks?role=app&environment=staging");
    assert_eq!(locks, json!({ "locks": [], "out": [] }));
}

#[test]
fn a_redis_that_comes_back_empty_is_noticed() {
    require!("redis-server", "serf");
    let mut service = Service::with_boxes(&Scope::new(), &THREE, json!({}));
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    // Serf may pass over a box that has only just joined.
    let heard = || NAMES.iter().any(|name| !service.events(name).is_empty());
    wait_until(SOON, "the service watches", heard);
    service.redis.flush();
    wait_for(Duration::from_secs(20), "the loss is in the audit log", || {
        let actions = service.audit(&id);
        if actions == ["lost"] { Ok(()) } else { Err(format!("{actions:?}")) }
    });
    assert!(service.process().is_running());
    service.publish("v2");
    let next = service.start_deploy("staging", json!({}));
    assert_eq!(service.complete("staging", &next, &NAMES)["state"], "deployed");
}
