//! A service with a Redis of its own.

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};

use crate::support::{Http, Process, Redis, Scope, free_port};

pub const DEPLOYCTL: &str = env!("CARGO_BIN_EXE_deployctl");

/// A running service.
pub struct Service {
    pub process: Option<Process>,
    pub http: Http,
    pub port: u16,
    pub redis: Redis,
    config: PathBuf,
    pub scope: Scope,
}

impl Service {
    /// With these keys of the configuration beside the usual ones.
    pub fn start(scope: &Scope, extra: Value) -> Self {
        let redis = Redis::start(scope);
        let port = free_port();
        let mut config = json!({ "redis_url": redis.url(), "service": { "listen": format!("127.0.0.1:{port}") } });
        merge(&mut config, extra);
        let config = scope.file("service.json", &config.to_string());
        let http = Http::new(&format!("http://127.0.0.1:{port}"));
        let mut service = Self { process: None, http, port, redis, config, scope: scope.clone() };
        service.resume();
        service
    }

    /// Up again, after its process was killed or stopped.
    pub fn resume(&mut self) {
        let mut command = self.scope.command(DEPLOYCTL);
        command.arg("--config").arg(&self.config).arg("service");
        let mut process = self.scope.start("service", &mut command);
        let http = self.http.clone();
        process.wait_ready(Duration::from_secs(10), || http.try_get("/healthz").is_ok());
        self.process = Some(process);
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the service runs")
    }
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

/// The machine word of an error.
pub fn kind(body: &Value) -> &str {
    body["error"]["kind"].as_str().unwrap_or_default()
}
