//! How a fleet is made.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

use super::{
    Box, DEPLOYCTL, ENVIRONMENT, Engine, Fleet, Images, Moto, ROLE, Redis, Registry, Scope, SerfAgent, TargetGroup,
    node::project,
};
use crate::support::{free_port, switchboard};

/// What a fleet should be like.
#[derive(Debug)]
pub struct FleetBuilder {
    /// The environment of each box.
    boxes: Vec<String>,
    roles: Vec<String>,
    compose: Vec<String>,
    private_engine: bool,
    switchboard: bool,
    /// The zones that boxes are in, in turn.
    zones: Vec<String>,
    config: Value,
    service: Value,
}

impl Default for FleetBuilder {
    fn default() -> Self {
        Self {
            boxes: Vec::new(),
            roles: vec![ROLE.to_owned()],
            // A twentieth of the processor time that version 1 takes; a test for which that matters says so.
            compose: vec!["docker".to_owned(), "compose".to_owned()],
            private_engine: false,
            switchboard: false,
            zones: Vec::new(),
            config: json!({}),
            service: json!({}),
        }
    }
}

impl FleetBuilder {
    /// This many boxes more, in `staging`.
    pub fn boxes(self, count: usize) -> Self {
        self.boxes_in(ENVIRONMENT, count)
    }

    /// This many boxes more, in another environment.
    pub fn boxes_in(mut self, environment: &str, count: usize) -> Self {
        self.boxes.extend(std::iter::repeat_n(environment.to_owned(), count));
        self
    }

    /// The roles of every box, instead of `app`.
    pub fn roles(mut self, roles: &[&str]) -> Self {
        self.roles = roles.iter().map(|role| (*role).to_owned()).collect();
        self
    }

