//! From one environment to the next by a person: what gates say first, and who approves.

use serde_json::{Value, json};

use crate::service::setup::{DEPLOYCTL, SOON, Service, kind, merge, token};
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
fn a_promotion_asks_anew_whatever_the_gate_said_before() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let (asked, bad) = (scope.dir().join("asked"), scope.dir().join("bad"));
    let gate = scope.script("orders", &format!("touch {}; test ! -e {}", asked.display(), bad.display()));
    let service = by_hand(&scope, json!({ "gates": [{ "when": "bake", "command": [gate] }] }));
    staged(&service, "v1");
    wait_waiting(&service, "the gate has passed", |waits| asked.exists() && waits.to_string().contains("approval"));
    std::fs::write(&bad, "").unwrap();
    let (status, refused) = promote(&service, json!({}));
    assert_eq!((status, kind(&refused)), (409, "gate"), "{refused}");
    std::fs::remove_file(&bad).unwrap();
    let (status, promoted) = promote(&service, json!({}));
    assert_eq!((status, &promoted["tag"]), (202, &json!("v1")), "{promoted}");
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

/// What `status` says is to go on, if anything.
fn waiting(service: &Service) -> Value {
    service.http.get("/v1/status").1["promotions"][0].clone()
}

fn wait_waiting(service: &Service, what: &str, is_so: impl Fn(&Value) -> bool) {
    wait_for(SOON, what, || {
        let promotion = waiting(service);
        if is_so(&promotion) { Ok(()) } else { Err(promotion) }
    });
}

fn metric(service: &Service, line: &str) {
    wait_for(SOON, line, || {
        let (_, text) = service.http.try_get("/metrics").unwrap();
        if text.lines().any(|own| own == line) { Ok(()) } else { Err(text) }
    });
}

#[test]
fn a_baked_release_waits_for_a_person_and_promote_is_the_approval() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let bad = scope.dir().join("bad");
    let gate = scope.script("look", &format!("! [ -e {} ]", bad.display()));
    let gates = json!([{ "when": "bake", "command": [gate] }]);
    let service = by_hand(&scope, json!({ "bake": "2s", "gates": gates }));
    assert_eq!(waiting(&service), Value::Null);
    let source = staged(&service, "v1");
    wait_waiting(&service, "it bakes", |promotion| promotion["state"] == "bakes" && promotion["until"].is_string());
    wait_waiting(&service, "it waits", |promotion| promotion["state"] == "waits_for_approval");
    let promotion = waiting(&service);
    assert_eq!((&promotion["source"], &promotion["environment"]), (&json!(source), &json!("production")));
    metric(&service, "deployctl_waits_for_approval{role=\"app\",environment=\"production\"} 1");
    let said = deployctl(&service, "status");
    assert!(said.stdout.contains("waits for approval; deployctl promote -r app --from staging"), "{said}");
    assert!(service.http.get("/v1/status?environment=qa").1["promotions"].as_array().is_none_or(Vec::is_empty));

    let said = deployctl(&service, "promote -r app --from staging --reason looks-good");
    assert_eq!(said.code, Some(0), "{said}");
    let promoted = service.wait_newer("production", "");
    assert_eq!(promoted, source.replace("staging", "production"));
    assert_eq!(waiting(&service), Value::Null);
    metric(&service, "deployctl_waits_for_approval{role=\"app\",environment=\"production\"} 0");
    service.complete("production", &promoted, &["box-2"]);
    service.wait_state(&promoted, "deployed");

    // What a gate blames while it bakes waits for nobody.
    std::fs::write(&bad, "").unwrap();
    staged(&service, "v2");
    wait_for(SOON, "v2 is broken", || {
        let release = service.release("v2");
        if release["status"] == "broken" { Ok(()) } else { Err(release) }
    });
    assert_eq!(waiting(&service), Value::Null);
    let (status, refused) = promote(&service, json!({}));
    assert_eq!((status, kind(&refused)), (409, "broken"), "{refused}");
}

