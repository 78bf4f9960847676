//! What the pages show, and what they make of texts that are no friends.

use std::process::Command;

use deployctl::{api::Phase, coordination::RenewRequest};
use serde_json::{Value, json};

use super::browser::{Browser, Page};
use crate::service::setup::{SOON, Service, token};
use crate::support::{Scope, require, wait_for};

const BOXES: [(&str, &str); 3] = [("staging", "box-1"), ("staging", "box-2"), ("production", "box-3")];

fn with_people() -> Service {
    let people = [token("ann", &["read", "publish", "start", "cancel", "box"]), token("sam", &["read:staging"])];
    let app = json!({ "environments": ["staging", "production"], "repository": "https://github.com/o/n" });
    let config = json!({ "service": { "tokens": people, "roles": { "app": app } } });
    let mut service = Service::with_boxes(&Scope::new(), &BOXES, config);
    service.http = service.http.with_token("ann");
    service
}

/// The page, once it shows a text: what it shows may be a second old.
#[track_caller]
fn wait_shows(browser: &mut Browser, path: &str, text: &str) -> Page {
    wait_for(SOON, &format!("{path} shows {text}"), || {
        let page = browser.get(path);
        if page.text.contains(text) { Ok(page) } else { Err(page.text) }
    })
}

#[test]
fn the_pages_tell_a_deploy_from_its_start_to_its_end() {
    require!("redis-server", "serf");
    let service = with_people();
    let mut browser = Browser::signed_in(&service, "ann");
    browser.get("/").shows("Nothing was deployed yet");
    let release =
        json!({ "role": "app", "tag": "v1", "commit": "c0ffee12", "author": "Ann", "message": "Count orders" });
    assert_eq!(service.http.post("/v1/releases", &release).0, 201);
    let id = service.start_deploy("staging", json!({ "reason": "the first one" }));
    let mut worker = service.worker("staging", "box-1");
    worker.joins(&id);
    let held = worker.goes_out(&id);
    let overview = wait_shows(&mut browser, "/", "draining");
    for text in ["rolling", "0 of 2", "ann", "the first one", "box-1", "expected", "/boxes/box-1"] {
        overview.shows(text);
    }
    overview.hides("Needs a person");
    let page = browser.get("/boxes/box-1");
    page.shows("draining for");
    page.shows("Lock");
    worker.comes_back(&id, &held, Phase::Done, "v1");
    wait_shows(&mut browser, "/", "1 of 2");
    service.complete("staging", &id, &["box-2"]);
    service.wait_state(&id, "deployed");
    let overview = wait_shows(&mut browser, "/", "on 2 boxes");
    for text in ["History", "deployed", "Took"] {
        overview.shows(text);
    }
    let page = browser.get(&format!("/deploys/{id}"));
    for text in ["What was done", "start", "the first one", "done", "box-2"] {
        page.shows(text);
    }
    let page = browser.get("/releases/app/v1");
    for text in ["available", "https://github.com/o/n/commit/c0ffee12", "Count orders", "staging", "/boxes/box-2"] {
        page.shows(text);
    }
    for path in ["/deploys/app.staging.none", "/deploys/x", "/releases/app/v9", "/releases/APP/v1", "/boxes/box-9"] {
        assert_eq!(browser.get(path).status, 404, "{path}");
    }
}

#[test]
fn a_broken_release_and_boxes_that_stay_out_need_a_person() {
    require!("redis-server", "serf");
    let service = with_people();
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    let mut worker = service.worker("staging", "box-1");
    worker.joins(&id);
    let held = worker.goes_out(&id);
    let blame = json!({ "box": "box-1", "reason": "it exited with 3", "logs": "fatal: no database called orders" });
    assert_eq!(service.http.post(&format!("/v1/deploys/{id}/broken"), &blame).0, 200);
    worker.comes_back(&id, &held, Phase::Failed, "v0");
    let mut browser = Browser::signed_in(&service, "sam");
    let overview = wait_shows(&mut browser, "/", "is broken");
    for text in ["Needs a person", "it exited with 3", "Its last words", "fatal: no database called orders"] {
        overview.shows(text);
    }
    browser.get("/releases/app/v1").shows("Why it is broken");
    browser.get(&format!("/deploys/{id}")).shows("fatal: no database");
}

