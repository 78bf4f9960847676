//! What the deployment service needs to know: who may do what, and how a role travels through its environments.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{PublicUrl, duration, window::Window};
use crate::{
    names::{Environment, Role},
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
    /// A program that is told of each end of a deploy, its JSON on stdin.
    pub notify: Vec<String>,
    /// How long a deploy may have nothing else to do than wait for boxes that were expected.
    #[serde(deserialize_with = "duration::deserialize")]
    pub join_timeout: Duration,
    /// Roles that differ from the defaults.
    pub roles: std::collections::BTreeMap<Role, RolePolicy>,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8700)),
            public_url: None,
            trusted_proxy: None,
            tokens: Vec::new(),
            notify: Vec::new(),
            join_timeout: Duration::from_secs(300),
            roles: std::collections::BTreeMap::new(),
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

/// A bearer token, by its SHA-256, so that the configuration can be read by people who may not act.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Stands in the audit log.
    pub name: String,
    /// Lower-case hexadecimal SHA-256 of the token.
    pub sha256: String,
    /// What it may do.
    pub can: Vec<Scope>,
}

/// One permission of a token: a verb, in all environments or in one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope {
    /// What.
    pub verb: Verb,
    /// Where; everywhere when absent.
    pub environment: Option<Environment>,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Read everything but secrets.
    Read,
    /// Make releases known.
    Publish,
    /// Start, promote, roll back, freeze.
    Start,
    /// Promote what the environment before has completed and its gates let pass, and nothing else.
    Approve,
    /// Cancel a deploy.
    Cancel,
    /// Free a lock by force.
    Unlock,
    /// What the worker on a box reports.
    Box,
}

impl FromStr for Verb {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "read" => Self::Read,
            "publish" => Self::Publish,
            "start" => Self::Start,
            "approve" => Self::Approve,
            "cancel" => Self::Cancel,
            "unlock" => Self::Unlock,
            "box" => Self::Box,
            _ => {
                return Err(format!(
                    "{text:?} is not a scope: use read, publish, start, approve, cancel, unlock or box"
                ));
            }
        })
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Publish => "publish",
            Self::Start => "start",
            Self::Approve => "approve",
            Self::Cancel => "cancel",
            Self::Unlock => "unlock",
            Self::Box => "box",
        })
    }
}

impl TryFrom<String> for Scope {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let (verb, environment) = match text.split_once(':') {
            Some((verb, environment)) => (verb, Some(environment.parse().map_err(|e| format!("scope {text:?}: {e}"))?)),
            None => (text.as_str(), None),
        };
        Ok(Self { verb: verb.parse()?, environment })
    }
}

impl FromStr for Scope {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.environment {
            Some(environment) => write!(f, "{}:{environment}", self.verb),
            None => self.verb.fmt(f),
        }
    }
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

/// A condition, and when it is asked. Exactly one of `command`, `prometheus`, `compare` and
/// `cloudwatch_alarms` is given.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Before the event of a deploy, while it rolls, or between its end and its promotion.
    pub when: When,
    /// A program on the service's host; exit code 0 passes.
    pub command: Option<Vec<String>>,
    /// A Prometheus query and its bound.
    pub prometheus: Option<PrometheusGate>,
    /// Boxes of the new release beside those of the old one; while a release rolls only.
    pub compare: Option<CompareGate>,
    /// Alarms of AWS `CloudWatch`, in the account and the region that the AWS CLI uses: none of them may be in `ALARM`.
    #[serde(default)]
    pub cloudwatch_alarms: Vec<String>,
    /// While a release rolls: how many failures in a row are a verdict.
    #[serde(default = "failures")]
    pub failures: NonZeroU32,
    /// While a release rolls: how long a gate that cannot be asked holds the deploy.
    #[serde(default = "unknown_for", deserialize_with = "duration::deserialize")]
    pub unknown_for: Duration,
    /// What it means after that.
    #[serde(default)]
    pub unknown: NoData,
}

/// When a gate is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Once, before the event; a failure ends the deploy `failed`.
    Start,
    /// Repeatedly, before promotion; a failure marks the release broken.
    Bake,
    /// Repeatedly, from the first done box on until the release has baked; failures in a row mark it broken and stop it.
    Roll,
}

/// An instant query ([HTTP API](https://prometheus.io/docs/prometheus/latest/querying/api/)) whose every sample must
/// stand within the bounds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrometheusGate {
    /// The server, `http://host:9090`.
    pub url: String,
    /// PromQL.
    pub query: String,
    /// The largest value that passes.
    pub max: Option<f64>,
    /// The smallest value that passes.
    pub min: Option<f64>,
    /// The time between two questions.
    #[serde(default = "every", deserialize_with = "duration::deserialize")]
    pub every: Duration,
    /// What an answer without data means.
    #[serde(default)]
    pub no_data: NoData,
}

/// Two instant queries that give one number each: the boxes that serve the release must not be worse than the others by
/// more than a factor. What hits both is not the release's fault.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareGate {
    /// The server, `http://host:9090`.
    pub url: String,
    /// PromQL about the boxes that serve the release, with `$boxes`. No data counts as 0.
    pub query: String,
    /// PromQL about the others, with `$others`. No data counts as 0.
    pub baseline: String,
    /// The query may be so many times the baseline.
    pub max_ratio: f64,
    /// PromQL with `$boxes`: how many requests the query rests on.
    pub samples: Option<String>,
    /// With fewer of them nothing is known yet.
    pub min_samples: Option<f64>,
    /// The time between two questions.
    #[serde(default = "every", deserialize_with = "duration::deserialize")]
    pub every: Duration,
}

/// What an answer without data means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoData {
    /// A metric that vanished is as bad as a bad one.
    #[default]
    Fail,
    /// Nothing to complain of.
    Pass,
}

fn failures() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(2)
}

fn unknown_for() -> Duration {
    Duration::from_secs(600)
}

fn every() -> Duration {
    Duration::from_secs(15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_may_be_narrowed_to_an_environment() {
        let scope = Scope::try_from("start:staging".to_owned()).unwrap();
        assert_eq!((scope.verb, scope.environment.unwrap().as_str()), (Verb::Start, "staging"));
        assert_eq!(Scope::try_from("read".to_owned()).unwrap().environment, None);
        assert!(Scope::try_from("admin".to_owned()).unwrap_err().contains("is not a scope"));
        assert!(Scope::try_from("start:".to_owned()).is_err());
    }

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
