//! From one environment to the next, with gates before and between.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use crate::service::setup::{SOON, Service, id};
use crate::support::{Http, Process, Scope, free_port, require, wait_for, wait_until};

const BOXES: [(&str, &str); 2] = [("staging", "box-1"), ("production", "box-2")];

fn policy(more: &Value) -> Value {
    let mut app = json!({ "environments": ["staging", "production"], "auto_promote": true });
    for (key, value) in more.as_object().unwrap() {
        app[key] = value.clone();
    }
    json!({ "service": { "roles": { "app": app } } })
}

/// Deploys a tag completely in staging.
fn staged(service: &Service, tag: &str) -> String {
    service.publish(tag);
    let id = service.start_deploy("staging", json!({ "tag": tag }));
    service.complete("staging", &id, &["box-1"]);
    service.wait_state(&id, "deployed");
    id
}

fn in_production(service: &Service) -> Vec<Value> {
    service.http.get("/v1/deploys?role=app&environment=production").1["deploys"].as_array().unwrap().clone()
}

#[test]
fn a_complete_deploy_goes_on_once_even_with_two_services_and_restarts() {
    require!("redis-server", "serf");
    let mut service = Service::with_boxes(&Scope::new(), &BOXES, policy(&json!({ "bake": "2s" })));
    let _second = service.another(free_port());
    let source = staged(&service, "v1");
    assert_eq!(in_production(&service), Vec::<Value>::new(), "it bakes first");
    let (_, status) = service.http.get("/v1/status?role=app&environment=production");
    let next = &status["next"][0];
    assert_eq!((&next["tag"], &next["from"]), (&json!("v1"), &json!("staging")), "{status}");
    service.process().kill();
    service.resume();
    let promoted = service.wait_newer("production", "");
    assert_eq!(promoted, source.replace("staging", "production"));
    let deploy = service.deploy(&promoted);
    assert_eq!(
        (&deploy["kind"], &deploy["tag"], &deploy["source"]),
        (&json!("promotion"), &json!("v1"), &json!(source))
    );
    service.complete("production", &promoted, &["box-2"]);
    service.wait_state(&promoted, "deployed");
    service.process().kill();
    service.resume();
    wait_until(SOON, "nothing is left to do", || service.redis.command(&["SCARD", "deployctl:service:open"]) == "0");
    let next = staged(&service, "v2");
    service.wait_newer("production", &promoted);
    let ids: Vec<String> = in_production(&service).iter().map(id).collect();
    assert_eq!(ids, [next.replace("staging", "production"), promoted], "each of them once");
}

#[test]
fn it_waits_for_a_thaw_and_the_newer_replaces_the_older() {
    require!("redis-server", "serf");
    let service = Service::with_boxes(&Scope::new(), &BOXES, policy(&json!({})));
    service.http.post("/v1/freezes", &json!({ "environment": "production" }));
    staged(&service, "v1");
    let newer = staged(&service, "v2");
    assert_eq!(service.http.delete("/v1/freezes?environment=production").0, 200);
    let promoted = service.wait_newer("production", "");
    assert_eq!(service.deploy(&promoted)["tag"], "v2");
    assert_eq!(promoted, newer.replace("staging", "production"));
    // While this one rolls, the next waits.
    let third = staged(&service, "v3");
    wait_until(SOON, "the end is followed up", || service.audit(&third).len() == 2);
    assert_eq!(in_production(&service).len(), 1);
    service.complete("production", &promoted, &["box-2"]);
    let next = service.wait_newer("production", &promoted);
    assert_eq!(service.deploy(&next)["tag"], "v3");
}

#[test]
fn what_was_left_is_not_promoted() {
    require!("redis-server", "serf");
    let service = Service::with_boxes(&Scope::new(), &BOXES, policy(&json!({ "bake": "3s" })));
    service.http.post("/v1/freezes", &json!({ "environment": "production" }));
    staged(&service, "v1");
    staged(&service, "v2");
    let (status, back) = service.http.post("/v1/rollbacks", &json!({ "role": "app", "environment": "staging" }));
    assert_eq!((status, &back["tag"]), (202, &json!("v1")), "{back}");
    service.complete("staging", &id(&back), &["box-1"]);
    service.wait_state(&id(&back), "deployed");
    service.http.delete("/v1/freezes?environment=production");
    // A later one shows that the watch has been through everything before it.
    let last = staged(&service, "v3");
    service.wait_newer("production", "");
    let ids: Vec<String> = in_production(&service).iter().map(id).collect();
    assert_eq!(ids, [last.replace("staging", "production")], "neither v2 nor the rollback");
}

