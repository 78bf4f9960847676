//! `doctor` against real parts, in order and out of order.

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
    assert!(!output.stdout.contains('\u{1b}'), "colour without a terminal: {output}");
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
