//! What a box needs to know of one of its roles.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::duration;

/// `roles.ROLE`: how a box runs and watches one role.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    /// The compose file; `<compose_dir>/<role>.yml` when absent.
    pub compose_file: Option<PathBuf>,
    /// The compose project; the role when absent.
    pub project: Option<String>,
    /// The compose service whose container is watched; the role when absent.
    pub compose_service: Option<String>,
    /// Everything that sends requests to this role. It has no default on purpose: a forgotten list would restart
    /// containers under traffic.
    pub load_balancers: Vec<LoadBalancer>,
    /// How to tell that the new container works.
    #[serde(default)]
    pub health: Health,
    /// A program that has the last word before the box returns to service.
    #[serde(default)]
    pub verify: Vec<String>,
    /// How many images of this role stay on the box, the current and the previous one always among them.
    #[serde(default = "keep_images")]
    pub keep_images: usize,
}

fn keep_images() -> usize {
    3
}

/// One entry of `load_balancers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LoadBalancer {
    /// A target group of an AWS application or network load balancer.
    Elbv2(Elbv2),
    /// A classic AWS load balancer.
    Elb(Elb),
    /// Anything else, by three programs.
    Command(CommandLb),
}

/// A target in a target group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elbv2 {
    /// The target group; its ARN also names the region.
    pub target_group_arn: String,
    /// An instance id or an IP address; `auto` asks the instance metadata service.
    #[serde(default = "auto")]
    pub target_id: String,
    /// The port of the target; the target group's own when absent.
    pub port: Option<u16>,
    /// How long to wait for the target to be `unused` after deregistration.
    #[serde(default = "drain", with = "duration")]
    pub drain: Duration,
}

/// An instance behind a classic load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elb {
    /// The load balancer's name.
    pub name: String,
    /// The instance id; `auto` asks the instance metadata service.
    #[serde(default = "auto")]
    pub instance_id: String,
    /// How long to wait for open connections after deregistration.
    #[serde(default = "drain", with = "duration")]
    pub drain: Duration,
}

/// Three argument lists that stand for a load balancer. It cannot count, so it has no floor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandLb {
    /// Puts the box in; exit code 0 when it is done.
    pub register: Vec<String>,
    /// Takes the box out and drains it; exit code 0 when it is done.
    pub deregister: Vec<String>,
    /// Exit code 0 when requests reach the box, 1 when they do not.
    pub in_service: Vec<String>,
}

fn auto() -> String {
    "auto".to_owned()
}

fn drain() -> Duration {
    Duration::from_secs(30)
}

/// How a new container proves itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// A URL that must answer with 2xx.
    pub url: Option<String>,
    /// The certificates to trust there instead of the machine's, PEM.
    pub ca_file: Option<PathBuf>,
    /// How long the container may take to become healthy.
    #[serde(default = "health_timeout", with = "duration")]
    pub timeout: Duration,
    /// How long it must then stay so.
    #[serde(default = "stable_for", with = "duration")]
    pub stable_for: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self { url: None, ca_file: None, timeout: health_timeout(), stable_for: stable_for() }
    }
}

fn health_timeout() -> Duration {
    Duration::from_secs(120)
}

fn stable_for() -> Duration {
    Duration::from_secs(5)
}
