//! Who this box is, and how it reaches what its configuration names.

use std::{env, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::shutdown::Shutdown;
use crate::{
    compose::DeployVars,
    config::{Config, LoadBalancer},
    coordination::{Coordinator, RedisConnection},
    load_balancer::{Auto, LoadBalancers, Setting},
    metadata::Metadata,
    names::{BoxName, Environment, Place},
    retry::retrying,
    serf::Serf,
};

/// How long a Serf agent may take to start.
const AGENT: Duration = Duration::from_secs(30);

/// This box, by its configuration and its Serf agent.
pub struct Identity {
    /// Its name.
    pub name: BoxName,
    /// Its environment.
    pub environment: Environment,
    /// The roles that its Serf tags name; empty where the agent was not asked.
    pub images: String,
}

/// The Serf agent that `config` names.
pub fn serf(config: &Config) -> Result<Serf> {
    Ok(Serf { rpc_addr: config.serf_rpc_addr.clone(), rpc_auth: config.serf_rpc_auth()? })
}

/// The load balancers of a role on this box, with what their programs are told.
pub fn balancers(
    config: &Config,
    entries: &[LoadBalancer],
    vars: &DeployVars,
    interrupted: &(dyn Fn() -> bool + Sync),
) -> Result<LoadBalancers> {
    let metadata = Metadata::new(|name| env::var(name).ok());
    let auto = |what: Auto| match what {
        Auto::InstanceId => metadata.instance_id(),
        Auto::LocalIpv4 => metadata.local_ipv4(),
        Auto::Region => metadata.region(),
    };
    let variables = vars.pairs();
    let setting = Setting { auto: &auto, variables: &variables, command_timeout: config.command_timeout };
    LoadBalancers::resolve(entries, &setting, interrupted)
}

/// Finds out who this box is. Waits for an agent that is still starting.
pub fn identify(config: &Config, shutdown: &Shutdown) -> Result<Identity> {
    let serf = serf(config)?;
    let interrupted = || shutdown.requested();
    let node = retrying(AGENT, &interrupted, |_| true, || serf.local_node(&interrupted))?;
    let name = match &config.box_name {
        Some(name) => name.clone(),
        None => node.name.parse().context("the Serf node name; write another as \"box\"")?,
    };
    let environment = match (&config.environment, node.tags.get("environment")) {
        (Some(environment), _) => environment.clone(),
        (None, Some(tag)) => tag.parse().context("the Serf tag environment")?,
        (None, None) => bail!("this box has no environment: set the Serf tag environment, or \"environment\""),
    };
    let images = node.tags.get("images").cloned().unwrap_or_default();
    Ok(Identity { name, environment, images })
}

/// The keys of `place` in the Redis that `config` names. Nothing is sent yet.
pub(super) fn coordinator(config: &Config, place: &Place) -> Result<Coordinator> {
    Ok(Coordinator::new(RedisConnection::new(&config.redis_url()?, &config.redis_prefix)?, place))
}
