//! One seed: a fleet, what happens to it, and whether every rule held.

use deployctl::{agent::plan::Trigger, names::Tag};

use crate::{
    model::engine::Mistake,
    simulation::{
        fleet::{Fleet, shown},
        person,
        promises::{Promises, check_marks},
        server, service,
        trouble::{self, Trouble},
        worker,
    },
};

/// When troubles are over, everything must be at rest within this time.
const REST: i64 = 3 * 3600 * 1000;
const MINUTE: i64 = 60_000;

/// How it went.
pub struct Told {
    pub seed: u64,
    /// The rule that was broken.
    pub broken: Option<String>,
    pub story: Vec<String>,
}

impl Told {
    pub fn shown(&self) -> String {
        let broken = self.broken.as_deref().unwrap_or("every rule held");
        format!("{broken}\n{}  again: make simulate SEED={}\n", shown(self.seed, &self.story, 20), self.seed)
    }
}

/// Runs one schedule, with the scripts as they are or with a mistake.
pub fn run(seed: u64, mistake: Option<Mistake>) -> Told {
    server::start(mistake);
    let first: Tag = "v1".parse().unwrap();
    let mut dice = crate::simulation::dice::Dice::new(seed ^ 0x5eed);
    let size = match dice.below(100) {
        0..45 => dice.between(3, 6),
        45..90 => dice.between(6, 12),
        90..98 => dice.between(13, 24),
        _ => dice.between(25, 60),
    };
    let fleet = Fleet::new(seed, usize::try_from(size).unwrap(), &first);
    let ends = fleet.now() + dice.between(8, 25) * MINUTE;
    service::start(&fleet);
    fleet.clock.spawn(0, timers(fleet.clone()));
    fleet.clock.spawn(0, life(fleet.clone(), ends, troubles(&mut dice)));
    while fleet.broken().is_none() && !at_rest(&fleet, ends) {
        if fleet.now() > ends + REST {
            fleet.breaks(format!("no rest: {}", restless(&fleet).unwrap_err()));
        }
        if !fleet.clock.turn(|now| server::memory(|memory| memory.advance(now - memory.now))) {
            break;
        }
    }
    check_marks(&fleet);
    fleet.clock.clear();
    Told { seed, broken: fleet.broken(), story: fleet.story() }
}

/// A few kinds at a time: with all at once nothing gets far.
fn troubles(dice: &mut crate::simulation::dice::Dice) -> Vec<Trouble> {
    let often = dice.of(&[0, 10, 20, 40]);
    trouble::ALL.into_iter().filter(|_| dice.percent(often)).collect()
}

/// The timer of each box, every five minutes.
async fn timers(fleet: Fleet) {
    loop {
        for at in 0..fleet.size() {
            fleet.clock.sleep(5 * MINUTE / i64::try_from(fleet.size()).unwrap()).await;
            worker::wake(&fleet, at, Trigger::Heal);
        }
    }
}

/// People and troubles, until they end; then everything is put right.
async fn life(fleet: Fleet, ends: i64, troubles: Vec<Trouble>) {
    let first: Tag = "v1".parse().unwrap();
    // What some boxes run nobody has deployed.
    if fleet.dice(|dice| dice.percent(80)) && person::tell_of(&fleet, &first) {
        person::start(&fleet, &first, &serde_json::json!({}));
    }
    fleet.clock.sleep(40_000).await;
    let mut dead = 0;
    while fleet.now() < ends {
        fleet.clock.sleep(fleet.dice(|dice| dice.between(1000, 60_000))).await;
        if !troubles.is_empty() && fleet.dice(|dice| dice.percent(60)) {
            let trouble = fleet.dice(|dice| dice.of(&troubles));
            dead += usize::from(trouble == Trouble::Death);
            if trouble != Trouble::Death || dead <= fleet.size() / 4 {
                trouble::make(&fleet, trouble);
            }
        } else {
            person::act(&fleet);
        }
    }
    trouble::end(&fleet);
    fleet.tell("no more troubles");
    loop {
        person::unfreeze(&fleet);
        person::resume(&fleet);
        for at in 0..fleet.size() {
            worker::bring_in(&fleet, at);
            // Nobody else can decide about what is dead.
            if !fleet.machine(at, |machine| machine.up) && fleet.now() > ends + 10 * MINUTE {
                person::unlock(&fleet, at, true);
            }
        }
        fleet.clock.sleep(MINUTE).await;
    }
}

fn at_rest(fleet: &Fleet, ends: i64) -> bool {
    fleet.calm.get() && fleet.now() > ends + 6 * MINUTE && restless(fleet).is_ok()
}

/// What keeps the fleet from resting.
fn restless(fleet: &Fleet) -> Result<(), String> {
    for machine in fleet.machines.borrow().iter().filter(|machine| machine.up) {
        if machine.worker.is_some() {
            return Err(format!("a worker on {}", machine.name));
        }
        if !machine.serves {
            return Err(format!("{} does not serve", machine.name));
        }
    }
    Promises::at_rest()
}
