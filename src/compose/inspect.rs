//! What the engine says about containers.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The id of an image: what a tag stands for on this box.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(pub String);

impl fmt::Display for ImageId {
    /// As `docker images` shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.strip_prefix("sha256:").unwrap_or(&self.0);
        f.write_str(digits.get(..12).unwrap_or(digits))
    }
}

/// One container of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name, without the slash.
    pub name: String,
    /// The compose service it belongs to.
    pub service: String,
    /// The image it was made from.
    pub image: ImageId,
    /// What it does.
    pub state: ContainerState,
    /// How it ended, when it did.
    pub exit_code: i64,
    /// Why it could not be started.
    pub error: String,
    /// Whether the kernel killed it for want of memory.
    pub oom_killed: bool,
    /// How often its restart policy has started it again.
    pub restarts: u64,
    /// Its restart policy: `no`, `on-failure`, `always` or `unless-stopped`.
    pub policy: String,
    /// RFC 3339, UTC: the last start.
    pub started_at: String,
    /// What its `HEALTHCHECK` says; none without one.
    pub health: Option<HealthState>,
    /// The last answers of its `HEALTHCHECK`, oldest first.
    pub probes: Vec<Probe>,
    /// How long its `HEALTHCHECK` lets it fail after a start, or does not ask it: the longer of `start_period` and
    /// `interval`. Zero without a `HEALTHCHECK`.
    pub unasked_for: Duration,
    /// How long it may take to stop before it is killed.
    pub stops_within: Duration,
    pub(super) created: Option<Timestamp>,
    pub(super) number: String,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Runs.
    Running,
    /// Frozen by somebody.
    Paused,
    /// Ended; its restart policy is about to start it again.
    Restarting,
    /// Is being removed.
    Removing,
    /// Ended.
    Exited,
    /// Could not be removed.
    Dead,
}

/// What a `HEALTHCHECK` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// There is none after all (`NONE`).
    None,
    /// Not yet one way or the other.
    Starting,
    /// Good.
    Healthy,
    /// Bad.
    Unhealthy,
}

/// One answer of a `HEALTHCHECK`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Probe {
    /// 0: healthy.
    pub exit_code: i64,
    /// What it printed.
    pub output: String,
}

/// The newest container for each service and number of it: version 1 of compose leaves an old one behind under another
/// name when it is interrupted. What somebody ran by hand in the project (`compose run`) is none of it.
pub(super) fn newest(containers: Vec<Inspected>) -> Vec<Container> {
    let mut newest = BTreeMap::<(String, String), Container>::new();
    for container in containers.into_iter().filter_map(Inspected::resolve) {
        let key = (container.service.clone(), container.number.clone());
        match newest.get(&key) {
            Some(other) if other.created > container.created => {}
            _ => _ = newest.insert(key, container),
        }
    }
    newest.into_values().collect()
}

