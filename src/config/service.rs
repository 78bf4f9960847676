//! What the deployment service needs to know: where it is reached, and how a role travels through its environments.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

use serde::Deserialize;

use super::{Notify, PublicUrl, duration, gate::Gate, token::Token, window::Window};
use crate::{
    names::{Environment, Place, Role},
    parallel::MaxParallel,
};

/// The `service` part of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceConfig {
    /// Where the API listens; loopback only while there are no tokens.
    pub listen: SocketAddr,
    /// Where people reach the page, behind a proxy that speaks TLS; without it only by a loopback name.
    pub public_url: Option<PublicUrl>,
    /// A proxy in front of the page that knows who its users are.
    pub trusted_proxy: Option<TrustedProxy>,
    /// Who may call it. Empty: everybody who reaches the loopback address.
    pub tokens: Vec<Token>,
    /// Answers clients of the `FleetLock` protocol (Zincati, say); nobody, where it is absent.
    pub fleet_lock: Option<FleetLock>,
    /// Who is told of what happens to deploys.
    pub notify: Notify,
    /// The least time without a box that moves after which a deploy is called stuck.
    #[serde(deserialize_with = "duration::deserialize")]
    pub stuck_after: Duration,
    /// How long a deploy may have nothing else to do than wait for boxes that were expected.
    #[serde(deserialize_with = "duration::deserialize")]
    pub join_timeout: Duration,
    /// Roles that differ from the defaults.
    pub roles: BTreeMap<Role, RolePolicy>,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8700)),
            public_url: None,
            trusted_proxy: None,
            tokens: Vec::new(),
            fleet_lock: None,
            notify: Notify::default(),
            stuck_after: Duration::from_secs(300),
            join_timeout: Duration::from_secs(300),
            roles: BTreeMap::new(),
        }
    }
}

impl ServiceConfig {
    /// The policy of `role`: what is written, else the defaults (no promotion, no gates).
    #[must_use]
    pub fn role(&self, role: &Role) -> RolePolicy {
        self.roles.get(role).cloned().unwrap_or_default()
    }
}

/// Whose word counts for who looks at the page. It stands in the audit log beside the token's name, and gives no rights.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedProxy {
    /// From where its requests come.
    pub addresses: Vec<IpAddr>,
    /// The header that has the user's name.
    pub header: String,
}

/// Reboots that take their places from the same budget as deploys.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetLock {
    /// What a client's group stands for.
    pub groups: BTreeMap<String, FleetLockGroup>,
}

/// The places whose boxes may say that they are in the group; a box needs a place for its reboot in each that it is in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetLockGroup {
    /// Where.
    pub environment: Environment,
    /// What they run.
    pub roles: BTreeSet<Role>,
}

impl FleetLock {
    /// Every place that a group stands for.
    #[must_use]
    pub fn places(&self) -> BTreeSet<Place> {
        self.groups.values().flat_map(FleetLockGroup::places).collect()
    }

    /// Names the group that no client can have, or that stands for nothing.
    pub fn check(&self) -> Result<(), String> {
        for (name, group) in &self.groups {
            if !is_group(name) {
                return Err(format!("{name:?} is not a group of FleetLock: use a-z, A-Z, 0-9, . and -"));
            }
            if group.roles.is_empty() {
                return Err(format!("the group {name} has no roles: name those that its boxes run"));
            }
        }
        Ok(())
    }
}

impl FleetLockGroup {
    /// In the order of their names, so that two that need several never wait for each other.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.roles.iter().map(|role| Place { environment: self.environment.clone(), role: role.clone() })
    }
}

/// Whether a text is a group by the protocol: `^[a-zA-Z0-9.-]+$`.
#[must_use]
pub fn is_group(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
}

