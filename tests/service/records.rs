//! Releases, freezes and the audit log.

use std::time::Duration;

use serde_json::{Value, json};

use crate::service::setup::{SOON, Service, kind};
use crate::support::{Scope, require, wait_for};

#[test]
fn a_release_is_published_once_and_never_lost() {
    require!("redis-server");
    let mut service = Service::start(&Scope::new(), json!({}));
    let first = json!({ "role": "app", "tag": "v1", "commit": "c0ffee", "author": "Ann", "message": "Add tea" });
    let (status, release) = service.http.post("/v1/releases", &first);
    assert_eq!((status, release["status"].as_str(), release["author"].as_str()), (201, Some("available"), Some("Ann")));
    let (status, again) = service.http.post("/v1/releases", &json!({ "role": "app", "tag": "v1", "author": "Bob" }));
    assert_eq!((status, &again), (200, &release), "the second word changes nothing");
    for tag in ["v2", "v10", "v3"] {
        assert_eq!(service.http.post("/v1/releases", &json!({ "role": "app", "tag": tag, "new": 1 })).0, 201);
    }
    assert_eq!(service.http.post("/v1/releases", &json!({ "role": "web", "tag": "v9" })).0, 201);

    service.process().kill();
    service.redis.kill();
    service.redis.resume();
    service.resume();
    let tags = |query: &str| -> Vec<Value> {
        let (_, body) = service.http.get(&format!("/v1/releases?role=app{query}"));
        body["releases"].as_array().unwrap().iter().map(|r| r["tag"].clone()).collect()
    };
    assert_eq!(tags(""), ["v3", "v10", "v2", "v1"], "newest first");
    assert_eq!(tags("&limit=2"), ["v3", "v10"]);
    assert_eq!(service.redis.keys("*releases*").len(), 4, "records and order of two roles");
    for key in service.redis.keys("*releases*") {
        let ttl: i64 = redis::cmd("TTL").arg(&key).query(&mut service.redis.connection()).unwrap();
        assert_eq!(ttl, -1, "{key} must not expire");
    }
}

#[test]
fn freezes_are_by_environment_or_by_role_in_one() {
    require!("redis-server");
    let service = Service::start(&Scope::new(), json!({}));
    let http = &service.http;
    let body = json!({ "environment": "production", "role": "app", "reason": "sale" });
    let (status, freeze) = http.post("/v1/freezes", &body);
    assert_eq!((status, freeze["reason"].as_str(), freeze["role"].as_str()), (201, Some("sale"), Some("app")));
    assert_eq!(http.post("/v1/freezes", &json!({ "environment": "staging" })).0, 201);
    assert_eq!(http.get("/v1/freezes").1["freezes"].as_array().unwrap().len(), 2);
    let (status, answer) = http.delete("/v1/freezes?environment=production");
    assert_eq!((status, kind(&answer)), (404, "not_found"), "only one role is frozen there");
    assert_eq!(http.delete("/v1/freezes?environment=production&role=app").0, 200);
    assert_eq!(http.delete("/v1/freezes?environment=staging").0, 200);
    assert_eq!(http.get("/v1/freezes").1, json!({ "freezes": [] }));
    assert_eq!(http.post("/v1/freezes", &json!({ "reason": "why" })).0, 400);

    let (_, audit) = http.get("/v1/audit?limit=3");
    let actions: Vec<&str> =
        audit["entries"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["unfreeze", "unfreeze", "freeze"]);
}

#[test]
fn a_mistyped_name_is_refused_with_the_one_that_is_meant() {
    require!("redis-server", "serf");
    let boxes = [("staging", "box-1"), ("production", "box-2")];
    let service = Service::with_boxes(&Scope::new(), &boxes, json!({}));
    let (status, body) = service.http.post("/v1/freezes", &json!({ "environment": "prodction" }));
    let said = body["error"]["message"].as_str().unwrap().to_owned();
    assert!(status == 404 && said.contains("did you mean production?") && said.contains("staging"), "{status} {said}");
    assert_eq!(service.http.get("/v1/freezes").1, json!({ "freezes": [] }), "nothing is frozen");
    let (status, body) = service.http.get("/v1/status?role=nosuch");
    let said = body["error"]["message"].as_str().unwrap().to_owned();
    assert!(status == 404 && said.contains("known are app, web"), "{status} {said}");
    assert_eq!(service.http.post("/v1/freezes", &json!({ "environment": "production" })).0, 201);
}

#[test]
fn a_freeze_ends_by_itself_at_its_time() {
    require!("redis-server", "serf");
    let service = Service::with_boxes(&Scope::new(), &[("staging", "box-1")], json!({}));
    service.publish("v1");
    let (status, refused) =
        service.http.post("/v1/freezes", &json!({ "environment": "staging", "until": "2026-01-01T00:00:00Z" }));
    assert!(status == 400 && refused.to_string().contains("is over already"), "{refused}");
    let until = jiff::Timestamp::now() + Duration::from_secs(3);
    let freeze = json!({ "environment": "staging", "reason": "sale", "until": until.to_string() });
    assert_eq!(service.http.post("/v1/freezes", &freeze).0, 201);
    let start = json!({ "role": "app", "environment": "staging", "tag": "v1" });
    let (status, refused) = service.http.post("/v1/deploys", &start);
    assert!(status == 409 && refused.to_string().contains("until 20"), "{refused}");
    wait_for(SOON, "the freeze is over", || match service.http.post("/v1/deploys", &start) {
        (202, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(jiff::Timestamp::now() >= until);
    assert_eq!(service.http.get("/v1/freezes").1, json!({ "freezes": [] }));
}
