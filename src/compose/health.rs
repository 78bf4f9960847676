//! When a project works: its containers run, are healthy, answer, and stay so.
//!
//! Starting proves nothing: compose returns when a container has started, not when it works. Compose's own waiting
//! takes a one-shot service that ended well for a failure, so the containers are inspected here instead.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use ureq::{
    Agent,
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::{
    EngineWatch, Project, Rendered, Restarts,
    judge::{Fault, Look, Verdict, Wait, judge, time_to_start},
};
use crate::{
    api::LAST_WORDS,
    config::Health,
    process::last_lines,
    sleep::{jittered, sleep},
};

/// Between two looks where no event of the engine asks for one sooner.
const POLL: Duration = Duration::from_millis(400);
/// How long `health.url` may take to answer one request.
const URL_TIMEOUT: Duration = Duration::from_secs(5);
/// For how long the engine may give no answer before that is a failure.
const ENGINE_SILENCE: Duration = Duration::from_secs(10);

/// Why a project does not work.
#[derive(Debug, thiserror::Error)]
pub enum HealthFailure {
    /// A container is at fault: one line with its own last words, masked.
    #[error("{0}")]
    Unhealthy(String),
    /// It cannot be said: the engine did not answer, or the caller was interrupted.
    #[error("{0:#}")]
    Engine(anyhow::Error),
}

impl Project {
    /// Waits until the watched container and every other service run (one-shot services may have ended with 0), are
    /// healthy by their `HEALTHCHECK`, if they have one, and `health.url` answers with 2xx, if there is one; and then
    /// until all that has stayed so for `health.stable_for`. A watched container that exits or is restarted, by the count
    /// that [`Project::up`] took before, fails at once, and so does another that is not started again; all else fails when
    /// `health.timeout` is over; see [`Project::with_patience`]. `engine`, where there is one, says when to look again.
    pub fn wait_healthy(
        &self,
        rendered: &Rendered,
        health: &Health,
        before: &Restarts,
        engine: Option<&EngineWatch>,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<(), HealthFailure> {
        let question = Question::of(health).map_err(HealthFailure::Engine)?;
        let mut wait = Wait::new(Instant::now(), health.timeout, health.stable_for);
        let mut silent: Option<Instant> = None;
        loop {
            match self.look(rendered, question.as_ref(), before) {
                Ok(look) => {
                    silent = None;
                    match wait.see(Instant::now(), look) {
                        Verdict::Healthy => return Ok(()),
                        Verdict::Unhealthy(fault) => {
                            return Err(HealthFailure::Unhealthy(self.with_last_words(rendered, &fault)));
                        }
                        Verdict::Wait => {}
                    }
                }
                Err(e) if silent.get_or_insert_with(Instant::now).elapsed() >= ENGINE_SILENCE => {
                    return Err(HealthFailure::Engine(e));
                }
                Err(e) => log::debug!("looking again: {e:#}"),
            }
            let goes_on = match engine {
                Some(engine) => engine.wait_for_event(jittered(POLL), interrupted),
                None => sleep(jittered(POLL), interrupted),
            };
            if !goes_on {
                return Err(HealthFailure::Engine(anyhow!(
                    "interrupted while waiting for {} to be healthy",
                    self.service
                )));
            }
        }
    }

    /// Refuses a configuration of health that cannot be asked for.
    pub fn check_health(&self, health: &Health) -> Result<()> {
        Question::of(health).map(drop)
    }

    /// Whether all is well by one look, whatever was before.
    pub fn is_healthy_now(&self, rendered: &Rendered, health: &Health) -> Result<bool> {
        let now = Restarts::of(&self.containers()?);
        Ok(matches!(self.look(rendered, Question::of(health)?.as_ref(), &now)?, Look::Good(_)))
    }

    /// `health` with the time that the health checks of the containers that are here ask for. As it is while the engine does
    /// not answer.
    #[must_use]
    pub fn with_patience(&self, health: &Health) -> Health {
        let timeout = self.containers().map_or(health.timeout, |containers| time_to_start(&containers, health.timeout));
        Health { timeout, ..health.clone() }
    }

    fn look(&self, rendered: &Rendered, question: Option<&Question>, before: &Restarts) -> Result<Look> {
        let containers = self.containers()?;
        let watched = containers.iter().find(|container| container.service == self.service);
        let watched = watched.with_context(|| format!("there is no container of the service {}", self.service))?;
        let look = judge(&containers, &self.service, rendered.counts(), before);
        match (&look, question.map(Question::ask)) {
            (Look::Good(_), Some(Err(words))) => Ok(Look::NotYet(Fault {
                container: watched.id.clone(),
                reason: format!("{} runs, but {words}", self.service),
            })),
            _ => Ok(look),
        }
    }

    fn with_last_words(&self, rendered: &Rendered, fault: &Fault) -> String {
        let logs = self.logs(&fault.container).unwrap_or_else(|e| format!("{e:#}"));
        let words = last_lines(&rendered.mask().apply(&logs));
        let reason = rendered.mask().apply(&fault.reason);
        if words.is_empty() { reason } else { format!("{reason}{LAST_WORDS}{words}") }
    }
}

/// The question that `health.url` is asked again and again.
pub(super) struct Question {
    url: String,
    agent: Agent,
}

impl Question {
    /// None where there is no `health.url`. An error for a `health.ca_file` that cannot be read: the box's fault.
    pub(super) fn of(health: &Health) -> Result<Option<Self>> {
        let Some(url) = health.url.clone() else { return Ok(None) };
        let certificates = match &health.ca_file {
            None => RootCerts::PlatformVerifier,
            Some(file) => certificates(file).with_context(|| format!("health.ca_file, {}", file.display()))?,
        };
        // No proxy: the question is whether this box answers. No redirects: they are no 2xx, and lead elsewhere.
        let agent = Agent::config_builder()
            .timeout_global(Some(URL_TIMEOUT))
            .max_redirects(0)
            .http_status_as_error(false)
            .proxy(None)
            .tls_config(TlsConfig::builder().root_certs(certificates).build())
            .build()
            .into();
        Ok(Some(Self { url, agent }))
    }

