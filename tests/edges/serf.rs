//! Two agents that know each other, one of them with a key.

use std::time::{Duration, Instant};

use deployctl::{
    names::Place,
    process::never,
    secret::Secret,
    serf::{MemberStatus, Serf},
};
use serde_json::json;

use crate::support::{Scope, SerfAgent, free_port, require, wait_until};

const SOON: Duration = Duration::from_secs(15);

fn place(environment: &str, role: &str) -> Place {
    Place { environment: environment.parse().unwrap(), role: role.parse().unwrap() }
}

fn of(agent: &SerfAgent) -> Serf {
    Serf { rpc_addr: agent.rpc_address(), rpc_auth: None }
}

#[test]
fn the_agent_tells_who_is_there() {
    require!("serf");
    let scope = Scope::new();
    let one = SerfAgent::builder(&scope, "one").tag("images", "api,web").tag("environment", "staging").start();
    let mut two =
        SerfAgent::builder(&scope, "two").tag("images", "web").tag("environment", "staging").join(&one).start();
    one.wait_alive(SOON, 2);
    let serf = of(&one);

    let local = serf.local_node(&never).unwrap();
    assert_eq!((local.name.as_str(), local.tags["images"].as_str()), ("one", "api,web"));
    let live = |place: &Place| {
        let mut live: Vec<String> =
            serf.members(&never).unwrap().into_iter().filter(|m| m.is_live_in(place)).map(|m| m.name).collect();
        live.sort();
        live
    };
    assert_eq!(live(&place("staging", "web")), ["one", "two"]);
    assert_eq!(live(&place("staging", "api")), ["one"]);
    assert!(live(&place("production", "web")).is_empty());

    two.kill();
    one.wait_member(SOON, "two", "failed");
    assert_eq!(live(&place("staging", "web")), ["one"]);
    let members = serf.members(&never).unwrap();
    assert!(members.iter().any(|m| m.name == "two" && m.status == MemberStatus::Failed), "{members:?}");
}

#[test]
fn an_event_arrives_and_an_overlong_one_is_refused() {
    require!("serf");
    let scope = Scope::new();
    let got = scope.dir().join("got");
    let handler = scope.script("handler", &format!("cat >>{}", got.display()));
    let agent = SerfAgent::builder(&scope, "one").handler(&format!("user:deploy={}", handler.display())).start();
    let payload = r#"{"role":"app","environment":"staging"}"#;
    of(&agent).event("deploy", payload, &never).unwrap();
    wait_until(SOON, "the handler has the payload", || {
        std::fs::read_to_string(&got).is_ok_and(|text| text.trim_end() == payload)
    });
    let error = of(&agent).event("deploy", &"x".repeat(600), &never).unwrap_err().to_string();
    assert!(error.contains("512 bytes"), "{error}");
}

#[test]
fn a_key_opens_the_agent_and_a_wrong_one_is_named() {
    require!("serf");
    let scope = Scope::new();
    let agent = SerfAgent::builder(&scope, "one").config("rpc_auth", json!("s3cret")).start();
    let with = |key: Option<&str>| Serf { rpc_addr: agent.rpc_address(), rpc_auth: key.map(Secret::new) };
    assert_eq!(with(Some("s3cret")).local_node(&never).unwrap().name, "one");
    for key in [None, Some("wr0ng")] {
        let error = format!("{:#}", with(key).members(&never).unwrap_err());
        assert!(error.contains("refuses our key") && error.contains("serf_rpc_auth_file"), "{error}");
        assert!(!error.contains("wr0ng"), "{error}");
    }
}

#[test]
fn an_agent_that_is_not_there_is_named() {
    require!("serf");
    let address = format!("127.0.0.1:{}", free_port());
    let serf = Serf { rpc_addr: address.clone(), rpc_auth: None };
    let error = serf.members(&never).unwrap_err().to_string();
    assert_eq!(error, format!("the Serf agent at {address} does not answer: start it, or set serf_rpc_addr"));
    // One that takes the call and says nothing: an interruption ends the wait.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let serf = Serf { rpc_addr: silent.local_addr().unwrap().to_string(), rpc_auth: None };
    let started = Instant::now();
    serf.local_node(&|| started.elapsed() > Duration::from_millis(300)).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}
