//! Leases: work that one service does while another must not, such as telling people of an end.
//!
//! A lease lives for some seconds and is renewed while its holder lives. When that one is killed, another service (or
//! the same after its restart) takes the work up again.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;

use super::ServiceStore;
use crate::coordination::new_token;

/// How long a lease outlives its holder.
const LEASE_LIFE: Duration = Duration::from_secs(10);

/// Only the owner renews. One that ran out comes back while nobody else has it.
const RENEW: &str = "
local holder = redis.call('GET', KEYS[1])
if not holder or holder == ARGV[1] then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end";
/// Only the owner gives back.
const GIVE_BACK: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end";

/// What this process holds.
pub struct HeldLeases {
    /// Who this process is.
    me: String,
    names: Mutex<BTreeSet<String>>,
}

impl HeldLeases {
    pub fn new() -> Result<Self> {
        Ok(Self { me: new_token()?, names: Mutex::default() })
    }

    fn names(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServiceStore {
    /// Takes a lease, unless somebody holds it. What this process is at it does not take up again, also where the lease
    /// has run out meanwhile: the process was paused, or Redis was away.
    pub fn lease(&self, name: &str) -> Result<bool> {
        if self.leases.names().contains(name) {
            return Ok(false);
        }
        let (key, life) = (self.lease_key(name), LEASE_LIFE.as_millis().to_string());
        let taken: Option<String> =
            self.with(|store| store.command(&["SET", &key, &self.leases.me, "NX", "PX", &life]))?;
        if taken.is_some() {
            self.leases.names().insert(name.to_owned());
        }
        Ok(taken.is_some())
    }

    /// Gives a lease back.
    pub fn give_back(&self, name: &str) -> Result<()> {
        self.leases.names().remove(name);
        let key = self.lease_key(name);
        self.with(|store| {
            store.with(|connection| redis::Script::new(GIVE_BACK).key(&key).arg(&self.leases.me).invoke(connection))
        })
    }

    /// Whether this process holds any.
    pub fn has_leases(&self) -> bool {
        !self.leases.names().is_empty()
    }

    /// Prolongs what this process holds. To be called well within the life of a lease.
    pub fn renew_leases(&self) -> Result<()> {
        let names = self.leases.names().clone();
        let life = LEASE_LIFE.as_millis().to_string();
        names.iter().try_for_each(|name| {
            let key = self.lease_key(name);
            self.with(|store| {
                store.with(|connection| {
                    redis::Script::new(RENEW).key(&key).arg(&self.leases.me).arg(&life).invoke(connection)
                })
            })
        })
    }

    /// Who this process is, for others.
    pub fn me(&self) -> &str {
        &self.leases.me
    }

    fn lease_key(&self, name: &str) -> String {
        self.key(&format!("lease:{name}"))
    }
}