#[test]
fn a_visitor_sees_what_their_token_may_read() {
    require!("redis-server", "serf");
    let service = with_people();
    service.publish("v1");
    let id = service.start_deploy("production", json!({ "tag": "v1" }));
    assert_eq!(service.http.post("/v1/freezes", &json!({ "environment": "production" })).0, 201);
    let (mut ann, mut sam) = (Browser::signed_in(&service, "ann"), Browser::signed_in(&service, "sam"));
    wait_shows(&mut ann, "/", "production").shows("box-3");
    sam.get("/").hides("production");
    assert_eq!(ann.get("/boxes/box-3").status, 200);
    assert_eq!(sam.get("/boxes/box-3").status, 404);
    let refused = sam.get(&format!("/deploys/{id}"));
    assert_eq!(refused.status, 403);
    refused.shows("the token sam lacks the scope read in production");
}

/// What an enemy writes wherever a text can be written.
const HOSTILE: &str =
    "\"'></title></script><script>alert(1)</script><img src=x onerror=alert(1)>&lt;\u{202e}\u{1b}[31m";

#[test]
fn no_text_of_people_or_containers_becomes_markup() {
    require!("redis-server", "serf");
    let service = with_people();
    let posted = |path: &str, body: &Value, expected: u16| {
        let sent = ureq::post(format!("http://127.0.0.1:{}{path}", service.port))
            .config()
            .http_status_as_error(false)
            .build()
            .header("Authorization", "Bearer ann")
            .header("Deployctl-By", "<script>alert(1)</script>")
            .send(body.to_string());
        let mut answer = sent.unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        assert_eq!(answer.status().as_u16(), expected, "{path} {text}");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let release = |tag: &str, link: &str| json!({ "role": "app", "tag": tag, "commit": HOSTILE, "author": HOSTILE, "message": HOSTILE, "link": link });
    posted("/v1/releases", &release("v1", "javascript:alert(1)"), 201);
    posted("/v1/releases", &release("v2", "https://ci.internal/\"><script>alert(1)</script>"), 201);
    let start = json!({ "role": "app", "environment": "staging", "tag": "v1", "reason": HOSTILE });
    let id = posted("/v1/deploys", &start, 202)["id"].as_str().unwrap().to_owned();
    posted("/v1/freezes", &json!({ "environment": "staging", "reason": HOSTILE }), 201);

    let mut worker = service.worker("staging", "box-1");
    worker.joins(&id);
    let held = worker.goes_out(&id);
    let (name, token) = ("box-1".parse().unwrap(), held.token.as_str());
    let says = RenewRequest {
        name: &name,
        deploy: &id,
        phase: Some(Phase::Starting),
        detail: Some(HOSTILE),
        suffix: Some(held.suffix),
        token: Some(token),
        ttl: 60_000,
        out: true,
        kept_out_reason: None,
        purpose: None,
        epoch: None,
    };
    worker.locks.renew(&says).unwrap();
    let out = json!({ "deploy": "hand.box-2", "token": "t", "since": 1, "renewed": 1, "hand": HOSTILE }).to_string();
    let key = "deployctl:{staging:app}:out";
    let set = Command::new("redis-cli").args(["-u", &service.redis.url(), "HSET", key, "box-2", &out]).status();
    assert!(set.unwrap().success());
    posted(&format!("/v1/deploys/{id}/pause"), &json!({ "reason": HOSTILE }), 200);
    let mut browser = Browser::signed_in(&service, "ann");
    let harmless = |page: Page, path: &str| {
        for bad in ["<script>alert", "<img", "</title></script>", "javascript:", "\u{202e}", "\u{1b}"] {
            assert!(!page.text.contains(bad), "{path}: {bad:?} in {}", page.text);
        }
    };
    wait_shows(&mut browser, "/", "Paused for").shows("&lt;script&gt;alert(1)");
    browser.get("/boxes/box-1").shows("&lt;script&gt;alert(1)");
    let blame = json!({ "box": "box-1", "reason": HOSTILE, "logs": HOSTILE });
    let paths = ["/".to_owned(), format!("/deploys/{id}"), "/releases/app/v1".into(), "/releases/app/v2".into()];
    let paths = [&paths[..], &["/boxes/box-1".to_owned(), "/boxes/box-2".to_owned()]].concat();
    for path in &paths {
        harmless(browser.get(path), path);
    }
    posted(&format!("/v1/deploys/{id}/broken"), &blame, 200);
    worker.comes_back(&id, &held, Phase::RolledBack, "v0");
    wait_shows(&mut browser, "/", "is broken");
    for path in &paths {
        let page = browser.get(path);
        assert_eq!(page.status, 200, "{path}");
        // A box that is back in service has nothing more to say.
        if path != "/boxes/box-1" {
            page.shows("&lt;script&gt;alert(1)");
        }
        harmless(page, path);
    }
    for path in ["/releases/app/%3Cscript%3Ealert(1)", "/boxes/%3Cscript%3Ealert(1)", "/deploys/%3Cscript%3Ealert(1)"] {
        harmless(browser.get(path), path);
    }
}
