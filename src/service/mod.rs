//! The deployment service: knows releases, starts deploys, answers which tag, watches, promotes.
//!
//! Everything it knows is in Redis, so that it may be killed at any moment and two of them do no harm. From the top:
//! [`routes`] says which call a request means, [`handlers`] answer them, [`store`] keeps the service's own records, and
//! [`http`] is the server. [`page`] is for people with a browser.

mod api_error;
mod auth;
mod handlers;
mod http;
mod ids;
mod known;
mod links;
mod members;
mod metrics;
mod notify;
mod page;
mod policy;
mod promotions;
mod quota;
mod reconcile;
mod redis_health;
mod routes;
mod start;
mod stepwise;
mod store;
mod usual_time;
mod windows;

use std::{
    panic::{self, AssertUnwindSafe},
    process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use self::{
    auth::Auth,
    http::Server,
    members::Fleet,
    notify::{Told, feed::Turns},
    page::Snapshots,
    quota::Quota,
    reconcile::{GateResults, Wakeup, WatchState},
    redis_health::RedisHealth,
    store::ServiceStore,
};
pub use self::{members::Gossip, stepwise::Stepwise};
use crate::{
    api::{AuditEntry, Kind},
    compose::DeployVars,
    config::Config,
    names::{Place, Tag},
    screen,
};

/// How long requests that are being answered, and work in threads, hold up the end of the service.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Between two renewals of leases; well within the life of one.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// What every thread of the service shares.
struct Service {
    config: Config,
    auth: Auth,
    store: ServiceStore,
    quota: Quota,
    redis_health: RedisHealth,
    fleet: Fleet,
    snapshots: Snapshots,
    turns: Turns,
    told: Told,
    watch_state: Mutex<WatchState>,
    gate_results: Mutex<GateResults>,
    wakeup: Wakeup,
    stopping: AtomicBool,
    /// Work that takes time is done at once, in no thread of its own.
    is_stepwise: bool,
}

/// Says what in the configuration keeps a service from being run.
pub fn check(config: &Config) -> Result<()> {
    Auth::new(&config.service).map(|_| ())
}

/// Whether each target of `service.notify` can be told, as far as its files say; with its name.
pub fn check_targets(config: &Config) -> impl Iterator<Item = (&str, Result<&'static str>)> {
    notify::check(config)
}

/// Runs the service until SIGTERM or SIGINT.
pub fn run(config: Config) -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot listen for signals")?;
    let (store, fleet) = (ServiceStore::new(&config)?, Fleet::new(&config)?);
    let service = Arc::new(Service::new(config, store, fleet)?);
    let server = Server::bind(service.config.service.listen)?;
    // From here on connections queue up, and the first of them may come at once.
    screen::print([format!("deployctl service listens on http://{}", server.address)])
        .context("cannot write to stdout")?;
    let answering = Arc::clone(&service);
    let server = server.start(move |request| routes::answer(&answering, request))?;
    in_background("health", &service, |service| service.redis_health.run(&service.store))?;
    in_background("watch", &service, reconcile::run)?;
    in_background("heartbeat", &service, heartbeat)?;
    in_background("page", &service, page::watch)?;
    in_background("events", &service, notify::feed::run)?;

    let signal = signals.forever().next();
    log::info!("stops, told by signal {}", signal.unwrap_or_default());
    service.stopping.store(true, Ordering::SeqCst);
    service.notify();
    service.snapshots.end();
    service.turns.end();
    let deadline = Instant::now() + STOP_PATIENCE;
    server.stop(STOP_PATIENCE);
    // Programs that threads run are being ended; what they were for is done again after the next start.
    while service.store.has_leases() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn in_background(name: &'static str, service: &Arc<Service>, work: fn(&Arc<Service>)) -> Result<()> {
    let service = Arc::clone(service);
    let run = move || {
        // A service without one of its threads would answer and do nothing. Whatever supervises it starts a whole one.
        if panic::catch_unwind(AssertUnwindSafe(|| work(&service))).is_err() {
            log::error!("the thread {name} panicked: the service ends");
            process::exit(1);
        }
    };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map(drop).with_context(|| format!("cannot start the thread {name}"))
}

/// Keeps the leases of this process alive, also while the watch waits for something.
fn heartbeat(service: &Arc<Service>) {
    loop {
        service.log_once("leases", service.store.renew_leases());
        thread::sleep(HEARTBEAT);
    }
}

impl Service {
    fn new(config: Config, store: ServiceStore, fleet: Fleet) -> Result<Self> {
        Ok(Self {
            auth: Auth::new(&config.service)?,
            store,
            quota: Quota::default(),
            redis_health: RedisHealth::default(),
            fleet,
            snapshots: Snapshots::default(),
            turns: Turns::default(),
            told: Told::default(),
            watch_state: Mutex::default(),
            gate_results: Mutex::default(),
            wakeup: Wakeup::default(),
            stopping: AtomicBool::new(false),
            is_stepwise: false,
            config,
        })
    }

    /// Whether the service has been told to end.
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Writes an act down. The act has been done: a log that cannot be written is said, and undoes nothing.
    fn audit(&self, entry: AuditEntry) {
        let entry = AuditEntry { at: now(), ..entry };
        let place = entry.environment.iter().map(AsRef::as_ref).chain(entry.role.iter().map(AsRef::as_ref));
        let rest = entry.tag.iter().map(AsRef::as_ref).chain(entry.deploy.as_deref()).chain(entry.detail.as_deref());
        let words: Vec<&str> = place.chain(rest).collect();
        log::info!("{} by {}: {}", entry.action, entry.by, words.join(" "));
        if let Err(error) = self.store.append(&entry) {
            log::error!("the audit log has no entry for {} by {}: {error:#}", entry.action, entry.by);
        }
    }
}

/// What the programs that run for a deploy are told.
fn variables(place: &Place, tag: &Tag, id: &str, kind: Kind) -> DeployVars {
    let Place { environment, role } = place.clone();
    DeployVars { tag: tag.clone(), role, environment, id: id.to_owned(), kind }
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// The time as it stands in records: RFC 3339, UTC.
fn now() -> String {
    crate::coordination::rfc3339(now_ms())
}
