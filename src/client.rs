//! The HTTP client of the deployment service: one typed method for each call of its API.
//!
//! A call has 5 s to connect and 15 s in all, unless its client was made [`Client::within`] less. Nothing is sent twice by itself; who can wait wraps a call in
//! [`crate::retry::retrying`].

mod error;

use std::time::Duration;

use anyhow::{Context as _, Result as AnyResult};
use serde::{Serialize, de::DeserializeOwned};
use ureq::{
    Agent,
    http::{Request, StatusCode, header},
    tls::{RootCerts, TlsConfig},
};

pub use self::error::Error;
use crate::{
    api::{
        Audit, AuditEntry, Completed, Current, Deploy, Deploys, ErrorBody, Freeze, Freezes, Locks, NewBlame, NewCancel,
        NewDeploy, NewFreeze, NewMove, NewPause, NewRelease, Promoted, Release, Releases, Running, RunningBoxes,
        StatusAnswer, TokenAnswer,
    },
    config::Config,
    names::{BoxName, Environment, Place, Role, Tag},
    screen::printable,
    secret::Secret,
};

/// A call that failed, or its answer.
pub type Result<T> = std::result::Result<T, Error>;

/// The largest answer that is read, in bytes: 3,000 boxes with their details are a tenth of it.
const LARGEST_ANSWER: u64 = 16 << 20;

/// The deployment service, seen from a client.
#[derive(Debug, Clone)]
pub struct Client {
    url: String,
    token: Option<Secret>,
    by: String,
    agent: Agent,
}

impl Client {
    /// The service that `config` names. `by` is who asks, `user@host`, for its audit log.
    pub fn new(config: &Config, by: &str) -> AnyResult<Self> {
        Self::within(Duration::from_secs(15), config, by)
    }

