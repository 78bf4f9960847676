//! The handler of Serf's `user:deploy` event.

use std::{fs, process::Command, time::Duration};

use serde_json::json;

use crate::support::{Output, Scope, run_with_input, wait_for};

const DEPLOYCTL: &str = env!("CARGO_BIN_EXE_deployctl");
const SOON: Duration = Duration::from_secs(60);
const EVENT: &[u8] = br#"{"role":"app","environment":"staging"}"#;

/// `deployctl handle` as the agent of a box with these tags calls it.
fn handler(scope: &Scope, images: &str, environment: &str) -> Command {
    let mut command = scope.command(DEPLOYCTL);
    command
        .arg("handle")
        .env("SERF_EVENT", "user")
        .env("SERF_USER_EVENT", "deploy")
        .env("SERF_TAG_IMAGES", images)
        .env("SERF_TAG_ENVIRONMENT", environment);
    command
}

/// Like [`handler`], with a configuration that knows the role `app`.
fn configured(scope: &Scope) -> Command {
    let config = json!({
        "state_dir": scope.dir().join("state"), "log_dir": scope.dir().join("log"),
        "redis_url": "redis://127.0.0.1:1/0", "service_url": "http://127.0.0.1:1", "serf_rpc_addr": "127.0.0.1:1",
        "roles": {"app": {"load_balancers": []}},
    });
    let config = scope.file("config.json", &config.to_string());
    let mut command = handler(scope, "web,app", "staging");
    command.env("DEPLOYCTL_CONFIG", config);
    command
}

#[test]
fn a_foreign_event_needs_no_configuration_and_says_nothing() {
    let scope = Scope::new();
    for (images, environment) in [("web", "staging"), ("app", "production"), ("", ""), ("my-app,app2", "staging")] {
        let mut command = handler(&scope, images, environment);
        command.env("DEPLOYCTL_CONFIG", "/nowhere/config.json");
        let output = run_with_input(&mut command, EVENT).ok();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""), "{output}");
    }
}

#[test]
fn a_bad_payload_is_refused_in_one_line_and_touches_nothing() {
    let scope = Scope::new();
    let long = format!("{{\"role\":\"app\",\"environment\":\"staging\",\"x\":\"{}\"}}", "x".repeat(512));
    let payloads: [&[u8]; 12] = [
        b"",
        b"\xff\xfe",
        b"deploy app",
        b"[]",
        br#"{"role":"app"}"#,
        br#"{"role":"app","role":"app","environment":"staging"}"#,
        br#"{"role":"../x","environment":"staging"}"#,
        br#"{"role":"app;rm","environment":"staging"}"#,
        br#"{"role":".*","environment":"staging"}"#,
        br#"{"role":"app\nweb","environment":"staging"}"#,
        "{\"role\":\"\u{430}pp\",\"environment\":\"staging\"}".as_bytes(),
        long.as_bytes(),
    ];
    for payload in payloads {
        let output = run_with_input(&mut configured(&scope), payload);
        refused(&output);
        // Serf shows what a handler prints at its debug level only.
        let reason = output.stderr.trim_start_matches("deployctl: ").trim_end();
        let told = fs::read_to_string(scope.dir().join("log/handle.log")).unwrap();
        assert!(told.contains(reason), "{reason} is not in the log: {told}");
    }
    assert!(!scope.dir().join("state").exists(), "something was written into the state folder");
}

#[test]
fn a_bad_payload_needs_no_configuration() {
    let scope = Scope::new();
    let mut command = handler(&scope, "web", "production");
    command.env("DEPLOYCTL_CONFIG", "/nowhere/config.json");
    refused(&run_with_input(&mut command, b"{}"));
}

#[track_caller]
fn refused(output: &Output) {
    let output = output.clone().expect(2).one_line(&["payload"]);
    assert!(
        output.stderr.starts_with("deployctl: ") && !output.stderr.trim_end().contains(char::is_control),
        "{output}"
    );
}

#[test]
fn a_role_without_a_configuration_is_named() {
    let scope = Scope::new();
    let event = br#"{"role":"web","environment":"staging"}"#;
    run_with_input(&mut configured(&scope), event).expect(2).one_line(&["web", "\"roles\""]);
    assert!(!scope.dir().join("state/wake").exists(), "the event left a mark");
}

#[test]
fn a_matching_event_wakes_a_worker_that_has_nothing_of_the_agent() {
    let scope = Scope::new();
    // Were the worker to keep stdout or stderr open, this would wait for it.
    let output = run_with_input(&mut configured(&scope), EVENT).ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""), "{output}");
    // In a session of its own, it outlives whatever happens to the agent's.
    wait_for(SOON, "the worker has left the session", || {
        let running = scope.processes();
        let pid = running.iter().find(|running| running.line.contains("worker")).map(|running| running.pid);
        let pid = pid.ok_or_else(|| format!("no worker among {running:?}"))?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|error| error.to_string())?;
        // proc(5): the session is the fourth field after the name in brackets.
        let session = stat.rsplit(") ").next().and_then(|fields| fields.split(' ').nth(3)).unwrap_or_default();
        if session == pid.to_string() { Ok(()) } else { Err(format!("{pid} is in session {session}")) }
    });
    // It cannot get far here; what it says of it stands in its own log.
    let log = scope.dir().join("log/app.log");
    wait_for(SOON, "the worker logs", || match fs::read_to_string(&log) {
        Ok(text) if !text.is_empty() => Ok(()),
        Ok(_) => Err("an empty log".to_owned()),
        Err(error) => Err(error.to_string()),
    });
}
