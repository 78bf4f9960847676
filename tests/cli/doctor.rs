//! `doctor` against real parts, in order and out of order.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{Output, Redis, Scope, SerfAgent, require, run};

const DEPLOYCTL: &str = env!("CARGO_BIN_EXE_deployctl");

fn doctor(scope: &Scope, config: &serde_json::Value) -> Output {
    let config = scope.file("config.json", &config.to_string());
    run(scope.command(DEPLOYCTL).args(["doctor", "--config"]).arg(config))
}

#[track_caller]
fn line<'a>(output: &'a Output, name: &str) -> &'a str {
    let found =
        output.stdout.lines().find(|line| line.get(4..).is_some_and(|rest| rest.starts_with(&format!("{name}:"))));
    found.unwrap_or_else(|| panic!("no line on {name} in {output}"))
}

#[test]
fn what_is_missing_is_named_with_its_remedy() {
    let scope = Scope::new();
    let nobody = "127.0.0.1:1";
    let output = doctor(
        &scope,
        &json!({
            "state_dir": scope.dir().join("state"), "redis_url": format!("redis://{nobody}/0"), "serf_rpc_addr": nobody,
            "service_url": format!("http://{nobody}"), "environment": "staging", "compose_dir": scope.dir(),
            "roles": {"app": {"load_balancers": []}},
        }),
    )
    .expect(1);
    for (name, remedy) in [
        ("redis", "redis_url"),
        ("service", "DEPLOYCTL_SERVICE_URL"),
        ("serf", "serf_rpc_addr"),
        ("app, compose file", "compose_file"),
    ] {
        let line = line(&output, name);
        assert!(line.starts_with('✗') && line.contains(remedy), "{line}");
    }
    assert!(line(&output, "state_dir").starts_with('✓'), "{output}");
    assert!(!scope.dir().join("state").exists(), "nothing is created");
    assert!(!output.stdout.contains('\u{1b}'), "colour without a terminal: {output}");
}

#[test]
fn a_damaged_journal_is_a_finding() {
    let scope = Scope::new();
    let state = scope.file("state/app.json", "{half");
    let roles = json!({"app": {"load_balancers": []}});
    let config = json!({ "state_dir": state.parent(), "environment": "staging", "roles": roles });
    let output = doctor(&scope, &config).expect(1);
    let line = line(&output, "app, journal");
    assert!(line.starts_with('✗') && line.contains("move it away"), "{line}");
}

#[test]
fn a_full_disk_is_a_finding() {
    let scope = Scope::new();
    let state = scope.subdir("state");
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&state)).ok();
    let output = doctor(&scope, &json!({ "state_dir": state, "roles": {"app": {"load_balancers": []}} }));
    run(Command::new("umount").arg(&state)).ok();
    let line = line(&output, "state_dir");
    assert!(line.starts_with('✗') && line.contains("is full"), "{line}");
}

#[test]
fn a_configuration_that_cannot_be_read_is_a_finding() {
    let scope = Scope::new();
    let output = doctor(&scope, &json!({"lock_tll": "15m"})).expect(1);
    assert!(line(&output, "configuration").contains("lock_tll"), "{output}");
}

#[test]
fn real_parts_are_looked_at() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let redis = Redis::start(&scope);
    let agent = SerfAgent::builder(&scope, "box-1").tag("images", "app,web").tag("environment", "staging").start();
    let output = doctor(
        &scope,
        &json!({
            "state_dir": scope.dir().join("state"), "redis_url": redis.url(), "serf_rpc_addr": agent.rpc_address(),
            "roles": {"app": {"load_balancers": []}},
        }),
    )
    .expect(1);
    for name in
        ["redis", "redis appendonly", "redis appendfsync", "redis maxmemory-policy", "serf", "serf tag environment"]
    {
        assert!(line(&output, name).starts_with('✓'), "{output}");
    }
    assert!(line(&output, "serf tag images, app").contains("1 live in staging"), "{output}");
    assert!(line(&output, "serf tag images, web").starts_with('✗'), "{output}");

    redis.command(&["CONFIG", "SET", "appendfsync", "everysec"]);
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let config = scope.dir().join("config.json");
    let output = run(scope.command(DEPLOYCTL).args(["doctor", "--config"]).arg(config)).expect(1);
    for (name, remedy) in [("redis appendfsync", "appendfsync always"), ("redis maxmemory-policy", "noeviction")] {
        let line = line(&output, name);
        assert!(line.starts_with('✗') && line.contains(remedy), "{line}");
    }
}

#[test]
fn a_program_that_never_answers_does_not_hold_it_up() {
    require!("serf");
    let scope = Scope::new();
    let agent = SerfAgent::builder(&scope, "box-1").tag("images", "app,web").tag("environment", "staging").start();
    let aws = scope.file("bin/aws", "#!/bin/sh\n[ \"$1\" = --version ] && echo aws-cli/2 || exec sleep 300\n");
    fs::set_permissions(&aws, fs::Permissions::from_mode(0o755)).unwrap();
    let balancers = json!([{"elb": {"name": "lb", "instance_id": "i-1"}}]);
    let config = json!({
        "state_dir": scope.dir().join("state"), "redis_url": "redis://127.0.0.1:1/0", "serf_rpc_addr": agent.rpc_address(),
        "service_url": "http://127.0.0.1:1", "environment": "staging", "compose_dir": scope.dir(), "compose": ["true"],
        "roles": {"app": {"load_balancers": balancers}, "web": {"load_balancers": balancers}},
    });
    let config = scope.file("config.json", &config.to_string());
    let path = format!("{}:{}", scope.dir().join("bin").display(), std::env::var("PATH").unwrap());
    let started = Instant::now();
    let mut command = scope.command(DEPLOYCTL);
    command.args(["doctor", "--config"]).arg(config).env("PATH", path).env("AWS_REGION", "eu-west-1");
    let output = run(&mut command).expect(1);
    assert!(started.elapsed() < Duration::from_secs(90), "{:?}", started.elapsed());
    assert!(line(&output, "app, load balancers").contains("no answer within"), "{output}");
}
