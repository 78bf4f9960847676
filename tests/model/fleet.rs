//! How one state leads to the next: each box, the service and the world do what the real ones do, by the real scripts.

use std::collections::BTreeMap;

use deployctl::coordination::scripts::Script;
use serde_json::{Value as Json, json};

use crate::model::engine::{BASE, Engine};
use crate::model::memory::Memory;
use crate::model::promises::{check_glance, check_look};
use crate::model::state::{Action, Bounds, Life, Machine, NAMES, Outcome, Stage, State, Worker, ZONES};

/// Between two moments. What was not renewed since the last one has expired, and is long ago.
pub const TICK: i64 = 1000;
const TTL: i64 = 900;
const INTERVAL: i64 = 100;
const SILENCE: i64 = 500;
const SETTLE: i64 = 500;
const HOLD: i64 = 500;
pub const JOIN_TIMEOUT: i64 = 1500;
const DEPLOY_TIMEOUT: i64 = 2500;
/// Who has not spoken for this long may be given up.
pub const SILENT_FOR: i64 = 3 * INTERVAL;

/// Takes one from a budget; nothing when it is used up.
fn spend(left: &mut u8) -> Option<()> {
    *left = left.checked_sub(1)?;
    Some(())
}

/// What a step leads to; nothing when it cannot be taken, an error when a promise is broken on the way.
pub type Step = Option<Result<State, String>>;

pub struct Fleet<'a> {
    pub engine: &'a Engine,
    pub bounds: Bounds,
}

impl<'a> Fleet<'a> {
    pub fn new(engine: &'a Engine, bounds: Bounds) -> Self {
        Self { engine, bounds }
    }

    /// The first deploy has just begun.
    pub fn first(&self) -> State {
        let machine = Machine { life: Life::Alive, out: false, excused: false, spoke: 0, tokens: 0, worker: None };
        let mut state = State {
            memory: Memory::default(),
            machines: [machine.clone(), machine.clone(), machine],
            left: self.bounds.budget,
            begun: 0,
            ended: [None, None],
            restarted: None,
            epoch: Json::Null,
        };
        self.begin(&mut state);
        state
    }

    fn run(&self, state: &mut State, script: Script, args: &Json) -> Json {
        self.engine.run(&mut state.memory, script, args)
    }

    fn begin(&self, state: &mut State) {
        state.begun += 1;
        let id = format!("d{}", state.begun);
        let mut doc = json!({
            "id": id, "role": "app", "environment": "staging", "tag": id, "kind": "deploy", "by": "ci",
            "max_parallel": self.bounds.max_parallel, "recreate": false, "force": false,
        });
        if self.bounds.steps {
            doc["steps"] = json!([{"boxes": "1", "lasts": TICK}]);
        }
        let mut args = json!({"doc": doc, "boxes": names(state, Life::Alive), "supersede": true, "gated": false, "epoch": state.epoch});
        if self.bounds.zones {
            args["zones"] = NAMES.into_iter().zip(ZONES).collect::<BTreeMap<_, _>>().into_iter().collect();
        }
        state.epoch = self.run(state, Script::Begin, &args)["epoch"].clone();
        excuse_aged(state);
    }

    /// Takes `action` in `state`.
    pub fn step(&self, state: &State, action: Action) -> Step {
        let mut next = state.clone();
        self.take(&mut next, action).map(|taken| taken.map(|()| next))
    }

