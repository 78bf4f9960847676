//! Who may do what.

use serde_json::{Value, json};

use crate::service::setup::{DEPLOYCTL, Service, kind, token};
use crate::support::{Scope, require, run};

#[test]
fn without_tokens_it_listens_on_loopback_only() {
    let scope = Scope::new();
    let config = scope.file("open.json", r#"{"service": {"listen": "0.0.0.0:8700"}}"#);
    let mut command = scope.command(DEPLOYCTL);
    let refused = run(command.arg("--config").arg(config).arg("service"));
    assert_eq!(refused.code, Some(2), "{refused}");
    refused.one_line(&["0.0.0.0:8700", "service.tokens"]);
}

#[test]
fn every_call_asks_for_its_scope() {
    require!("redis-server");
    let names: [(&str, &[&str]); 5] = [
        ("reader", &["read"]),
        ("publisher", &["publish"]),
        ("starter", &["start:staging"]),
        ("canceller", &["cancel"]),
        ("worker", &["box:staging"]),
    ];
    let tokens: Vec<Value> = names.iter().map(|(name, can)| token(name, can)).collect();
    let service = Service::start(&Scope::new(), json!({ "service": { "tokens": tokens } }));
    let (status, body) = service.http.get("/v1/audit");
    assert_eq!((status, kind(&body)), (401, "unauthorized"));
    assert_eq!(service.http.get("/healthz").0, 200, "liveness needs no token");
    let (status, body) = service.http.clone().with_token("guess").get("/v1/audit");
    assert_eq!((status, kind(&body)), (401, "unauthorized"));

    let release = json!({ "role": "app", "tag": "v1" });
    let freeze = |environment: &str| json!({ "environment": environment, "reason": "holidays" });
    for (name, publish, here, there) in [
        ("reader", 403, 403, 403),
        ("publisher", 201, 403, 403),
        ("starter", 403, 201, 403),
        ("canceller", 403, 403, 403),
        ("worker", 403, 403, 403),
    ] {
        let http = service.http.clone().with_token(name);
        assert_eq!(http.post("/v1/releases", &release).0, publish, "{name} publishes");
        assert_eq!(http.post("/v1/freezes", &freeze("staging")).0, here, "{name} freezes staging");
        assert_eq!(http.post("/v1/freezes", &freeze("production")).0, there, "{name} freezes production");
        for path in ["/v1/audit", "/v1/freezes", "/v1/releases?role=app"] {
            assert_eq!(http.get(path).0, 200, "{name} reads {path}");
        }
        let (status, body) = http.delete("/v1/freezes?environment=production");
        assert_eq!((status, kind(&body)), (403, "forbidden"), "{name} unfreezes production");
        assert!(body["error"]["message"].as_str().unwrap().contains(name), "{body}");
    }

    let entries = |name: &str| service.http.clone().with_token(name).get("/v1/audit").1["entries"].clone();
    assert_eq!(entries("reader").as_array().unwrap().len(), 2, "{}", entries("reader"));
    assert_eq!(entries("worker")[0]["action"], "freeze");
    assert_eq!(entries("worker")[0]["by"], "starter");
}

#[test]
fn a_narrow_token_sees_its_environment_only() {
    require!("redis-server");
    let tokens = [token("all", &["read", "start"]), token("narrow", &["start:staging"])];
    let service = Service::start(&Scope::new(), json!({ "service": { "tokens": tokens } }));
    let all = service.http.clone().with_token("all");
    for environment in ["staging", "production"] {
        assert_eq!(all.post("/v1/freezes", &json!({ "environment": environment })).0, 201);
    }
    let narrow = service.http.clone().with_token("narrow");
    for (http, count) in [(&all, 2), (&narrow, 1)] {
        assert_eq!(http.get("/v1/freezes").1["freezes"].as_array().unwrap().len(), count);
        assert_eq!(http.get("/v1/audit").1["entries"].as_array().unwrap().len(), count);
    }
}

#[test]
fn the_audit_log_names_the_token_and_who_they_say_they_are() {
    require!("redis-server");
    let service = Service::start(&Scope::new(), json!({ "service": { "tokens": [token("ci", &["publish"])] } }));
    let sent = ureq::post(format!("http://127.0.0.1:{}/v1/releases", service.port))
        .header("Authorization", "Bearer ci")
        .header("Deployctl-By", format!("ann@laptop{}", "x".repeat(200)))
        .send(r#"{"role": "app", "tag": "v1"}"#);
    assert_eq!(sent.unwrap().status().as_u16(), 201);
    let (_, audit) = service.http.clone().with_token("ci").get("/v1/audit");
    let by = audit["entries"][0]["by"].as_str().unwrap();
    assert!(by.starts_with("ci (ann@laptopx") && by.len() == "ci ()".len() + 128, "{by}");
    assert_eq!((&audit["entries"][0]["action"], &audit["entries"][0]["tag"]), (&json!("publish"), &json!("v1")));
}

#[test]
fn a_web_page_cannot_act_for_whoever_looks_at_it() {
    require!("redis-server");
    let service = Service::start(&Scope::new(), json!({}));
    let send = |header: &str, value: &str| {
        let sent = ureq::post(format!("http://127.0.0.1:{}/v1/releases", service.port))
            .config()
            .http_status_as_error(false)
            .build()
            .header(header, value)
            .send(r#"{"role": "app", "tag": "v1"}"#);
        sent.unwrap().status().as_u16()
    };
    assert_eq!(send("Origin", "https://evil.example"), 403);
    assert_eq!(send("Sec-Fetch-Site", "cross-site"), 403);
    assert_eq!(send("Host", "evil.example:8700"), 403, "a name that was made to point here");
    assert_eq!(service.http.get("/v1/releases?role=app").1, json!({ "releases": [] }));
    assert_eq!(send("Host", "localhost"), 201);
}

#[test]
fn who_guesses_tokens_leaves_a_trace_and_does_not_fill_the_log() {
    require!("redis-server");
    let tokens = json!({ "service": { "tokens": [token("ci", &["publish"])] } });
    let mut service = Service::start(&Scope::new(), tokens);
    let guesser = service.http.clone().with_token("guess");
    for _ in 0..50 {
        assert_eq!(guesser.get("/v1/audit").0, 401);
    }
    let log = service.process().log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("the token is not known")).collect();
    assert!((1..10).contains(&lines.len()) && lines[0].contains("refused 127.0.0.1"), "{log}");
    assert!(!log.contains("guess"), "{log}");
}

#[test]
fn nobody_poses_as_the_service() {
    require!("redis-server");
    let service = Service::start(&Scope::new(), json!({}));
    let sent = ureq::post(format!("http://127.0.0.1:{}/v1/releases", service.port))
        .header("Deployctl-By", "service")
        .send(r#"{"role": "app", "tag": "v1"}"#);
    assert_eq!(sent.unwrap().status().as_u16(), 201);
    assert_eq!(service.http.get("/v1/audit").1["entries"][0]["by"], "somebody");
    let scope = Scope::new();
    let tokens = json!({ "service": { "tokens": [token("service", &["read"])] } });
    let config = scope.file("posing.json", &tokens.to_string());
    let refused = run(scope.command(DEPLOYCTL).arg("--config").arg(config).arg("service"));
    assert_eq!(refused.code, Some(2), "{refused}");
    refused.one_line(&["service.tokens", "choose another"]);
}

#[test]
fn an_id_of_another_environment_tells_nothing() {
    require!("redis-server", "serf");
    let tokens = [token("all", &["read", "start", "publish"]), token("narrow", &["start:staging"])];
    let boxes = [("production", "box-1")];
    let service = Service::with_boxes(&Scope::new(), &boxes, json!({ "service": { "tokens": tokens } }));
    let all = service.http.clone().with_token("all");
    assert_eq!(all.post("/v1/releases", &json!({ "role": "app", "tag": "v1" })).0, 201);
    let (status, deploy) = all.post("/v1/deploys", &json!({ "role": "app", "environment": "production", "tag": "v1" }));
    assert_eq!(status, 202, "{deploy}");
    let id = deploy["id"].as_str().unwrap();
    let narrow = service.http.clone().with_token("narrow");
    let answers = [id, "app.production.never"].map(|id| narrow.get(&format!("/v1/deploys/{id}")));
    assert_eq!(answers[0].0, 403);
    assert_eq!(answers[0], answers[1], "known or not");
}
