//! How Redis is, for `/healthz`.
//!
//! A Redis that hangs must not hold the answer up: a load balancer that asks would take the service for dead, and everybody
//! who asks at once would wait for everybody else. So one thread asks Redis, for all who want to know at that moment, and
//! they wait for it no longer than [`PING_TIMEOUT`].

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use super::store::ServiceStore;

/// How long an answer may take before Redis counts as absent.
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// What is asked of Redis, and what it said last.
#[derive(Debug, Default)]
pub struct RedisHealth {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many have asked.
    asked: u64,
    /// How many of them an answer is for.
    answered: u64,
    said: &'static str,
}

impl RedisHealth {
    /// `ok`, `unreachable`, or `cannot be written` (a replica after a failover, a full disk).
    pub fn ask(&self) -> &'static str {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked += 1;
        let mine = state.asked;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(state, PING_TIMEOUT, |state| state.answered < mine);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() { "unreachable" } else { state.said }
    }

    /// Asks Redis whenever somebody wants to know; never returns.
    pub fn run(&self, store: &ServiceStore) {
        loop {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self.changed.wait_while(state, |state| state.asked == state.answered);
            let asked = waited.unwrap_or_else(PoisonError::into_inner).asked;
            let said = probe(store);
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.answered, state.said) = (asked, said);
            drop(state);
            self.changed.notify_all();
        }
    }
}

fn probe(store: &ServiceStore) -> &'static str {
    if store.ping().is_err() {
        "unreachable"
    } else if store.try_write().is_err() {
        "cannot be written"
    } else {
        "ok"
    }
}
