//! The configuration: the file, the environment variables that override it, and the checks that need both.
//!
//! The types are the schema: what serde has read is valid in itself, and unknown keys are refused by name. Paths that
//! are relative start at the folder of the file.

mod delivery;
pub mod duration;
mod gate;
mod notify;
mod public_url;
mod role;
mod service;
mod token;
mod window;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

pub use self::{
    delivery::{Delivery, Github, Gitlab, Slack, Webhook, is_in_clear},
    gate::{CompareGate, Gate, NoData, PrometheusGate, When},
    notify::{Notify, Target},
    public_url::{PublicUrl, is_loopback},
    role::{CommandLb, Elb, Elbv2, Health, LoadBalancer, RoleConfig},
    service::{FleetLock, FleetLockGroup, Lasts, RolePolicy, ServiceConfig, Step, TrustedProxy, is_group},
    token::{Scope, Token, Verb},
    window::{Days, Hours, Window, Zone},
};
use crate::{
    names::{BoxName, Environment, Role},
    parallel::MaxParallel,
    secret::Secret,
};

/// Where the configuration is when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/deployctl/config.json";

/// The whole configuration, validated.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    redis_url: Option<Secret>,
    redis_url_file: Option<PathBuf>,
    /// What every Redis key begins with.
    pub redis_prefix: String,
    /// The deployment service.
    pub service_url: String,
    service_token_file: Option<PathBuf>,
    #[serde(skip)]
    service_token: Option<Secret>,
    /// The local Serf agent's RPC address.
    pub serf_rpc_addr: String,
    serf_rpc_auth_file: Option<PathBuf>,
    /// The Serf tag that names a box's zone.
    pub zone_tag: String,
    /// This box; the Serf node name when absent.
    #[serde(rename = "box")]
    pub box_name: Option<BoxName>,
    /// This box's environment; the Serf tag when absent.
    pub environment: Option<Environment>,
    /// The compose program and its first arguments; the one that is installed when absent.
    pub compose: Option<Vec<String>>,
    /// Where the compose files are.
    pub compose_dir: PathBuf,
    /// What a box remembers: wake marks, journals, file locks.
    pub state_dir: PathBuf,
    /// Where a detached worker logs.
    pub log_dir: Option<PathBuf>,
    /// How many boxes may be out at once, for `run` without a deploy.
    pub max_parallel: MaxParallel,
    /// How long a lock lives without renewal.
    #[serde(deserialize_with = "duration::deserialize")]
    pub lock_ttl: Duration,
    /// How often a waiting box looks by itself.
    #[serde(deserialize_with = "duration::deserialize")]
    pub poll_interval: Duration,
    /// How long a deploy may go without progress while boxes wait for a lock.
    #[serde(deserialize_with = "duration::deserialize")]
    pub lock_timeout: Duration,
    /// The deadline of an outside program that has no other.
    #[serde(deserialize_with = "duration::deserialize")]
    pub command_timeout: Duration,
    /// How long a worker that was told to stop may go on.
    #[serde(deserialize_with = "duration::deserialize")]
    pub stop_grace: Duration,
    /// The roles of this box.
    pub roles: BTreeMap<Role, RoleConfig>,
    /// The deployment service's own part.
    pub service: ServiceConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            redis_url: None,
            redis_url_file: None,
            redis_prefix: "deployctl".to_owned(),
            service_url: "http://127.0.0.1:8700".to_owned(),
            service_token_file: None,
            service_token: None,
            serf_rpc_addr: "127.0.0.1:7373".to_owned(),
            serf_rpc_auth_file: None,
            zone_tag: "zone".to_owned(),
            box_name: None,
            environment: None,
            compose: None,
            compose_dir: PathBuf::from("/etc/deployctl/compose"),
            state_dir: PathBuf::from("/var/lib/deployctl"),
            log_dir: None,
            max_parallel: MaxParallel::default(),
            lock_ttl: Duration::from_secs(15 * 60),
            poll_interval: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(2 * 3600),
            command_timeout: Duration::from_secs(10 * 60),
            stop_grace: Duration::from_secs(90),
            roles: BTreeMap::new(),
            service: ServiceConfig::default(),
        }
    }
}

