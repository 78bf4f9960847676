//! deployctl's own way: the scripts through the typed calls, as a worker makes them.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use deployctl::{
    api::Phase,
    coordination::{AcquireReply, Coordinator, DeployRecord, Finish, Held, RedisConnection, new_token},
    names::{BoxName, Place, Zones},
    secret::Secret,
};

use crate::{ARRIVING, Arrival, Hands, WAITING, WATCHED, commands, forget, forget_statistics, support::Redis};

const TTL: Duration = Duration::from_secs(900);
const POLL: Duration = Duration::from_secs(5);

pub fn locks(redis: &Redis) -> Coordinator {
    let place = Place { environment: "staging".parse().unwrap(), role: "app".parse().unwrap() };
    Coordinator::new(RedisConnection::new(&Secret::new(redis.url()), "bench").unwrap(), &place)
}

fn boxes(count: usize) -> Vec<BoxName> {
    (0..count).map(|at| format!("box-{at}").parse().unwrap()).collect()
}

pub fn begin(redis: &Redis, boxes: &[BoxName], max_parallel: &str) {
    forget(redis);
    let doc = serde_json::json!({
        "id": "d", "role": "app", "environment": "staging", "tag": "v2", "kind": "deploy", "by": "bench", "max_parallel": max_parallel,
    });
    let doc: DeployRecord = serde_json::from_value(doc).unwrap();
    locks(redis).begin(&doc, boxes, &Zones::new(), false, false, None).unwrap();
}

fn acquire(locks: &mut Coordinator, name: &BoxName) -> Option<Held> {
    let token = new_token().unwrap();
    match locks.acquire(name, "d", &token, (TTL, Duration::ZERO), None, None).unwrap() {
        AcquireReply::Granted { granted, .. } => Some(Held { suffix: granted, token }),
        _ => None,
    }
}

/// All boxes join, ask for a lock, and begin to wait.
pub fn arrive(redis: &Redis) -> Arrival {
    let names = boxes(ARRIVING);
    begin(redis, &names, "1/3");
    let (_, begun) = commands(redis);
    let (start, known) = (Barrier::new(ARRIVING + 1), Barrier::new(ARRIVING + 1));
    let mut millis = 0.0;
    thread::scope(|scope| {
        for name in &names {
            let (names, start, known, mut locks) = (&names, &start, &known, locks(redis));
            scope.spawn(move || {
                start.wait();
                locks.join(name, "d", names, &Zones::new(), false, None).unwrap();
                let held = acquire(&mut locks, name);
                known.wait();
                if held.is_none() {
                    locks.wait_for_wake(Duration::from_millis(100)).unwrap();
                }
            });
        }
        start.wait();
        let since = Instant::now();
        known.wait();
        millis = since.elapsed().as_secs_f64() * 1000.0;
    });
    assert_eq!(locks(redis).locks().unwrap().locks.len(), ARRIVING / 3);
    let (sent, run) = commands(redis);
    #[allow(clippy::cast_precision_loss, reason = "a thousand")]
    let of = ARRIVING as f64;
    Arrival { sent: sent / of, run: (run - begun) / of, millis }
}

/// Commands a second of each of the boxes that wait.
pub fn wait(redis: &Redis) -> f64 {
    let names = boxes(WAITING + 1);
    begin(redis, &names, "1");
    let mut holder = locks(redis);
    acquire(&mut holder, &names[WAITING]).unwrap();
    let mut waiting: Vec<Coordinator> = names[..WAITING].iter().map(|_| locks(redis)).collect();
    for (locks, name) in waiting.iter_mut().zip(&names) {
        locks.join(name, "d", &[], &Zones::new(), false, None).unwrap();
    }
    forget_statistics(redis);
    let until = Instant::now() + WATCHED;
    thread::scope(|scope| {
        for (mut locks, name) in waiting.into_iter().zip(&names) {
            scope.spawn(move || {
                while Instant::now() < until {
                    assert!(acquire(&mut locks, name).is_none());
                    locks.wait_for_wake(POLL).unwrap();
                }
            });
        }
    });
    #[allow(clippy::cast_precision_loss, reason = "a hundred")]
    let of = WAITING as f64;
    commands(redis).0 / of / WATCHED.as_secs_f64()
}

/// How long it takes from one box's `finish` to another's grant.
pub fn hand_over(redis: &Redis, waiters: usize) -> f64 {
    let names = boxes(waiters + 1);
    begin(redis, &names, "1");
    let hands = Hands::default();
    thread::scope(|scope| {
        for name in &names {
            let (mut locks, hands) = (locks(redis), &hands);
            scope.spawn(move || {
                while hands.go_on() {
                    locks.join(name, "d", &[], &Zones::new(), true, None).unwrap();
                    let Some(held) = wait_for_lock(&mut locks, name, hands) else { return };
                    hands.taken();
                    locks.leave(name, "d", &held, TTL, None, &[]).unwrap();
                    let done = Finish { phase: Some(Phase::Done), in_service: true, ..Finish::default() };
                    hands.freed();
                    locks.finish(name, "d", Some(&held), &done).unwrap();
                }
            });
        }
    });
    hands.median()
}

fn wait_for_lock(locks: &mut Coordinator, name: &BoxName, hands: &Hands) -> Option<Held> {
    while hands.go_on() {
        if let Some(held) = acquire(locks, name) {
            return Some(held);
        }
        locks.wait_for_wake(POLL).unwrap();
    }
    None
}
