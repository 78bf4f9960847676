//! The boxes, as the service's Serf agent sees them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use serde::Serialize;

use crate::{
    config::Config,
    coordination::Members,
    names::{BoxName, Environment, Place, Role, Zones, quoted},
    serf::{Member, MemberStatus, Serf},
};

/// The gossip, as far as the service needs it: by the Serf agent of its host, or simulated by the tests.
pub trait Gossip: Send + Sync {
    /// Everyone that it has heard of, the dead too.
    fn members(&self, interrupted: &dyn Fn() -> bool) -> Result<Vec<Member>>;
    /// Tells every agent.
    fn event(&self, name: &str, payload: &str, interrupted: &dyn Fn() -> bool) -> Result<()>;
}

impl Gossip for Serf {
    fn members(&self, interrupted: &dyn Fn() -> bool) -> Result<Vec<Member>> {
        self.members(interrupted)
    }

    fn event(&self, name: &str, payload: &str, interrupted: &dyn Fn() -> bool) -> Result<()> {
        self.event(name, payload, interrupted)
    }
}

/// The agent, and what it said last.
pub struct Fleet {
    gossip: Box<dyn Gossip>,
    /// The Serf tag that names a zone.
    zone_tag: String,
    last: Mutex<Option<Said>>,
    /// What was no name of a zone, by member: told once.
    bad_zones: Mutex<BTreeMap<String, String>>,
}

/// What the agent said.
struct Said {
    began: Instant,
    ended: Instant,
    members: Result<Vec<Member>, String>,
}

impl Said {
    /// Whether it answers a question asked at `asked`, with members as they were at most `max_age` before. A caller
    /// that waited for another's question takes its failure, too: an agent that hangs delays all callers once, not each.
    fn answers(&self, asked: Instant, max_age: Duration) -> bool {
        match self.members {
            Ok(_) => self.began + max_age >= asked,
            Err(_) => self.ended >= asked,
        }
    }
}

/// The payload of the event that starts a deploy: a hint, which carries no tag.
#[derive(Serialize)]
struct Event<'a> {
    role: &'a Role,
    environment: &'a Environment,
}

impl Fleet {
    /// Reads the agent's key; asks it nothing yet.
    pub fn new(config: &Config) -> Result<Self> {
        let serf = Serf { rpc_addr: config.serf_rpc_addr.clone(), rpc_auth: config.serf_rpc_auth()? };
        Ok(Self::of(serf, &config.zone_tag))
    }

    /// The boxes that `gossip` knows, with zones by the tag `zone_tag`.
    pub fn of(gossip: impl Gossip + 'static, zone_tag: &str) -> Self {
        Self {
            gossip: Box::new(gossip),
            zone_tag: zone_tag.to_owned(),
            last: Mutex::default(),
            bad_zones: Mutex::default(),
        }
    }

    /// The members, as far as they matter to `place`, as they were at most `max_age` ago.
    pub fn members(&self, place: &Place, max_age: Duration, interrupted: &dyn Fn() -> bool) -> Result<Members> {
        self.said(max_age, interrupted, |members| {
            let mut sorted = sort(members, place);
            sorted.zones = self.zones(members.iter().filter(|member| member.is_live_in(place)));
            sorted
        })
    }

    /// The zones of `members`. What is no name is passed over, and told once.
    fn zones<'a>(&self, members: impl Iterator<Item = &'a Member>) -> Zones {
        let mut told = self.bad_zones.lock().unwrap_or_else(PoisonError::into_inner);
        let mut zones = Zones::new();
        for member in members {
            match (member.name.parse(), member.zone(&self.zone_tag)) {
                (Ok(name), Ok(Some(zone))) => drop(zones.insert(name, zone)),
                (Ok(_), Err(error)) => {
                    let error = error.to_string();
                    if told.insert(member.name.clone(), error.clone()).as_ref() != Some(&error) {
                        log::warn!("the box {} counts as one without a zone: {error}", quoted(&member.name));
                    }
                }
                _ => {}
            }
        }
        zones
    }

    /// All members, as they were at most `max_age` ago.
    pub fn all(&self, max_age: Duration, interrupted: &dyn Fn() -> bool) -> Result<Vec<Member>> {
        self.said(max_age, interrupted, <[Member]>::to_vec)
    }

    fn said<T>(
        &self,
        max_age: Duration,
        interrupted: &dyn Fn() -> bool,
        read: impl FnOnce(&[Member]) -> T,
    ) -> Result<T> {
        let asked = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let said = match last.take().filter(|said| said.answers(asked, max_age)) {
            Some(said) => said,
            None => self.ask(interrupted),
        };
        match &last.insert(said).members {
            Ok(members) => Ok(read(members)),
            Err(error) => Err(anyhow!("{error}")),
        }
    }

    fn ask(&self, interrupted: &dyn Fn() -> bool) -> Said {
        let began = Instant::now();
        let members = self.gossip.members(interrupted).map_err(|error| format!("{error:#}"));
        Said { began, ended: Instant::now(), members }
    }

    /// Sends the event that wakes the boxes of `place`.
    pub fn send(&self, place: &Place, interrupted: &dyn Fn() -> bool) -> Result<()> {
        let event = Event { role: &place.role, environment: &place.environment };
        self.gossip.event("deploy", &serde_json::to_string(&event)?, interrupted)
    }
}

/// The live members of the place, and all that failed or left. A member that is missing or leaving is no evidence.
fn sort(members: &[Member], place: &Place) -> Members {
    let mut sorted = Members::default();
    for member in members {
        let list = match member.status {
            MemberStatus::Alive if member.is_live_in(place) => &mut sorted.alive,
            MemberStatus::Failed => &mut sorted.failed,
            MemberStatus::Left => &mut sorted.left,
            _ => continue,
        };
        match member.name.parse::<BoxName>() {
            Ok(name) => list.push(name),
            Err(_) => log::warn!("passes over the Serf member {}: that is no name of a box", quoted(&member.name)),
        }
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_sorted_by_what_they_are_evidence_of() {
        let member = |name: &str, status, environment: &str| Member {
            name: name.to_owned(),
            addr: String::new(),
            status,
            tags: [("images", "web,app"), ("environment", environment)]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
        };
        let place = Place { environment: "staging".parse().unwrap(), role: "app".parse().unwrap() };
        let members = [
            member("a", MemberStatus::Alive, "staging"),
            member("b", MemberStatus::Alive, "production"),
            member("c", MemberStatus::Failed, "staging"),
            member("d", MemberStatus::Left, "staging"),
            member("e", MemberStatus::Leaving, "staging"),
            member("../f", MemberStatus::Alive, "staging"),
        ];
        let sorted = sort(&members, &place);
        let names = |list: &[BoxName]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            (names(&sorted.alive), names(&sorted.failed), names(&sorted.left)),
            (vec!["a".to_owned()], vec!["c".to_owned()], vec!["d".to_owned()])
        );
    }
}
