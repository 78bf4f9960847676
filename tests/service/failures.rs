//! What the service rests on fails, and the service itself is killed, at any moment.

use std::time::Duration;

use serde_json::{Value, json};

use crate::service::setup::{SOON, Service, id, kind};
use crate::support::{Scope, free_port, require, wait_for, wait_until};

const BOXES: [(&str, &str); 3] = [("staging", "box-1"), ("staging", "box-2"), ("production", "box-3")];
const STAGING: [&str; 2] = ["box-1", "box-2"];

#[test]
fn an_agent_that_is_down_is_said_and_ridden_out() {
    require!("redis-server", "serf");
    let mut service = Service::with_boxes(&Scope::new(), &BOXES, json!({}));
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    service.agents[0].kill();
    let body = json!({ "role": "app", "environment": "production" });
    let (status, answer) = service.http.post("/v1/deploys", &body);
    assert_eq!((status, kind(&answer)), (503, "unavailable"), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("Serf"), "{answer}");
    // Nobody could tell whether a box has joined meanwhile, so it is not complete yet.
    let deploy = service.complete("staging", &id, &STAGING);
    assert_eq!((deploy["state"].as_str(), &deploy["remaining"]), (Some("rolling"), &json!(0)), "{deploy}");
    // It comes back alone, and knows no more than before. A box's agent joins it at each start.
    service.agents[0].resume();
    service.agents[1].kill();
    service.agents[1].resume();
    service.wait_state(&id, "deployed");
}

#[test]
fn a_deploy_is_cancelled_and_ended_without_an_agent() {
    require!("redis-server", "serf");
    let mut service = Service::with_boxes(&Scope::new(), &BOXES, json!({}));
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    service.agents[0].kill();
    assert_eq!(service.http.post(&format!("/v1/deploys/{id}/cancel"), &json!({})).0, 200);
    service.wait_state(&id, "cancelled");
}

#[test]
fn a_redis_that_restarts_under_a_deploy_is_ridden_out() {
    require!("redis-server", "serf");
    let mut service = Service::with_boxes(&Scope::new(), &BOXES, json!({}));
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    service.worker("staging", "box-1").deploys(&id, "v1");
    service.redis.kill();
    wait_until(SOON, "the service says so", || service.http.get("/v1/deploys").0 == 503);
    service.redis.resume();
    wait_until(SOON, "the service answers", || service.http.get("/v1/deploys").0 == 200);
    assert_eq!(service.complete("staging", &id, &["box-2"])["state"], "deployed");
}

#[test]
fn a_redis_that_became_a_replica_is_waited_out_like_an_absent_one() {
    require!("redis-server", "serf");
    let service = Service::with_boxes(&Scope::new(), &BOXES, json!({}));
    service.publish("v1");
    service.redis.command(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]);
    let (status, answer) = service.http.post("/v1/releases", &json!({ "role": "app", "tag": "v2" }));
    assert_eq!((status, kind(&answer)), (503, "unavailable"), "{answer}");
    assert_eq!(service.http.get("/healthz").1["redis"], "cannot be written");
    service.redis.command(&["REPLICAOF", "NO", "ONE"]);
    wait_until(SOON, "the service writes again", || {
        service.http.post("/v1/releases", &json!({ "role": "app", "tag": "v2" })).0 == 201
    });
}

#[test]
fn a_box_that_does_not_join_is_told_again() {
    require!("redis-server", "serf");
    let service = Service::with_boxes(&Scope::new(), &BOXES, json!({}));
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    service.worker("staging", "box-1").deploys(&id, "v1");
    let (first, second) = (service.events("box-1").len().max(1), Duration::from_secs(50));
    wait_for(second, "another event", || match service.events("box-1").len() {
        heard if heard > first => Ok(()),
        heard => Err(format!("{heard} events")),
    });
    assert_eq!(service.deploy(&id)["state"], "rolling");
}

#[test]
fn promotions_happen_once_whoever_is_killed_when() {
    require!("redis-server", "serf");
    let policy = json!({ "environments": ["staging", "production"], "auto_promote": true, "bake": "300ms" });
    let mut service = Service::with_boxes(&Scope::new(), &BOXES, json!({ "service": { "roles": { "app": policy } } }));
    let port = free_port();
    let mut second = service.another(port);
    let mut expected: Vec<String> = Vec::new();
    for round in 0..6_u64 {
        let tag = format!("v{round}");
        service.publish(&tag);
        let source = service.start_deploy("staging", json!({ "tag": tag }));
        for name in STAGING {
            service.worker("staging", name).deploys(&source, &tag);
        }
        // Somewhere between the last box and the promotion.
        std::thread::sleep(Duration::from_millis(170 * round));
        if round % 2 == 0 {
            service.process().kill();
            service.resume();
        } else {
            second.kill();
            second = service.another(port);
        }
        let promoted = service.wait_newer("production", expected.last().map_or("", String::as_str));
        service.complete("production", &promoted, &["box-3"]);
        service.wait_state(&promoted, "deployed");
        expected.push(source.replace("staging", "production"));
    }
    wait_until(SOON, "nothing is left to do", || service.redis.command(&["SCARD", "deployctl:service:open"]) == "0");
    let (_, body) = service.http.get("/v1/deploys?role=app&environment=production");
    let mut ids: Vec<String> = body["deploys"].as_array().unwrap().iter().map(id).collect();
    ids.reverse();
    assert_eq!(ids, expected, "each once, in order");
    let releases = service.http.get("/v1/releases?role=app").1;
    let statuses: Vec<&Value> = releases["releases"].as_array().unwrap().iter().map(|r| &r["status"]).collect();
    assert_eq!(statuses, [&json!("available"); 6], "and no release is lost");
}

#[test]
fn a_lease_that_ran_out_does_not_make_its_owner_tell_twice() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let (told, go) = (scope.dir().join("told"), scope.dir().join("go"));
    let script = format!("echo told >>{}\nwhile [ ! -e {} ]; do sleep 0.05; done", told.display(), go.display());
    let notify = scope.script("notify", &script);
    let service = Service::with_boxes(&scope, &BOXES, json!({ "service": { "notify": [notify] } }));
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    service.complete("staging", &id, &STAGING);
    wait_until(SOON, "somebody is told", || told.exists());
    let lease = "deployctl:service:lease:notify:command";
    assert_eq!(service.redis.command(&["DEL", lease]), "1", "as when the service was paused, or Redis away");
    wait_until(SOON, "its owner renews it", || service.redis.command(&["EXISTS", lease]) == "1");
    std::fs::write(&go, "").unwrap();
    wait_until(SOON, "nobody is left to be told", || service.redis.hash("deployctl:service:outbox:command").is_empty());
    assert_eq!(std::fs::read_to_string(&told).unwrap(), "told\n");
}
