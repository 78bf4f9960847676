//! The service without threads and sockets, for who drives it step by step: the simulation of the tests.

use std::{sync::Arc, time::Duration};

use anyhow::Result;

use super::{
    Service,
    http::Request,
    members::{Fleet, Gossip},
    routes,
    store::ServiceStore,
};
use crate::{config::Config, coordination::RedisServer};

/// One process of the service, in which nothing happens but what is called.
pub struct Stepwise(Arc<Service>);

impl Stepwise {
    /// A service that has just started.
    pub fn new(config: Config, redis: RedisServer, gossip: impl Gossip + 'static) -> Result<Self> {
        let fleet = Fleet::of(gossip, &config.zone_tag);
        let service = Service::new(config, ServiceStore::on(redis)?, fleet)?;
        Ok(Self(Arc::new(Service { is_stepwise: true, ..service })))
    }

    /// One round of the watch, with the work that threads would do.
    pub fn tick(&self) -> Result<()> {
        self.0.tick(Duration::ZERO)
    }

    /// Prolongs the leases of this process, as its heartbeat does.
    pub fn renew_leases(&self) -> Result<()> {
        self.0.store.renew_leases()
    }

    /// Answers a call of the API: the status, and the JSON.
    #[must_use]
    pub fn answer(&self, method: &str, path: &[&str], query: &[(&str, &str)], body: &[u8]) -> (u16, String) {
        let response = routes::answer(&self.0, &Request::call(method, path, query, body));
        (response.status, response.body().to_owned())
    }
}
