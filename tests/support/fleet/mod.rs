//! A whole fleet on one machine: boxes, the deployment service, and everything they need.
//!
//! ```ignore
//! let fleet = Fleet::builder().boxes(6).start();
//! fleet.deployed("v1");
//! let watch = fleet.target_group("app").sample();
//! fleet.publish("v2", Behaviour::Good);
//! fleet.start("v2").wait_deployed();
//! watch.never_fewer_than(4);
//! fleet.all_serve("v2");
//! fleet.at_rest();
//! ```
//!
//! A box is a Serf agent with an address (127.0.0.11, …), a configuration, a state folder and compose projects of its
//! own; all boxes share one Docker engine. A method without a role means `app`, one without an environment `staging`.

mod builder;
mod deploy;
mod node;

use std::{collections::BTreeMap, path::PathBuf, process::Command, time::Duration};

use serde_json::Value;

pub use self::{builder::FleetBuilder, deploy::Deploy, node::Box};
use super::{
    Behaviour, Engine, Http, Images, Moto, Output, Process, Redis, Registry, Scope, SerfAgent, TargetGroup, run,
    wait_for,
};

/// The binary under test.
pub const DEPLOYCTL: &str = env!("CARGO_BIN_EXE_deployctl");

/// The role and the environment that a fleet has when nobody says otherwise.
pub const ROLE: &str = "app";
pub const ENVIRONMENT: &str = "staging";

/// Longer than any single deploy of a test takes on a busy machine with two cores.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Everything that takes part in deploys. Parts are public: tests stop and start them.
#[derive(Debug)]
pub struct Fleet {
    pub boxes: Vec<Box>,
    pub redis: Redis,
    pub registry: Registry,
    /// None behind a switchboard.
    pub moto: Option<Moto>,
    /// The Serf agent of the service's host.
    pub hub: SerfAgent,
    pub engine: Engine,
    pub scope: Scope,
    images: Images,
    groups: BTreeMap<String, TargetGroup>,
    service: Option<Process>,
    service_config: PathBuf,
    service_url: String,
}

impl Fleet {
    pub fn builder() -> FleetBuilder {
        FleetBuilder::default()
    }

    /// The box with this number, from 1: `box-1`.
    pub fn node(&self, number: usize) -> &Box {
        &self.boxes[number - 1]
    }

    pub fn node_mut(&mut self, number: usize) -> &mut Box {
        &mut self.boxes[number - 1]
    }

    /// The box with this name.
    pub fn named(&self, name: &str) -> &Box {
        self.boxes.iter().find(|node| node.name() == name).unwrap_or_else(|| panic!("no box {name}"))
    }

    pub fn named_mut(&mut self, name: &str) -> &mut Box {
        self.boxes.iter_mut().find(|node| node.name() == name).unwrap_or_else(|| panic!("no box {name}"))
    }

    /// The machine of a box loses its power.
    pub fn power_cut(&mut self, name: &str) {
        let Self { boxes, engine, .. } = self;
        boxes.iter_mut().find(|node| node.name() == name).unwrap_or_else(|| panic!("no box {name}")).dies(engine);
    }

    /// The target group of a role in `staging`; see [`Fleet::target_group_in`].
    pub fn target_group(&self, role: &str) -> &TargetGroup {
        self.target_group_in(role, ENVIRONMENT)
    }

    pub fn target_group_in(&self, role: &str, environment: &str) -> &TargetGroup {
        &self.groups[&builder::group_name(role, environment)]
    }

    /// `host:port/role:tag`
    pub fn image(&self, role: &str, tag: &str) -> String {
        format!("{}/{role}:{tag}", self.registry.host())
    }

    // --- what CI does

    /// Builds and pushes an image of `app`, and tells the service.
    pub fn publish(&self, tag: &str, behaviour: Behaviour) {
        self.publish_role(ROLE, tag, behaviour);
    }

    pub fn publish_role(&self, role: &str, tag: &str, behaviour: Behaviour) {
        self.push(role, tag, behaviour);
        self.deployctl(&["publish", "-r", role, "-t", tag]).ok();
    }

    /// Builds and pushes an image; the service does not hear of it.
    pub fn push(&self, role: &str, tag: &str, behaviour: Behaviour) {
        self.images.push(&self.engine, &self.image(role, tag), behaviour);
    }

    // --- what a person does, on a machine that has the service's address and nothing else

    /// Starts a deploy of `app` in `staging`.
    pub fn start(&self, tag: &str) -> Deploy {
        self.start_with(ROLE, ENVIRONMENT, &["-t", tag])
    }