impl Config {
    /// Reads the configuration: `path` (from `--config`), else `DEPLOYCTL_CONFIG`, else [`DEFAULT_PATH`] if it is there,
    /// else the defaults; then the overriding variables. `env` looks an environment variable up.
    pub fn load(path: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let named = path.map(Path::to_path_buf).or_else(|| env("DEPLOYCTL_CONFIG").map(PathBuf::from));
        let mut config = match named {
            Some(path) => Self::read(&path)?,
            None if Path::new(DEFAULT_PATH).exists() => Self::read(Path::new(DEFAULT_PATH))?,
            None => Self::default(),
        };
        if let Some(url) = env("DEPLOYCTL_REDIS_URL") {
            config.redis_url = Some(Secret::new(url));
            config.redis_url_file = None;
        }
        if let Some(url) = env("DEPLOYCTL_SERVICE_URL") {
            config.service_url = url;
        }
        if let Some(token) = env("DEPLOYCTL_TOKEN") {
            config.service_token = Some(Secret::new(token));
        }
        if let Some(environment) = env("DEPLOYCTL_ENVIRONMENT") {
            config.environment = Some(environment.parse().context("DEPLOYCTL_ENVIRONMENT")?);
        }
        config.service_url.truncate(config.service_url.trim_end_matches('/').len());
        Ok(config)
    }

    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}; name another with --config", path.display()))?;
        let mut config = Self::parse(&text).with_context(|| format!("mend the configuration {}", path.display()))?;
        config.resolve_paths(path.parent().unwrap_or(Path::new("/")));
        Ok(config)
    }

    /// Reads the text of a configuration file.
    pub fn parse(text: &str) -> Result<Self> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let config: Self = serde_path_to_error::deserialize(&mut reader)
            .map_err(|e| anyhow::anyhow!("{}: {}", e.path(), e.inner()))?;
        reader.end().context("there is text after the configuration's last brace")?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        if self.redis_url.is_some() && self.redis_url_file.is_some() {
            bail!("redis_url and redis_url_file are both written: keep one");
        }
        if self.redis_prefix.is_empty() || self.redis_prefix.contains(['{', '}']) {
            bail!("redis_prefix: write a text without braces");
        }
        for (name, value) in [("lock_ttl", self.lock_ttl), ("poll_interval", self.poll_interval)] {
            if value < Duration::from_millis(100) {
                bail!("{name}: write at least 100ms");
            }
        }
        if self.compose.as_ref().is_some_and(Vec::is_empty) {
            bail!("compose: write the program, for example [\"docker-compose\"], or leave the key out");
        }
        if let Some(Err(error)) = self.service.fleet_lock.as_ref().map(FleetLock::check) {
            bail!("service.fleet_lock: {error}");
        }
        for (role, policy) in &self.service.roles {
            if let Err(error) = policy.check(!self.service.tokens.is_empty()) {
                bail!("service.roles.{role}{error}");
            }
        }
        Ok(())
    }

    fn resolve_paths(&mut self, folder: &Path) {
        let fixed = [&mut self.compose_dir, &mut self.state_dir];
        let optional =
            [&mut self.redis_url_file, &mut self.service_token_file, &mut self.serf_rpc_auth_file, &mut self.log_dir];
        let of_roles = self.roles.values_mut().flat_map(|role| [&mut role.compose_file, &mut role.health.ca_file]);
        let of_targets = self.service.notify.files();
        for path in fixed.into_iter().chain(optional.into_iter().chain(of_roles).flatten()).chain(of_targets) {
            *path = folder.join(&*path);
        }
    }

    /// The Redis URL, from the file if one is named.
    pub fn redis_url(&self) -> Result<Secret> {
        match (&self.redis_url, &self.redis_url_file) {
            (Some(url), _) => Ok(url.clone()),
            (None, Some(file)) => secret_file("redis_url_file", file),
            (None, None) => Ok(Secret::new("redis://127.0.0.1:6379/0")),
        }
    }

    /// Whether somebody said where Redis is: on a laptop nobody may have.
    #[must_use]
    pub fn names_redis(&self) -> bool {
        self.redis_url.is_some() || self.redis_url_file.is_some()
    }

    /// The bearer token for the service, if there is one.
    pub fn service_token(&self) -> Result<Option<Secret>> {
        match (&self.service_token, &self.service_token_file) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(file)) => secret_file("service_token_file", file).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The files that hold secrets, each with the key that names it.
    pub fn secret_files(&self) -> impl Iterator<Item = (String, &Path)> {
        let files = [
            ("redis_url_file", &self.redis_url_file),
            ("service_token_file", &self.service_token_file),
            ("serf_rpc_auth_file", &self.serf_rpc_auth_file),
        ];
        let of_targets = self.service.notify.targets().filter_map(|target| {
            let (key, file) = target.how.secret_file()?;
            Some((format!("notify {}, {key}", target.name), file.as_path()))
        });
        files.into_iter().filter_map(|(key, file)| Some((key.to_owned(), file.as_deref()?))).chain(of_targets)
    }

    /// The Serf agent's RPC key, if it has one.
    pub fn serf_rpc_auth(&self) -> Result<Option<Secret>> {
        self.serf_rpc_auth_file.as_deref().map(|file| secret_file("serf_rpc_auth_file", file)).transpose()
    }

    /// The configuration of `role`, with what to do when there is none.
    pub fn role(&self, role: &Role) -> Result<&RoleConfig> {
        self.roles.get(role).with_context(|| {
            format!("the role {role} has no configuration on this box: add \"roles\": {{\"{role}\": …}} to the configuration")
        })
    }

    /// How often a lock is renewed: `min(10 s, lock_ttl / 3)`.
    #[must_use]
    pub fn renew_interval(&self) -> Duration {
        (self.lock_ttl / 3).min(Duration::from_secs(10))
    }
}

