//! Goes through every state that can be reached, breadth first, and says how a promise was broken.

use std::collections::{HashMap, VecDeque};

use serde_json::Value as Json;

use crate::model::engine::{BASE, Engine};
use crate::model::fleet::{Fleet, JOIN_TIMEOUT, TICK};
use crate::model::state::{Action, Bounds, NAMES, State};

/// What was found.
#[derive(Debug)]
pub enum Found {
    /// All promises hold in this many states; `whole` when there are no more.
    Kept { states: usize, whole: bool },
    /// One is broken, and the shortest way there.
    Broken { promise: String, trace: Vec<Action> },
}

struct Node {
    parent: usize,
    action: Action,
    /// By fair steps.
    leads_to: Vec<usize>,
    ended: bool,
    explored: bool,
}

/// Explores from the first state of `bounds`.
pub fn explore(engine: &Engine, bounds: Bounds) -> Found {
    let fleet = Fleet::new(engine, bounds);
    let actions = Action::all();
    let first = fleet.first();
    let mut known = HashMap::from([(fingerprint(&first), 0)]);
    let mut nodes = vec![Node { parent: 0, action: Action::Begin, leads_to: vec![], ended: false, explored: false }];
    let mut queue = VecDeque::from([(0, first)]);
    while let Some((at, state)) = queue.pop_front() {
        if nodes.len() > bounds.states {
            break;
        }
        nodes[at].explored = true;
        for &action in &actions {
            let next = match fleet.checked_step(&state, action) {
                None => continue,
                Some(Err(promise)) => return broken(promise, &nodes, at, Some(action)),
                Some(Ok(next)) => next,
            };
            let new = nodes.len();
            let to = *known.entry(fingerprint(&next)).or_insert(new);
            if to == new {
                let ended = next.rolling().is_none();
                nodes.push(Node { parent: at, action, leads_to: vec![], ended, explored: false });
                queue.push_back((to, next));
            }
            if action.is_fair() && to != at {
                nodes[at].leads_to.push(to);
            }
        }
    }
    match without_end(&nodes) {
        Some(at) => broken("no fair steps end the deploy from here".to_owned(), &nodes, at, None),
        None => Found::Kept { states: nodes.len(), whole: queue.is_empty() },
    }
}

/// One way through the states of `bounds`, of `steps` steps, as `seed` picks them.
pub fn wander(engine: &Engine, bounds: Bounds, mut seed: u64, steps: usize) -> Found {
    let fleet = Fleet::new(engine, bounds);
    let (mut state, mut trace) = (fleet.first(), vec![]);
    let actions = Action::all();
    while trace.len() < steps {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let action = actions[usize::try_from(seed >> 33).unwrap() % actions.len()];
        let Some(taken) = fleet.checked_step(&state, action) else { continue };
        trace.push(action);
        match taken {
            Ok(next) => state = next,
            Err(promise) => return Found::Broken { promise, trace },
        }
    }
    Found::Kept { states: steps, whole: false }
}

fn broken(promise: String, nodes: &[Node], mut at: usize, last: Option<Action>) -> Found {
    let mut trace: Vec<Action> = last.into_iter().collect();
    while at != 0 {
        trace.push(nodes[at].action);
        at = nodes[at].parent;
    }
    trace.reverse();
    Found::Broken { promise, trace }
}

/// A state from which no way by fair steps leads to an end (or to where nobody has looked).
fn without_end(nodes: &[Node]) -> Option<usize> {
    let mut comes_from = vec![vec![]; nodes.len()];
    for (from, node) in nodes.iter().enumerate() {
        for &to in &node.leads_to {
            comes_from[to].push(from);
        }
    }
    let mut ends: Vec<bool> = nodes.iter().map(|node| node.ended || !node.explored).collect();
    let mut queue: Vec<usize> = (0..nodes.len()).filter(|at| ends[*at]).collect();
    while let Some(at) = queue.pop() {
        for &from in &comes_from[at] {
            if !ends[from] {
                ends[from] = true;
                queue.push(from);
            }
        }
    }
    ends.iter().position(|ends| !ends)
}