    /// The same, whose calls have `limit` in all.
    pub fn within(limit: Duration, config: &Config, by: &str) -> AnyResult<Self> {
        let token = config.service_token()?;
        let url = config.service_url.clone();
        if !url.starts_with("http://") && !url.starts_with("https://") {
            anyhow::bail!("the deployment service's address {url:?} is not a URL: write http://HOST:8700");
        }
        if token.as_ref().is_some_and(|token| !token.expose().bytes().all(|b| b.is_ascii_graphic())) {
            anyhow::bail!(
                "the token for {url} has characters that no token has: see DEPLOYCTL_TOKEN or service_token_file"
            );
        }
        let by = by.chars().filter(|c| c.is_ascii_graphic() && *c != '%').take(128).collect();
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(limit))
            // The system's certificates, so that a company's own authority is known where it is installed.
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .user_agent(concat!("deployctl/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { url, token, by, agent })
    }

    /// Where it is, for messages.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Makes a release known; again changes nothing.
    pub fn publish(&self, release: &NewRelease) -> Result<Release> {
        self.post("/v1/releases", release)
    }

    /// The releases of `role`, newest first.
    pub fn releases(&self, role: &Role, limit: u32) -> Result<Vec<Release>> {
        self.get(&query("/v1/releases", &[("role", Some(role.as_str())), ("limit", Some(&limit.to_string()))]))
            .map(|answer: Releases| answer.releases)
    }

    /// One release, if it is known.
    pub fn release(&self, role: &Role, tag: &Tag) -> Result<Option<Release>> {
        absent(self.get(&format!("/v1/releases/{role}/{tag}")))
    }

    /// Starts a deploy.
    pub fn start(&self, deploy: &NewDeploy) -> Result<Deploy> {
        self.post("/v1/deploys", deploy)
    }

    /// Deploys, newest first, without their boxes.
    pub fn deploys(&self, role: Option<&Role>, environment: Option<&Environment>, limit: u32) -> Result<Vec<Deploy>> {
        let limit = limit.to_string();
        let path = query(
            "/v1/deploys",
            &[
                ("role", role.map(Role::as_str)),
                ("environment", environment.map(Environment::as_str)),
                ("limit", Some(&limit)),
            ],
        );
        self.get(&path).map(|answer: Deploys| answer.deploys)
    }

    /// The deploy that is rolling at `place`, else the last complete one.
    pub fn current(&self, place: &Place) -> Result<Option<Current>> {
        absent(self.get(&at_place("/v1/deploys/current", place)))
    }

    /// A deploy with its boxes.
    pub fn deploy(&self, id: &str) -> Result<Deploy> {
        self.get(&format!("/v1/deploys/{id}"))
    }

    /// Marks the release of a deploy broken and cancels it. `logs`: the evidence, already masked.
    pub fn report_broken(&self, id: &str, name: &BoxName, reason: &str, logs: &str) -> Result<()> {
        let blame = NewBlame { name: name.clone(), reason: reason.to_owned(), logs: logs.to_owned() };
        self.post(&format!("/v1/deploys/{id}/broken"), &blame).map(ignore)
    }

    /// Says that no box of a deploy is unfinished any more.
    pub fn complete(&self, id: &str, name: &BoxName) -> Result<()> {
        self.post(&format!("/v1/deploys/{id}/complete"), &Completed { name: name.clone() }).map(ignore)
    }

    /// Cancels a deploy.
    pub fn cancel(&self, id: &str, cancel: &NewCancel) -> Result<Deploy> {
        self.post(&format!("/v1/deploys/{id}/cancel"), cancel)
    }

    /// Lets nobody begin in a deploy.
    pub fn pause(&self, id: &str, reason: &str) -> Result<Deploy> {
        self.post(&format!("/v1/deploys/{id}/pause"), &NewPause { reason: Some(reason.to_owned()) })
    }

    /// Lets a paused deploy go on.
    pub fn resume(&self, id: &str, reason: Option<&str>) -> Result<Deploy> {
        self.post(&format!("/v1/deploys/{id}/resume"), &NewPause { reason: reason.map(str::to_owned) })
    }

    /// Goes back, to `tag` or to the last complete other one.
    pub fn rollback(&self, place: &Place, tag: Option<&Tag>, reason: Option<&str>) -> Result<Deploy> {
        self.post("/v1/rollbacks", &new_move(place, tag, false, reason))
    }

    /// Approves what `source` runs for the next environment, and starts it there if that was the last approval needed.
    /// `force`: whatever gates and freezes say.
    pub fn promote(&self, source: &Place, force: bool, reason: Option<&str>) -> Result<Promoted> {
        self.post("/v1/promotions", &new_move(source, None, force, reason))
    }

    /// What is frozen.
    pub fn freezes(&self) -> Result<Vec<Freeze>> {
        self.get("/v1/freezes").map(|answer: Freezes| answer.freezes)
    }

    /// All that `status` shows, of the places that the filters leave.
    pub fn status(&self, role: Option<&Role>, environment: Option<&Environment>) -> Result<StatusAnswer> {
        let filters = [("role", role.map(Role::as_str)), ("environment", environment.map(Environment::as_str))];
        self.get(&query("/v1/status", &filters))
    }

    /// Freezes.
    pub fn freeze(&self, freeze: &NewFreeze) -> Result<()> {
        self.post("/v1/freezes", freeze).map(ignore)
    }

    /// Lets deploys start again; whether there was such a freeze.
    pub fn unfreeze(&self, freeze: &NewFreeze) -> Result<bool> {
        absent(self.send("DELETE", "/v1/freezes", freeze)).map(|answer: Option<serde_json::Value>| answer.is_some())
    }

    /// Who holds which lock at `place`, and which boxes are out.
    pub fn locks(&self, place: &Place) -> Result<Locks> {
        self.get(&at_place("/v1/locks", place))
    }

    /// Frees a box's lock and out-mark by force.
    pub fn unlock(&self, place: &Place, name: &BoxName, reason: &str, force: bool) -> Result<()> {
        let path = query(
            &format!("/v1/locks/{name}"),
            &[
                ("role", Some(place.role.as_str())),
                ("environment", Some(place.environment.as_str())),
                ("reason", Some(reason)),
                ("force", force.then_some("true")),
            ],
        );
        self.call("DELETE", &path, None).map(ignore)
    }

    /// What runs where.
    pub fn running(&self, role: Option<&Role>, environment: Option<&Environment>) -> Result<Vec<Running>> {
        let path = query(
            "/v1/running",
            &[("role", role.map(Role::as_str)), ("environment", environment.map(Environment::as_str))],
        );
        self.get(&path).map(|answer: RunningBoxes| answer.running)
    }

    /// What our token may do; nothing where the service is too old to say.
    pub fn token(&self) -> Result<Option<TokenAnswer>> {
        absent(self.get("/v1/token"))
    }

    /// Who did what, newest first.
    pub fn audit(&self, limit: u32) -> Result<Vec<AuditEntry>> {
        self.get(&format!("/v1/audit?limit={limit}")).map(|answer: Audit| answer.entries)
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call("GET", path, None)
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.send("POST", path, body)
    }

    fn send<T: DeserializeOwned>(&self, method: &str, path: &str, body: &impl Serialize) -> Result<T> {
        let body = serde_json::to_string(body).map_err(|e| self.nonsense(path, &e.to_string()))?;
        self.call(method, path, Some(body))
    }

    fn call<T: DeserializeOwned>(&self, method: &str, path: &str, body: Option<String>) -> Result<T> {
        log::debug!("{method} {}{path}", self.url);
        let unreachable = |cause: &dyn ToString| Error::unreachable(&self.url, cause);
        let mut request =
            Request::builder().method(method).uri(format!("{}{path}", self.url)).header("deployctl-by", &self.by);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let answer = match body {
            Some(body) => request
                .header(header::CONTENT_TYPE, "application/json")
                .body(body)
                .map_err(ureq::Error::from)
                .and_then(|request| self.agent.run(request)),
            None => request.body(()).map_err(ureq::Error::from).and_then(|request| self.agent.run(request)),
        };
        let mut answer = answer.map_err(|e| unreachable(&e))?;
        let status = answer.status();
        let text =
            answer.body_mut().with_config().limit(LARGEST_ANSWER).read_to_string().map_err(|e| unreachable(&e))?;
        if status.is_success() {
            let text = if text.is_empty() { "null" } else { &text };
            return read_clean(text).map_err(|e| self.nonsense(path, &e.to_string()));
        }
        Err(match read_clean::<ErrorBody>(&text) {
            Ok(body) => Error::Refused { status: status.as_u16(), kind: body.error.kind, message: body.error.message },
            // A proxy in front of the service, which is away for the moment.
            Err(_)
                if matches!(
                    status,
                    StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
                ) =>
            {
                unreachable(&format!("the answer is {status}"))
            }
            Err(_) => self.nonsense(path, &format!("the answer is {status} without a reason")),
        })
    }

    fn nonsense(&self, path: &str, cause: &str) -> Error {
        Error::Nonsense { url: format!("{}{path}", self.url), cause: cause.to_owned() }
    }
}

/// `user@host` of this process, as it claims them; `env` looks an environment variable up.
pub fn claimed_by(env: &dyn Fn(&str) -> Option<String>) -> AnyResult<String> {
    let named = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| env(name));
    let user = named.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").context("cannot read this host's name")?;
    Ok(format!("{user}@{}", host.trim()))
}

