//! Real parts for tests: each on a free port, in a folder of its own, and ended when it is dropped.
//!
//! The main path meets no fakes: a test here runs real Serf agents, a real Redis, a registry, a Docker engine, the AWS
//! CLI and moto. [`Fleet`] puts them together; the rest serves it and may be used alone.

// Every test binary compiles this module and uses its own part of it; here a panic is how things fail.
#![allow(dead_code, unused_imports, unused_macros)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc, clippy::must_use_candidate)]

mod command;
mod docker;
mod fleet;
mod http;
mod images;
mod moto;
mod port;
mod process;
mod prometheus;
mod redis;
mod registry;
mod scope;
mod serf;
mod switchboard;
mod tools;
mod wait;

pub use self::{
    command::{Output, run, run_with_input},
    docker::Engine,
    fleet::{Box, Deploy, Fleet, FleetBuilder},
    http::Http,
    images::{Behaviour, Images},
    moto::{LoadBalancer, Moto, Sampler, TargetGroup},
    port::free_port,
    process::Process,
    prometheus::Prometheus,
    redis::Redis,
    registry::Registry,
    scope::{Running, Scope},
    serf::{SerfAgent, SerfBuilder},
    tools::{docker_config, path, program},
    wait::{wait_for, wait_until},
};

/// Ends the test when a program is missing: loudly skipped, or failed where `DEPLOYCTL_REQUIRE_ALL=1`.
macro_rules! require {
    ($($program:literal),+ $(,)?) => {
        if let Some(missing) = $crate::support::tools_missing(&[$($program),+]) {
            eprintln!("SKIPPED: needs {missing}; `make install-tools` installs it");
            return;
        }
    };
}
pub(crate) use require;

/// [`require!`] for everything that a fleet is made of.
macro_rules! require_fleet {
    () => {
        $crate::support::require!(
            "serf",
            "redis-server",
            "docker",
            "docker-compose",
            "docker compose",
            "docker-registry",
            "busybox",
            "aws",
            "moto_server",
        );
    };
}
pub(crate) use require_fleet;
pub(crate) use tools::missing as tools_missing;
