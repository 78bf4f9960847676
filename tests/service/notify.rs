//! What people and programs are told: each turn at least once, in order, whoever is killed and whoever is slow.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use deployctl::api::Phase;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::service::{
    listener::{Listener, Received},
    setup::{SOON, Service, merge},
};
use crate::support::{Http, Scope, free_port, require, wait_for, wait_until};

const BOXES: [(&str, &str); 3] = [("staging", "box-1"), ("staging", "box-2"), ("production", "box-3")];
const STAGING: [&str; 2] = ["box-1", "box-2"];
const KEY: &[u8] = b"a key of thirty-two random bytes";

/// A service that tells `listener`, by a webhook, of what `more` asks for.
fn service(scope: &Scope, listener: &Listener, more: Value) -> Service {
    Service::with_boxes(scope, &BOXES, json!({ "service": { "notify": [webhook(scope, listener, more)] } }))
}

fn webhook(scope: &Scope, listener: &Listener, more: Value) -> Value {
    let secret = scope.file("webhook-secret", &format!("whsec_{}\n", BASE64_STANDARD.encode(KEY)));
    let mut target = json!({ "webhook": { "url": format!("{}/deploys", listener.url), "secret_file": secret } });
    merge(&mut target, more);
    target
}

/// [HMAC](https://www.rfc-editor.org/rfc/rfc2104), written out: what a receiver computes with code of its own.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let with = |pad: u8| block.iter().map(|byte| byte ^ pad).collect::<Vec<u8>>();
    let inner = Sha256::digest([with(0x36), text.to_vec()].concat());
    Sha256::digest([with(0x5c), inner.to_vec()].concat()).to_vec()
}

#[track_caller]
fn is_signed(received: &Received) {
    let header = |name: &str| received.headers[name].as_str();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let signed = format!("{id}.{timestamp}.{}", received.body);
    let expected = format!("v1,{}", BASE64_STANDARD.encode(hmac(KEY, signed.as_bytes())));
    assert_eq!(header("webhook-signature"), expected);
    let age = jiff::Timestamp::now().as_second() - timestamp.parse::<i64>().unwrap();
    assert!((0..60).contains(&age), "{timestamp}");
}

#[track_caller]
fn wait_types(listener: &Listener, expected: &[&str]) -> Vec<Received> {
    wait_for(SOON, &format!("it is told {expected:?}"), || {
        let types = listener.types();
        if types == expected { Ok(listener.received()) } else { Err(format!("{types:?}")) }
    })
}

