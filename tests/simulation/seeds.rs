//! Many seeds, and one again.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use crate::simulation::schedule::{Told, run};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs seeds on all cores. The stories of those that break a rule, at most ten.
fn run_all(from: u64, seeds: u64) -> Vec<Told> {
    let next = AtomicU64::new(from);
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let work = || {
        let mut broken = vec![];
        while broken.len() < 10 {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + seeds {
                break;
            }
            let told = run(seed, None);
            if told.broken.is_some() {
                println!("{}", told.shown());
                broken.push(told);
            }
        }
        broken
    };
    let mut broken: Vec<Told> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    broken.sort_by_key(|told| told.seed);
    broken
}

/// As many as half a minute has room for without optimisation; `make simulate` sets `SEEDS=100000`. `FROM=1`: the first.
#[test]
fn every_rule_holds_whatever_happens() {
    let (seeds, from, begun) = (number("SEEDS").unwrap_or(40), number("FROM").unwrap_or(1), Instant::now());
    let broken = run_all(from, seeds);
    println!("{seeds} schedules in {:?}", begun.elapsed());
    let stories: Vec<String> = broken.iter().map(Told::shown).collect();
    assert!(stories.is_empty(), "{} of {seeds} schedules broke a rule\n{}", stories.len(), stories.join("\n"));
}

/// `SEED=123` tells its whole story; `TALK=1` also what every box says to Redis.
#[test]
fn one() {
    let told = run(number("SEED").unwrap_or(1), None);
    println!("{}", told.story.join("\n"));
    assert!(told.broken.is_none(), "{}", told.shown());
}

#[test]
fn a_seed_is_the_same_story_each_time() {
    let story = || run(7, None).story;
    assert_eq!(story(), story());
}