/// A container as the engine describes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    id: String,
    name: String,
    image: ImageId,
    created: String,
    restart_count: u64,
    state: RawState,
    config: RawConfig,
    host_config: RawHostConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawHostConfig {
    restart_policy: RawPolicy,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawPolicy {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawState {
    status: ContainerState,
    exit_code: i64,
    error: String,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    started_at: String,
    health: Option<RawHealth>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawHealth {
    status: HealthState,
    log: Option<Vec<Probe>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    labels: Option<BTreeMap<String, String>>,
    healthcheck: Option<RawHealthcheck>,
    /// Seconds; below 0 it is never killed.
    stop_timeout: Option<i64>,
}

/// How long the engine waits for a container that says nothing of it.
const STOP: Duration = Duration::from_secs(10);

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawHealthcheck {
    /// Nanoseconds, both. An `interval` of 0 is 30 s.
    start_period: u64,
    interval: u64,
}

impl RawHealthcheck {
    fn unasked_for(self) -> Duration {
        let interval = if self.interval == 0 { Duration::from_secs(30) } else { Duration::from_nanos(self.interval) };
        interval.max(Duration::from_nanos(self.start_period))
    }
}

impl Inspected {
    /// None for what somebody ran by hand in the project (`compose run`).
    fn resolve(self) -> Option<Container> {
        let mut labels = self.config.labels.unwrap_or_default();
        let mut label = |name: &str| labels.remove(&format!("com.docker.compose.{name}")).unwrap_or_default();
        if label("oneoff").eq_ignore_ascii_case("true") {
            return None;
        }
        let (health, probes) = match self.state.health {
            Some(RawHealth { status: HealthState::None, .. }) | None => (None, Vec::new()),
            Some(health) => (Some(health.status), health.log.unwrap_or_default()),
        };
        let check = self.config.healthcheck.filter(|_| health.is_some());
        let unasked_for = check.map_or(Duration::ZERO, RawHealthcheck::unasked_for);
        Some(Container {
            id: self.id,
            name: self.name.trim_start_matches('/').to_owned(),
            service: label("service"),
            image: self.image,
            state: self.state.status,
            exit_code: self.state.exit_code,
            error: self.state.error,
            oom_killed: self.state.oom_killed,
            restarts: self.restart_count,
            policy: self.host_config.restart_policy.name,
            started_at: self.state.started_at,
            health,
            probes,
            unasked_for,
            stops_within: self
                .config
                .stop_timeout
                .and_then(|s| u64::try_from(s).ok())
                .map_or(STOP, Duration::from_secs),
            created: self.created.parse().ok(),
            number: label("container-number"),
        })
    }
}

#[cfg(test)]
pub(super) fn example(service: &str, state: ContainerState) -> Container {
    Container {
        id: format!("id-of-{service}"),
        name: format!("app_{service}_1"),
        service: service.to_owned(),
        image: ImageId("sha256:1".to_owned()),
        state,
        exit_code: 0,
        error: String::new(),
        oom_killed: false,
        restarts: 0,
        policy: "no".to_owned(),
        started_at: "2026-11-26T04:31:43.803061947Z".to_owned(),
        health: None,
        probes: Vec::new(),
        unasked_for: Duration::ZERO,
        stops_within: STOP,
        created: None,
        number: "1".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: &str, created: &str, labels: &str, state: &str) -> String {
        format!(
            r#"{{"Id": "{id}", "Name": "/{id}_app_1", "Image": "sha256:1", "Created": "{created}", "RestartCount": 2,
                "State": {{"Status": "exited", "ExitCode": 137, "Error": "", "OOMKilled": true, "StartedAt": "t"{state}}},
                "Config": {{"Labels": {{"com.docker.compose.service": "app", "com.docker.compose.container-number": "1"{labels}}}}},
                "HostConfig": {{"RestartPolicy": {{"Name": "always"}}}}}}"#
        )
    }

    fn parse(json: &str) -> Vec<Container> {
        newest(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_container_is_read() {
        let health = r#", "Health": {"Status": "unhealthy", "FailingStreak": 1, "Log": [{"Start": "", "End": "", "ExitCode": 1, "Output": "no\n"}]}"#;
        let containers = parse(&format!("[{}]", answer("a", "2026-11-26T04:31:43.5Z", "", health)));
        let [container] = containers.as_slice() else { panic!("{containers:?}") };
        assert_eq!((container.name.as_str(), container.service.as_str()), ("a_app_1", "app"));
        assert_eq!((container.state, container.exit_code, container.restarts), (ContainerState::Exited, 137, 2));
        assert!(container.oom_killed);
        assert_eq!(container.stops_within, STOP);
        assert_eq!(container.health, Some(HealthState::Unhealthy));
        assert_eq!(container.probes, [Probe { exit_code: 1, output: "no\n".to_owned() }]);
    }

    #[test]
    fn only_the_newest_counts_and_nothing_run_by_hand() {
        let by_hand = r#", "com.docker.compose.oneoff": "True""#;
        let containers = parse(&format!(
            "[{},{},{}]",
            answer("new", "2026-11-26T04:31:43.564794744Z", "", ""),
            answer("old", "2026-11-26T04:31:43.5Z", "", ""),
            answer("hand", "2026-11-26T05:00:00Z", by_hand, "")
        ));
        let ids: Vec<&str> = containers.iter().map(|container| container.id.as_str()).collect();
        assert_eq!(ids, ["new"]);
    }
}