    fn take(&self, state: &mut State, action: Action) -> Option<Result<(), String>> {
        match action {
            Action::Start(at) => self.start(state, at, false),
            Action::Acquire(at) => self.acquire(state, at),
            Action::Leave(at) => self.leave(state, at),
            Action::Finish(at, outcome) => self.finish(state, at, outcome),
            Action::Look => self.look(state),
            Action::Tick => {
                self.pass(state, None);
                Some(Ok(()))
            }
            Action::Stall(at) => {
                state.machines[at].worker.as_ref()?;
                spend(&mut state.left.stalls)?;
                self.pass(state, Some(at));
                Some(Ok(()))
            }
            Action::Hold(at) => {
                let worker = state.machines[at].worker.as_mut().filter(|worker| worker.stage == Stage::Out)?;
                worker.stage = Stage::Blaming;
                let args = json!({"box": NAMES[at], "deploy": deploy_id(worker.deploy), "ms": HOLD});
                spend(&mut state.left.blames)?;
                self.run(state, Script::Hold, &args);
                Some(Ok(()))
            }
            Action::Blame(at) => {
                let worker = state.machines[at].worker.as_mut().filter(|worker| worker.stage == Stage::Blaming)?;
                worker.stage = Stage::Out;
                let args = json!({"id": deploy_id(worker.deploy), "by": NAMES[at], "reason": "exits", "broken": true});
                self.run(state, Script::Cancel, &args);
                Some(Ok(()))
            }
            Action::Turn(at) => {
                let newest = state.begun;
                let machine = &mut state.machines[at];
                machine.worker.as_ref().filter(|worker| worker.stage == Stage::Out && worker.deploy < newest)?;
                machine.worker = None;
                self.start(state, at, false)
            }
            Action::Cancel => {
                state.rolling()?;
                spend(&mut state.left.cancels)?;
                self.run(state, Script::Cancel, &json!({"by": "ann", "reason": "enough"}));
                Some(Ok(()))
            }
            Action::Pause => {
                let deploy = state.rolling().filter(|_| state.read("current")["pause"].is_null())?;
                spend(&mut state.left.pauses)?;
                self.run(state, Script::Pause, &json!({"id": deploy_id(deploy), "by": "ann", "reason": "errors?"}));
                Some(Ok(()))
            }
            Action::Resume => {
                let deploy = state.rolling().filter(|_| !state.read("current")["pause"].is_null())?;
                self.run(state, Script::Pause, &json!({"id": deploy_id(deploy), "by": "ann"}));
                Some(Ok(()))
            }
            Action::Begin => {
                spend(&mut state.left.deploys)?;
                self.begin(state);
                Some(Ok(()))
            }
            Action::Repair(at) => self.repair(state, at),
            other => Self::suffer(state, other),
        }
    }

    /// What only the world does.
    fn suffer(state: &mut State, action: Action) -> Option<Result<(), String>> {
        match action {
            Action::Kill(at) => {
                state.machines[at].worker.take()?;
                spend(&mut state.left.kills)?;
            }
            Action::Die(at) => {
                let machine = &mut state.machines[at];
                if machine.life == Life::Dead {
                    return None;
                }
                spend(&mut state.left.deaths)?;
                (machine.life, machine.worker) = (Life::Dead, None);
            }
            Action::Suspect(at) => {
                if state.machines[at].life != Life::Alive {
                    return None;
                }
                spend(&mut state.left.suspects)?;
                state.machines[at].life = Life::Suspect;
            }
            Action::Trust(at) => {
                if state.machines[at].life != Life::Suspect {
                    return None;
                }
                state.machines[at].life = Life::Alive;
            }
            Action::Restart => {
                spend(&mut state.left.restarts)?;
                state.memory.run += 1;
                state.restarted = Some(state.memory.now);
            }
            Action::Flush => {
                spend(&mut state.left.flushes)?;
                state.memory.flush();
                state.restarted = Some(state.memory.now);
            }
            other => unreachable!("{other:?}"),
        }
        Some(Ok(()))
    }

    fn start(&self, state: &mut State, at: usize, retry: bool) -> Option<Result<(), String>> {
        let machine = &state.machines[at];
        if machine.worker.is_some() || machine.life == Life::Dead {
            return None;
        }
        let deploy = state.rolling()?;
        let mut args =
            json!({"box": NAMES[at], "deploy": deploy_id(deploy), "boxes": names(state, Life::Alive), "retry": retry});
        if self.bounds.zones {
            args["zone"] = json!(ZONES[at]);
        }
        let joined = self.run(state, Script::Join, &args);
        let now = state.memory.now;
        let machine = &mut state.machines[at];
        machine.spoke = now;
        if joined["joined"] == true {
            let epoch = joined["epoch"].clone();
            machine.worker =
                Some(Worker { deploy, stage: Stage::Waiting, suffix: Json::Null, token: String::new(), epoch });
        }
        Some(Ok(()))
    }

    fn acquire(&self, state: &mut State, at: usize) -> Option<Result<(), String>> {
        let worker = state.machines[at].worker.clone().filter(|worker| worker.stage == Stage::Waiting)?;
        let before = state.clone();
        Some(
            self.ask_for_lock(state, at, worker)
                .and_then(|granted| if granted { self.check_grant(&before, at) } else { Ok(()) }),
        )
    }

