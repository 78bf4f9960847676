//! Real Serf agents.

use std::{net::TcpStream, path::PathBuf, process::Command, time::Duration};

use rustix::process::Signal;
use serde_json::{Map, Value, json};

use super::{
    command::run,
    free_port,
    process::Process,
    scope::Scope,
    wait::{wait_for, wait_until},
};

/// What an agent is started with; it can be started again.
#[derive(Debug)]
pub struct SerfBuilder {
    scope: Scope,
    name: String,
    address: String,
    port: u16,
    rpc_port: u16,
    tags: Map<String, Value>,
    join: Vec<String>,
    handlers: Vec<String>,
    environment: Vec<(String, String)>,
    config: Map<String, Value>,
}

impl SerfBuilder {
    fn new(scope: &Scope, name: &str) -> Self {
        Self {
            scope: scope.clone(),
            name: name.to_owned(),
            address: "127.0.0.1".to_owned(),
            port: free_port(),
            rpc_port: free_port(),
            tags: Map::new(),
            join: Vec::new(),
            handlers: Vec::new(),
            environment: Vec::new(),
            config: Map::new(),
        }
    }

    /// The loopback address it gossips on.
    pub fn address(mut self, address: &str) -> Self {
        address.clone_into(&mut self.address);
        self
    }

    pub fn tag(mut self, name: &str, value: &str) -> Self {
        self.tags.insert(name.to_owned(), value.into());
        self
    }

    /// An event handler, as Serf's configuration writes it: `user:deploy=/path/to/script`.
    pub fn handler(mut self, handler: &str) -> Self {
        self.handlers.push(handler.to_owned());
        self
    }

    /// A variable for the agent, and so for its handlers.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Joins this agent's cluster, at each start.
    pub fn join(mut self, other: &SerfAgent) -> Self {
        self.join.push(other.gossip_address());
        self
    }

    /// Keeps a snapshot, and catches up from it with what it missed while it was down.
    pub fn snapshot(self) -> Self {
        let path = self.scope.dir().join(format!("{}.snapshot", self.name));
        self.config("snapshot_path", path.to_str().unwrap().into()).config("rejoin_after_leave", true.into())
    }

    /// Anything else of Serf's configuration.
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config.insert(key.to_owned(), value);
        self
    }

    pub fn rpc_address(&self) -> String {
        format!("127.0.0.1:{}", self.rpc_port)
    }

    /// Starts the agent and waits until it answers.
    #[track_caller]
    pub fn start(self) -> SerfAgent {
        let mut agent = SerfAgent { spec: self, process: None };
        agent.resume();
        agent
    }
}

/// An agent. Dropped, it is killed.
#[derive(Debug)]
pub struct SerfAgent {
    spec: SerfBuilder,
    process: Option<Process>,
}

impl SerfAgent {
    pub fn builder(scope: &Scope, name: &str) -> SerfBuilder {
        SerfBuilder::new(scope, name)
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    pub fn rpc_address(&self) -> String {
        self.spec.rpc_address()
    }

    fn gossip_address(&self) -> String {
        format!("{}:{}", self.spec.address, self.spec.port)
    }

    /// A `serf` command that talks to this agent.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.spec.scope.command("serf");
        command.arg(args[0]).arg(format!("-rpc-addr={}", self.rpc_address())).args(&args[1..]);
        command
    }

    /// Sends a user event, each by itself.
    #[track_caller]
    pub fn event(&self, name: &str, payload: &str) {
        run(&mut self.command(&["event", "-coalesce=false", name, payload])).ok();
    }

    /// Names and states (`alive`, `left`, `failed`) of the members that this agent knows, sorted by name.
    #[track_caller]
    pub fn members(&self) -> Vec<(String, String)> {
        let listed = run(&mut self.command(&["members", "-format=json"])).ok().json();
        let text = |member: &Value, key: &str| member[key].as_str().unwrap_or_default().to_owned();
        let members = listed["members"].as_array().into_iter().flatten();
        let mut members: Vec<_> = members.map(|member| (text(member, "name"), text(member, "status"))).collect();
        members.sort();
        members
    }

    /// Waits until this agent sees a member in this state.
    #[track_caller]
    pub fn wait_member(&self, within: Duration, name: &str, state: &str) {
        wait_for(within, &format!("{} sees {name} as {state}", self.name()), || {
            let members = self.members();
            let found = members.iter().any(|member| member.0 == name && member.1 == state);
            if found { Ok(()) } else { Err(format!("{members:?}")) }
        });
    }

    /// Waits until this agent sees this many members alive.
    #[track_caller]
    pub fn wait_alive(&self, within: Duration, count: usize) {
        wait_for(within, &format!("{} sees {count} members alive", self.name()), || {
            let members = self.members();
            let alive = members.iter().filter(|member| member.1 == "alive").count();
            if alive == count { Ok(()) } else { Err(format!("{members:?}")) }
        });
    }

    /// Leaves the cluster in order (`left`); the agent ends.
    pub fn leave(&mut self) {
        self.process.as_ref().expect("the agent runs").signal(Signal::INT);
        self.process.take().unwrap().wait(Duration::from_secs(20));
    }

    /// SIGKILL: the others find out by themselves (`failed`).
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The agent is down, and what it misses it misses for good: it keeps no snapshot and asks for no replay.
    pub fn is_away(&mut self) {
        self.kill();
        for key in ["snapshot_path", "replay_on_join"] {
            self.spec.config.remove(key);
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.spec.scope.dir().join(format!("serf-{}.log", self.name()))).unwrap_or_default()
    }

    /// Starts the agent again, with what it had.
    #[track_caller]
    pub fn resume(&mut self) {
        let spec = &self.spec;
        assert!(self.process.is_none(), "agent {} runs already", spec.name);
        let mut command = spec.scope.command("serf");
        command.arg("agent").arg(format!("-config-file={}", self.write_config().display()));
        command.envs(spec.environment.iter().map(|(name, value)| (name, value)));
        let mut process = spec.scope.start(&format!("serf-{}", spec.name), &mut command);
        let rpc = self.rpc_address();
        process.wait_ready(Duration::from_secs(15), || TcpStream::connect(&rpc).is_ok());
        self.process = Some(process);
        if !self.spec.join.is_empty() {
            wait_until(Duration::from_secs(15), &format!("agent {} joins", self.spec.name), || {
                self.members().len() > 1
            });
        }
    }

    fn write_config(&self) -> PathBuf {
        let spec = &self.spec;
        let mut config = json!({
            "node_name": spec.name,
            "bind": self.gossip_address(),
            "rpc_addr": self.rpc_address(),
            // Timing for one machine: a dead member is noticed in about a second.
            "profile": "local",
            "log_level": "debug",
            "tags": spec.tags,
            "event_handlers": spec.handlers,
            "retry_join": spec.join,
            "retry_interval": "1s",
        });
        config.as_object_mut().unwrap().extend(spec.config.clone());
        spec.scope.file(&format!("serf-{}.json", spec.name), &config.to_string())
    }
}
