//! The real deployment service, one process or two, without its threads; and what boxes and people ask it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use anyhow::{Result, anyhow};
use deployctl::{
    api::Current,
    serf::{Member, MemberStatus},
    service::{Gossip, Stepwise},
};
use serde_json::{Value as Json, json};

use crate::simulation::{
    clock::ProcessId,
    fleet::{ANSWER, Fleet},
    server, worker,
};

thread_local! {
    /// What the agent beside the service that runs says.
    static MEMBERS: RefCell<Vec<Member>> = const { RefCell::new(vec![]) };
    /// Events that were sent.
    static EVENTS: Cell<u32> = const { Cell::new(0) };
}

struct Agent;

impl Gossip for Agent {
    fn members(&self, _: &dyn Fn() -> bool) -> Result<Vec<Member>> {
        MEMBERS.with(|members| Ok(members.borrow().clone()))
    }

    fn event(&self, _: &str, _: &str, _: &dyn Fn() -> bool) -> Result<()> {
        EVENTS.with(|events| events.set(events.get() + 1));
        Ok(())
    }
}

struct Process {
    id: ProcessId,
    stepwise: Rc<Stepwise>,
    /// Its agent sees nobody else.
    blind_until: i64,
}

#[derive(Default)]
pub struct Services(RefCell<Vec<Process>>);

impl Services {
    pub fn processes(&self) -> Vec<ProcessId> {
        self.0.borrow().iter().map(|process| process.id).collect()
    }

    pub fn blind(&self, until: i64) {
        self.0.borrow_mut().iter_mut().for_each(|process| process.blind_until = until);
    }
}

/// A process of the service starts, and watches from now on.
pub fn start(fleet: &Fleet) {
    let process = fleet.clock.process();
    let stepwise = Rc::new(Stepwise::new(fleet.config.clone(), server::address(), Agent).unwrap());
    fleet.services.0.borrow_mut().push(Process { id: process, stepwise, blind_until: 0 });
    let theirs = fleet.clone();
    fleet.clock.spawn(process, async move {
        loop {
            let tick = run(&theirs, process, |service| {
                let _ = service.renew_leases();
                service.tick()
            });
            // What fails is tried again.
            drop(tick);
            // Less often than the real one, so that a schedule is through sooner; well within its own patience.
            let pause = theirs.dice(|dice| dice.between(1000, 5000));
            theirs.clock.sleep(pause).await;
        }
    });
}

/// SIGKILL; something starts it again.
pub fn kill(fleet: &Fleet, process: ProcessId) {
    fleet.clock.kill(process);
    fleet.services.0.borrow_mut().retain(|known| known.id != process);
    let (theirs, pause) = (fleet.clone(), fleet.dice(|dice| dice.between(1000, 60_000)));
    fleet.clock.spawn(0, async move {
        theirs.clock.sleep(pause).await;
        start(&theirs);
    });
}

/// Lets one process of the service do something. In times of trouble it may be killed in the middle of it.
fn run<T>(fleet: &Fleet, process: ProcessId, act: impl FnOnce(&Stepwise) -> T) -> Option<T> {
    let (stepwise, is_blind) = {
        let services = fleet.services.0.borrow();
        let found = services.iter().find(|known| known.id == process)?;
        (Rc::clone(&found.stepwise), found.blind_until > fleet.now())
    };
    MEMBERS.with(|members| members.replace(seen(fleet, is_blind)));
    let fuse = fleet.dice(|dice| (!fleet.calm.get() && dice.below(400) == 0).then(|| dice.below(30)));
    server::light_fuse(fuse.map(|commands| u32::try_from(commands).unwrap()));
    fleet.promises.borrow_mut().before(fleet);
    // Each of its steps is looked at by itself: within one look a deploy may end and the next one begin.
    let theirs = fleet.clone();
    let done = server::observed(move || theirs.promises.borrow_mut().after_service(&theirs), || act(&stepwise));
    let is_blown = server::is_blown();
    server::light_fuse(None);
    fleet.promises.borrow_mut().after_service(fleet);
    fleet.wake_waiters();
    if EVENTS.take() > 0 {
        send_event(fleet);
    }
    if is_blown {
        fleet.tell("the service is killed in the middle of something");
        kill(fleet, process);
        return None;
    }
    Some(done)
}

