//! Deploys start in their windows only.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::service::setup::{DEPLOYCTL, SOON, Service, id, kind, merge};
use crate::support::{Output, Scope, require, run, wait_for};

const BOXES: [(&str, &str); 2] = [("staging", "box-1"), ("production", "box-2")];

/// A window of production that opens so many seconds from now, and closes hours later.
fn opens_in(seconds: u64) -> Value {
    let time = |seconds: u64| (Timestamp::now() + Duration::from_secs(seconds)).strftime("%H:%M:%S").to_string();
    let hours = format!("{}-{}", time(seconds), time(seconds + 7200));
    json!([{ "environment": "production", "hours": hours, "zone": "UTC" }])
}

fn within(scope: &Scope, windows: &Value, more: Value) -> Service {
    let mut app = json!({ "environments": ["staging", "production"], "windows": windows });
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

fn deployctl(service: &Service, line: &str) -> Output {
    let mut command = service.scope.command(DEPLOYCTL);
    command.args(line.split(' ')).env("DEPLOYCTL_SERVICE_URL", format!("http://127.0.0.1:{}", service.port));
    run(&mut command)
}

#[test]
fn outside_its_window_a_start_is_refused_and_a_way_back_is_not() {
    require!("redis-server", "serf");
    let service = within(&Scope::new(), &opens_in(3600), json!({}));
    let first = staged(&service, "v1");
    let start = json!({ "role": "app", "environment": "production", "tag": "v1" });
    assert_eq!(service.refused("/v1/deploys", &start), (409, "outside_window".to_owned()));
    let said = deployctl(&service, "start -r app -e production -t v1");
    assert_eq!(said.code, Some(6), "{said}");
    said.one_line(&["app in production is outside its window, which opens on ", "UTC: wait, or --force"]);
    let said = deployctl(&service, "status");
    assert!(said.stdout.contains("app in production is outside its window until 20"), "{said}");
    assert!(service.http.get("/v1/status?environment=staging").1["closed"].as_array().unwrap().is_empty());

    let forced = service.start_deploy("production", json!({ "tag": "v1", "force": true, "reason": "hotfix" }));
    service.complete("production", &forced, &["box-2"]);
    service.wait_state(&forced, "deployed");
    let (_, audit) = service.http.get("/v1/audit");
    let entries = audit["entries"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["deploy"] == forced.as_str() && entry["action"] == "start").unwrap();
    let detail = entry["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("forced outside its window, which opens on ") && detail.ends_with(": hotfix"),
        "{entry}"
    );

    service.publish("v2");
    let second = service.start_deploy("production", json!({ "tag": "v2", "force": true }));
    service.complete("production", &second, &["box-2"]);
    service.wait_state(&second, "deployed");
    let (status, back) = service.http.post("/v1/rollbacks", &json!({ "role": "app", "environment": "production" }));
    assert_eq!((status, &back["tag"]), (202, &json!("v1")), "{back}");
    assert_eq!(service.deploy(&first)["state"], "deployed", "staging has no window");
}

#[test]
fn a_promotion_by_itself_waits_and_starts_when_the_window_opens() {
    require!("redis-server", "serf");
    let service = within(&Scope::new(), &opens_in(6), json!({ "auto_promote": true }));
    let source = staged(&service, "v1");
    wait_for(SOON, "it waits for its window", || {
        let (_, status) = service.http.get("/v1/status");
        let promotion = &status["promotions"][0];
        let waits = promotion["state"] == "outside_window" && promotion["until"] == status["closed"][0]["opens"];
        if waits && promotion["until"].is_string() { Ok(()) } else { Err(status) }
    });
    assert_eq!(service.wait_newer("production", ""), source.replace("staging", "production"));
}

#[test]
fn what_is_approved_outside_its_window_starts_when_that_opens() {
    require!("redis-server", "serf");
    let service = within(&Scope::new(), &opens_in(7), json!({}));
    staged(&service, "v1");
    let said = deployctl(&service, "promote -r app --from staging --reason tested");
    assert_eq!(said.code, Some(0), "{said}");
    assert!(said.stdout.contains("is to go on to production: waits for its window until 20"), "{said}");
    let promoted = service.wait_newer("production", "");
    let deploy = service.deploy(&promoted);
    assert_eq!((&deploy["kind"], &deploy["reason"]), (&json!("promotion"), &json!("tested")), "{deploy}");
    assert_ne!(deploy["by"], "service", "the approval was a person's");
    service.complete("production", &promoted, &["box-2"]);
    service.wait_state(&promoted, "deployed");
}

#[test]
fn what_has_gone_on_already_is_not_promoted_again_outside_its_window() {
    require!("redis-server", "serf");
    let service = within(&Scope::new(), &opens_in(3600), json!({}));
    staged(&service, "v1");
    let body = |more: Value| {
        let mut body = json!({ "role": "app", "environment": "staging" });
        merge(&mut body, more);
        body
    };
    let (status, promoted) = service.http.post("/v1/promotions", &body(json!({ "force": true })));
    assert_eq!(status, 202, "{promoted}");
    assert!(promoted["reason"].as_str().unwrap().starts_with("forced outside its window"), "{promoted}");
    service.http.post(&format!("/v1/deploys/{}/cancel", id(&promoted)), &json!({}));
    service.wait_state(&id(&promoted), "cancelled");
    let (status, refused) = service.http.post("/v1/promotions", &body(json!({})));
    assert_eq!((status, kind(&refused)), (409, "outside_window"), "{refused}");
}

#[test]
fn a_window_that_cannot_be_read_is_named() {
    let scope = Scope::new();
    for (window, word) in [
        (json!({ "environment": "production", "zone": "Europe/Berln" }), "Europe/Berln"),
        (json!({ "environment": "production", "days": "Mo-Th" }), "Mo-Th"),
        (json!({ "environment": "production", "hours": "9 to 5" }), "9 to 5"),
        (json!({ "days": "Mon" }), "environment"),
        (json!({ "environment": "prodction" }), "prodction is none of its environments: staging, production"),
    ] {
        let app = json!({ "environments": ["staging", "production"], "windows": [window] });
        let config = json!({ "service": { "roles": { "app": app } } });
        let config = scope.file("bad.json", &config.to_string());
        let refused = run(scope.command(DEPLOYCTL).arg("--config").arg(config).arg("check-config"));
        assert_eq!(refused.code, Some(2), "{refused}");
        assert!(refused.stderr.contains("service.roles.app.windows") && refused.stderr.contains(word), "{refused}");
    }
}
