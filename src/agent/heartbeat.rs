//! The thread that keeps a worker known: it renews the lock, says where the box stands, and listens for a cancel.
//!
//! It stops renewing when the step that runs is past its deadline: a step that hangs must not hold a lock for ever.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use log::warn;

use crate::{
    api::Phase,
    coordination::{Cancel, Coordinator, Held, RenewRequest},
    names::BoxName,
};

/// While a box has no lock yet, a cancel must reach it within a second.
const LISTEN: Duration = Duration::from_millis(500);

/// What the worker tells the heartbeat, and what the heartbeat hears.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
struct Shared {
    phase: Option<Phase>,
    detail: Option<String>,
    until: Option<Instant>,
    held: Option<Held>,
    out: bool,
    epoch: Option<String>,
    cancel: Option<Cancel>,
    ended: bool,
    news: bool,
    busy: bool,
    stop: bool,
}

/// Runs until it is dropped.
pub struct Heartbeat {
    shared: Arc<(Mutex<Shared>, Condvar)>,
    thread: Option<thread::JoinHandle<()>>,
}

/// A view of the heartbeat that can be moved into closures.
#[derive(Clone)]
pub struct HeartbeatHandle(Arc<(Mutex<Shared>, Condvar)>);

/// The box that renews, for which deploy, how often.
pub struct Subject {
    /// The box.
    pub name: BoxName,
    /// The deploy, or `hand.BOX`.
    pub deploy: String,
    /// Whether the box takes part in the deploy, which may then end without it. Work by hand has no such end.
    pub joins: bool,
    /// A lock's life.
    pub ttl: Duration,
    /// Between two renewals.
    pub interval: Duration,
    /// What the box is out for, where that is no deploy.
    pub purpose: Option<String>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // The state is still good after a panic elsewhere, which was printed where it happened.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heartbeat {
    /// Starts to keep `subject`, on a connection of its own. Silent until the first [`Heartbeat::enter`].
    #[must_use]
    pub fn start(subject: Subject, mut locks: Coordinator) -> Self {
        let shared = Arc::new((Mutex::new(Shared::default()), Condvar::new()));
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || keep(&subject, &mut locks, &theirs));
        Self { shared, thread: Some(thread) }
    }

    fn tell(&self, change: impl FnOnce(&mut Shared)) {
        change(&mut lock(&self.shared.0));
        self.shared.1.notify_all();
    }

    /// The box is in `phase` now, for `within` at most.
    pub fn enter(&self, phase: Phase, within: Duration) {
        self.tell(|shared| {
            shared.phase = Some(phase);
            shared.detail = None;
            shared.until = Instant::now().checked_add(within);
            shared.news = true;
        });
    }

    /// What the box is at may take `within` from now.
    pub fn keep_for(&self, within: Duration) {
        self.tell(|shared| {
            shared.until = Instant::now().checked_add(within);
            shared.news = true;
        });
    }

    /// Stops renewing. When this returns no renewal is under way, so none can bring back a lock that the worker is about
    /// to free.
    pub fn rest(&self) {
        self.tell(|shared| {
            shared.until = None;
            shared.held = None;
            shared.out = false;
        });
        let mut shared = lock(&self.shared.0);
        while shared.busy {
            shared = self.shared.1.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The lock to renew.
    pub fn hold(&self, held: Held) {
        self.tell(|shared| shared.held = Some(held));
    }

    /// The epoch that the worker heard of.
    pub fn remember(&self, epoch: String) {
        self.tell(|shared| shared.epoch = Some(epoch));
    }

    /// Whether the box is out of service.
    pub fn set_out(&self, out: bool) {
        self.tell(|shared| shared.out = out);
    }

    /// Remembers a cancel that the worker was told of by another reply.
    pub fn heard(&self, cancel: Option<Cancel>) {
        self.tell(|shared| {
            if cancel.is_some() {
                shared.cancel = cancel;
            }
        });
    }

    /// For closures that ask whether to go on.
    #[must_use]
    pub fn handle(&self) -> HeartbeatHandle {
        HeartbeatHandle(Arc::clone(&self.shared))
    }
}

impl HeartbeatHandle {
    /// What the box is at within its phase, for people who watch: said with the next renewal, or at once if it is news.
    pub fn say(&self, detail: &str) {
        let mut shared = lock(&self.0.0);
        if shared.detail.as_deref() != Some(detail) {
            shared.detail = Some(detail.to_owned());
            shared.news = true;
            drop(shared);
            self.0.1.notify_all();
        }
    }

    /// The cancel, if there is one.
    #[must_use]
    pub fn cancel(&self) -> Option<Cancel> {
        lock(&self.0.0).cancel.clone()
    }

    /// Whether the deploy is over without this box.
    #[must_use]
    pub fn ended(&self) -> bool {
        lock(&self.0.0).ended
    }

    /// The epoch that was last heard of.
    #[must_use]
    pub fn epoch(&self) -> Option<String> {
        lock(&self.0.0).epoch.clone()
    }

    /// The lock that is held.
    #[must_use]
    pub fn held(&self) -> Option<Held> {
        lock(&self.0.0).held.clone()
    }

    /// Whether the box is out of service.
    #[must_use]
    pub fn is_out(&self) -> bool {
        lock(&self.0.0).out
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.tell(|shared| shared.stop = true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the thread that renews the lock panicked");
        }
    }
}

fn keep(subject: &Subject, locks: &mut Coordinator, shared: &(Mutex<Shared>, Condvar)) {
    let mut said: Option<String> = None;
    loop {
        let Some(Say { phase, detail, held, out, epoch }) = next(subject, shared) else { return };
        let pulse = locks.renew(&RenewRequest {
            name: &subject.name,
            deploy: &subject.deploy,
            phase,
            detail: detail.as_deref(),
            suffix: held.as_ref().map(|held| held.suffix),
            token: held.as_ref().map(|held| held.token.as_str()),
            ttl: u64::try_from(subject.ttl.as_millis()).unwrap_or(u64::MAX),
            out,
            kept_out_reason: None,
            purpose: subject.purpose.as_deref(),
            epoch: epoch.as_deref(),
        });
        let mut heard = lock(&shared.0);
        heard.busy = false;
        match pulse {
            Ok(pulse) => {
                said = None;
                if let Some(other) = pulse.lost_to.filter(|_| held.is_some()) {
                    warn!("the lock expired and {other} holds it now; finishing, to be back in service soonest");
                }
                heard.cancel = pulse.cancel.or(heard.cancel.take());
                heard.ended = subject.joins && pulse.ended;
                heard.epoch = Some(pulse.epoch);
            }
            Err(error) => {
                let error = format!("{error:#}");
                if said.as_ref() != Some(&error) {
                    warn!("{error}; trying again");
                    said = Some(error);
                }
            }
        }
        drop(heard);
        shared.1.notify_all();
    }
}

/// What the next renewal says.
struct Say {
    phase: Option<Phase>,
    detail: Option<String>,
    held: Option<Held>,
    out: bool,
    epoch: Option<String>,
}

/// Waits until there is something to say: news, or the interval is over. Nothing when it is to stop.
fn next(subject: &Subject, (shared, changed): &(Mutex<Shared>, Condvar)) -> Option<Say> {
    let begun = Instant::now();
    let mut shared = lock(shared);
    loop {
        if shared.stop {
            return None;
        }
        let live = shared.until.is_some_and(|until| Instant::now() < until);
        let interval = if shared.held.is_some() { subject.interval } else { LISTEN.min(subject.interval) };
        let left = interval.saturating_sub(begun.elapsed());
        if live && (shared.news || left.is_zero()) {
            shared.news = false;
            shared.busy = true;
            return Some(Say {
                phase: shared.phase,
                detail: shared.detail.clone(),
                held: shared.held.clone(),
                out: shared.out,
                epoch: shared.epoch.clone(),
            });
        }
        let pause = if live { left } else { Duration::from_secs(1) };
        shared = changed.wait_timeout(shared, pause).unwrap_or_else(PoisonError::into_inner).0;
    }
}
