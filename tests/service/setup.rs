//! A service with a Redis of its own; and where members matter, with Serf agents and boxes that a test plays.

use std::{fs, time::Duration};

use deployctl::{
    api::Phase,
    coordination::{AcquireReply, Coordinator, Finish, Held, JoinReply, LeaveReply, RedisConnection, new_token},
    names::{Place, Zones},
    secret::Secret,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Http, Process, Redis, Scope, SerfAgent, free_port, wait_for};

pub const DEPLOYCTL: &str = env!("CARGO_BIN_EXE_deployctl");
/// How long anything here may take that a service does at once.
pub const SOON: Duration = Duration::from_secs(15);
const LOCK_TTL: Duration = Duration::from_secs(60);

/// A running service.
pub struct Service {
    pub process: Option<Process>,
    pub http: Http,
    pub port: u16,
    pub redis: Redis,
    pub agents: Vec<SerfAgent>,
    pub scope: Scope,
    config: Value,
}

impl Service {
    /// With these keys of the configuration beside the usual ones.
    pub fn start(scope: &Scope, extra: Value) -> Self {
        Self::with_boxes(scope, &[], extra)
    }

    /// With an agent for each box, `(environment, name)`, of the role `app`; the events that reach it are written to
    /// `NAME.events`.
    pub fn with_boxes(scope: &Scope, boxes: &[(&str, &str)], extra: Value) -> Self {
        let redis = Redis::start(scope);
        let port = free_port();
        let mut config = json!({ "redis_url": redis.url(), "service": { "listen": format!("127.0.0.1:{port}") } });
        let mut agents = Vec::new();
        if !boxes.is_empty() {
            agents.push(SerfAgent::builder(scope, "hub").start());
            config["serf_rpc_addr"] = agents[0].rpc_address().into();
        }
        merge(&mut config, extra);
        let http = Http::new(&format!("http://127.0.0.1:{port}"));
        let mut service = Self { process: None, http, port, redis, agents, config, scope: scope.clone() };
        for (environment, name) in boxes {
            service.add_box(environment, name);
        }
        service.resume();
        service
    }

    /// One more box.
    pub fn add_box(&mut self, environment: &str, name: &str) {
        self.add_box_with(environment, name, &[]);
    }

    /// One more box, with these Serf tags beside the usual ones.
    pub fn add_box_with(&mut self, environment: &str, name: &str, tags: &[(&str, &str)]) {
        let events = self.scope.dir().join(format!("{name}.events"));
        let handler = self.scope.script(&format!("{name}.handler"), &format!("cat >>{}", events.display()));
        let builder = SerfAgent::builder(&self.scope, name).tag("images", "web,app").tag("environment", environment);
        let agent = tags
            .iter()
            .fold(builder, |builder, (tag, value)| builder.tag(tag, value))
            .handler(&format!("user:deploy={}", handler.display()))
            .join(&self.agents[0])
            .start();
        self.agents.push(agent);
        self.agents[0].wait_alive(SOON, self.agents.len());
    }

    /// The events that a box got, oldest first.
    pub fn events(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.scope.dir().join(format!("{name}.events"))).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Up again, after its process was killed or stopped.
    pub fn resume(&mut self) {
        self.process = Some(self.another(self.port));
    }

    /// A service process on the same Redis, at a port of its own.
    pub fn another(&self, port: u16) -> Process {
        self.another_by(port, &[])
    }

    /// The same, started by another program (`prlimit --nofile=512:512`, say).
    pub fn another_by(&self, port: u16, launcher: &[&str]) -> Process {
        let mut config = self.config.clone();
        config["service"]["listen"] = format!("127.0.0.1:{port}").into();
        let file = self.scope.file(&format!("service-{port}.json"), &config.to_string());
        let words: Vec<&str> = launcher.iter().copied().chain([DEPLOYCTL]).collect();
        let mut command = self.scope.command(words[0]);
        command.args(&words[1..]).arg("--config").arg(file).arg("service");
        let mut process = self.scope.start(&format!("service-{port}"), &mut command);
        let http = Http::new(&format!("http://127.0.0.1:{port}"));
        process.wait_ready(SOON, || http.try_get("/healthz").is_ok());
        process
    }

    /// Another configuration from the next start on.
    pub fn configure(&mut self, extra: Value) {
        merge(&mut self.config, extra);
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the service runs")
    }

    #[track_caller]
    pub fn publish(&self, tag: &str) {
        assert_eq!(self.http.post("/v1/releases", &json!({ "role": "app", "tag": tag })).0, 201);
    }

    /// Starts a deploy, and gives its id.
    #[track_caller]
    pub fn start_deploy(&self, environment: &str, more: Value) -> String {
        let mut body = json!({ "role": "app", "environment": environment });
        merge(&mut body, more);
        let (status, deploy) = self.http.post("/v1/deploys", &body);
        assert_eq!(status, 202, "{body}: {deploy}");
        id(&deploy)
    }

    /// Posts a body that must be refused, and gives status and machine word.
    #[track_caller]
    pub fn refused(&self, path: &str, body: &Value) -> (u16, String) {
        let (status, answer) = self.http.post(path, body);
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(status >= 400 && !message.is_empty() && !message.contains('\n'), "{path} {body}: {answer}");
        (status, kind(&answer).to_owned())
    }

    #[track_caller]
    pub fn deploy(&self, id: &str) -> Value {
        let (status, deploy) = self.http.get(&format!("/v1/deploys/{id}"));
        assert_eq!(status, 200, "{id}: {deploy}");
        deploy
    }

