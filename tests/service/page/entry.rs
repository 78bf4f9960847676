//! Who gets in, from where, and how they leave.

use std::process::Command;

use serde_json::json;

use super::browser::Browser;
use crate::service::setup::{DEPLOYCTL, Service, token};
use crate::support::{Scope, require, run};

fn with_a_reader(scope: &Scope) -> Service {
    Service::start(scope, json!({ "service": { "tokens": [token("reader", &["read"])] } }))
}

#[test]
fn a_token_becomes_a_session_and_stays_nowhere() {
    require!("redis-server");
    let scope = Scope::new();
    let mut service = with_a_reader(&scope);
    let mut browser = Browser::new(&service);
    let asked = browser.get("/");
    assert_eq!((asked.status, asked.header("location")), (303, "/login?next=/"));
    browser.get("/login").shows("Paste a token");

    let wrong = browser.submit("/login", &[("token", "guess"), ("next", "/")]);
    assert_eq!(wrong.status, 401);
    wrong.shows("This token is not known");
    assert!(browser.cookies.is_empty(), "{:?}", browser.cookies);

    let entered = browser.submit("/login", &[("token", " reader "), ("next", "/deploys/app.staging.1")]);
    assert_eq!((entered.status, entered.header("location")), (303, "/deploys/app.staging.1"));
    let cookie = entered.header("set-cookie");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(part) && !cookie.contains("reader"), "{cookie}");
    }
    let page = browser.get("/");
    assert_eq!(page.status, 200);
    page.shows("reader");
    let id = browser.cookies.values().next().unwrap().clone();
    let kept = redis(&service, &["KEYS", "deployctl:service:session:*"]);
    assert_eq!(kept.lines().count(), 1, "{kept}");
    let (value, left) = (redis(&service, &["GET", kept.trim()]), redis(&service, &["PTTL", kept.trim()]));
    assert!(!kept.contains(&id) && value.contains("reader") && !value.contains(&id), "{kept} {value}");
    assert!((1..=43_200_000).contains(&left.trim().parse::<u64>().unwrap()), "{left}");
    let log = service.process().log();
    assert!(log.contains("refused 127.0.0.1") && !log.contains("guess") && !log.contains(&id), "{log}");
}

fn redis(service: &Service, words: &[&str]) -> String {
    let url = service.redis.url();
    let output = Command::new("redis-cli").args(["-u", &url]).args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_session_ends_by_leaving_and_with_its_token() {
    require!("redis-server");
    let mut service = with_a_reader(&Scope::new());
    let mut browser = Browser::signed_in(&service, "reader");
    let stolen = browser.cookies.clone();
    let form_token = browser.get("/").field("form_token");
    assert_eq!(browser.submit("/logout", &[("form_token", &form_token)]).status, 303);
    assert!(browser.cookies.is_empty(), "{:?}", browser.cookies);
    browser.cookies = stolen;
    assert_eq!(browser.get("/").status, 303, "the cookie is worth nothing any more");

    let mut browser = Browser::signed_in(&service, "reader");
    let other = json!({ "name": "reader", "sha256": "ab".repeat(32), "can": ["read"] });
    service.configure(json!({ "service": { "tokens": [other] } }));
    service.process = None;
    service.resume();
    assert_eq!(browser.get("/").status, 303, "another token has the name");
}

#[test]
fn the_page_answers_under_its_own_name_only() {
    require!("redis-server");
    let scope = Scope::new();
    let mut service = with_a_reader(&scope);
    let mut browser = Browser::new(&service);
    browser.host = "evil.example:8700".to_owned();
    for path in ["/", "/login", "/style.css", "/events"] {
        let page = browser.get(path);
        assert_eq!(page.status, 403, "{path}");
        page.shows("service.public_url");
    }
    assert_eq!(browser.submit("/login", &[("token", "reader")]).status, 403);

    service.configure(json!({ "service": { "public_url": "https://deploys.internal" } }));
    service.process = None;
    service.resume();
    let mut browser = Browser::new(&service);
    let here = browser.get("/");
    assert_eq!(here.status, 403);
    here.shows("this page is at https://deploys.internal");
    (browser.host, browser.scheme) = ("deploys.internal".to_owned(), "https");
    let entered = browser.submit("/login", &[("token", "reader")]);
    let cookie = entered.header("set-cookie");
    assert!(cookie.starts_with("__Host-deployctl=") && cookie.contains("Secure"), "{cookie}");
    assert_eq!(browser.get("/").status, 200);

    let config = scope.file("clear.json", r#"{"service": {"public_url": "http://deploys.internal"}}"#);
    let refused = run(scope.command(DEPLOYCTL).arg("--config").arg(config).arg("service"));
    assert_eq!(refused.code, Some(2), "{refused}");
}

#[test]
fn what_other_pages_send_is_refused() {
    require!("redis-server");
    let service = with_a_reader(&Scope::new());
    let mut browser = Browser::signed_in(&service, "reader");
    let own = format!("http://{}", browser.host);
    let form_token = browser.get("/").field("form_token");
    for (origin, form_token) in [
        (Some("https://evil.example"), form_token.as_str()),
        (Some("null"), &form_token),
        (None, &form_token),
        (Some(own.as_str()), ""),
        (Some(own.as_str()), &"0".repeat(64)),
    ] {
        let refused = browser.submit_from(origin, "/logout", &[("form_token", form_token)]);
        assert_eq!(refused.status, 403, "{origin:?} {form_token}");
    }
    let login = browser.submit_from(Some("https://evil.example"), "/login", &[("token", "reader")]);
    assert_eq!(login.status, 403, "nobody signs a browser in from elsewhere");
    assert_eq!(browser.get("/").status, 200, "still signed in");

    browser.cookies.clear();
    browser.headers = vec![("Sec-Fetch-Site", "cross-site".to_owned())];
    let followed = browser.get("/deploys/app.staging.1");
    assert_eq!(followed.status, 200, "a link from elsewhere comes without the cookie: the page asks for itself");
    followed.shows("url=/deploys/app.staging.1");
}

#[test]
fn without_tokens_the_page_is_open_and_forms_still_carry_a_token() {
    require!("redis-server");
    let service = Service::start(&Scope::new(), json!({}));
    let mut browser = Browser::new(&service);
    let page = browser.get("/");
    assert_eq!(page.status, 200);
    page.shows("this host only");
    assert_eq!(browser.cookies.len(), 1, "{:?}", browser.cookies);
    assert_eq!(browser.submit("/logout", &[]).status, 403);
    assert_eq!(browser.get("/login").header("location"), "/");
}

#[test]
fn every_answer_of_the_page_forbids_what_it_does_not_need() {
    require!("redis-server");
    let service = Service::start(&Scope::new(), json!({}));
    let mut browser = Browser::new(&service);
    for path in ["/", "/style.css", "/live.js", "/login", "/deploys/app.staging.none"] {
        let page = browser.get(path);
        let policy = page.header("content-security-policy");
        for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'self'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert_eq!(page.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(page.header("cache-control"), "no-store", "{path}");
        assert_eq!(page.header("referrer-policy"), "same-origin", "{path}");
        page.hides("style=\"");
        page.hides("onclick");
    }
}
