//! The plain scheme: every box tries suffix after suffix with `SET NX`, and once a second again.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use crate::{ARRIVING, Arrival, Hands, WAITING, WATCHED, commands, forget, support::Redis};

const POLL: Duration = Duration::from_secs(1);

/// Tries the suffixes from 1; gives the first that was free.
fn acquire(connection: &mut redis::Connection, locks: usize, name: usize) -> Option<usize> {
    (1..=locks).find(|suffix| {
        let mut set = redis::cmd("SET");
        set.arg(format!("lock:{suffix}")).arg(name).arg("NX").arg("PX").arg(900_000);
        set.query::<Option<String>>(connection).unwrap().is_some()
    })
}

/// All boxes try all locks once.
pub fn arrive(redis: &Redis) -> Arrival {
    forget(redis);
    let (start, known) = (Barrier::new(ARRIVING + 1), Barrier::new(ARRIVING + 1));
    let mut millis = 0.0;
    thread::scope(|scope| {
        for name in 0..ARRIVING {
            let (start, known, mut connection) = (&start, &known, redis.connection());
            scope.spawn(move || {
                start.wait();
                acquire(&mut connection, ARRIVING / 3, name);
                known.wait();
            });
        }
        start.wait();
        let since = Instant::now();
        known.wait();
        millis = since.elapsed().as_secs_f64() * 1000.0;
    });
    // It has no scripts: what ran, clients sent.
    let (_, run) = commands(redis);
    #[allow(clippy::cast_precision_loss, reason = "a thousand")]
    let each = run / ARRIVING as f64;
    Arrival { sent: each, run: each, millis }
}

/// Commands a second of each of the boxes that wait for one of as many locks as a third of them has.
pub fn wait(redis: &Redis) -> f64 {
    forget(redis);
    let locks = WAITING / 3;
    let mut holder = redis.connection();
    for name in 0..locks {
        acquire(&mut holder, locks, name).unwrap();
    }
    crate::forget_statistics(redis);
    let until = Instant::now() + WATCHED;
    thread::scope(|scope| {
        for name in 0..WAITING {
            let mut connection = redis.connection();
            scope.spawn(move || {
                while Instant::now() < until {
                    assert_eq!(acquire(&mut connection, locks, name), None);
                    thread::sleep(POLL);
                }
            });
        }
    });
    #[allow(clippy::cast_precision_loss, reason = "a hundred")]
    let of = WAITING as f64;
    commands(redis).1 / of / WATCHED.as_secs_f64()
}

/// How long it takes from one box's `DEL` to another's `SET NX`.
pub fn hand_over(redis: &Redis, waiters: usize) -> f64 {
    forget(redis);
    let hands = Hands::default();
    thread::scope(|scope| {
        for name in 0..=waiters {
            let (mut connection, hands) = (redis.connection(), &hands);
            scope.spawn(move || {
                // They did not all begin to wait in the same moment.
                thread::sleep(POLL * u32::try_from(name).unwrap() / u32::try_from(waiters + 1).unwrap());
                while hands.go_on() {
                    if acquire(&mut connection, 1, name).is_some() {
                        hands.taken();
                        hands.freed();
                        let _: () = redis::cmd("DEL").arg("lock:1").query(&mut connection).unwrap();
                    }
                    thread::sleep(POLL);
                }
            });
        }
    });
    hands.median()
}
