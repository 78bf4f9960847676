//! What happens to a fleet: processes that die or stop, machines, lines, Serf, Redis, the service.

use std::{cell::RefCell, rc::Rc};

use deployctl::agent::plan::Trigger;

use crate::simulation::{
    fleet::Fleet,
    server::{self, Mode},
    service, worker,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    WorkerKilled,
    WorkerPaused,
    Reboot,
    Death,
    Cut,
    BadLine,
    /// The host of service and Redis loses the fleet.
    Island,
    AgentLeaves,
    AgentFails,
    BlindService,
    Sick,
    RedisRestarts,
    RedisFailsOver,
    RedisReadOnly,
    RedisSlow,
    ServiceKilled,
    ServicePaused,
    TwoServices,
}

pub const ALL: [Trouble; 18] = [
    Trouble::WorkerKilled,
    Trouble::WorkerPaused,
    Trouble::Reboot,
    Trouble::Death,
    Trouble::Cut,
    Trouble::BadLine,
    Trouble::Island,
    Trouble::AgentLeaves,
    Trouble::AgentFails,
    Trouble::BlindService,
    Trouble::Sick,
    Trouble::RedisRestarts,
    Trouble::RedisFailsOver,
    Trouble::RedisReadOnly,
    Trouble::RedisSlow,
    Trouble::ServiceKilled,
    Trouble::ServicePaused,
    Trouble::TwoServices,
];

/// Makes `trouble`, for somebody.
pub fn make(fleet: &Fleet, trouble: Trouble) {
    let (now, at) = (fleet.now(), fleet.dice(|dice| dice.below(fleet.size())));
    let name = fleet.name(at);
    let time = |low: i64, high: i64| fleet.dice(|dice| dice.between(low * 1000, high * 1000));
    match trouble {
        Trouble::WorkerKilled => {
            if let Some(process) = fleet.machine(at, |machine| machine.worker) {
                fleet.tell(format!("{name}: its worker is killed"));
                kill_worker(fleet, at, process);
            }
        }
        Trouble::WorkerPaused => {
            if let Some(process) = fleet.machine(at, |machine| machine.worker) {
                let time = time(5, 120);
                fleet.tell(format!("{name}: its worker stands still for {} s", time / 1000));
                fleet.clock.pause(process, now + time);
            }
        }
        Trouble::Reboot => {
            let time = time(20, 180);
            go_down(fleet, at, &format!("reboots, for {} s", time / 1000));
            let theirs = fleet.clone();
            fleet.clock.spawn(0, async move {
                theirs.clock.sleep(time).await;
                come_up(&theirs, at);
            });
        }
        Trouble::Death => go_down(fleet, at, "dies for good"),
        Trouble::Cut => {
            let time = time(3, 100);
            fleet.tell(format!("{name} is cut off for {} s", time / 1000));
            fleet.machine(at, |machine| machine.cut_until = now + time);
        }
        Trouble::BadLine => {
            let time = time(10, 120);
            fleet.tell(format!("{name}: its line is bad for {} s", time / 1000));
            fleet.machine(at, |machine| machine.bad_line_until = now + time);
        }
        Trouble::Island => {
            let time = time(10, 120);
            fleet.tell(format!("Redis and the service lose the fleet for {} s", time / 1000));
            fleet.services.blind(now + time);
            fleet.machines.borrow_mut().iter_mut().for_each(|machine| machine.cut_until = now + time);
        }
        Trouble::BlindService => {
            let time = time(10, 120);
            fleet.tell(format!("the service's agent sees nobody for {} s", time / 1000));
            fleet.services.blind(now + time);
        }
        Trouble::AgentLeaves => agent_away(fleet, at, true, time(2, 30)),
        Trouble::AgentFails => agent_away(fleet, at, false, time(10, 150)),
        Trouble::Sick => {
            let time = time(20, 240);
            fleet.tell(format!("{name}: nothing works there for {} s", time / 1000));
            fleet.machine(at, |machine| machine.sick_until = now + time);
        }
        Trouble::RedisRestarts => {
            let time = time(1, 70);
            fleet.tell(format!("Redis restarts, and is away for {} s", time / 1000));
            redis_away(fleet, time, None);
        }
        Trouble::RedisFailsOver => {
            let (behind, time) = (time(0, 15), time(1, 20));
            let older = server::memory(|memory| memory.clone());
            let theirs = fleet.clone();
            fleet.clock.spawn(0, async move {
                theirs.clock.sleep(behind).await;
                theirs.tell(format!("Redis fails over to a replica that is {} s behind", behind / 1000));
                redis_away(&theirs, time, Some(older));
            });
        }
        Trouble::RedisReadOnly => {
            let time = time(2, 40);
            fleet.tell(format!("Redis cannot be written for {} s", time / 1000));
            set_mode(fleet, Mode::ReadOnly, time);
        }
        Trouble::RedisSlow => {
            let time = time(10, 90);
            fleet.tell(format!("Redis is slow for {} s", time / 1000));
            fleet.slow_until.set(now + time);
        }
        Trouble::ServiceKilled => {
            if let Some(process) = fleet.services.processes().first() {
                fleet.tell("the service is killed");
                service::kill(fleet, *process);
            }
        }
        Trouble::ServicePaused => {
            if let Some(process) = fleet.services.processes().first() {
                let time = time(5, 120);
                fleet.tell(format!("the service stands still for {} s", time / 1000));
                fleet.clock.pause(*process, now + time);
            }
        }
        Trouble::TwoServices => {
            if fleet.services.processes().len() < 2 {
                fleet.tell("another service starts beside it");
                service::start(fleet);
            }
        }
    }
}

