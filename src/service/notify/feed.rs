//! The turns for programs that watch. One thread reads them from Redis, whichever service has written them down, however
//! many watch.

use std::{sync::Arc, thread, time::Duration};

use anyhow::{Context as _, Result};

use crate::service::{
    Service,
    http::{Feed, Item},
};
use crate::{
    api::Turn,
    names::{Environment, Role},
};

/// Between two looks.
const FEED_INTERVAL: Duration = Duration::from_millis(500);
/// How many turns are read at once.
const PAGE: usize = 500;

/// What a turn is about, for who may read it and who wants to.
#[derive(Debug)]
pub struct About {
    /// Where.
    pub environment: Environment,
    /// Of what; none: of everything there.
    pub role: Option<Role>,
}

/// Everybody who watches.
pub type Turns = Feed<About>;

/// Tells those who watch of each turn that is new; returns when the service stops.
pub fn run(service: &Arc<Service>) {
    // What was there before is told to nobody: who watches asks for it from Redis.
    let mut last = 0;
    while !service.is_stopping() {
        let outcome = service.pass_on(last).map(|newest| last = newest);
        service.log_once("events", outcome);
        thread::sleep(FEED_INTERVAL);
    }
}

impl Service {
    /// Tells of the turns after the number `last`; answers the newest one's.
    fn pass_on(&self, mut last: u64) -> Result<u64> {
        loop {
            let items = self.turns_as_told(last, PAGE)?;
            let Some(newest) = items.last().map(|item| item.number) else { return Ok(last) };
            last = newest;
            for item in items {
                self.turns.tell(item);
            }
        }
    }

    /// Turns as they are told, after a number, oldest first.
    pub fn turns_as_told(&self, number: u64, most: usize) -> Result<Vec<Item<About>>> {
        self.store.turns_after(number, most)?.into_iter().map(|(number, turn)| item(number, &turn)).collect()
    }
}

fn item(number: u64, turn: &Turn) -> Result<Item<About>> {
    let about = About { environment: turn.environment.clone(), role: turn.role.clone() };
    let data = serde_json::to_string(turn).context("cannot write a turn")?;
    Ok(Item { number, event: turn.turn.as_str(), data, about })
}
