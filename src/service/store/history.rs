//! What was completely deployed at each place, newest first; what was promoted; and how many deploys ended how.
//!
//! A deploy's own record expires after 30 days. What a rollback goes back to, and what a promotion was made of, must
//! outlive it.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{ServiceStore, read, write};
use crate::{
    api::{Kind, State},
    names::{Place, Tag},
};

/// How many complete deploys of a place are kept.
const DEPLOYS_KEPT: isize = 100;

/// A complete deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompleteDeploy {
    /// The deploy's id.
    pub id: String,
    /// What has been good.
    pub tag: Tag,
    /// Rollbacks are never promoted.
    pub kind: Kind,
    /// Milliseconds since 1970.
    pub ended: i64,
    /// Whether it goes on to the next environment by itself: the configuration said so when it ended.
    pub promote: bool,
}

/// How many deploys of a place ended in a state, and how long they took together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Together, in milliseconds.
    pub took_ms: u64,
}

impl ServiceStore {
    /// Adds a complete deploy; again changes nothing.
    pub fn add_complete(&self, place: &Place, complete: &CompleteDeploy) -> Result<()> {
        let (key, text) = (self.complete_key(place), write(complete)?);
        self.with(|store| {
            store.with(|c| {
                redis::pipe()
                    .atomic()
                    .zadd(&key, &text, complete.ended)
                    .zremrangebyrank(&key, 0, -DEPLOYS_KEPT - 1)
                    .exec(c)
            })
        })
    }

    /// The complete deploys of `place`, newest first.
    pub fn complete(&self, place: &Place) -> Result<Vec<CompleteDeploy>> {
        let key = self.complete_key(place);
        let texts: Vec<String> = self.with(|store| store.command(&["ZREVRANGE", &key, "0", "-1"]))?;
        texts.iter().map(|text| read(&key, text)).collect()
    }

    /// The id of the last complete deploy that was promoted to `target`, or that will not be.
    pub fn promoted(&self, target: &Place) -> Result<Option<String>> {
        let key = self.key("promoted");
        self.with(|store| store.command(&["HGET", &key, &field(target)]))
    }

    /// Remembers that nothing more is to be promoted from the deploy `source` to `target`.
    pub fn set_promoted(&self, target: &Place, source: &str) -> Result<()> {
        let key = self.key("promoted");
        self.with(|store| store.command(&["HSET", &key, &field(target), source]))
    }

    /// Counts a deploy that has ended.
    pub fn count_end(&self, place: &Place, state: State, took_ms: i64) -> Result<()> {
        let (counts, times) = (self.key("ended"), self.key("ended:ms"));
        let field = format!("{}:{state}", field(place));
        self.with(|store| {
            store.with(|c| {
                redis::pipe().atomic().hincr(&counts, &field, 1).hincr(&times, &field, took_ms.max(0)).exec(c)
            })
        })
    }

    /// The deploys that have ended, by `ENV:ROLE:STATE`.
    pub fn tallies(&self) -> Result<BTreeMap<String, Tally>> {
        type Numbers = BTreeMap<String, u64>;
        let (counts, times) = (self.key("ended"), self.key("ended:ms"));
        let (counts, times): (Numbers, Numbers) =
            self.with(|store| store.with(|c| redis::pipe().atomic().hgetall(&counts).hgetall(&times).query(c)))?;
        let tally = |(field, count)| {
            let took_ms = times.get(&field).copied().unwrap_or_default();
            (field, Tally { count, took_ms })
        };
        Ok(counts.into_iter().map(tally).collect())
    }

    fn complete_key(&self, place: &Place) -> String {
        self.key(&format!("complete:{}", field(place)))
    }
}

/// A place in a key or a field.
pub(super) fn field(place: &Place) -> String {
    format!("{}:{}", place.environment, place.role)
}
