//! What is found out about a release belongs to the environment where it was: who may see it there, and who may undo it.

use serde_json::{Value, json};

use crate::service::setup::{SOON, Service, id, kind, token};
use crate::support::{Http, Scope, require, wait_for};

/// `v1` and `v2` are complete in both environments. `ops` may do everything, `staging` only there.
fn two_environments() -> (Service, Http) {
    let all = ["read", "publish", "start", "cancel", "box"];
    let tokens = [token("ops", &all), token("staging", &["publish", "start:staging", "cancel:staging"])];
    let boxes = [("staging", "box-1"), ("production", "box-2")];
    let mut service = Service::with_boxes(&Scope::new(), &boxes, json!({ "service": { "tokens": tokens } }));
    let narrow = service.http.clone().with_token("staging");
    service.http = service.http.clone().with_token("ops");
    for tag in ["v1", "v2"] {
        service.publish(tag);
        for (environment, name) in boxes {
            complete(&service, environment, name, json!({ "tag": tag }));
        }
    }
    (service, narrow)
}

fn complete(service: &Service, environment: &str, name: &str, more: Value) {
    let deploy = service.start_deploy(environment, more);
    service.complete(environment, &deploy, &[name]);
    service.wait_state(&deploy, "deployed");
}

fn start(http: &Http, environment: &str, more: &[(&str, Value)]) -> (u16, Value) {
    let mut body = json!({ "role": "app", "environment": environment });
    for (key, value) in more {
        body[*key] = value.clone();
    }
    http.post("/v1/deploys", &body)
}

#[test]
fn why_a_release_broke_is_told_and_refuted_where_it_did() {
    require!("redis-server", "serf");
    let (service, narrow) = two_environments();
    service.publish("v3");
    let bad = service.start_deploy("production", json!({ "tag": "v3" }));
    let body = json!({ "reason": "leaks customers", "broken": true });
    assert_eq!(service.http.post(&format!("/v1/deploys/{bad}/cancel"), &body).0, 200);
    service.wait_state(&bad, "broken");

    let seen = narrow.get("/v1/releases/app/v3").1;
    assert_eq!((&seen["status"], &seen["environment"]), (&json!("broken"), &json!("production")), "{seen}");
    let (status, refused) = start(&narrow, "staging", &[("tag", json!("v3"))]);
    assert_eq!((status, kind(&refused)), (409, "broken"), "{refused}");
    let all = narrow.get("/v1/releases?role=app").1;
    let status = narrow.get("/v1/status").1;
    for answer in [&seen, &refused, &all, &status] {
        assert!(!answer.to_string().contains("leaks"), "{answer}");
    }
    assert!(refused.to_string().contains("found in production"), "{refused}");

    let (status, forced) = start(&narrow, "staging", &[("tag", json!("v3")), ("force", json!(true))]);
    assert_eq!(status, 202, "{forced}");
    service.complete("staging", &id(&forced), &["box-1"]);
    // What its end asks for has been done when the audit log says so.
    wait_for(SOON, "the end of the forced deploy", || match service.audit(&id(&forced)) {
        actions if actions.contains(&"deployed".to_owned()) => Ok(()),
        actions => Err(actions.join(" ")),
    });
    let release = service.release("v3");
    assert_eq!((&release["status"], &release["reason"]), (&json!("broken"), &json!("leaks customers")), "{release}");

    complete(&service, "production", "box-2", json!({ "tag": "v3", "force": true }));
    wait_for(SOON, "v3 to be good again", || match service.release("v3") {
        release if release["status"] == "available" => Ok(()),
        release => Err(release),
    });
}

#[test]
fn what_one_environment_withholds_no_other_makes_available() {
    require!("redis-server", "serf");
    let (service, narrow) = two_environments();
    let back = service.http.post("/v1/rollbacks", &json!({ "role": "app", "environment": "production" })).1;
    service.complete("production", &id(&back), &["box-2"]);
    service.wait_state(&id(&back), "deployed");
    let (status, named) = start(&narrow, "staging", &[("tag", json!("v2"))]);
    assert_eq!(status, 202, "{named}");
    service.complete("staging", &id(&named), &["box-1"]);
    assert_eq!(service.release("v2")["status"], "withheld");
    complete(&service, "production", "box-2", json!({ "tag": "v2" }));
    assert_eq!(service.release("v2")["status"], "available", "somebody named it there");
}

#[test]
fn what_runs_elsewhere_is_called_broken_only_by_who_may_cancel_there() {
    require!("redis-server", "serf");
    let (service, narrow) = two_environments();
    let again = service.start_deploy("staging", json!({ "tag": "v2", "recreate": true }));
    let cancel = format!("/v1/deploys/{again}/cancel");
    let (status, refused) = narrow.post(&cancel, &json!({ "reason": "no", "broken": true }));
    assert_eq!((status, kind(&refused)), (403, "forbidden"), "{refused}");
    assert!(refused.to_string().contains("app:v2 runs in production"), "{refused}");
    assert_eq!(service.deploy(&again)["state"], "rolling", "a refused call changes nothing");
    assert_eq!(narrow.post(&cancel, &json!({ "reason": "no" })).0, 200);
    assert_eq!(service.release("v2")["status"], "available");
}

#[test]
fn a_token_publishes_so_many_releases_and_no_more() {
    require!("redis-server");
    let tokens = [token("ci", &["publish"]), token("other", &["publish"])];
    let service = Service::start(&Scope::new(), json!({ "service": { "tokens": tokens } }));
    let publish = |who: &str, tag: String| {
        let body = json!({ "role": "app", "tag": tag, "message": "\u{1b}[2J".repeat(2000) });
        service.http.clone().with_token(who).post("/v1/releases", &body)
    };
    let refused = (0..400).map(|number| publish("ci", format!("v{number}"))).find(|(status, _)| *status != 201);
    let (status, refused) = refused.expect("somebody who fills Redis is stopped");
    assert_eq!((status, kind(&refused)), (429, "too_many"), "{refused}");
    assert!(refused.to_string().contains("the token ci has published"), "{refused}");
    assert_eq!(publish("ci", "v1".to_owned()).0, 200, "what is known costs nothing");
    assert_eq!(publish("other", "x1".to_owned()).0, 201);
    let answer = service.http.clone().with_token("other").get("/v1/releases?role=app&limit=1000").1.to_string();
    assert!(answer.len() < 1_000_000 && !answer.contains("\\u001b"), "{} bytes", answer.len());
}
