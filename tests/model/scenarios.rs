//! What is explored. Everything at once is too much, so that each scenario looks at a few kinds of trouble together, in
//! every order; and walks at random look at all of it.

use std::time::Instant;

use crate::model::engine::{Engine, Older};
use crate::model::explore::{Found, explore, wander};
use crate::model::state::{Bounds, Budget};

pub const NOTHING: Budget = Budget {
    kills: 0,
    stalls: 0,
    deaths: 0,
    suspects: 0,
    failures: 0,
    strandings: 0,
    blames: 0,
    cancels: 0,
    deploys: 0,
    pauses: 0,
    repairs: 0,
    restarts: 0,
    flushes: 0,
};
/// Everything that the protocol promises to survive, together.
const TROUBLE: Budget = Budget {
    kills: 2,
    stalls: 2,
    deaths: 1,
    suspects: 1,
    failures: 1,
    strandings: 1,
    blames: 2,
    cancels: 1,
    deploys: 1,
    pauses: 1,
    repairs: 2,
    restarts: 1,
    flushes: 0,
};
/// A Redis that loses everything learns it again from workers that live.
const FORGETFUL: Budget = Budget { flushes: 1, deploys: 1, blames: 1, restarts: 1, failures: 1, ..NOTHING };

pub const ONE: Bounds = Bounds {
    max_parallel: "1/3",
    locks: 1,
    budget: NOTHING,
    timeouts: false,
    steps: false,
    zones: false,
    states: usize::MAX,
};
pub const TWO: Bounds = Bounds { max_parallel: "2", locks: 2, ..ONE };
/// Two at a time, and of the zone of two boxes one.
pub const ZONES: Bounds = Bounds { max_parallel: "2/3", locks: 2, zones: true, ..ONE };

/// `DEPLOYCTL_MODEL=full`, which `make model` sets: as far as memory reaches, instead of a minute.
fn is_full() -> bool {
    std::env::var("DEPLOYCTL_MODEL").is_ok_and(|depth| depth == "full")
}

/// Every state of `bounds` with `budget`, or the nearest of them where there are too many.
#[track_caller]
fn keeps(bounds: Bounds, budget: Budget) {
    keeps_with(&Engine::new(None), bounds, budget);
}

#[track_caller]
fn keeps_with(engine: &Engine, bounds: Bounds, budget: Budget) {
    let states = if is_full() { 200_000 } else { 1500 };
    let start = Instant::now();
    match explore(engine, Bounds { budget, states, ..bounds }) {
        Found::Kept { states, whole } => println!("{states} states, all of them: {whole}, in {:?}", start.elapsed()),
        Found::Broken { promise, trace } => panic!("{promise}, after {trace:?}"),
    }
}

/// Walks at random through everything that `budget` allows.
fn walk(engine: &Engine, budget: Budget, walks: u64) -> Result<(), String> {
    walk_in(engine, &[ONE, TWO], budget, walks)
}

fn walk_in(engine: &Engine, all: &[Bounds], budget: Budget, walks: u64) -> Result<(), String> {
    for seed in 0..walks {
        for bounds in all {
            let found = wander(engine, Bounds { budget, timeouts: seed % 4 == 0, ..*bounds }, seed, 60);
            if let Found::Broken { promise, trace } = found {
                return Err(format!("{promise}, after {trace:?} with {} at a time", bounds.locks));
            }
        }
    }
    Ok(())
}

fn walks() -> u64 {
    if is_full() { 5000 } else { 100 }
}

#[test]
fn a_deploy_to_which_nothing_happens() {
    keeps(ONE, NOTHING);
}

#[test]
fn two_boxes_at_a_time() {
    keeps(TWO, NOTHING);
}

#[test]
fn a_worker_is_killed() {
    keeps(ONE, Budget { kills: 1, repairs: 1, ..NOTHING });
}

#[test]
fn workers_stall_for_longer_than_their_locks_live() {
    keeps(TWO, Budget { stalls: 2, ..NOTHING });
}

#[test]
fn a_box_dies_and_an_agent_only_seems_to() {
    keeps(ONE, Budget { deaths: 1, suspects: 1, ..NOTHING });
}

