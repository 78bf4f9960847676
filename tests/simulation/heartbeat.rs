//! What a worker and its heartbeat share, and the heartbeat: as `agent::heartbeat` does it.

use std::{cell::RefCell, rc::Rc};

use deployctl::{
    api::Phase,
    coordination::{Cancel, Held},
};

use crate::simulation::{
    clock::{ProcessId, TaskId},
    fleet::{Answer, Ask, Fleet, Renewal, ms},
};

/// While a box has no lock yet, a cancel must reach it soon.
const LISTEN: i64 = 1500;

#[allow(clippy::struct_excessive_bools, reason = "each is true or not by itself")]
#[derive(Debug, Default)]
pub struct Shared {
    phase: Option<Phase>,
    until: i64,
    pub held: Option<Held>,
    pub out: bool,
    pub epoch: Option<String>,
    pub cancel: Option<Cancel>,
    pub ended: bool,
    news: bool,
    busy: bool,
    stop: bool,
    worker: TaskId,
    task: TaskId,
}

/// Runs until it is dropped.
pub struct Heartbeat {
    pub shared: Rc<RefCell<Shared>>,
    fleet: Fleet,
}

impl Heartbeat {
    pub fn start(fleet: &Fleet, process: ProcessId, at: usize, deploy: &str, joins: bool) -> Self {
        let shared = Rc::new(RefCell::new(Shared { worker: fleet.clock.running(), ..Shared::default() }));
        let task = fleet.clock.spawn(process, keep(fleet.clone(), at, deploy.to_owned(), joins, Rc::clone(&shared)));
        shared.borrow_mut().task = task;
        Self { shared, fleet: fleet.clone() }
    }

    pub fn tell(&self, change: impl FnOnce(&mut Shared)) {
        change(&mut self.shared.borrow_mut());
        let task = self.shared.borrow().task;
        self.fleet.clock.wake(task);
    }

    pub fn enter(&self, phase: Phase, within: i64) {
        let until = self.fleet.now() + within;
        self.tell(|shared| (shared.phase, shared.until, shared.news) = (Some(phase), until, true));
    }

    /// When this returns, no renewal is under way.
    pub async fn rest(&self) {
        self.tell(|shared| (shared.until, shared.held, shared.out) = (0, None, false));
        let shared = Rc::clone(&self.shared);
        self.fleet.clock.until(i64::MAX, || !shared.borrow().busy).await;
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        if let Ok(mut shared) = self.shared.try_borrow_mut() {
            shared.stop = true;
        }
    }
}

async fn keep(fleet: Fleet, at: usize, deploy: String, joins: bool, shared: Rc<RefCell<Shared>>) {
    while next(&fleet, &shared).await {
        let says = {
            let shared = shared.borrow();
            Renewal {
                deploy: deploy.clone(),
                phase: shared.phase,
                held: shared.held.clone(),
                out: shared.out,
                epoch: shared.epoch.clone(),
                ..Renewal::default()
            }
        };
        let answer = fleet.ask_once(at, &Ask::Renew(says)).await;
        let mut heard = shared.borrow_mut();
        heard.busy = false;
        if let Ok(Answer::Renewed(pulse)) = answer {
            heard.cancel = pulse.cancel.or(heard.cancel.take());
            heard.ended = joins && pulse.ended;
            heard.epoch = Some(pulse.epoch);
        }
        fleet.clock.wake(heard.worker);
    }
}

/// Waits until there is something to say. False when it is to stop.
async fn next(fleet: &Fleet, shared: &RefCell<Shared>) -> bool {
    let begun = fleet.now();
    loop {
        let wait = {
            let mut shared = shared.borrow_mut();
            if shared.stop {
                return false;
            }
            let live = fleet.now() < shared.until;
            let interval = ms(fleet.config.renew_interval());
            let interval = if shared.held.is_some() { interval } else { LISTEN.min(interval) };
            let left = interval - (fleet.now() - begun);
            if live && (shared.news || left <= 0) {
                (shared.news, shared.busy) = (false, true);
                return true;
            }
            if live { left } else { i64::MAX / 4 }
        };
        // Whoever changes something wakes this task; when it is woken it looks again.
        let woken = std::cell::Cell::new(false);
        fleet.clock.until(fleet.now() + wait, || woken.replace(true)).await;
    }
}