    /// Waits until a deploy stands so.
    #[track_caller]
    pub fn wait_state(&self, id: &str, state: &str) -> Value {
        wait_for(SOON, &format!("{id} becomes {state}"), || {
            let deploy = self.deploy(id);
            if deploy["state"] == state { Ok(deploy) } else { Err(deploy) }
        })
    }

    /// Waits until a place has a newer deploy than `id`, and gives its id.
    #[track_caller]
    pub fn wait_newer(&self, environment: &str, than: &str) -> String {
        wait_for(SOON, &format!("something newer than {than} in {environment}"), || {
            let (_, body) = self.http.get(&format!("/v1/deploys?role=app&environment={environment}&limit=1"));
            match body["deploys"][0]["id"].as_str() {
                Some(id) if id != than => Ok(id.to_owned()),
                _ => Err(body),
            }
        })
    }

    #[track_caller]
    pub fn release(&self, tag: &str) -> Value {
        let (_, body) = self.http.get("/v1/releases?role=app");
        body["releases"].as_array().unwrap().iter().find(|release| release["tag"] == tag).expect("a release").clone()
    }

    /// The actions in the audit log about a deploy, oldest first.
    #[track_caller]
    pub fn audit(&self, id: &str) -> Vec<String> {
        let (_, body) = self.http.get("/v1/audit?limit=1000");
        let entries = body["entries"].as_array().unwrap().iter().rev().filter(|entry| entry["deploy"] == id);
        entries.map(|entry| entry["action"].as_str().unwrap().to_owned()).collect()
    }

    /// The part of a box in a deploy, played by the test.
    pub fn worker(&self, environment: &str, name: &str) -> Worker {
        let place = Place { environment: environment.parse().unwrap(), role: "app".parse().unwrap() };
        let store = RedisConnection::new(&Secret::new(self.redis.url()), "deployctl").unwrap();
        Worker { name: name.to_owned(), locks: Coordinator::new(store, &place) }
    }

    /// All boxes of a deploy take their turn, and the last one tells the service.
    #[track_caller]
    pub fn complete(&self, environment: &str, id: &str, boxes: &[&str]) -> Value {
        let tag = self.deploy(id)["tag"].as_str().unwrap().to_owned();
        for name in boxes {
            self.worker(environment, name).deploys(id, &tag);
        }
        let (status, deploy) = self.http.post(&format!("/v1/deploys/{id}/complete"), &json!({ "box": boxes[0] }));
        assert_eq!(status, 200, "{deploy}");
        deploy
    }
}

/// A box.
pub struct Worker {
    name: String,
    pub locks: Coordinator,
}

impl Worker {
    #[track_caller]
    pub fn joins(&mut self, id: &str) {
        let joined = self.locks.join(&self.name.parse().unwrap(), id, &[], &Zones::new(), false, None).unwrap();
        assert!(matches!(joined, JoinReply::Seated { .. }), "{joined:?}");
    }

    /// Takes a lock, which it may have to wait for, and leaves the load balancer.
    #[track_caller]
    pub fn goes_out(&mut self, id: &str) -> Held {
        let (name, token) = (self.name.parse().unwrap(), new_token().unwrap());
        let times = (LOCK_TTL, Duration::ZERO);
        let suffix = wait_for(SOON, &format!("{name} gets a lock"), || {
            match self.locks.acquire(&name, id, &token, times, None, None).unwrap() {
                AcquireReply::Granted { granted, .. } => Ok(granted),
                other => Err(format!("{other:?}")),
            }
        });
        let held = Held { suffix, token };
        let left = self.locks.leave(&name, id, &held, LOCK_TTL, None, &[]).unwrap();
        assert!(matches!(left, LeaveReply::Left { .. }), "{left:?}");
        held
    }

    /// What it is told to wait for, if it may not have a lock.
    pub fn waits_for(&mut self, id: &str) -> Option<String> {
        let times = (LOCK_TTL, Duration::ZERO);
        let reply = self.locks.acquire(&self.name.parse().unwrap(), id, &new_token().unwrap(), times, None, None);
        match reply.unwrap() {
            AcquireReply::Wait { wait, .. } => Some(wait),
            _ => None,
        }
    }

    /// Comes back in service with `tag`, in this last phase.
    pub fn comes_back(&mut self, id: &str, held: &Held, phase: Phase, tag: &str) {
        let tag = tag.parse().unwrap();
        let finish = Finish { phase: Some(phase), running: Some(tag), in_service: true, ..Finish::default() };
        self.locks.finish(&self.name.parse().unwrap(), id, Some(held), &finish).unwrap();
    }

    /// The whole part, from the event to the end.
    #[track_caller]
    pub fn deploys(&mut self, id: &str, tag: &str) {
        self.joins(id);
        let held = self.goes_out(id);
        self.comes_back(id, &held, Phase::Done, tag);
    }
}

/// Puts what `more` has into `into`, deeply.
pub fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

/// The id of a deploy.
pub fn id(deploy: &Value) -> String {
    deploy["id"].as_str().expect("a deploy").to_owned()
}

/// The machine word of an error.
pub fn kind(body: &Value) -> &str {
    body["error"]["kind"].as_str().unwrap_or_default()
}

/// A token whose text is its name.
pub fn token(name: &str, can: &[&str]) -> Value {
    use std::fmt::Write;
    let sha256 = Sha256::digest(name.as_bytes()).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    json!({ "name": name, "sha256": sha256, "can": can })
}