fn kill_worker(fleet: &Fleet, at: usize, process: usize) {
    fleet.clock.kill(process);
    // What it had announced and not begun does not happen.
    fleet.machine(at, |machine| (machine.worker, machine.leaving) = (None, false));
}

fn go_down(fleet: &Fleet, at: usize, how: &str) {
    if !fleet.machine(at, |machine| machine.up) {
        return;
    }
    fleet.tell(format!("{} {how}", fleet.name(at)));
    if let Some(process) = fleet.machine(at, |machine| machine.worker) {
        kill_worker(fleet, at, process);
    }
    let now = fleet.now();
    fleet.machine(at, |machine| (machine.up, machine.left, machine.agent_since) = (false, false, now));
}

fn come_up(fleet: &Fleet, at: usize) {
    if fleet.machine(at, |machine| machine.up) {
        return;
    }
    let now = fleet.now();
    fleet.tell(format!("{} is up again", fleet.name(at)));
    fleet.machine(at, |machine| (machine.up, machine.agent, machine.agent_since) = (true, true, now));
    worker::wake(fleet, at, Trigger::Heal);
}

fn agent_away(fleet: &Fleet, at: usize, left: bool, time: i64) {
    let how = if left { "leaves" } else { "fails" };
    fleet.tell(format!("{}: its Serf agent {how} for {} s", fleet.name(at), time / 1000));
    let now = fleet.now();
    fleet.machine(at, |machine| (machine.agent, machine.left, machine.agent_since) = (false, left, now));
    let theirs = fleet.clone();
    fleet.clock.spawn(0, async move {
        theirs.clock.sleep(time).await;
        let now = theirs.now();
        theirs.machine(at, |machine| (machine.agent, machine.left, machine.agent_since) = (true, false, now));
    });
}

fn set_mode(fleet: &Fleet, mode: Mode, time: i64) {
    let until = fleet.now() + time;
    if server::mode() != Mode::Serves {
        return;
    }
    server::set_mode(mode);
    let theirs = fleet.clone();
    fleet.clock.spawn(0, async move {
        theirs.clock.until(until, || false).await;
        server::set_mode(Mode::Serves);
        theirs.wake_waiters();
    });
}

/// Another run of Redis; with `older` data, if that is given.
fn redis_away(fleet: &Fleet, time: i64, older: Option<crate::model::memory::Memory>) {
    if server::mode() != Mode::Serves {
        return;
    }
    set_mode(fleet, Mode::Down, time);
    let forgets = older.is_some();
    server::memory(|memory| {
        let (now, run) = (memory.now, memory.run);
        if let Some(older) = older {
            *memory = older;
        }
        memory.advance(now - memory.now);
        memory.run = run + 1;
    });
    if forgets {
        fleet.promises.borrow_mut().redis_forgot(fleet);
    }
}

/// Everything works again, but for the dead.
pub fn end(fleet: &Fleet) {
    fleet.calm.set(true);
    let now = fleet.now();
    for machine in fleet.machines.borrow_mut().iter_mut() {
        (machine.cut_until, machine.bad_line_until, machine.sick_until) = (now, now, now);
    }
    fleet.slow_until.set(now);
    let running = Rc::new(RefCell::new(fleet.services.processes()));
    fleet.services.blind(now);
    if running.borrow().is_empty() {
        service::start(fleet);
    }
}