    /// Whether a lock was granted to a box that serves.
    fn ask_for_lock(&self, state: &mut State, at: usize, mut worker: Worker) -> Result<bool, String> {
        let machine = &mut state.machines[at];
        machine.tokens += 1;
        machine.spoke = state.memory.now;
        let (token, was_out) = (format!("{}{}", NAMES[at], machine.tokens), machine.out);
        let mut args = json!({
            "box": NAMES[at], "deploy": deploy_id(worker.deploy), "token": token, "ttl": TTL, "settle": SETTLE, "epoch": worker.epoch,
        });
        if worker.deploy == 0 {
            args["hand"] = json!({"size": 3, "max_parallel": self.bounds.max_parallel});
        }
        let answer = self.run(state, Script::Acquire, &args);
        if let Some(epoch) = answer.get("epoch") {
            worker.epoch = epoch.clone();
        }
        if answer.get("granted").is_some() {
            (worker.suffix, worker.token) = (answer["granted"].clone(), token);
            worker.stage = if was_out { Stage::Out } else { Stage::Holding };
            if was_out && answer["out"] == false && !state.machines[at].excused {
                return Err(format!("{} is out, and Redis does not know", NAMES[at]));
            }
            state.machines[at].worker = Some(worker);
            return Ok(!was_out);
        }
        let stopped = answer.get("stop").is_some();
        if stopped && was_out {
            // Whatever became of the deploy, the box has to come back.
            worker.deploy = 0;
        }
        state.machines[at].worker = Some(worker);
        if stopped && !was_out {
            self.end_part(state, at, Some("cancelled"), true);
        }
        Ok(false)
    }

    fn leave(&self, state: &mut State, at: usize) -> Option<Result<(), String>> {
        let worker = state.machines[at].worker.clone().filter(|worker| worker.stage == Stage::Holding)?;
        let args = json!({
            "box": NAMES[at], "deploy": deploy_id(worker.deploy), "suffix": worker.suffix, "token": worker.token, "ttl": TTL,
            "surveys": [],
        });
        let paused = !state.read("current")["pause"].is_null();
        let stopped = !state.cancel(worker.deploy).is_null();
        let answer = self.run(state, Script::Leave, &args);
        let now = state.memory.now;
        let machine = &mut state.machines[at];
        machine.spoke = now;
        let going = machine.worker.as_mut().unwrap();
        match answer["refused"].as_str() {
            None if stopped => return Some(Err(format!("{} left after the cancel", NAMES[at]))),
            None if paused => return Some(Err(format!("{} left during a pause", NAMES[at]))),
            None => {
                going.stage = Stage::Out;
                machine.out = true;
            }
            Some("cancelled" | "ended") => self.end_part(state, at, Some("cancelled"), true),
            Some(_) => {
                going.stage = Stage::Waiting;
                let kept = going.clone();
                self.end_part(state, at, None, true);
                state.machines[at].worker = Some(Worker { suffix: Json::Null, token: String::new(), ..kept });
            }
        }
        Some(Ok(()))
    }

    fn finish(&self, state: &mut State, at: usize, outcome: Outcome) -> Option<Result<(), String>> {
        let worker = state.machines[at].worker.clone().filter(|worker| worker.stage != Stage::Waiting)?;
        let broken = state.cancel(worker.deploy)["broken"] == true;
        let fits = match outcome {
            Outcome::Done => worker.stage == Stage::Out && !broken,
            Outcome::RolledBack => worker.stage == Stage::Out && broken,
            Outcome::Failed | Outcome::Stranded => worker.stage != Stage::Holding,
        };
        if !fits {
            return None;
        }
        let (phase, in_service) = match outcome {
            Outcome::Done => ("done", true),
            Outcome::RolledBack => ("rolled_back", true),
            Outcome::Failed => {
                spend(&mut state.left.failures)?;
                ("failed", true)
            }
            Outcome::Stranded => {
                spend(&mut state.left.strandings)?;
                ("failed", false)
            }
        };
        self.end_part(state, at, Some(phase), in_service);
        Some(Ok(()))
    }

    /// `finish`, and the end of the worker.
    fn end_part(&self, state: &mut State, at: usize, phase: Option<&str>, in_service: bool) {
        let worker = state.machines[at].worker.take().expect("a worker");
        let mut args = json!({
            "box": NAMES[at], "deploy": deploy_id(worker.deploy), "in_service": in_service, "quiet": phase.is_none(),
        });
        if let Some(phase) = phase {
            args["phase"] = json!(phase);
        }
        if !worker.suffix.is_null() {
            args["suffix"] = worker.suffix;
            args["token"] = json!(worker.token);
        }
        state.machines[at].spoke = state.memory.now;
        if in_service {
            (state.machines[at].out, state.machines[at].excused) = (false, false);
        }
        self.run(state, Script::Finish, &args);
    }

