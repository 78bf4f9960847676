//! The service's own records, in Redis under `PREFIX:service:…`: releases and marks, approvals, freezes, the audit log, what is
//! good where, what is open. What a deploy is and where its boxes stand is not here: that is the protocol's
//! ([`crate::coordination`]).
//!
//! Every change is one command or one transaction, so a service that is killed leaves no half of one.

mod approvals;
mod audit;
mod freezes;
mod history;
mod leases;
mod open;
mod releases;
mod sessions;
mod turns;

use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

pub use self::{
    history::CompleteDeploy,
    releases::Mark,
    sessions::Session,
    turns::{Notified, Unsent},
};
use crate::{
    config::Config,
    coordination::{Coordinator, RedisConnection, RedisServer},
    names::Place,
};

/// Connections that are kept open while nobody needs them.
const IDLE_CONNECTIONS: usize = 16;

/// The way to the records and to the places, for many threads: each act takes a connection for itself.
pub struct ServiceStore {
    server: RedisServer,
    idle: Mutex<Vec<RedisConnection>>,
    leases: leases::HeldLeases,
}

impl ServiceStore {
    /// Checks the URL; connects to nothing yet, since Redis may come later than the service.
    pub fn new(config: &Config) -> Result<Self> {
        Self::on(RedisServer::at(&config.redis_url()?, &config.redis_prefix)?)
    }

    /// The records in `server`.
    pub fn on(server: RedisServer) -> Result<Self> {
        Ok(Self { server, idle: Mutex::default(), leases: leases::HeldLeases::new()? })
    }

    /// Does something with a connection.
    fn with<T>(&self, act: impl FnOnce(&mut RedisConnection) -> Result<T>) -> Result<T> {
        let mut store = self.take();
        let done = act(&mut store);
        self.put_back(store);
        done
    }

    /// Does something at a place.
    pub fn at<T>(&self, place: &Place, act: impl FnOnce(&mut Coordinator) -> Result<T>) -> Result<T> {
        let mut locks = Coordinator::new(self.take(), place);
        let done = act(&mut locks);
        self.put_back(locks.into_store());
        done
    }

    fn take(&self) -> RedisConnection {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| self.server.connection())
    }

    fn put_back(&self, store: RedisConnection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(store);
        }
    }

    /// Whether Redis answers.
    pub fn ping(&self) -> Result<()> {
        self.with(|store| store.command(&["PING"]))
    }

    /// Whether Redis can be written, which a replica cannot.
    pub fn try_write(&self) -> Result<()> {
        let key = self.key("probe");
        self.with(|store| store.command(&["SET", &key, "1", "PX", "60000"]))
    }

    fn key(&self, name: &str) -> String {
        format!("{}:service:{name}", self.server.prefix())
    }
}

/// Reads a record of ours; one that cannot be read names its key.
fn read<T: serde::de::DeserializeOwned>(key: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).with_context(|| format!("the record in {key} is not what this version writes"))
}

fn write(record: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(record).context("cannot write a record")
}