/// `service.roles.ROLE`: how a role's releases travel.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RolePolicy {
    /// The environments in the order of promotion.
    pub environments: Vec<Environment>,
    /// Whether a complete deploy starts the next environment's by itself.
    pub auto_promote: bool,
    /// Without `auto_promote`: how many different tokens must promote a release before it starts.
    pub approvals: NonZeroU32,
    /// How long a complete deploy must have stood before it is promoted.
    #[serde(deserialize_with = "duration::deserialize")]
    pub bake: Duration,
    /// Whether a broken deploy that left boxes on the release is followed by the last good one.
    pub auto_rollback: bool,
    /// How many boxes may be out at once.
    pub max_parallel: MaxParallel,
    /// So many boxes before the others: the first of the steps.
    pub first: Option<Step>,
    /// So many boxes before the others, step by step.
    pub steps: Vec<Step>,
    /// The longest that a deploy may take.
    #[serde(deserialize_with = "duration::deserialize")]
    pub deploy_timeout: Duration,
    /// When deploys may start in an environment; at any time in one without windows.
    pub windows: Vec<Window>,
    /// Conditions for starting and for promoting.
    pub gates: Vec<Gate>,
    /// The page of the source code, `https://github.com/OWNER/NAME`: for links to what a deploy changes.
    pub repository: Option<String>,
}

impl Default for RolePolicy {
    fn default() -> Self {
        Self {
            environments: Vec::new(),
            auto_promote: false,
            approvals: NonZeroU32::MIN,
            bake: Duration::ZERO,
            auto_rollback: false,
            max_parallel: MaxParallel::default(),
            first: None,
            steps: Vec::new(),
            deploy_timeout: Duration::from_secs(4 * 3600),
            windows: Vec::new(),
            gates: Vec::new(),
            repository: None,
        }
    }
}

impl RolePolicy {
    /// What is wrong with what is written, and with which of its keys: `.gates: …`, or `: …`.
    pub(super) fn check(&self, has_tokens: bool) -> Result<(), String> {
        if self.approvals.get() > 1 && self.auto_promote {
            return Err(": auto_promote starts without any approval: leave one of the two out".to_owned());
        }
        if self.approvals.get() > 1 && !has_tokens {
            return Err(".approvals: only tokens tell people apart: write service.tokens".to_owned());
        }
        // One for a mistyped environment would leave the one that was meant open.
        let strays = |window: &&Window| !self.environments.contains(&window.environment);
        if let Some(window) = self.windows.iter().find(strays).filter(|_| !self.environments.is_empty()) {
            let known: Vec<&str> = self.environments.iter().map(AsRef::as_ref).collect();
            let text = format!("{} is none of its environments: {}", window.environment, known.join(", "));
            return Err(format!(".windows: {text}"));
        }
        self.gates.iter().try_for_each(Gate::check).map_err(|error| format!(".gates: {error}"))
    }

    /// Every step, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.first.iter().chain(&self.steps)
    }

    /// Each environment with the one that follows it.
    pub fn ways_on(&self) -> impl Iterator<Item = (&Environment, &Environment)> {
        self.environments.iter().zip(self.environments.iter().skip(1))
    }

    /// The environment that follows `environment` in the order of promotion.
    #[must_use]
    pub fn next(&self, environment: &Environment) -> Option<&Environment> {
        let at = self.environments.iter().position(|e| e == environment)?;
        self.environments.get(at + 1)
    }

    /// The environment that stands before `environment` in the order of promotion.
    #[must_use]
    pub fn previous(&self, environment: &Environment) -> Option<&Environment> {
        let at = self.environments.iter().position(|e| e == environment)?;
        self.environments.get(at.checked_sub(1)?)
    }
}

/// Only so many boxes get a release until they have served with it for a while.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// How many, those of the steps before included.
    pub boxes: MaxParallel,
    /// For how long.
    #[serde(rename = "for")]
    pub lasts: Lasts,
}

/// How long a step lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Lasts {
    /// This long after its boxes are done.
    Time(Duration),
    /// Until a person lets the deploy go on.
    Manual,
}

impl TryFrom<String> for Lasts {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "manual" => Ok(Self::Manual),
            _ => duration::parse(&text).map(Self::Time).map_err(|error| format!("{error}, or \"manual\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promotion_follows_the_list() {
        let [staging, production] = ["staging", "production"].map(|e| e.parse::<Environment>().unwrap());
        let policy = RolePolicy { environments: vec![staging.clone(), production.clone()], ..RolePolicy::default() };
        assert_eq!(policy.next(&staging), Some(&production));
        assert_eq!(policy.next(&production), None);
        assert_eq!(policy.previous(&production), Some(&staging));
        assert_eq!(policy.previous(&staging), None);
    }
}