#[test]
fn two_tokens_approve_what_needs_two() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let tokens = [
        token("ci", &["read", "publish", "start:staging", "box"]),
        token("ann", &["approve:production"]),
        token("bob", &["approve"]),
        token("ops", &["start:production"]),
    ];
    let roles = json!({ "app": { "environments": ["staging", "production"], "approvals": 2 } });
    let extra = json!({ "service": { "tokens": tokens, "roles": roles } });
    let mut service = Service::with_boxes(&scope, &BOXES, extra);
    service.http = service.http.clone().with_token("ci");
    let promote_as = |service: &Service, name: &str, more: Value| {
        let mut body = json!({ "role": "app", "environment": "staging" });
        merge(&mut body, more);
        service.http.clone().with_token(name).post("/v1/promotions", &body)
    };
    staged(&service, "v1");
    wait_waiting(&service, "it waits", |promotion| promotion["approvals_needed"] == 2);
    assert_eq!(promote_as(&service, "ci", json!({})).0, 403, "who may start in staging approves nothing");
    assert_eq!(promote_as(&service, "ann", json!({ "force": true })).0, 403, "who approves does not insist");
    let ann = service.http.clone().with_token("ann");
    let start = json!({ "role": "app", "environment": "production", "tag": "v1" });
    assert_eq!(ann.post("/v1/deploys", &start).0, 403, "nor starts anything else");

    let (status, promotion) = promote_as(&service, "ann", json!({ "reason": "tested" }));
    assert_eq!((status, &promotion["state"]), (200, &json!("waits_for_approval")), "{promotion}");
    assert_eq!(promotion["approvals"][0]["reason"], "tested");
    let (_, promotion) = promote_as(&service, "ann", json!({}));
    assert_eq!(promotion["approvals"].as_array().unwrap().len(), 1, "one person is one person: {promotion}");
    service.process().kill();
    service.resume();
    let mut status = scope.command(DEPLOYCTL);
    status.arg("status").env("DEPLOYCTL_SERVICE_URL", format!("http://127.0.0.1:{}", service.port));
    let said = run(status.env("DEPLOYCTL_TOKEN", "ci"));
    assert!(said.stdout.contains("waits for approval; 1 of 2 approvals, by ann"), "{said}");

    // Another release needs its own.
    let second = staged(&service, "v2");
    wait_waiting(&service, "v2 waits", |promotion| promotion["tag"] == "v2" && promotion["approvals"] == json!([]));
    assert_eq!(promote_as(&service, "bob", json!({})).0, 200);
    let (status, deploy) = promote_as(&service, "ops", json!({ "reason": "go" }));
    assert_eq!((status, &deploy["tag"], &deploy["by"]), (202, &json!("v2"), &json!("ops")), "{deploy}");
    assert_eq!(deploy["reason"], "approved by bob, too: go");
    assert_eq!(service.audit(&second), ["start", "deployed", "approve"]);

    // They are used up.
    let id = second.replace("staging", "production");
    let cancel = service.http.clone().with_token("ops").post(&format!("/v1/deploys/{id}/cancel"), &json!({}));
    assert_eq!(cancel.0, 403, "{}", cancel.1);
    service.complete("production", &id, &["box-2"]);
    service.wait_state(&id, "deployed");
    assert_eq!(promote_as(&service, "bob", json!({})).0, 200, "the first of two again");
}

#[test]
fn approvals_need_tokens_to_tell_people_apart() {
    let scope = Scope::new();
    for (roles, words) in [
        (json!({ "approvals": 2 }), ["service.roles.app.approvals", "service.tokens"]),
        (json!({ "approvals": 2, "auto_promote": true }), ["service.roles.app", "auto_promote"]),
    ] {
        let config = scope.file("bad.json", &json!({ "service": { "roles": { "app": roles } } }).to_string());
        let refused = run(scope.command(DEPLOYCTL).arg("--config").arg(config).arg("check-config"));
        assert_eq!(refused.code, Some(2), "{refused}");
        assert!(words.iter().all(|word| refused.stderr.contains(word)), "{refused}");
    }
}
