//! The buttons: who has them, what they ask, what they do.

use std::process::Command;

use serde_json::{Value, json};

use super::browser::{Browser, Page};
use crate::service::setup::{SOON, Service, token};
use crate::support::{Scope, require, wait_for};

const BOXES: [(&str, &str); 2] = [("staging", "box-1"), ("production", "box-2")];

fn with_people() -> Service {
    let people = [
        token("ann", &["read", "publish", "start", "cancel", "unlock", "box"]),
        token("sam", &["read"]),
        token("kim", &["cancel:staging"]),
    ];
    let app = json!({ "environments": ["staging", "production"] });
    let config = json!({ "service": { "tokens": people, "roles": { "app": app } } });
    let mut service = Service::with_boxes(&Scope::new(), &BOXES, config);
    service.http = service.http.with_token("ann");
    service
}

/// Sends the form of a button, filled in, from the overview.
fn press(browser: &mut Browser, action: &str, fields: &[(&str, &str)]) -> Page {
    let form_token = browser.get("/").field("form_token");
    let fields = [&[("form_token", form_token.as_str()), ("back", "/")], fields].concat();
    browser.submit(&format!("/actions/{action}"), &fields)
}

#[track_caller]
fn done(page: &Page) {
    assert_eq!((page.status, page.header("location")), (303, "/"), "{page:?}");
}

fn audited(service: &Service, action: &str) -> Value {
    let (_, body) = service.http.get("/v1/audit?limit=100");
    let found = body["entries"].as_array().unwrap().iter().find(|entry| entry["action"] == action);
    found.unwrap_or_else(|| panic!("no {action} in {body}")).clone()
}

#[test]
fn a_cancel_by_button_works_and_names_the_token() {
    require!("redis-server", "serf");
    let service = with_people();
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    let mut kim = Browser::signed_in(&service, "kim");
    let page = kim.get("/");
    page.shows("action=\"/actions/cancel\"");
    page.shows("action=\"/actions/pause\"");
    page.hides("action=\"/actions/freeze\"");
    assert_eq!(press(&mut kim, "cancel", &[("id", &id)]).status, 400, "a reason is missing");
    done(&press(&mut kim, "cancel", &[("id", &id), ("reason", "errors go up")]));
    service.wait_state(&id, "cancelled");
    let entry = audited(&service, "cancel");
    assert_eq!((&entry["by"], &entry["detail"]), (&json!("kim"), &json!("errors go up")), "{entry}");
    kim.get("/").hides("action=\"/actions/cancel\"");
    let late = press(&mut kim, "cancel", &[("id", &id), ("reason", "again")]);
    assert_eq!(late.status, 409);
    late.shows("has ended already");
}

#[test]
fn a_trusted_proxy_names_its_users() {
    require!("redis-server");
    let proxy = |address: &str| json!({ "addresses": [address], "header": "X-Forwarded-User" });
    let people = [token("ops", &["start"])];
    let config = json!({ "service": { "tokens": people, "trusted_proxy": proxy("127.0.0.1") } });
    let mut service = Service::start(&Scope::new(), config);
    service.http = service.http.with_token("ops");
    let freeze = [("environment", "staging"), ("reason", "x")];
    let frozen_by = |service: &Service, users: &[&str]| {
        let mut browser = Browser::signed_in(service, "ops");
        browser.headers = users.iter().map(|user| ("X-Forwarded-User", (*user).to_owned())).collect();
        done(&press(&mut browser, "freeze", &freeze));
        audited(service, "freeze")["by"].clone()
    };
    assert_eq!(frozen_by(&service, &["kim@acme"]), "ops (kim@acme)");
    assert_eq!(frozen_by(&service, &["eve", "kim@acme"]), "ops", "one of two may be anybody's");
    assert_eq!(Browser::new(&service).get("/").status, 303, "a name is no session");
    service.configure(json!({ "service": { "trusted_proxy": proxy("10.0.0.1") } }));
    service.process = None;
    service.resume();
    assert_eq!(frozen_by(&service, &["kim@acme"]), "ops");
}