#[test]
fn a_person_promotes_where_approval_is_wanted() {
    require!("redis-server", "serf");
    let service = Service::with_boxes(&Scope::new(), &BOXES, policy(&json!({ "auto_promote": false })));
    let from = |environment: &str| json!({ "role": "app", "environment": environment });
    assert_eq!(
        service.refused("/v1/promotions", &from("staging")),
        (404, "not_found".to_owned()),
        "nothing is complete"
    );
    let source = staged(&service, "v1");
    assert_eq!(
        service.refused("/v1/promotions", &from("production")),
        (404, "not_found".to_owned()),
        "nothing follows"
    );
    let default = json!({ "role": "app", "environment": "production", "dry_run": true });
    assert_eq!(service.http.post("/v1/deploys", &default).1["tag"], "v1", "what the environment before completed");
    let (status, promoted) = service.http.post("/v1/promotions", &from("staging"));
    assert_eq!((status, promoted["kind"].as_str()), (202, Some("promotion")), "{promoted}");
    assert_eq!(id(&promoted), source.replace("staging", "production"));
    assert_eq!(service.refused("/v1/promotions", &from("staging")), (409, "rolling".to_owned()));
    service.http.post(&format!("/v1/deploys/{}/cancel", id(&promoted)), &json!({}));
    service.wait_state(&id(&promoted), "cancelled");
    let (status, again) = service.http.post("/v1/promotions", &from("staging"));
    assert_eq!((status, &again["tag"]), (202, &json!("v1")), "a person may try again: {again}");
}

#[test]
fn a_start_gate_is_asked_once_before_the_event() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let (asked, open) = (scope.dir().join("asked"), scope.dir().join("open"));
    let gate = scope.script(
        "migrate",
        &format!(
            "echo $DEPLOY_TAG $DEPLOY_KIND >>{}; until [ -e {} ]; do sleep 0.1; done",
            asked.display(),
            open.display()
        ),
    );
    let gates = json!({ "auto_promote": false, "gates": [{ "when": "start", "command": [gate] }] });
    let service = Service::with_boxes(&scope, &BOXES, policy(&gates));
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    wait_until(SOON, "the gate is asked", || asked.exists());
    let mut worker = service.worker("staging", "box-1");
    worker.joins(&id);
    assert_eq!(service.events("box-1"), Vec::<String>::new(), "no event while the gate is closed");
    fs::write(&open, "").unwrap();
    wait_until(SOON, "the gate opens", || service.audit(&id).contains(&"gate".to_owned()));
    service.complete("staging", &id, &["box-1"]);
    service.wait_state(&id, "deployed");
    assert_eq!(fs::read_to_string(&asked).unwrap(), "v1 deploy\n");
}

#[test]
fn a_start_gate_that_fails_or_is_left_alone_ends_the_deploy() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let hang = scope.dir().join("hang");
    let gate = scope.script(
        "migrate",
        &format!("if [ -e {} ]; then sleep 60; fi; echo 'no such table' >&2; exit 7", hang.display()),
    );
    let gates = json!({ "auto_promote": false, "gates": [{ "when": "start", "command": [gate] }] });
    let mut service = Service::with_boxes(&scope, &BOXES, policy(&gates));
    service.publish("v1");
    let first = service.start_deploy("staging", json!({}));
    let ended = service.wait_state(&first, "failed");
    assert!(ended["reason"].as_str().unwrap().contains("no such table"), "{ended}");
    assert_eq!(service.release("v1")["status"], "available", "a gate before the start proves nothing");

    // Asked once means: not again after the service died at it.
    fs::write(&hang, "").unwrap();
    let second = service.start_deploy("staging", json!({}));
    wait_until(SOON, "the gate is claimed", || {
        service.redis.command(&["GET", "deployctl:{staging:app}:current"]).contains("gate_owner")
    });
    service.process().kill();
    service.resume();
    let ended = service.wait_state(&second, "failed");
    assert!(ended["reason"].as_str().unwrap().contains("the service stopped"), "{ended}");
    assert_eq!(service.events("box-1"), Vec::<String>::new());
}

/// A real Prometheus, which also reads our own metrics.
struct Prometheus {
    _process: Process,
    url: String,
}