    /// Err: a few words on what was wrong with the answer.
    fn ask(&self) -> Result<(), String> {
        let url = &self.url;
        match self.agent.get(url).call() {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("{url} answered {}", answer.status())),
            Err(e) if e.to_string().contains("CaUsedAsEndEntity") => Err(format!(
                "{url} gave no answer that can be trusted: its certificate signs itself as an authority; let one sign it, \
                 or make it with basicConstraints=CA:FALSE"
            )),
            Err(e) => Err(format!("{url} gave no answer: {e}")),
        }
    }
}

/// The certificates of a PEM file, which are trusted instead of the machine's.
fn certificates(file: &Path) -> Result<RootCerts> {
    let text = fs::read(file).context("cannot be read")?;
    let mut found = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.context("is not PEM")? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        bail!("has no certificate");
    }
    Ok(RootCerts::new_with_certs(&found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(ca_file: Option<&str>) -> Result<Option<Question>> {
        let ca_file = ca_file.map(Into::into);
        Question::of(&Health { url: Some("http://127.0.0.1:1/health".to_owned()), ca_file, ..Health::default() })
    }

    #[test]
    fn a_url_that_nobody_serves_says_so() {
        let words = question(None).unwrap().unwrap().ask().unwrap_err();
        assert!(words.starts_with("http://127.0.0.1:1/health gave no answer: "), "{words}");
    }

    #[test]
    fn a_ca_file_without_certificates_is_named() {
        let error = |file: &str| format!("{:#}", question(Some(file)).err().unwrap());
        assert!(error("/nowhere/ca.pem").contains("health.ca_file, /nowhere/ca.pem: cannot be read"));
        assert!(error("/dev/null").contains("/dev/null: has no certificate"));
    }
}