    /// The compose program, instead of version 2.
    pub fn compose(mut self, program: &[&str]) -> Self {
        self.compose = program.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// An engine of the fleet's own, which a test may restart.
    pub fn private_engine(mut self) -> Self {
        self.private_engine = true;
        self
    }

    /// A load balancer of files instead of AWS's, for fleets of one role: see [`Box::in_service`] and [`Box::stop_at`].
    pub fn switchboard(mut self) -> Self {
        self.switchboard = true;
        self
    }

    /// The boxes are in these zones, in turn.
    pub fn zones(mut self, zones: &[&str]) -> Self {
        self.zones = zones.iter().map(|zone| (*zone).to_owned()).collect();
        self
    }

    /// Keys of every box's configuration, beside or instead of the usual ones.
    pub fn config(mut self, config: Value) -> Self {
        merge(&mut self.config, config);
        self
    }

    /// Keys of the configuration's `service` part: `{"roles": {"app": {"auto_promote": true}}}`.
    pub fn service(mut self, service: Value) -> Self {
        merge(&mut self.service, service);
        self
    }

    /// Starts everything. No box serves anything yet, and no target is registered.
    pub fn start(self) -> Fleet {
        let scope = Scope::new();
        let engine = if self.private_engine { Engine::private(&scope) } else { Engine::shared() };
        let redis = Redis::start(&scope);
        let registry = Registry::start(&scope);
        let moto = (!self.switchboard).then(|| Moto::start(&scope));
        let images = Images::new(&engine, &scope);
        let hub = SerfAgent::builder(&scope, "hub").start();
        let service_port = free_port();
        let groups = moto.as_ref().map(|moto| self.target_groups(moto)).unwrap_or_default();
        let service_config = self.service_config(&scope, &redis, &hub, service_port);
        let mut fleet = Fleet {
            boxes: Vec::new(),
            redis,
            registry,
            moto,
            hub,
            engine,
            images,
            groups,
            service: None,
            service_config,
            service_url: format!("http://127.0.0.1:{service_port}"),
            scope,
        };
        for (index, environment) in self.boxes.iter().enumerate() {
            fleet.boxes.push(self.node(&fleet, index, environment));
        }
        fleet.hub.wait_alive(super::PATIENCE, self.boxes.len() + 1);
        fleet.start_service();
        fleet
    }

    fn target_groups(&self, moto: &Moto) -> BTreeMap<String, TargetGroup> {
        let names =
            self.boxes.iter().flat_map(|environment| self.roles.iter().map(|role| group_name(role, environment)));
        let names: std::collections::BTreeSet<String> = names.collect();
        names.into_iter().map(|name| (name.clone(), moto.target_group(&name, "ip"))).collect()
    }

    fn service_config(&self, scope: &Scope, redis: &Redis, hub: &SerfAgent, port: u16) -> std::path::PathBuf {
        let mut config = json!({
            "redis_url": redis.url(),
            "serf_rpc_addr": hub.rpc_address(),
            "service": { "listen": format!("127.0.0.1:{port}") },
        });
        merge(&mut config["service"], self.service.clone());
        // The two must not differ about when a lock has expired.
        if let Some(ttl) = self.config.get("lock_ttl") {
            config["lock_ttl"] = ttl.clone();
        }
        scope.file("service.json", &format!("{config:#}"))
    }

    /// A box, with its agent running.
    fn node(&self, fleet: &Fleet, index: usize, environment: &str) -> Box {
        let (name, address) = (format!("box-{}", index + 1), format!("127.0.0.{}", index + 11));
        let dir = fleet.scope.subdir(&name);
        let mut sites = BTreeMap::new();
        let mut roles = json!({});
        for role in &self.roles {
            let port = free_port();
            sites.insert(role.clone(), format!("http://{address}:{port}"));
            let image = fleet.image(role, "${DEPLOY_TAG:?}");
            let compose = compose_file(role, &image, &format!("{address}:{port}"), &dir.join("host"));
            fleet.scope.file(&format!("{name}/compose/{role}.yml"), &compose);
            roles[role] = json!({
                "project": project(&fleet.scope, &name, role),
                "health": { "url": format!("http://{address}:{port}/health"), "timeout": "20s", "stable_for": "1s" },
            });
            let balanced = if self.switchboard {
                switchboard::configuration(&fleet.scope, &dir)
            } else {
                let arn = fleet.target_group_in(role, environment).arn();
                let target = json!({ "target_group_arn": arn, "target_id": address, "port": port, "drain": "2s" });
                json!({ "load_balancers": [{ "elbv2": target }] })
            };
            merge(&mut roles[role], balanced);
        }
        let agent = SerfAgent::builder(&fleet.scope, &name)
            .address(&address)
            .tag("images", &self.roles.join(","))
            .tag("environment", environment)
            .handler(&format!("user:deploy={DEPLOYCTL} handle"))
            .config("replay_on_join", true.into())
            .snapshot()
            .join(&fleet.hub);
        let zone = self.zones.get(index % self.zones.len().max(1));
        let agent = zone.iter().fold(agent, |agent, zone| agent.tag("zone", zone));
        let mut config = json!({
            "redis_url": fleet.redis.url(),
            "service_url": fleet.service_url,
            "serf_rpc_addr": agent.rpc_address(),
            "compose": self.compose,
            "compose_dir": dir.join("compose"),
            "state_dir": dir.join("state"),
            "log_dir": dir.join("log"),
            "poll_interval": "1s",
            "command_timeout": "60s",
            "stop_grace": "20s",
            "roles": roles,
        });
        // What is said of one role is meant for that role of every box.
        merge(&mut config, self.config.clone());
        let file = fleet.scope.file(&format!("{name}/config.json"), &format!("{config:#}"));
        for folder in ["state", "log", "host"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }

        let mut environment = vec![
            ("DEPLOYCTL_CONFIG".to_owned(), file.display().to_string()),
            ("AWS_ACCESS_KEY_ID".to_owned(), "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), "test".to_owned()),
        ];
        environment.extend(fleet.moto.as_ref().map(|moto| ("AWS_ENDPOINT_URL".to_owned(), moto.url())));
        environment.extend(fleet.engine.host().map(|host| ("DOCKER_HOST".to_owned(), host.to_owned())));
        let agent = environment.iter().fold(agent, |agent, (name, value)| agent.env(name, value)).start();
        Box { agent, scope: fleet.scope.clone(), dir, environment, sites, address }
    }
}

/// Target groups are named after what is in them.
pub fn group_name(role: &str, environment: &str) -> String {
    format!("{role}-{environment}")
}

/// Docker's own bridge for all: a network for each project would run out of addresses.
fn compose_file(role: &str, image: &str, publish: &str, host: &Path) -> String {
    format!(
        r#"version: "2.4"
services:
  {role}:
    image: {image}
    network_mode: bridge
    restart: unless-stopped
    ports: ["{publish}:8080"]
    volumes: ["{host}:/host:ro"]
    environment:
      SECRET_KEY: correct-horse-battery-staple
"#,
        host = host.display()
    )
}

/// Puts `more` into `into`: objects key by key, anything else as it is.
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