/// What distinguishes a state from others: without what nothing depends on, times as ages as far as they matter, and the
/// boxes in an order of their own, since they differ by name only.
fn fingerprint(state: &State) -> u128 {
    let mut boxes: Vec<String> = (0..NAMES.len()).map(|at| of_box(state, at)).collect();
    boxes.sort_unstable();
    let memory = &state.memory;
    let current = state.read("current");
    let progress = memory.field(&format!("{BASE}deploy:d{}:tally", state.begun), "progress");
    let walk: Vec<_> = memory.hash(&format!("{BASE}walk")).collect();
    let epoch = state.read("epoch");
    let shared = format!(
        "{}{:?}{:?}{:?} {} {} {} {} {} {walk:?} {:?} {} {} {} {} {}",
        state.begun,
        state.left,
        state.ended.each_ref().map(|ended| ended.as_ref().map(|text| text.split(' ').next().unwrap().to_owned())),
        state.restarted.map(|at| age(state, &Json::from(at), 1)),
        current["state"],
        age(state, &current["started"], 3),
        cancel(state, 1),
        cancel(state, 2),
        progress.map_or_else(String::new, |text| age(state, &Json::from(text.parse::<i64>().unwrap()), 3)),
        memory.get(&format!("{BASE}full")).is_some(),
        kept(state),
        age(state, &epoch["since"], 1),
        state.epoch == epoch["id"],
        memory.run,
        standing(state, &current),
    );
    boxes.push(shared);
    hash(&boxes.join("|"))
}

/// Whether the counts are believed, and which suffixes were freed.
fn kept(state: &State) -> String {
    let free: Vec<String> = state.memory.sorted(&format!("{BASE}free")).into_iter().map(|(_, suffix)| suffix).collect();
    format!("{}{}", state.memory.get(&format!("{BASE}counted")).is_some(), free.join(","))
}

/// The pause and the step of a deploy.
fn standing(state: &State, current: &Json) -> String {
    let (pause, since) = (age(state, &current["pause"]["at"], 3), age(state, &current["step_since"], 1));
    format!("{pause}{} {}{since}{}", current["paused_for"], current["step"], current["step_dead"])
}

fn cancel(state: &State, deploy: usize) -> String {
    let cancel = state.cancel(deploy);
    format!("{}{}{}{}", cancel.is_null(), cancel["broken"], cancel["failed"], cancel["superseded"])
}

/// How many ticks ago that was, or `most`.
fn age(state: &State, time: &Json, most: i64) -> String {
    let ticks = time.as_i64().map(|time| ((state.memory.now - time + TICK - 1).div_euclid(TICK)).clamp(-1, most));
    format!("{ticks:?}")
}

fn of_box(state: &State, at: usize) -> String {
    let (machine, name, memory) = (&state.machines[at], NAMES[at], &state.memory);
    let ticks = JOIN_TIMEOUT / TICK + 1;
    let token = machine.worker.as_ref().map_or("", |worker| &worker.token);
    let epoch = state.read("epoch");
    let worker = machine.worker.as_ref().map(|worker| {
        (worker.deploy, worker.stage, worker.suffix.as_u64(), worker.epoch.is_null(), worker.epoch == epoch["id"])
    });
    let rows: Vec<String> = (1..=state.begun)
        .filter_map(|deploy| {
            let row = state.row(deploy, name)?;
            let hold = memory.field(&format!("{BASE}deploy:d{deploy}:hold"), name);
            let hold = hold.map(|until| until.parse::<i64>().unwrap() > memory.now);
            let seen = if state.rolling() == Some(deploy) { age(state, &row["seen"], ticks) } else { String::new() };
            Some(format!("{deploy}{}{seen}{hold:?}", row["phase"]))
        })
        .collect();
    let out = state.out_entry(name).map(|entry| {
        (
            entry["deploy"].clone(),
            entry["token"] == token,
            age(state, &entry["renewed"], ticks),
            entry["hand"].clone(),
            entry["begun"].clone(),
        )
    });
    let locks: Vec<String> = (1..=4)
        .filter_map(|suffix| {
            let lock = state.read(&format!("lock:{suffix}"));
            (lock["box"] == name).then(|| {
                format!("{suffix}{}{}{}", lock["deploy"], lock["token"] == token, age(state, &lock["renewed"], ticks))
            })
        })
        .collect();
    let holder = memory.field(&format!("{BASE}holders"), name);
    let spoke = age(state, &Json::from(machine.spoke), 1);
    let (life, is_out, excused) = (machine.life, machine.out, machine.excused);
    format!("{life:?}{is_out}{excused}{worker:?}{rows:?}{out:?}{locks:?}{holder:?}{spoke}")
}

/// FNV, 128 bits: two states that share one are not to be feared.
fn hash(text: &str) -> u128 {
    text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}
