//! The FleetLock protocol, asked as its clients ask: by the bytes that they send.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use deployctl::api::Phase;
use serde_json::{Value, json};

use crate::service::setup::{DEPLOYCTL, SOON, Service, token};
use crate::support::{Scope, require, run, wait_for};

const HEADER: &str = "fleet-lock-protocol: true";

/// Sends what Zincati sends (reqwest over HTTP/1.1, no content type), and gives status and body.
fn send(port: u16, path: &str, headers: &[&str], body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let headers = headers.iter().flat_map(|header| [*header, "\r\n"]).collect::<String>();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\n{headers}accept: */*\r\nhost: 127.0.0.1:{port}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// As `serde_json::to_string_pretty` writes it.
fn body(id: &str, group: &str) -> String {
    format!("{{\n  \"client_params\": {{\n    \"id\": \"{id}\",\n    \"group\": \"{group}\"\n  }}\n}}")
}

fn fleet_lock() -> Value {
    json!({ "groups": { "workers": { "environment": "staging", "roles": ["app", "web"] } } })
}

fn six_boxes(scope: &Scope, more: Value) -> Service {
    let boxes = [1, 2, 3, 4, 5, 6].map(|number| format!("box-{number}"));
    let boxes: Vec<(&str, &str)> = boxes.iter().map(|name| ("staging", name.as_str())).collect();
    let mut config = json!({ "service": { "fleet_lock": fleet_lock() } });
    crate::service::setup::merge(&mut config, more);
    Service::with_boxes(scope, &boxes, config)
}

#[track_caller]
fn ask(service: &Service, path: &str, id: &str) -> u16 {
    let (status, answer) = send(service.port, path, &[HEADER], &body(id, "workers"));
    assert!(status == 200 || answer["kind"].is_string() && answer["value"].is_string(), "{status} {answer}");
    status
}

#[test]
fn what_is_no_request_of_the_protocol_is_refused_in_its_shape() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let service = Service::with_boxes(
        &scope,
        &[("staging", "box-1"), ("production", "box-9")],
        json!({ "service": { "fleet_lock": fleet_lock() } }),
    );
    let good = body("box-1", "workers");
    let cases: [(&[&str], &str, u16, &str); 12] = [
        (&[], &good, 400, "invalid_client_identity"),
        (&["fleet-lock-protocol: yes"], &good, 400, "invalid_client_identity"),
        (&[HEADER, HEADER], &good, 400, "invalid_client_identity"),
        (&[HEADER], "", 400, "invalid_client_identity"),
        (&[HEADER], "{}", 400, "invalid_client_identity"),
        (&[HEADER], "[1", 400, "invalid_client_identity"),
        (&[HEADER], &body("", "workers"), 400, "invalid_client_identity"),
        (&[HEADER], &body("box-1", ""), 400, "invalid_client_identity"),
        (&[HEADER], &body("box-1", "work ers"), 400, "invalid_client_identity"),
        (&[HEADER], &body("box-1", "default"), 404, "unknown_group"),
        (&[HEADER], &body("box-7", "workers"), 404, "unknown_node"),
        (&[HEADER], &body("box-9", "workers"), 404, "unknown_node"),
    ];
    for (headers, sent, status, kind) in cases {
        let answer = send(service.port, "/v1/pre-reboot", headers, sent);
        assert_eq!((answer.0, &answer.1["kind"]), (status, &json!(kind)), "{headers:?} {sent}: {}", answer.1);
        assert!(answer.1["value"].as_str().is_some_and(|value| !value.is_empty() && !value.contains('\n')));
    }
    let (status, answer) = service.http.get("/v1/pre-reboot");
    assert_eq!((status, &answer["kind"]), (405, &json!("method_not_allowed")));
    assert_eq!(service.http.get("/v1/locks?role=app&environment=staging").1["out"], json!([]));
    assert_eq!(ask(&service, "/v1/steady-state", "box-1"), 200, "it holds none");
    assert_eq!(ask(&service, "/v1/pre-reboot", "box-1"), 200);
    assert_eq!(ask(&service, "/v1/pre-reboot", "box-1"), 200, "again");
    for role in ["app", "web"] {
        let (_, locks) = service.http.get(&format!("/v1/locks?role={role}&environment=staging"));
        assert_eq!(locks["out"][0]["box"], "box-1", "a box reboots in all its roles: {locks}");
    }
    assert_eq!(ask(&service, "/v1/steady-state", "box-1"), 200);
    assert_eq!(service.http.get("/v1/locks?role=web&environment=staging").1["out"], json!([]));

    let off = Service::start(&scope, json!({}));
    let (status, answer) = send(off.port, "/v1/pre-reboot", &[HEADER], &good);
    assert_eq!((status, &answer["kind"]), (404, &json!("not_found")), "{answer}");
}

#[test]
fn reboots_and_a_deploy_together_never_exceed_the_locks() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let service = six_boxes(&scope, json!({}));
    let out = || {
        let (_, locks) = service.http.get("/v1/locks?role=app&environment=staging");
        let rows = locks["out"].as_array().unwrap().iter().map(|row| row["box"].as_str().unwrap().to_owned());
        rows.collect::<Vec<_>>()
    };
    assert_eq!(ask(&service, "/v1/pre-reboot", "box-1"), 200);
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    let (mut two, mut three) = (service.worker("staging", "box-2"), service.worker("staging", "box-3"));
    two.joins(&id);
    three.joins(&id);
    let held = two.goes_out(&id);
    assert_eq!(three.waits_for(&id).as_deref(), Some("2 of 2 locks: box-1, box-2"));
    let (status, answer) = send(service.port, "/v1/pre-reboot", &[HEADER], &body("box-4", "workers"));
    assert_eq!((status, &answer["kind"]), (409, &json!("failed_lock_semaphore_full")), "{answer}");
    assert!(answer["value"].as_str().unwrap().contains("app in staging: 2 of 2 locks: box-1, box-2"), "{answer}");
    // What it had got for its other role it has given back.
    assert_eq!(service.http.get("/v1/locks?role=web&environment=staging").1["out"].as_array().unwrap().len(), 1);
    assert_eq!(out(), ["box-1", "box-2"]);

    // Whoever looks sees why.
    let deployctl = |line: &str| {
        let mut command = scope.command(DEPLOYCTL);
        command.args(line.split(' ')).env("DEPLOYCTL_SERVICE_URL", format!("http://127.0.0.1:{}", service.port));
        run(&mut command).ok().stdout
    };
    let locks = deployctl("locks -r app -e staging");
    assert!(locks.contains("reboot (FleetLock, group workers)"), "{locks}");
    let why = deployctl("why -r app -e staging --box box-1");
    assert!(why.contains("for this: reboot (FleetLock, group workers)") && why.contains("unlock"), "{why}");

    assert_eq!(ask(&service, "/v1/steady-state", "box-1"), 200);
    let third = three.goes_out(&id);
    assert_eq!((ask(&service, "/v1/pre-reboot", "box-1"), out()), (409, vec!["box-2".to_owned(), "box-3".to_owned()]));
    two.comes_back(&id, &held, Phase::Done, "v1");
    three.comes_back(&id, &third, Phase::Done, "v1");
    assert_eq!(ask(&service, "/v1/pre-reboot", "box-1"), 200);
    for name in ["box-4", "box-5", "box-6"] {
        service.worker("staging", name).deploys(&id, "v1");
    }
    assert_eq!(ask(&service, "/v1/steady-state", "box-1"), 200);
    service.worker("staging", "box-1").deploys(&id, "v1");
    service.wait_state(&id, "deployed");
    let (_, audit) = service.http.get("/v1/audit?limit=100");
    let acts: Vec<&str> = audit["entries"].as_array().unwrap().iter().filter_map(|e| e["action"].as_str()).collect();
    let count = |act: &str| acts.iter().filter(|seen| **seen == act).count();
    assert_eq!((count("pre_reboot"), count("steady_state")), (4, 4), "{audit}");
}

#[test]
fn a_box_that_does_not_come_back_frees_its_place_by_membership() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let boxes = [("staging", "box-1"), ("staging", "box-2"), ("staging", "box-3")];
    let config = json!({ "lock_ttl": "2s", "service": { "fleet_lock": fleet_lock() } });
    let mut service = Service::with_boxes(&scope, &boxes, config);
    assert_eq!(ask(&service, "/v1/pre-reboot", "box-1"), 200);
    assert_eq!(ask(&service, "/v1/pre-reboot", "box-2"), 409);
    // Its agent is killed, and stays away.
    service.agents[1].kill();
    wait_for(Duration::from_secs(60), "its place is free", || {
        match send(service.port, "/v1/pre-reboot", &[HEADER], &body("box-2", "workers")) {
            (200, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let (_, audit) = service.http.get("/v1/audit?limit=10");
    let gone = audit["entries"].as_array().unwrap().iter().find(|entry| entry["action"] == "reboot_gone");
    assert!(gone.is_some_and(|entry| entry["detail"].as_str().unwrap().starts_with("box-1 ")), "{audit}");
    // Another that lives keeps its place, however long it takes.
    assert_eq!(ask(&service, "/v1/pre-reboot", "box-3"), 409);
}

#[test]
fn a_client_shows_its_token_as_the_password_in_its_url() {
    require!("redis-server", "serf");
    let tokens = [token("node", &["reboot:staging"]), token("ci", &["publish"])];
    let config = json!({ "service": { "tokens": tokens, "fleet_lock": fleet_lock() } });
    let service = Service::with_boxes(&Scope::new(), &[("staging", "box-1")], config);
    let status = |authorization: &[&str]| {
        let headers = [&[HEADER], authorization].concat();
        let (status, answer) = send(service.port, "/v1/pre-reboot", &headers, &body("box-1", "workers"));
        (status, answer["kind"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(status(&[]), (401, "unauthorized".to_owned()));
    // box-1:guess, box-1:ci, box-1:node
    assert_eq!(status(&["authorization: Basic Ym94LTE6Z3Vlc3M="]), (401, "unauthorized".to_owned()));
    assert_eq!(status(&["authorization: Basic Ym94LTE6Y2k="]), (403, "forbidden".to_owned()));
    assert_eq!(status(&["authorization: Basic Ym94LTE6bm9kZQ=="]), (200, String::new()));
    assert_eq!(status(&["authorization: Bearer node"]), (200, String::new()));
    let other = send(
        service.port,
        "/v1/releases?role=app",
        &["authorization: Basic Ym94LTE6bm9kZQ=="],
        "{\"role\": \"app\", \"tag\": \"v1\"}",
    );
    assert_eq!(other.0, 401, "nowhere else: {}", other.1);
}

#[test]
fn a_box_is_known_by_its_tag_too() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let mut service =
        Service::with_boxes(&scope, &[("staging", "box-1")], json!({ "service": { "fleet_lock": fleet_lock() } }));
    let agent = crate::support::SerfAgent::builder(&scope, "box-2")
        .tag("images", "app")
        .tag("environment", "staging")
        .tag("fleet_lock_id", "c988d2509fdf5cdcbed39037c56406fb")
        .join(&service.agents[0])
        .start();
    service.agents.push(agent);
    service.agents[0].wait_alive(SOON, 3);
    assert_eq!(ask(&service, "/v1/pre-reboot", "c988d2509fdf5cdcbed39037c56406fb"), 200);
    let (_, locks) = service.http.get("/v1/locks?role=app&environment=staging");
    assert_eq!(locks["out"][0]["box"], "box-2", "{locks}");
    assert_eq!(service.http.get("/v1/locks?role=web&environment=staging").1["out"], json!([]), "it does not run web");
    assert_eq!(ask(&service, "/v1/steady-state", "c988d2509fdf5cdcbed39037c56406fb"), 200);
    assert_eq!(service.http.get("/v1/locks?role=app&environment=staging").1["out"], json!([]));
}

#[test]
fn a_group_that_stands_for_nothing_is_refused() {
    let scope = Scope::new();
    for (groups, words) in [
        (json!({ "work ers": { "environment": "staging", "roles": ["app"] } }), "is not a group"),
        (json!({ "workers": { "environment": "staging", "roles": [] } }), "has no roles"),
    ] {
        let config = scope.file("bad.json", &json!({ "service": { "fleet_lock": { "groups": groups } } }).to_string());
        let refused = run(scope.command(DEPLOYCTL).arg("--config").arg(config).arg("service"));
        assert_eq!(refused.code, Some(2), "{refused}");
        assert!(refused.stderr.contains("service.fleet_lock") && refused.stderr.contains(words), "{refused}");
    }
}