#[test]
fn boxes_fail_and_a_person_repairs_one() {
    keeps(ONE, Budget { failures: 1, strandings: 1, repairs: 1, ..NOTHING });
}

#[test]
fn a_box_fails_while_another_stalls() {
    keeps(TWO, Budget { failures: 1, strandings: 1, stalls: 1, ..NOTHING });
}

#[test]
fn the_release_is_broken() {
    keeps(TWO, Budget { blames: 2, ..NOTHING });
}

#[test]
fn a_person_cancels() {
    keeps(ONE, Budget { cancels: 1, kills: 1, ..NOTHING });
}

#[test]
fn a_person_pauses_and_lets_it_go_on() {
    keeps(TWO, Budget { pauses: 1, kills: 1, ..NOTHING });
}

#[test]
fn one_box_goes_first() {
    let steps = Bounds { steps: true, ..TWO };
    keeps(steps, Budget { stalls: 1, kills: 1, ..NOTHING });
    keeps(steps, Budget { deaths: 1, strandings: 1, ..NOTHING });
    keeps(steps, Budget { pauses: 1, deploys: 1, ..NOTHING });
}

#[test]
fn two_zones() {
    keeps(ZONES, NOTHING);
    keeps(ZONES, Budget { stalls: 1, strandings: 1, ..NOTHING });
    keeps(ZONES, Budget { deaths: 1, suspects: 1, failures: 1, ..NOTHING });
    keeps(ZONES, Budget { deploys: 1, kills: 1, repairs: 1, ..NOTHING });
    keeps(Bounds { steps: true, ..ZONES }, Budget { stalls: 1, failures: 1, ..NOTHING });
}

#[test]
fn walks_through_zones() {
    walk_in(&Engine::new(None), &[ZONES], TROUBLE, walks()).unwrap();
}

#[test]
fn zones_while_a_box_was_not_upgraded_yet() {
    let engine = Engine::mixed(Older::Box);
    keeps_with(&engine, ZONES, Budget { stalls: 1, strandings: 1, ..NOTHING });
    walk_in(&engine, &[ZONES], TROUBLE, walks()).unwrap();
    walk_in(&Engine::mixed(Older::Service), &[ZONES], TROUBLE, walks()).unwrap();
}

#[test]
fn a_deploy_is_superseded() {
    keeps(ONE, Budget { deploys: 1, ..NOTHING });
}

#[test]
fn a_worker_is_killed_and_the_deploy_superseded() {
    keeps(ONE, Budget { deploys: 1, kills: 1, ..NOTHING });
}

#[test]
fn redis_restarts() {
    keeps(ONE, Budget { restarts: 1, kills: 1, ..NOTHING });
}

#[test]
fn redis_loses_everything() {
    keeps(ONE, Budget { flushes: 1, deploys: 1, ..NOTHING });
}

#[test]
fn deadlines_pass() {
    keeps(Bounds { timeouts: true, ..ONE }, Budget { kills: 1, ..NOTHING });
}

#[test]
fn a_box_was_not_upgraded_yet() {
    let engine = Engine::mixed(Older::Box);
    keeps_with(&engine, TWO, Budget { stalls: 1, strandings: 1, ..NOTHING });
    keeps_with(&engine, TWO, Budget { failures: 1, kills: 1, repairs: 1, ..NOTHING });
    walk(&engine, TROUBLE, walks()).unwrap();
}

#[test]
fn the_service_was_not_upgraded_yet() {
    let engine = Engine::mixed(Older::Service);
    keeps_with(&engine, TWO, Budget { deaths: 1, kills: 1, ..NOTHING });
    keeps_with(&engine, TWO, Budget { strandings: 1, deploys: 1, ..NOTHING });
    walk(&engine, TROUBLE, walks()).unwrap();
}

#[test]
fn walks_through_all_troubles_at_once() {
    walk(&Engine::new(None), TROUBLE, walks()).unwrap();
}

#[test]
fn walks_with_a_redis_that_forgets() {
    walk(&Engine::new(None), FORGETFUL, walks()).unwrap();
}