/// What a file holds that a key names: one secret, with nothing around it.
pub fn secret_file(key: &str, path: &Path) -> Result<Secret> {
    let text = fs::read_to_string(path).with_context(|| format!("{key}: cannot read {}", path.display()))?;
    Ok(Secret::new(text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        format!("{:#}", Config::parse(text).unwrap_err())
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        assert!(error(r#"{"lock_tll": "15m"}"#).contains("lock_tll"));
        let nested = error(r#"{"roles": {"app": {"load_balancers": [], "helth": {}}}}"#);
        assert!(nested.contains("roles.app") && nested.contains("helth"), "{nested}");
    }

    #[test]
    fn load_balancers_must_be_written() {
        let error = error(r#"{"roles": {"app": {}}}"#);
        assert!(error.contains("roles.app") && error.contains("load_balancers"), "{error}");
    }

    #[test]
    fn a_bad_value_is_named_with_its_path() {
        let error = error(r#"{"roles": {"app": {"load_balancers": [], "health": {"timeout": "2 minutes"}}}}"#);
        assert!(error.contains("roles.app.health.timeout") && error.contains("30s"), "{error}");
    }

    #[test]
    fn environment_variables_are_enough_on_a_laptop() {
        let env = |name: &str| match name {
            "DEPLOYCTL_SERVICE_URL" => Some("https://deploys.internal/".to_owned()),
            "DEPLOYCTL_TOKEN" => Some("t".to_owned()),
            _ => None,
        };
        let config = Config::load(None, &env).unwrap();
        assert_eq!(config.service_url, "https://deploys.internal");
        assert_eq!(config.service_token().unwrap().unwrap().expose(), "t");
        assert!(!config.names_redis());
    }

    #[test]
    fn relative_paths_start_at_the_file() {
        let mut config = Config::parse(r#"{"compose_dir": "compose", "state_dir": "/var/x"}"#).unwrap();
        config.resolve_paths(Path::new("/etc/deployctl"));
        assert_eq!(config.compose_dir, Path::new("/etc/deployctl/compose"));
        assert_eq!(config.state_dir, Path::new("/var/x"));
    }
}