fn ignore(_: serde_json::Value) {}

/// Reads an answer. What others wrote in it (reasons, messages, logs) loses here, once for every command, the characters
/// that would act on the terminal that it is printed on.
fn read_clean<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    let mut answer: serde_json::Value = serde_json::from_str(text)?;
    clean(&mut answer);
    serde_json::from_value(answer)
}

fn clean(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => *text = printable(text),
        serde_json::Value::Array(items) => items.iter_mut().for_each(clean),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(clean),
        _ => {}
    }
}

fn absent<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Error::Refused { status: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn new_move(place: &Place, tag: Option<&Tag>, force: bool, reason: Option<&str>) -> NewMove {
    let Place { environment, role } = place.clone();
    NewMove { role, environment, tag: tag.cloned(), force, reason: reason.map(str::to_owned) }
}

fn at_place(path: &str, place: &Place) -> String {
    query(path, &[("role", Some(place.role.as_str())), ("environment", Some(place.environment.as_str()))])
}

/// `path?name=value&…`, encoded, of the values that are there.
fn query(path: &str, pairs: &[(&str, Option<&str>)]) -> String {
    let pairs: Vec<_> = pairs.iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect();
    if pairs.is_empty() {
        return path.to_owned();
    }
    let encoded = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    format!("{path}{}{encoded}", if path.contains('?') { '&' } else { '?' })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_act_on_a_terminal() {
        let text = r#"{"error": {"kind": "frozen", "message": "by \u001b[31meve\u001b[0m \u202eevil\nline"}}"#;
        let body: ErrorBody = read_clean(text).unwrap();
        assert_eq!(body.error.message, "by [31meve[0m evil\nline");
    }

    #[test]
    fn a_query_holds_what_is_there_and_escapes_it() {
        assert_eq!(query("/x", &[]), "/x");
        assert_eq!(query("/x", &[("a", None), ("b", Some("1")), ("c", Some("é&= "))]), "/x?b=1&c=%C3%A9%26%3D+");
    }
}
