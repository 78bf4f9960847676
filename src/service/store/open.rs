//! What is not over: the deploys that have begun and whose end has not been followed up, and the places that are known.
//!
//! A place is written down before anything begins there, a deploy's id before it can end; it is taken away after everything
//! that its end asks for was done. So a service that is killed in between finds it again.

use std::time::Duration;

use anyhow::Result;

use super::{ServiceStore, history::field};
use crate::names::Place;

impl ServiceStore {
    /// Deploys may begin at a place.
    pub fn know(&self, place: &Place) -> Result<()> {
        let key = self.key("places");
        self.with(|store| store.command(&["SADD", &key, &field(place)]))
    }

    /// A deploy goes on: its end will have to be followed up.
    pub fn open(&self, id: &str) -> Result<()> {
        let key = self.key("open");
        self.with(|store| store.command(&["SADD", &key, id]))
    }

    /// The deploys that are not over.
    pub fn all_open(&self) -> Result<Vec<String>> {
        let key = self.key("open");
        self.with(|store| store.command(&["SMEMBERS", &key]))
    }

    /// Whether the end of a deploy has still to be followed up.
    pub fn is_open(&self, id: &str) -> Result<bool> {
        let key = self.key("open");
        self.with(|store| store.command(&["SISMEMBER", &key, id]))
    }

    /// A deploy is over, and nothing is left to do.
    pub fn close(&self, id: &str) -> Result<()> {
        let key = self.key("open");
        self.with(|store| store.command(&["SREM", &key, id]))
    }

    /// Every place where a deploy ever began.
    pub fn places(&self) -> Result<Vec<Place>> {
        let key = self.key("places");
        let mut fields: Vec<String> = self.with(|store| store.command(&["SMEMBERS", &key]))?;
        fields.sort();
        let place = |text: &String| {
            let (environment, role) = text.split_once(':')?;
            Some(Place { environment: environment.parse().ok()?, role: role.parse().ok()? })
        };
        Ok(fields.iter().filter_map(place).collect())
    }

    /// Whether it is this caller's turn to send the event of a deploy: at most once in `pause`, by whichever service.
    pub fn may_send(&self, id: &str, pause: Duration) -> Result<bool> {
        let (key, pause) = (self.key(&format!("event:{id}")), pause.as_millis().to_string());
        let set: Option<String> = self.with(|store| store.command(&["SET", &key, "sent", "NX", "PX", &pause]))?;
        Ok(set.is_some())
    }

    /// The event was not sent after all.
    pub fn not_sent(&self, id: &str) -> Result<()> {
        let key = self.key(&format!("event:{id}"));
        self.with(|store| store.command(&["DEL", &key]))
    }
}