    /// Starts a deploy with these further arguments.
    pub fn start_with(&self, role: &str, environment: &str, arguments: &[&str]) -> Deploy {
        self.deployctl(&[&["start", "-r", role, "-e", environment], arguments].concat()).ok();
        self.newest_deploy(role, environment)
    }

    /// Publishes a good release of `app`, deploys it to `staging` and waits for the end.
    pub fn deployed(&self, tag: &str) {
        self.publish(tag, Behaviour::Good);
        self.start(tag).wait_deployed();
    }

    /// The deploy that was started last.
    pub fn newest_deploy(&self, role: &str, environment: &str) -> Deploy {
        let query = format!("/v1/deploys?role={role}&environment={environment}&limit=1");
        let (_, answer) = self.http().get(&query);
        let id = answer["deploys"][0]["id"].as_str().unwrap_or_else(|| panic!("no deploy of {role}: {answer}"));
        Deploy { scope: self.scope.clone(), service_url: self.service_url.clone(), id: id.to_owned() }
    }

    /// Runs `deployctl` as a person on a laptop does.
    pub fn deployctl(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments))
    }

    /// [`Fleet::deployctl`], not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.scope.command(DEPLOYCTL);
        command.args(arguments).env("DEPLOYCTL_SERVICE_URL", &self.service_url);
        command
    }

    /// The service's API.
    pub fn http(&self) -> Http {
        Http::new(&self.service_url)
    }

    pub fn service_url(&self) -> &str {
        &self.service_url
    }

    // --- what happens to the service

    /// SIGKILL.
    pub fn kill_service(&mut self) {
        self.service = None;
    }

    /// Starts the service, again or for the first time.
    pub fn start_service(&mut self) {
        assert!(self.service.is_none(), "the service runs already");
        let config = self.service_config.clone();
        self.service = Some(self.spawn_service("service", &config));
        let http = self.http();
        let service = self.service.as_mut().unwrap();
        service.wait_ready(Duration::from_secs(20), || matches!(http.try_get("/healthz"), Ok((200, _))));
    }

    /// Starts a service process with a configuration of its own, besides the fleet's; it ends when it is dropped.
    pub fn spawn_service(&self, name: &str, config: &std::path::Path) -> Process {
        let mut command = self.scope.command(DEPLOYCTL);
        command.arg("service").env("DEPLOYCTL_CONFIG", config);
        self.scope.start(name, &mut command)
    }

    /// Where the service's configuration is.
    pub fn service_config(&self) -> &std::path::Path {
        &self.service_config
    }

    pub fn service_log(&self) -> String {
        self.service.as_ref().map(Process::log).unwrap_or_default()
    }

    // --- what is there to see

    /// The tag that each box's container of `app` tells over HTTP; "" where none answers.
    pub fn serving(&self) -> Vec<String> {
        self.boxes.iter().map(|node| node.serves(ROLE).unwrap_or_default()).collect()
    }

    /// Fails unless every box serves this tag of `app` and is in its target group, or in service by its switchboard.
    #[track_caller]
    pub fn all_serve(&self, tag: &str) {
        assert_eq!(self.serving(), vec![tag; self.boxes.len()], "what the boxes serve");
        let in_groups: usize = self.groups.values().map(|group| group.registered().len()).sum();
        let registered = in_groups + self.boxes.iter().filter(|node| node.in_service()).count();
        let expected: usize = self.boxes.iter().map(|node| node.roles().count()).sum();
        assert_eq!(registered, expected, "boxes in service, of all roles");
    }

    /// Fails unless no lock is held and no box is out, anywhere.
    #[track_caller]
    pub fn at_rest(&self) {
        wait_for(Duration::from_secs(5), "no lock is held and no box is out", || {
            let keys = self.redis.keys("*:lock:*");
            let out: Vec<_> = self.redis.keys("*}:out").into_iter().map(|key| self.redis.hash(&key)).collect();
            let none_out = out.iter().all(BTreeMap::is_empty);
            if keys.is_empty() && none_out { Ok(()) } else { Err(format!("locks {keys:?}, out {out:?}")) }
        });
    }

    /// The release of `app` with this tag, as the service tells it.
    #[track_caller]
    pub fn release(&self, tag: &str) -> Value {
        let (_, answer) = self.http().get("/v1/releases?role=app");
        let found = answer["releases"].as_array().into_iter().flatten().find(|release| release["tag"] == tag);
        found.unwrap_or_else(|| panic!("no release {tag} in {answer}")).clone()
    }
}
