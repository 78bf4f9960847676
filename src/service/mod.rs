//! The deployment service: knows releases, starts deploys, answers which tag, watches, promotes.
//!
//! Everything it knows is in Redis, so that it may be killed at any moment and two of them do no harm. From the top:
//! [`routes`] says which call a request means, [`calls`] answer them, [`records`] keeps the service's own records, and
//! [`http`] is the server.

mod auth;
mod calls;
mod http;
mod records;
mod refusal;
mod routes;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use self::{auth::Auth, http::Server, records::Records};
use crate::{api::AuditEntry, config::Config};

/// How long requests that are being answered hold up the end of the service.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What every thread of the service shares.
struct Service {
    config: Config,
    auth: Auth,
    records: Records,
}

/// Says what in the configuration keeps a service from being run.
pub fn check(config: &Config) -> Result<()> {
    Auth::new(&config.service).map(|_| ())
}

/// Runs the service until SIGTERM or SIGINT.
pub fn run(config: Config) -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot listen for signals")?;
    let auth = Auth::new(&config.service)?;
    let records = Records::new(&config)?;
    let server = Server::bind(config.service.listen)?;
    let service = Arc::new(Service { config, auth, records });
    let shared = Arc::clone(&service);
    server.start(move |request| routes::answer(&shared, request))?;
    println!("deployctl service listens on http://{}", server.address);
    if let Err(error) = service.records.ping() {
        log::error!("{error:#}; until then calls are answered with 503");
    }
    let signal = signals.forever().next();
    log::info!("stops: signal {}", signal.unwrap_or_default());
    server.stop(STOP_PATIENCE);
    Ok(())
}

impl Service {
    /// Writes an act down. The act has been done: a log that cannot be written is said, and undoes nothing.
    fn audit(&self, entry: AuditEntry) {
        let entry = AuditEntry { at: now(), ..entry };
        let words = [
            entry.deploy.as_deref(),
            entry.role.as_ref().filter(|_| entry.deploy.is_none()).map(AsRef::as_ref),
            entry.tag.as_ref().map(AsRef::as_ref),
            entry.environment.as_ref().filter(|_| entry.deploy.is_none()).map(AsRef::as_ref),
            entry.detail.as_deref(),
        ];
        let words: Vec<&str> = words.into_iter().flatten().collect();
        log::info!("{} by {}: {}", entry.action, entry.by, words.join(" "));
        if let Err(error) = self.records.append(&entry) {
            log::error!("the audit log has no entry for {} by {}: {error:#}", entry.action, entry.by);
        }
    }
}

/// The time as it stands in records: RFC 3339, UTC.
fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}
