//! The Serf agent of this box, by its own command line: who is there, who we are, and the event that starts a deploy.
//!
//! Members are filtered here, by [`tags`], and never by Serf: its `-tag` takes a regular expression that must match the
//! whole value, so that `images=web` misses `api,web`, and a name from the network must not become one.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Error, Result, anyhow};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use crate::{
    names::{BadName, Place, ZoneName},
    process::{self, Failure, Program},
    secret::Secret,
    tags,
};

/// The agent is on this machine: one that is slower than this hangs.
const AGENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach the agent.
#[derive(Debug, Clone)]
pub struct Serf {
    /// `host:port` of its RPC listener.
    pub rpc_addr: String,
    /// Its `rpc_auth`, if it has one.
    pub rpc_auth: Option<Secret>,
}

/// One agent that ours has heard of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// The node name. It comes from the network: not checked to be a box's.
    pub name: String,
    /// `ip:port` of its gossip.
    pub addr: String,
    /// Whether it is there.
    pub status: MemberStatus,
    /// Its tags.
    #[serde(deserialize_with = "null_is_empty")]
    pub tags: BTreeMap<String, String>,
}

impl Member {
    /// Whether it is there, and its tags say that it runs the role in the environment.
    #[must_use]
    pub fn is_live_in(&self, place: &Place) -> bool {
        let tag = |name| self.tags.get(name).map_or("", String::as_str);
        self.status == MemberStatus::Alive && tags::matches(tag("images"), tag("environment"), place)
    }

    /// Its zone by the tag `zone_tag`: none without it. Refuses what is no name; that member counts as one without a zone.
    pub fn zone(&self, zone_tag: &str) -> Result<Option<ZoneName>, BadName> {
        tags::zone(&self.tags, zone_tag)
    }
}

/// What Serf thinks of a member ([states](https://github.com/hashicorp/serf/blob/master/serf/serf.go)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberStatus {
    /// It answers, or has not yet been missed: for a dead one that takes 7 to 10 s.
    Alive,
    /// It has said that it is about to go.
    Leaving,
    /// It has gone after saying so.
    Left,
    /// It does not answer.
    Failed,
    /// A state that this version of Serf did not have.
    #[serde(other)]
    Other,
}

/// Our own agent's view of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNode {
    /// Its node name.
    pub name: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Serf {
    /// Everyone that the agent has heard of, the dead too.
    pub fn members(&self, interrupted: &dyn Fn() -> bool) -> Result<Vec<Member>> {
        let answer: MembersAnswer = self.ask(&self.members_program(), interrupted)?;
        Ok(answer.members)
    }

    /// The agent's own name and tags.
    pub fn local_node(&self, interrupted: &dyn Fn() -> bool) -> Result<LocalNode> {
        let answer: Info = self.ask(&self.info_program(), interrupted)?;
        Ok(LocalNode { name: answer.agent.name, tags: answer.tags })
    }

    /// Sends a user event to every agent. Refused by Serf: a name and payload of more than 512 bytes together.
    pub fn event(&self, name: &str, payload: &str, interrupted: &dyn Fn() -> bool) -> Result<()> {
        self.run(&self.event_program(name, payload), interrupted).map(drop)
    }

    fn members_program(&self) -> Program {
        self.program(&["members", "-format=json"], &[])
    }

    fn info_program(&self) -> Program {
        self.program(&["info", "-format=json"], &[])
    }

    /// Never coalesced: Serf does that by name alone, and three roles' events would become one.
    fn event_program(&self, name: &str, payload: &str) -> Program {
        self.program(&["event", "-coalesce=false"], &[name, payload])
    }

    /// The key goes by the environment: an argument list is for everyone to read.
    fn program(&self, command: &[&str], arguments: &[&str]) -> Program {
        let address = format!("-rpc-addr={}", self.rpc_addr);
        let program = Program::new(AGENT_TIMEOUT, [&["serf"], command, &[&address], arguments].concat());
        match &self.rpc_auth {
            Some(key) => program.env("SERF_RPC_AUTH", key.expose()),
            None => program,
        }
    }

    fn ask<T: DeserializeOwned>(&self, program: &Program, interrupted: &dyn Fn() -> bool) -> Result<T> {
        let answer = self.run(program, interrupted)?;
        serde_json::from_str(&answer).with_context(|| {
            format!("cannot read the answer of {}; is it Serf 0.8 or later?", process::command_line(&program.argv))
        })
    }

    fn run(&self, program: &Program, interrupted: &dyn Fn() -> bool) -> Result<String> {
        process::run(program, interrupted).map(|output| output.stdout).map_err(|failure| self.explain(failure))
    }

    fn explain(&self, failure: Failure) -> Error {
        let address = &self.rpc_addr;
        let words = failure.last_words();
        let advice = match &failure {
            Failure::NotFound { .. } => "cannot ask the Serf agent: install Serf, or mend PATH".to_owned(),
            _ if words.contains("uthentication") => {
                format!("the Serf agent at {address} refuses our key: write its rpc_auth into serf_rpc_auth_file")
            }
            Failure::TimedOut { .. } => format!("the Serf agent at {address} does not answer: restart it"),
            _ if words.contains("Error connecting") => {
                format!("the Serf agent at {address} does not answer: start it, or set serf_rpc_addr")
            }
            _ => return failure.into(),
        };
        anyhow!(failure).context(advice)
    }
}