impl Prometheus {
    fn start(scope: &Scope, service_port: u16) -> Self {
        let port = free_port();
        let config = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: deployctl\n  static_configs:\n  - targets: ['127.0.0.1:{service_port}']\n"
        );
        let config = scope.file("prometheus.yml", &config);
        let mut command = scope.command("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", scope.subdir("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut process = scope.start("prometheus", &mut command);
        let url = format!("http://127.0.0.1:{port}");
        let http = Http::new(&url);
        process.wait_ready(Duration::from_secs(60), || http.try_get("/-/ready").is_ok_and(|(status, _)| status == 200));
        Self { _process: process, url }
    }
}

#[test]
fn a_release_bakes_under_the_eyes_of_prometheus() {
    require!("redis-server", "serf", "prometheus");
    let scope = Scope::new();
    let mut service = Service::with_boxes(&scope, &BOXES, json!({}));
    let prometheus = Prometheus::start(&scope, service.port);
    let gate = |query: &str| {
        let prometheus = json!({ "url": prometheus.url, "query": query, "max": 2, "every": "200ms" });
        policy(&json!({ "bake": "1s", "gates": [{ "when": "bake", "prometheus": prometheus }] }))
    };
    // Our own metrics, as a real Prometheus has read them.
    service.configure(gate("sum(deployctl_releases{role=\"app\"})"));
    service.process().kill();
    service.resume();
    wait_for(Duration::from_secs(30), "Prometheus has read our metrics", || {
        let (_, answer) = Http::new(&prometheus.url).get("/api/v1/query?query=deployctl_releases");
        if answer["data"]["result"][0]["value"][1] == "0" { Ok(()) } else { Err(answer) }
    });
    let first = staged(&service, "v1");
    let promoted = service.wait_newer("production", "");
    assert_eq!(promoted, first.replace("staging", "production"));
    service.complete("production", &promoted, &["box-2"]);
    service.wait_state(&promoted, "deployed");

    service.publish("v2");
    let third = staged(&service, "v3");
    wait_for(Duration::from_secs(30), "three releases are too many", || {
        let release = service.release("v3");
        let reason = release["reason"].as_str().unwrap_or_default();
        if release["status"] == "broken" && reason.contains("is 3") && reason.contains("at most 2") {
            Ok(())
        } else {
            Err(release)
        }
    });
    wait_until(SOON, "nobody promotes it", || service.audit(&third).last().is_some_and(|action| action == "promote"));
    assert_eq!(in_production(&service).len(), 1);

    // No data is as bad as bad data.
    service.configure(gate("errors_of_nobody"));
    service.process().kill();
    service.resume();
    staged(&service, "v4");
    wait_for(SOON, "no data fails", || {
        let release = service.release("v4");
        if release["reason"].as_str().unwrap_or_default().contains("no data") { Ok(()) } else { Err(release) }
    });
}

#[test]
fn a_prometheus_that_is_down_proves_nothing() {
    require!("redis-server", "serf");
    let prometheus =
        json!({ "url": format!("http://127.0.0.1:{}", free_port()), "query": "up", "min": 1, "every": "200ms" });
    let gates = policy(&json!({ "gates": [{ "when": "bake", "prometheus": prometheus }] }));
    let mut service = Service::with_boxes(&Scope::new(), &BOXES, gates);
    let id = staged(&service, "v1");
    wait_until(SOON, "the service says what it waits for", || {
        service.process().log().contains("cannot ask Prometheus")
    });
    assert_eq!(service.release("v1")["status"], "available");
    assert_eq!(in_production(&service), Vec::<Value>::new());
    assert_eq!(service.deploy(&id)["state"], "deployed");
}

#[test]
fn metrics_say_what_rolls_and_what_has_ended() {
    require!("redis-server", "serf");
    let service = Service::with_boxes(&Scope::new(), &BOXES, json!({}));
    staged(&service, "v1");
    service.publish("v2");
    service.start_deploy("staging", json!({ "tag": "v2" }));
    let place = "role=\"app\",environment=\"staging\"";
    for line in [
        format!("deployctl_deploys_total{{{place},state=\"deployed\"}} 1"),
        format!("deployctl_deploys{{{place},state=\"rolling\"}} 1"),
        format!("deployctl_boxes{{{place},phase=\"expected\"}} 1"),
        format!("deployctl_remaining{{{place}}} 1"),
        format!("deployctl_locks_held{{{place}}} 0"),
        format!("deployctl_boxes_out{{{place}}} 0"),
        "deployctl_releases{role=\"app\"} 2".to_owned(),
        "# TYPE deployctl_deploy_duration_seconds summary".to_owned(),
    ] {
        wait_for(SOON, &line, || {
            let (_, text) = service.http.try_get("/metrics").unwrap();
            if text.lines().any(|own| own == line) { Ok(()) } else { Err(text) }
        });
    }
}

#[test]
fn what_somebody_forced_is_for_somebody_to_bring_further() {
    require!("redis-server", "serf");
    let service = Service::with_boxes(&Scope::new(), &BOXES, policy(&json!({})));
    service.publish("v1");
    let forced = service.start_deploy("staging", json!({ "tag": "v1", "force": true }));
    service.complete("staging", &forced, &["box-1"]);
    service.wait_state(&forced, "deployed");
    wait_until(SOON, "nothing is left to do", || service.redis.command(&["SCARD", "deployctl:service:open"]) == "0");
    // What comes later is promoted; the forced one never was.
    let next = staged(&service, "v2");
    let promoted = service.wait_newer("production", "");
    assert_eq!(promoted, next.replace("staging", "production"));
    assert_eq!(in_production(&service).len(), 1);
}
