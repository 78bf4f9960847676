//! From one environment to the next by a person: what gates say first.

use serde_json::{Value, json};

use crate::service::setup::{DEPLOYCTL, SOON, Service, kind, merge};
use crate::support::{Output, Prometheus, Scope, free_port, require, run, wait_for};

const BOXES: [(&str, &str); 2] = [("staging", "box-1"), ("production", "box-2")];

/// A service whose releases go on from staging to production when a person says so.
fn by_hand(scope: &Scope, more: Value) -> Service {
    let mut app = json!({ "environments": ["staging", "production"], "auto_promote": false });
    merge(&mut app, more);
    Service::with_boxes(scope, &BOXES, json!({ "service": { "roles": { "app": app } } }))
}

/// Deploys a tag completely in staging.
fn staged(service: &Service, tag: &str) -> String {
    service.publish(tag);
    let id = service.start_deploy("staging", json!({ "tag": tag }));
    service.complete("staging", &id, &["box-1"]);
    service.wait_state(&id, "deployed");
    id
}

fn promote(service: &Service, more: Value) -> (u16, Value) {
    let mut body = json!({ "role": "app", "environment": "staging" });
    merge(&mut body, more);
    service.http.post("/v1/promotions", &body)
}

/// The command line, as a person on a laptop uses it.
fn deployctl(service: &Service, line: &str) -> Output {
    let mut command = service.scope.command(DEPLOYCTL);
    command.args(line.split(' ')).env("DEPLOYCTL_SERVICE_URL", format!("http://127.0.0.1:{}", service.port));
    run(&mut command)
}

fn message(answer: &Value) -> &str {
    answer["error"]["message"].as_str().unwrap_or_default()
}

#[test]
fn a_person_promotes_what_the_gates_let_pass() {
    require!("redis-server", "serf", "prometheus", "busybox");
    let scope = Scope::new();
    let prometheus = Prometheus::start(&scope);
    prometheus.set("errors", 7.0);
    let query = json!({ "url": prometheus.url(), "query": "errors", "max": 1, "every": "200ms" });
    let service = by_hand(&scope, json!({ "gates": [{ "when": "bake", "prometheus": query }] }));
    staged(&service, "v1");
    let (status, refused) = promote(&service, json!({}));
    assert_eq!(status, 409, "{refused}");
    assert!(message(&refused).contains("`errors` is 7") && message(&refused).contains("--force"), "{refused}");
    let said = deployctl(&service, "promote -r app --from staging");
    said.one_line(&["`errors` is 7", "at most 1"]);

    prometheus.set("errors", 0.0);
    staged(&service, "v2");
    let (status, old) = promote(&service, json!({ "tag": "v1" }));
    assert_eq!(status, 409, "staging does not run v1 any more: {old}");
    let (status, promoted) = promote(&service, json!({}));
    assert_eq!((status, &promoted["tag"], &promoted["force"]), (202, &json!("v2"), &json!(false)), "{promoted}");
}

#[test]
fn a_gate_that_cannot_be_asked_is_passed_by_who_insists_only() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let query = json!({ "url": format!("http://127.0.0.1:{}", free_port()), "query": "up", "min": 1 });
    let service = by_hand(&scope, json!({ "gates": [{ "when": "bake", "prometheus": query }] }));
    staged(&service, "v1");
    let (status, refused) = promote(&service, json!({}));
    assert_eq!((status, kind(&refused)), (409, "gate"), "{refused}");
    assert!(message(&refused).contains("cannot ask Prometheus"), "{refused}");
    let said = deployctl(&service, "promote -r app --from staging --force --reason hotfix");
    assert_eq!(said.code, Some(0), "{said}");
    let id = service.wait_newer("production", "");
    let deploy = service.deploy(&id);
    assert_eq!((&deploy["kind"], &deploy["force"]), (&json!("promotion"), &json!(true)), "{deploy}");
}

#[test]
fn a_slow_gate_keeps_a_person_waiting_for_a_while_only() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let open = scope.dir().join("open");
    let gate = scope.script("load-test", &format!("until [ -e {} ]; do sleep 0.1; done", open.display()));
    let service = by_hand(&scope, json!({ "gates": [{ "when": "bake", "command": [gate] }] }));
    staged(&service, "v1");
    let said = deployctl(&service, "promote -r app --from staging");
    assert_eq!(said.code, Some(1), "{said}");
    said.one_line(&["a gate in staging does not let app:v1 pass"]);
    std::fs::write(&open, "").unwrap();
    wait_for(SOON, "the gate has passed", || {
        let (status, answer) = promote(&service, json!({}));
        if status == 202 { Ok(()) } else { Err(answer) }
    });
}