fn seen(fleet: &Fleet, is_blind: bool) -> Vec<Member> {
    let status = |at| match fleet.serf(at) {
        _ if is_blind => MemberStatus::Failed,
        "alive" => MemberStatus::Alive,
        "left" => MemberStatus::Left,
        _ => MemberStatus::Failed,
    };
    let tags = |at| {
        let zone = fleet.zone(at).map(|zone| ("zone", zone.to_string()));
        let tags = [("images", "app".to_owned()), ("environment", "staging".to_owned())].into_iter().chain(zone);
        tags.map(|(name, tag)| (name.to_owned(), tag)).collect()
    };
    let member =
        |at| Member { name: fleet.name(at).to_string(), addr: String::new(), status: status(at), tags: tags(at) };
    (0..fleet.size()).map(member).collect()
}

/// Gossip: to everybody who hears it, sooner or later.
fn send_event(fleet: &Fleet) {
    for at in 0..fleet.size() {
        let (hears, after) = fleet.dice(|dice| (dice.percent(97), dice.between(50, 1500)));
        if !hears || !fleet.machine(at, |machine| machine.is_alive() && machine.cut_until < fleet.now()) {
            continue;
        }
        let theirs = fleet.clone();
        fleet.clock.spawn(0, async move {
            theirs.clock.sleep(after).await;
            worker::wake(&theirs, at, deployctl::agent::plan::Trigger::Heal);
        });
    }
}

/// A call of the API by a person, who reaches the service at once. Nothing where none runs.
pub fn call(fleet: &Fleet, method: &str, path: &[&str], query: &[(&str, &str)], body: &Json) -> Option<(u16, Json)> {
    let running = fleet.services.processes();
    let awake: Vec<ProcessId> = running.into_iter().filter(|process| !fleet.clock.is_paused(*process)).collect();
    if awake.is_empty() {
        return None;
    }
    let process = fleet.dice(|dice| dice.of(&awake));
    let body = if body.is_null() { vec![] } else { body.to_string().into_bytes() };
    let (status, text) = run(fleet, process, |service| service.answer(method, path, query, &body))?;
    Some((status, serde_json::from_str(&text).unwrap_or(Json::Null)))
}

/// The same by a box. An error may pass.
async fn call_from(
    fleet: &Fleet,
    at: usize,
    method: &'static str,
    path: Vec<String>,
    query: &'static [(&'static str, &'static str)],
    body: Json,
) -> Result<(u16, Json)> {
    let slot: Rc<RefCell<Option<(u16, Json)>>> = Rc::default();
    if let Some(there) = fleet.latency(at) {
        let (theirs, slot, caller) = (fleet.clone(), Rc::clone(&slot), fleet.clock.running());
        fleet.clock.spawn(0, async move {
            theirs.clock.sleep(there).await;
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let answer = call(&theirs, method, &path, query, &body);
            if let Some(back) = theirs.latency(at) {
                theirs.clock.sleep(back).await;
                *slot.borrow_mut() = answer;
                theirs.clock.wake(caller);
            }
        });
    }
    fleet.clock.until(fleet.now() + ANSWER, || slot.borrow().is_some()).await;
    let answer = slot.borrow_mut().take();
    answer.filter(|(status, _)| *status < 500).ok_or_else(|| anyhow!("the service does not answer"))
}

pub async fn current(fleet: &Fleet, at: usize) -> Result<Option<Current>> {
    const PLACE: &[(&str, &str)] = &[("role", "app"), ("environment", "staging")];
    let path = ["v1", "deploys", "current"].map(str::to_owned).to_vec();
    let (status, body) = call_from(fleet, at, "GET", path, PLACE, Json::Null).await?;
    Ok(if status == 200 { Some(serde_json::from_value(body)?) } else { None })
}

pub async fn complete(fleet: &Fleet, at: usize, id: &str) {
    let path = ["v1", "deploys", id, "complete"].map(str::to_owned).to_vec();
    // Where it is not heard the service sees by itself.
    let _ = call_from(fleet, at, "POST", path, &[], json!({"box": fleet.name(at)})).await;
}

/// Whether the blame stands.
pub async fn broken(fleet: &Fleet, at: usize, id: &str, reason: &str) -> Result<bool> {
    let path = ["v1", "deploys", id, "broken"].map(str::to_owned).to_vec();
    let body = json!({"box": fleet.name(at), "reason": reason, "logs": "exits"});
    let (status, answer) = call_from(fleet, at, "POST", path, &[], body).await?;
    Ok(status == 200 || answer["error"]["kind"] == "ended")
}