    /// A person lets a box that stayed out try again: in the deploy that rolls, or by hand.
    fn repair(&self, state: &mut State, at: usize) -> Option<Result<(), String>> {
        let machine = &state.machines[at];
        if machine.worker.is_some() || machine.life == Life::Dead || !machine.out {
            return None;
        }
        spend(&mut state.left.repairs)?;
        if state.rolling().is_some() {
            return self.start(state, at, true);
        }
        let worker =
            Worker { deploy: 0, stage: Stage::Waiting, suffix: Json::Null, token: String::new(), epoch: Json::Null };
        Some(self.ask_for_lock(state, at, worker).map(|_| ()))
    }

    /// Time passes, in which every worker but the one that stalls renews.
    fn pass(&self, state: &mut State, stalled: Option<usize>) {
        for _ in 0..2 {
            state.memory.advance(TICK / 2);
            for at in (0..NAMES.len()).filter(|at| Some(*at) != stalled) {
                self.renew(state, at);
            }
        }
        excuse_aged(state);
        if state.restarted.is_some_and(|at| state.memory.now >= at + SETTLE) {
            state.restarted = None;
        }
    }

    fn renew(&self, state: &mut State, at: usize) {
        let Some(worker) = state.machines[at].worker.clone() else { return };
        let out = state.machines[at].out;
        let mut args = json!({
            "box": NAMES[at], "deploy": deploy_id(worker.deploy), "ttl": TTL, "out": out, "epoch": worker.epoch,
        });
        if !worker.suffix.is_null() {
            args["suffix"] = worker.suffix;
            args["token"] = json!(worker.token);
        }
        if out && worker.stage != Stage::Waiting {
            args["phase"] = json!("draining");
        }
        let pulse = self.run(state, Script::Renew, &args);
        state.machines[at].spoke = state.memory.now;
        if let Some(worker) = &mut state.machines[at].worker {
            worker.epoch = pulse["epoch"].clone();
        }
    }

    fn look(&self, state: &mut State) -> Option<Result<(), String>> {
        let deploy = state.rolling()?;
        let long = if self.bounds.timeouts { DEPLOY_TIMEOUT } else { i64::MAX / 2 };
        let mut dead = names(state, Life::Dead);
        dead.extend(names(state, Life::Suspect));
        let args = json!({
            "id": deploy_id(deploy), "alive": names(state, Life::Alive), "failed": dead, "left": [], "interval": INTERVAL,
            "ttl": TTL, "silence": SILENCE, "join_timeout": JOIN_TIMEOUT, "lock_timeout": long, "deploy_timeout": long,
            // Who was not upgraded writes down nothing that a glance goes by.
            "often": if self.engine.older.is_some() { -1 } else { i64::MAX / 2 },
        });
        let glance = self.run(state, Script::Glance, &args);
        let before = state.clone();
        let answer = self.run(state, Script::End, &args);
        let nothing = check_glance(&glance, &before, state, &answer);
        Some(nothing.and_then(|()| check_look(&before, state, deploy, &answer)))
    }
}

/// A box that is out from an earlier deploy no longer prevents one when its TTL has passed: as time passes, and at once
/// where the deploy that it counted in gives way to another.
fn excuse_aged(state: &mut State) {
    for (machine, name) in state.machines.iter_mut().zip(NAMES) {
        let entry = state.memory.field(&format!("{BASE}out"), name);
        let entry: Option<Json> = entry.map(|text| serde_json::from_str(text).unwrap());
        let aged = entry.is_some_and(|entry| {
            entry["deploy"] != format!("d{}", state.begun)
                && state.memory.now >= entry["renewed"].as_i64().unwrap() + TTL
        });
        machine.excused |= machine.out && aged;
    }
}

fn deploy_id(number: usize) -> String {
    if number == 0 { "hand.1".to_owned() } else { format!("d{number}") }
}

fn names(state: &State, life: Life) -> Vec<&'static str> {
    state.machines.iter().zip(NAMES).filter(|(machine, _)| machine.life == life).map(|(_, name)| name).collect()
}