#[test]
fn a_visitor_without_rights_has_no_button_and_is_refused() {
    require!("redis-server", "serf");
    let service = with_people();
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    let mut sam = Browser::signed_in(&service, "sam");
    let page = sam.get("/");
    page.shows(&id);
    page.hides("/actions/");
    sam.get(&format!("/deploys/{id}")).hides("/actions/");
    let place = [("role", "app"), ("environment", "staging"), ("reason", "x")];
    for action in ["cancel", "pause", "resume"] {
        assert_eq!(press(&mut sam, action, &[("id", &id), ("reason", "x")]).status, 403, "{action}");
    }
    let with_box = [&place[..], &[("box", "box-1"), ("confirm", "production")]].concat();
    for action in ["rollback", "promote", "freeze", "unfreeze", "unlock"] {
        assert_eq!(press(&mut sam, action, &with_box).status, 403, "{action}");
    }
    assert_eq!(press(&mut sam, "destroy", &place).status, 404);
    assert_eq!(service.deploy(&id)["state"], "rolling");
    let mut kim = Browser::signed_in(&service, "kim");
    let production = service.start_deploy("production", json!({ "tag": "v1" }));
    let fields = [("id", production.as_str()), ("reason", "x"), ("confirm", "production")];
    assert_eq!(press(&mut kim, "cancel", &fields).status, 403, "another environment");
    let form = [("form_token", ""), ("id", &id), ("reason", "x")];
    assert_eq!(kim.submit("/actions/cancel", &form).status, 403, "no form of theirs");
}

#[test]
fn the_last_environment_wants_its_name() {
    require!("redis-server", "serf");
    let service = with_people();
    let mut ann = Browser::signed_in(&service, "ann");
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    service.complete("staging", &id, &["box-1"]);
    service.wait_state(&id, "deployed");
    wait_for(SOON, "the promotion is offered", || {
        let page = ann.get("/");
        if page.text.contains("Promote v1 to production") { Ok(()) } else { Err(page.text) }
    });
    let place = [("role", "app"), ("environment", "staging"), ("reason", "it is good")];
    for confirm in ["", "staging", "Production"] {
        let refused = press(&mut ann, "promote", &[&place[..], &[("confirm", confirm)]].concat());
        assert_eq!(refused.status, 400, "{confirm}");
        refused.shows("type production to confirm");
    }
    done(&press(&mut ann, "promote", &[&place[..], &[("confirm", "production")]].concat()));
    let entry = audited(&service, "promote");
    assert_eq!((&entry["by"], &entry["environment"]), (&json!("ann"), &json!("production")), "{entry}");
    let page = ann.get("/");
    page.hides("Promote v1 to production");
    page.shows("pattern=\"production\"");
}

#[test]
fn every_other_button_does_what_its_command_does() {
    require!("redis-server", "serf");
    let service = with_people();
    let mut ann = Browser::signed_in(&service, "ann");
    let place = [("role", "app"), ("environment", "staging"), ("reason", "why not")];
    for tag in ["v1", "v2"] {
        service.publish(tag);
        let id = service.start_deploy("staging", json!({ "tag": tag }));
        service.complete("staging", &id, &["box-1"]);
        service.wait_state(&id, "deployed");
    }
    let v2 = service.wait_newer("staging", "");
    done(&press(&mut ann, "rollback", &place));
    let back = service.wait_newer("staging", &v2);
    assert_eq!((&service.deploy(&back)["tag"], &service.deploy(&back)["kind"]), (&json!("v1"), &json!("rollback")));

    let of_deploy = [("id", back.as_str()), ("reason", "lunch")];
    done(&press(&mut ann, "pause", &of_deploy));
    assert_eq!(service.deploy(&back)["pause"]["reason"], "lunch");
    done(&press(&mut ann, "resume", &of_deploy));
    assert_eq!(service.deploy(&back)["pause"], Value::Null);

    let environment = [("environment", "staging"), ("reason", "holidays"), ("hours", "2")];
    done(&press(&mut ann, "freeze", &environment));
    let (_, body) = service.http.get("/v1/freezes");
    assert!(body["freezes"][0]["until"].is_string() && body["freezes"][0]["role"].is_null(), "{body}");
    let page = ann.get("/");
    page.shows("holidays");
    page.shows("action=\"/actions/unfreeze\"");
    done(&press(&mut ann, "unfreeze", &environment));
    assert_eq!(service.http.get("/v1/freezes").1["freezes"], json!([]));

    let out = json!({ "deploy": "app.staging.old", "token": "t", "since": 1, "renewed": 1 }).to_string();
    let key = "deployctl:{staging:app}:out";
    let set = Command::new("redis-cli").args(["-u", &service.redis.url(), "HSET", key, "box-9", &out]).status();
    assert!(set.unwrap().success());
    wait_for(SOON, "the box that stays out can be unlocked", || {
        let page = ann.get("/");
        if page.text.contains("action=\"/actions/unlock\"") { Ok(()) } else { Err(page.text) }
    });
    done(&press(&mut ann, "unlock", &[&place[..], &[("box", "box-9")]].concat()));
    assert_eq!(audited(&service, "unlock")["detail"], "box-9: why not");
    let (_, locks) = service.http.get("/v1/locks?role=app&environment=staging");
    assert_eq!(locks["out"], json!([]), "{locks}");
}