#[derive(Deserialize)]
struct MembersAnswer {
    #[serde(deserialize_with = "null_is_empty")]
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Info {
    agent: Agent,
    #[serde(default, deserialize_with = "null_is_empty")]
    tags: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Agent {
    name: String,
}

/// Go writes an empty list or map as `null`.
fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serf(key: Option<&str>) -> Serf {
        Serf { rpc_addr: "10.0.0.1:7373".to_owned(), rpc_auth: key.map(Secret::new) }
    }

    fn place(environment: &str, role: &str) -> Place {
        Place { environment: environment.parse().unwrap(), role: role.parse().unwrap() }
    }

    #[test]
    fn the_key_is_not_an_argument() {
        let payload = r#"{"role":"app","environment":"staging"}"#;
        let argv = ["serf", "event", "-coalesce=false", "-rpc-addr=10.0.0.1:7373", "deploy", payload];
        let event = Program::new(AGENT_TIMEOUT, argv);
        assert_eq!(serf(None).event_program("deploy", payload), event);
        assert_eq!(serf(Some("k")).event_program("deploy", payload), event.env("SERF_RPC_AUTH", "k"));
        let members = Program::new(AGENT_TIMEOUT, ["serf", "members", "-format=json", "-rpc-addr=10.0.0.1:7373"]);
        assert_eq!(serf(None).members_program(), members);
        let info = Program::new(AGENT_TIMEOUT, ["serf", "info", "-format=json", "-rpc-addr=10.0.0.1:7373"]);
        assert_eq!(serf(None).info_program(), info);
    }

    #[test]
    fn recorded_members_are_read() {
        let text = r#"{"members": [
            {"name": "box-1", "addr": "127.0.0.1:7946", "port": 7946, "tags": {"environment": "staging", "images": "app,web"},
             "status": "alive", "protocol": {"max": 5, "min": 2, "version": 5}},
            {"name": "box-2", "addr": "127.0.0.2:7946", "port": 7946, "tags": {"environment": "staging", "images": "app"},
             "status": "failed", "protocol": {"max": 5, "min": 2, "version": 5}},
            {"name": "service", "addr": "127.0.0.3:7946", "port": 7946, "tags": null, "status": "none", "protocol": {}}]}"#;
        let members = serde_json::from_str::<MembersAnswer>(text).unwrap().members;
        assert_eq!(members[0].tags["images"], "app,web");
        assert_eq!(
            members.iter().map(|m| m.status).collect::<Vec<_>>(),
            [MemberStatus::Alive, MemberStatus::Failed, MemberStatus::Other]
        );
        let live = |place| members.iter().map(|m| m.is_live_in(&place)).collect::<Vec<_>>();
        assert_eq!(live(place("staging", "web")), [true, false, false]);
        assert_eq!(live(place("staging", "app")), [true, false, false]);
        assert_eq!(live(place("production", "app")), [false, false, false]);
        assert_eq!(serde_json::from_str::<MembersAnswer>(r#"{"members": null}"#).unwrap().members, []);
    }

    #[test]
    fn recorded_info_is_read() {
        let text = r#"{"agent": {"name": "box-1"}, "event_handlers": {}, "runtime": {"os": "linux"},
            "serf": {"members": "1"}, "tags": {"environment": "staging", "images": "app,web"}}"#;
        let info: Info = serde_json::from_str(text).unwrap();
        assert_eq!((info.agent.name.as_str(), info.tags.len()), ("box-1", 2));
        assert!(serde_json::from_str::<Info>(r#"{"agent": {"name": "x"}, "tags": null}"#).unwrap().tags.is_empty());
    }
}
