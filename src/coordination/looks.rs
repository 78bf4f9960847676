//! Looks at load balancers, shared through Redis by all boxes of a place.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::json;

use super::{Coordinator, ms, new_token, scripts::Script};
use crate::load_balancer::{Asked, LookTurn, SharedLooks, TargetState, Targets};

/// The shortest time between the beginnings of two looks at one load balancer.
const GAP: Duration = Duration::from_secs(2);
/// How long a look may take before another box looks, too.
const LEASE: Duration = Duration::from_secs(10);
/// How long what was seen is kept.
const LOOKS_LIFE: Duration = Duration::from_secs(60);

/// On a connection of their own: a box may wait for several load balancers at once.
pub struct RedisLooks(Mutex<Coordinator>);

impl RedisLooks {
    /// Shares looks through the place of `coordinator`.
    #[must_use]
    pub fn new(coordinator: Coordinator) -> Self {
        Self(Mutex::new(coordinator))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Coordinator) -> Result<T>) -> Result<T> {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SharedLooks for RedisLooks {
    fn now(&self) -> Result<u64> {
        self.with(|coordinator| {
            let (seconds, micros): (u64, u64) = coordinator.store.command(&["TIME"])?;
            Ok(seconds * 1000 + micros / 1000)
        })
    }

    fn ask(&self, key: &str, since: u64, target: Option<&str>) -> Result<Asked> {
        let token = new_token()?;
        let args = json!({
            "key": key, "since": since, "target": target, "token": token, "gap": ms(GAP), "lease": ms(LEASE),
        });
        Ok(match self.with(|coordinator| coordinator.call(Script::Look, &args))? {
            Reply::Seen(seen) => {
                let state = |(target, text): (String, String)| Ok((target, serde_json::from_str(&text)?));
                Asked::Seen(seen.into_iter().map(state).collect::<Result<_>>().context("a shared look")?)
            }
            Reply::Look(begun) => Asked::Look(LookTurn { begun, token }),
            Reply::Wait(ms) => Asked::Wait(Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(GAP)),
        })
    }

    fn tell(&self, key: &str, turn: &LookTurn, seen: Option<&Targets>) -> Result<()> {
        let text = |(target, state): &(String, TargetState)| Ok((target.clone(), serde_json::to_string(state)?));
        let seen = seen.map(|seen| seen.iter().map(text).collect::<Result<HashMap<_, _>>>()).transpose()?;
        let args = json!({"key": key, "begun": turn.begun, "token": turn.token, "life": ms(LOOKS_LIFE), "seen": seen});
        self.with(|coordinator| coordinator.call::<serde_json::Value>(Script::Looked, &args)).map(drop)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    /// Target → state, as it was told.
    Seen(HashMap<String, String>),
    /// Milliseconds: when the look begins that the caller is to take.
    Look(u64),
    /// Milliseconds.
    Wait(f64),
}