#[track_caller]
fn metric(service: &Service, line: &str) -> u64 {
    let (_, text) = service.http.try_get("/metrics").unwrap();
    let found = text.lines().find_map(|own| own.strip_prefix(line)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {line} in {text}")).parse().unwrap()
}

fn outcome(service: &Service, target: &str, result: &str) -> u64 {
    metric(service, &format!("deployctl_notifications_total{{target=\"{target}\",result=\"{result}\"}}"))
}

#[test]
fn a_deploy_is_told_from_its_start_to_its_end_and_signed() {
    require!("redis-server", "serf");
    let (scope, listener) = (Scope::new(), Listener::start());
    let mut service = service(&scope, &listener, json!({}));
    service.process().terminate();
    service.configure(json!({ "service": { "public_url": "https://deploys.internal" } }));
    service.resume();
    service.publish("v1");
    let id = service.start_deploy("staging", json!({ "reason": "why not" }));
    wait_types(&listener, &["started"]);
    service.complete("staging", &id, &STAGING);
    let received = wait_types(&listener, &["started", "deployed"]);
    for one in &received {
        is_signed(one);
        let data = &one.json()["data"];
        assert_eq!((one.method.as_str(), one.path.as_str()), ("POST", "/deploys"));
        assert_eq!(
            (&data["deploy"]["id"], &data["role"], &data["environment"]),
            (&json!(id), &json!("app"), &json!("staging"))
        );
        assert_eq!(data["url"], format!("https://deploys.internal/deploys/{id}"));
        assert!(!one.headers["webhook-id"].contains('.'), "{one:?}");
    }
    let [started, deployed] = [0, 1].map(|at: usize| received[at].json()["data"].clone());
    assert_eq!(started["text"], "app in staging: v1 begins on 2 boxes, 1 at a time");
    assert_eq!((&started["reason"], &started["by"]), (&json!("why not"), &json!("somebody")));
    assert_eq!((&deployed["done"], &deployed["out"]), (&json!(2), &json!(0)));
    assert_ne!(received[0].headers["webhook-id"], received[1].headers["webhook-id"]);
    assert_eq!((outcome(&service, "webhook", "sent"), outcome(&service, "webhook", "failed")), (2, 0));
}

#[test]
fn what_is_not_taken_comes_again_in_order_and_by_the_same_id() {
    require!("redis-server", "serf");
    let (scope, listener) = (Scope::new(), Listener::start());
    let service = service(&scope, &listener, json!({}));
    listener.fail(&[429, 500, 302]);
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    service.complete("staging", &id, &STAGING);
    let received = wait_types(&listener, &["started", "started", "started", "started", "deployed"]);
    let ids: Vec<&String> = received.iter().map(|one| &one.headers["webhook-id"]).collect();
    assert!(ids[..4].iter().all(|id| *id == ids[0]) && ids[4] != ids[0], "{ids:?}");
    received.iter().for_each(is_signed);
    // As long as it asked for; two seconds, four; a quarter more or less.
    let waits: Vec<Duration> = received.windows(2).take(3).map(|pair| pair[1].at - pair[0].at).collect();
    for (wait, least) in waits.iter().zip([2950, 1450, 2950]) {
        assert!(*wait >= Duration::from_millis(least), "{waits:?}");
    }
    wait_until(SOON, "nothing waits", || metric(&service, "deployctl_notifications_waiting{target=\"webhook\"}") == 0);
    assert_eq!((outcome(&service, "webhook", "sent"), outcome(&service, "webhook", "failed")), (2, 3));
}

#[test]
fn whoever_is_killed_when_each_turn_is_told_and_known_by_its_id() {
    require!("redis-server", "serf");
    let (scope, listener) = (Scope::new(), Listener::start());
    let mut service = service(&scope, &listener, json!({}));
    let port = free_port();
    let mut second = service.another(port);
    let mut expected = Vec::new();
    for round in 0..6_u64 {
        let tag = format!("v{round}");
        service.publish(&tag);
        let id = service.start_deploy("staging", json!({ "tag": tag }));
        if round == 3 {
            service.process().kill();
            service.resume();
        }
        for name in STAGING {
            service.worker("staging", name).deploys(&id, &tag);
        }
        // Somewhere between the last box and the last word.
        std::thread::sleep(Duration::from_millis(170 * round));
        if round % 2 == 0 {
            service.process().kill();
            service.resume();
        } else {
            second.kill();
            second = service.another(port);
        }
        service.wait_state(&id, "deployed");
        expected.extend([format!("{id}:started"), format!("{id}:deployed")]);
    }
    let told = || {
        let mut told: Vec<(String, String)> = Vec::new();
        for one in listener.received() {
            let pair = (one.json()["data"]["id"].as_str().unwrap().to_owned(), one.headers["webhook-id"].clone());
            if !told.contains(&pair) {
                told.push(pair);
            }
        }
        told
    };
    wait_for(SOON, "everything is told, in order for each deploy, each by one id", || {
        let mut turns: Vec<String> = told().into_iter().map(|(turn, _)| turn).collect();
        // The end of one deploy may be told after the next one's start: ids stand in the order of time.
        turns.sort_by(|one, other| one.split(':').next().cmp(&other.split(':').next()));
        if turns == expected { Ok(()) } else { Err(format!("{turns:?}, and not {expected:?}")) }
    });
}

#[test]
fn a_target_that_was_away_is_told_by_the_next_service() {
    require!("redis-server", "serf");
    let (scope, listener) = (Scope::new(), Listener::start());
    let mut service = service(&scope, &listener, json!({}));
    listener.fail(&[503; 50]);
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    service.complete("staging", &id, &STAGING);
    wait_until(SOON, "the end is written down", || service.redis.hash("deployctl:service:outbox:webhook").len() == 2);
    assert!(listener.received().iter().all(|one| one.json()["type"] == "started"), "the end waits for the start");
    service.process().kill();
    let before = listener.received().len();
    listener.recover();
    service.resume();
    wait_for(SOON, "both are told", || {
        let types = listener.types().split_off(before);
        if types == ["started", "deployed"] { Ok(()) } else { Err(format!("{types:?}")) }
    });
}

#[test]
fn two_services_tell_once() {
    require!("redis-server", "serf");
    let (scope, listener) = (Scope::new(), Listener::start());
    let service = service(&scope, &listener, json!({ "on": ["started", "step", "deployed", "ended", "frozen"] }));
    let _second = service.another(free_port());
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    service.complete("staging", &id, &STAGING);
    wait_types(&listener, &["started", "deployed", "ended"]);
    assert_eq!(service.http.post("/v1/freezes", &json!({ "environment": "staging", "reason": "sales" })).0, 201);
    let received = wait_types(&listener, &["started", "deployed", "ended", "frozen"]);
    let frozen = &received[3].json()["data"];
    assert_eq!((&frozen["text"], &frozen["reason"]), (&json!("staging is frozen"), &json!("sales")));
}

#[test]
fn a_slow_target_holds_up_neither_a_deploy_nor_another_target() {
    require!("redis-server", "serf");
    let (scope, slow, quick) = (Scope::new(), Listener::start(), Listener::start());
    slow.delay(Duration::from_secs(6));
    let targets =
        json!(
            [webhook(&scope, &slow, json!({ "name": "slow" })), webhook(&scope, &quick, json!({ "name": "quick" })),]
        );
    let service = Service::with_boxes(&scope, &BOXES, json!({ "service": { "notify": targets } }));
    service.publish("v1");
    let begun = Instant::now();
    let id = service.start_deploy("staging", json!({}));
    service.complete("staging", &id, &STAGING);
    wait_types(&quick, &["started", "deployed"]);
    wait_until(SOON, "nothing of the deploy is left to do", || {
        service.redis.command(&["SCARD", "deployctl:service:open"]) == "0"
    });
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    wait_types(&slow, &["started", "deployed"]);
}

#[test]
fn what_could_not_be_told_for_a_day_is_dropped_and_counted() {
    require!("redis-server");
    let (scope, listener) = (Scope::new(), Listener::start());
    let target = webhook(&scope, &listener, json!({}));
    let mut service = Service::start(&scope, json!({ "service": { "notify": [target] } }));
    let two_days_ago = jiff::Timestamp::now().as_millisecond() - 48 * 3600 * 1000;
    let entry = json!({ "lane": "app.staging.1", "tries": 99, "due": 0 }).to_string();
    service.redis.command(&["HSET", "deployctl:service:outbox:webhook", &two_days_ago.to_string(), &entry]);
    wait_until(SOON, "it is dropped", || outcome(&service, "webhook", "dropped") == 1);
    assert_eq!(metric(&service, "deployctl_notifications_waiting{target=\"webhook\"}"), 0);
    assert!(listener.received().is_empty());
    let log = service.process().log();
    assert!(
        log.contains("notify webhook: given up telling of app.staging.1 after 99 tries: a day has passed"),
        "{log}"
    );
}

#[test]
fn a_release_that_breaks_is_told_with_its_reason_and_so_is_the_way_back() {
    require!("redis-server", "serf");
    let (scope, listener) = (Scope::new(), Listener::start());
    let mut service = service(&scope, &listener, json!({}));
    service.process().terminate();
    service.configure(json!({ "service": { "roles": { "app": { "auto_rollback": true, "max_parallel": 2 } } } }));
    service.resume();
    service.publish("v1");
    let good = service.start_deploy("staging", json!({}));
    service.complete("staging", &good, &STAGING);
    service.publish("v2");
    let bad = service.start_deploy("staging", json!({}));
    service.worker("staging", "box-1").deploys(&bad, "v2");
    let mut worker = service.worker("staging", "box-2");
    worker.joins(&bad);
    let held = worker.goes_out(&bad);
    let blame = json!({ "box": "box-2", "reason": "app exited with code 3", "logs": "fatal" });
    assert_eq!(service.http.post(&format!("/v1/deploys/{bad}/broken"), &blame).0, 200);
    let so_far = ["started", "deployed", "started", "broken"];
    let received = wait_types(&listener, &so_far);
    let broken = &received[3].json()["data"];
    assert_eq!((&broken["by"], &broken["deploy"]["state"]), (&json!("box-2"), &json!("rolling")), "before the end");
    assert_eq!(broken["reason"], "box-2: app exited with code 3");
    assert_eq!((&broken["done"], &broken["out"]), (&json!(1), &json!(1)));
    worker.comes_back(&bad, &held, Phase::RolledBack, "v1");
    let back = service.wait_newer("staging", &bad);
    let received = wait_types(&listener, &["started", "deployed", "started", "broken", "going_back"]);
    let going = &received[4].json()["data"];
    assert_eq!((&going["deploy"]["id"], &going["tag"], &going["by"]), (&json!(back), &json!("v1"), &json!("service")));
    assert_eq!((&going["reason"], &going["text"]), (&json!("v2 is broken"), &json!("app in staging: goes back to v1")));
    service.complete("staging", &back, &STAGING);
    wait_types(&listener, &["started", "deployed", "started", "broken", "going_back", "deployed"]);
}

#[test]
fn a_release_that_a_gate_finds_broken_after_its_end_is_told_too() {
    require!("redis-server", "serf");
    let (scope, listener) = (Scope::new(), Listener::start());
    let errors = Arc::new(AtomicU32::new(0));
    let read = Arc::clone(&errors);
    let prometheus = Listener::answering(move |_| {
        let sample = json!({ "metric": {}, "value": [0, read.load(Ordering::SeqCst).to_string()] });
        (200, json!({ "status": "success", "data": { "resultType": "vector", "result": [sample] } }).to_string())
    });
    let query = json!({ "url": prometheus.url, "query": "errors", "max": 1, "every": "200ms" });
    let gate = json!({ "when": "roll", "prometheus": query, "failures": 1 });
    let policy = json!({ "roles": { "app": { "bake": "1m", "gates": [gate] } }, "notify": [webhook(&scope, &listener, json!({}))] });
    let service = Service::with_boxes(&scope, &BOXES, json!({ "service": policy }));
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    service.complete("staging", &id, &STAGING);
    wait_types(&listener, &["started", "deployed"]);
    errors.store(7, Ordering::SeqCst);
    let received = wait_types(&listener, &["started", "deployed", "broken"]);
    let broken = &received[2].json()["data"];
    assert_eq!((&broken["deploy"]["state"], &broken["by"]), (&json!("deployed"), &json!("service")));
    assert!(broken["reason"].as_str().unwrap().contains("`errors` is 7"), "{broken}");
}

#[test]
fn what_waits_for_a_person_is_told_once_and_so_is_a_cancel() {
    require!("redis-server", "serf");
    let (scope, listener) = (Scope::new(), Listener::start());
    let mut service = service(&scope, &listener, json!({ "on": ["needs_approval", "step", "cancelled"] }));
    service.process().terminate();
    let policy = json!({ "environments": ["staging", "production"], "first": { "boxes": 1, "for": "manual" } });
    service.configure(json!({ "service": { "roles": { "app": policy } } }));
    service.resume();
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    service.worker("staging", "box-1").deploys(&id, "v1");
    let received = wait_types(&listener, &["needs_approval"]);
    assert_eq!(received[0].json()["data"]["text"], "app in staging: v1: step 1 is done and waits for approval");
    assert_eq!(service.http.post(&format!("/v1/deploys/{id}/resume"), &json!({})).0, 200);
    wait_types(&listener, &["needs_approval", "step"]);
    service.worker("staging", "box-2").deploys(&id, "v1");
    let received = wait_types(&listener, &["needs_approval", "step", "needs_approval"]);
    let data = &received[2].json()["data"];
    assert_eq!(data["text"], "app in production: v1 waits for approval to come from staging");
    assert_eq!((&data["environment"], &data["tag"]), (&json!("production"), &json!("v1")));
    let promoted = service.http.post("/v1/promotions", &json!({ "role": "app", "environment": "staging" }));
    assert_eq!(promoted.0, 202, "{}", promoted.1);
    let promoted = promoted.1["id"].as_str().unwrap().to_owned();
    assert_eq!(service.http.post(&format!("/v1/deploys/{promoted}/cancel"), &json!({ "reason": "not now" })).0, 200);
    let received = wait_types(&listener, &["needs_approval", "step", "needs_approval", "cancelled"]);
    assert_eq!(received[3].json()["data"]["reason"], "not now");
}

#[test]
fn a_deploy_whose_boxes_do_not_move_is_stuck_once_for_each_stall() {
    require!("redis-server", "serf");
    let (scope, listener) = (Scope::new(), Listener::start());
    let mut service = service(&scope, &listener, json!({ "on": ["stuck"] }));
    service.process().terminate();
    service.configure(json!({ "service": { "stuck_after": "2s" } }));
    service.resume();
    service.publish("v1");
    let begun = Instant::now();
    let id = service.start_deploy("staging", json!({}));
    let mut worker = service.worker("staging", "box-1");
    worker.joins(&id);
    let held = worker.goes_out(&id);
    let received = wait_types(&listener, &["stuck"]);
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    let data = received[0].json()["data"].clone();
    assert_eq!((&data["text"], &data["out"]), (&json!("app in staging: v1 is stuck"), &json!(1)));
    let reason = data["reason"].as_str().unwrap();
    assert!(reason.contains("no box has moved for") && reason.contains("box-1 is draining"), "{reason}");
    worker.comes_back(&id, &held, Phase::Done, "v1");
    let received = wait_types(&listener, &["stuck", "stuck"]);
    assert_ne!(received[0].headers["webhook-id"], received[1].headers["webhook-id"]);
    let reason = received[1].json()["data"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("box-2"), "{reason}");
    // Whoever stands because a person wants it so is not stuck.
    service.worker("staging", "box-2").joins(&id);
    assert_eq!(service.http.post(&format!("/v1/deploys/{id}/pause"), &json!({ "reason": "lunch" })).0, 200);
    let until = Instant::now() + Duration::from_secs(4);
    wait_until(SOON, "some time passes", || Instant::now() > until);
    assert_eq!(listener.types(), ["stuck", "stuck"], "told once for each stall");
}

#[test]
fn a_bad_target_is_refused_at_start_by_its_name() {
    require!("redis-server");
    let scope = Scope::new();
    let service = Service::start(&scope, json!({}));
    let start = |notify: Value| {
        let mut config = json!({ "redis_url": service.redis.url(), "service": { "listen": "127.0.0.1:0" } });
        config["service"]["notify"] = notify;
        let file = scope.file("bad.json", &config.to_string());
        let mut command = scope.command(crate::service::setup::DEPLOYCTL);
        crate::support::run(command.arg("--config").arg(file).arg("service"))
    };
    let bad = scope.file("bad-secret", "hunter2");
    for (target, says) in [
        (
            json!({ "name": "night", "slack": { "url_file": "nowhere" } }),
            "service.notify: the target night cannot be used\n  url_file: cannot read",
        ),
        (json!({ "slack": { "url_file": bad } }), "the target slack cannot be used"),
        (
            json!({ "webhook": { "url": "https://x.internal", "secret_file": bad } }),
            "the target webhook cannot be used",
        ),
        (json!({ "slak": {} }), "service.notify[0]"),
        (json!({ "command": ["true"], "on": ["startet"] }), "startet"),
    ] {
        let refused = start(json!([target]));
        assert_eq!(refused.code, Some(2), "{target}: {refused:?}");
        assert!(refused.stderr.contains(says) && !refused.stderr.contains("hunter2"), "{target}: {}", refused.stderr);
    }
}

#[test]
fn a_service_without_its_targets_answers_all_the_same() {
    require!("redis-server", "serf");
    let (scope, listener) = (Scope::new(), Listener::start());
    let target = webhook(&scope, &listener, json!({}));
    let service = Service::with_boxes(&scope, &BOXES, json!({ "service": { "notify": [target] } }));
    // Its file goes away while the service runs.
    std::fs::remove_file(scope.dir().join("webhook-secret")).unwrap();
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    service.complete("staging", &id, &STAGING);
    wait_until(SOON, "it is tried", || outcome(&service, "webhook", "failed") > 0);
    assert_eq!(Http::new(&format!("http://127.0.0.1:{}", service.port)).get("/healthz").0, 200);
    webhook(&scope, &listener, json!({}));
    wait_types(&listener, &["started", "deployed"]);
}
