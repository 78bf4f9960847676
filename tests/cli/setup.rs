//! A service with a Redis and one Serf agent that a deploy expects and whose worker never comes: such a deploy rolls for
//! as long as a test wants.

use std::{process::Command, time::Duration};

use serde_json::json;

use crate::support::{Http, Output, Process, Redis, Scope, SerfAgent, free_port, run, wait_until};

pub const DEPLOYCTL: &str = env!("CARGO_BIN_EXE_deployctl");

pub struct Setup {
    pub scope: Scope,
    pub redis: Redis,
    pub url: String,
    service: Option<Process>,
    _agent: SerfAgent,
}

impl Setup {
    /// Up, with the releases v1 and v2 of `app` published.
    pub fn start() -> Self {
        let scope = Scope::new();
        let redis = Redis::start(&scope);
        let agent = SerfAgent::builder(&scope, "box-1").tag("images", "app").tag("environment", "staging").start();
        let port = free_port();
        let config = json!({
            "redis_url": redis.url(), "serf_rpc_addr": agent.rpc_address(),
            "service": {"listen": format!("127.0.0.1:{port}"), "roles": {"app": {"environments": ["staging", "production"]}}},
        });
        scope.file("service.json", &config.to_string());
        let url = format!("http://127.0.0.1:{port}");
        let mut setup = Self { scope, redis, url, service: None, _agent: agent };
        setup.start_service();
        for tag in ["v1", "v2"] {
            setup.deployctl(&format!("publish -r app -t {tag}")).ok();
        }
        setup
    }

    pub fn start_service(&mut self) {
        let mut command = self.scope.command(DEPLOYCTL);
        command.args(["service", "--config", "service.json"]);
        let mut service = self.scope.start("service", &mut command);
        let http = Http::new(&self.url);
        service.wait_ready(Duration::from_secs(20), || matches!(http.try_get("/healthz"), Ok((200, _))));
        self.service = Some(service);
    }

    pub fn kill_service(&mut self) {
        self.service = None;
    }

    /// As a person on a laptop runs it, with the words of `line`.
    pub fn deployctl(&self, line: &str) -> Output {
        run(&mut self.command(line))
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = self.scope.command(DEPLOYCTL);
        command.args(line.split_whitespace()).env("DEPLOYCTL_SERVICE_URL", &self.url).env("USER", "kirt");
        command
    }

    /// In the background, its output in `NAME.log`.
    pub fn background(&self, name: &str, line: &str) -> Process {
        self.scope.start(name, &mut self.command(line))
    }
}

/// Waits until what `process` wrote contains `text`.
#[track_caller]
pub fn wait_said(process: &Process, text: &str) {
    wait_until(Duration::from_secs(30), &format!("{text:?} is said"), || process.log().contains(text));
}

/// Waits for the end of `process` by itself, and answers its exit code.
#[track_caller]
pub fn exit_code(process: &mut Process, within: Duration) -> Option<i32> {
    process.wait(within);
    process.code()
}
