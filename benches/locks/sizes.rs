//! What one box costs Redis, at fleets of different sizes: microseconds of Redis's own time, as it counts them for what
//! clients send. Flat is good: a fleet ten times as large may not cost each of its boxes more.

use std::time::Duration;

use deployctl::{
    api::Phase,
    coordination::{AcquireReply, Coordinator, Finish, Held, Members, RenewRequest, Timeouts, new_token},
    names::{BoxName, Zones},
};

use crate::{forget, ours, support::Redis};

/// Boxes of a fleet.
pub const SIZES: [usize; 4] = [100, 1000, 3000, 10_000];
/// How often what one box does is measured.
const TIMES: usize = 50;
const TTL: Duration = Duration::from_secs(900);
const LONG: Duration = Duration::from_secs(36_000);

/// One row for each of these; microseconds, but for `ARRIVALS`.
pub const ROWS: [(&str, [Option<f64>; 4]); 7] = [
    ("join", [Some(300.0); 4]),
    ("acquire, all of them at once", [Some(300.0); 4]),
    ("leave", [Some(300.0); 4]),
    ("renew", [Some(300.0); 4]),
    ("hand over: finish and the next acquire", [Some(600.0); 4]),
    ("end: one look of the service", [Some(10_000.0); 4]),
    ("ms of Redis's processor until all have arrived", [None, None, Some(1000.0), Some(4000.0)]),
];

/// What was measured at one size, in the order of [`ROWS`].
pub type Column = [f64; 7];

/// Names of 30 letters, as clouds give them.
fn boxes(count: usize) -> Vec<BoxName> {
    (0..count).map(|at| format!("ip-10-0-{at:06}.compute.internal").parse().unwrap()).collect()
}

/// Microseconds of the scripts so far.
fn spent(redis: &Redis) -> f64 {
    let info: String = redis::cmd("INFO").arg("commandstats").query(&mut redis.connection()).unwrap();
    let lines = info.lines().filter(|line| line.starts_with("cmdstat_eval") || line.starts_with("cmdstat_set:"));
    lines.map(|line| line.split("usec=").nth(1).unwrap().split(',').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Milliseconds of the processor that the server has used so far, with what it takes to read and to answer.
fn processor(redis: &Redis) -> f64 {
    let info: String = redis::cmd("INFO").arg("cpu").query(&mut redis.connection()).unwrap();
    let of = |name: &str| -> f64 { info.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap() };
    (of("used_cpu_sys:") + of("used_cpu_user:")) * 1000.0
}

/// Microseconds of Redis for each of `times` calls of `act`.
#[allow(clippy::cast_precision_loss, reason = "thousands")]
fn each(redis: &Redis, times: usize, mut act: impl FnMut(usize)) -> f64 {
    let before = spent(redis);
    (0..times).for_each(&mut act);
    (spent(redis) - before) / times as f64
}

fn acquire(locks: &mut Coordinator, name: &BoxName) -> Option<Held> {
    let token = new_token().unwrap();
    match locks.acquire(name, "d", &token, (TTL, Duration::ZERO), None, None).unwrap() {
        AcquireReply::Granted { granted, .. } => Some(Held { suffix: granted, token }),
        _ => None,
    }
}

/// deployctl with `size` boxes, a third at a time.
pub fn ours(redis: &Redis, size: usize) -> Column {
    let names = boxes(size);
    ours::begin(redis, &names, "1/3");
    let mut locks = ours::locks(redis);
    let before = processor(redis);
    let join = each(redis, size, |at| drop(locks.join(&names[at], "d", &names, &Zones::new(), false, None).unwrap()));
    let mut held: Vec<Option<Held>> = vec![];
    let grant = each(redis, size, |at| held.push(acquire(&mut locks, &names[at])));
    let arrived = processor(redis) - before;
    let granted = size / 3;
    assert_eq!(held.iter().flatten().count(), granted);
    let mut out = held[..granted].iter().flatten();
    let leave =
        each(redis, granted, |at| drop(locks.leave(&names[at], "d", out.next().unwrap(), TTL, None, &[]).unwrap()));
    let renew = each(redis, TIMES.min(granted), |at| {
        let held = held[at].as_ref().unwrap();
        let pulse = RenewRequest {
            name: &names[at],
            deploy: "d",
            phase: Some(Phase::Starting),
            detail: None,
            suffix: Some(held.suffix),
            token: Some(&held.token),
            ttl: 900_000,
            out: true,
            kept_out_reason: None,
            purpose: None,
            epoch: None,
        };
        locks.renew(&pulse).unwrap();
    });
    let members = Members { alive: names.clone(), ..Members::default() };
    let patience =
        Timeouts { interval: LONG, ttl: LONG, silence: LONG, join: LONG, lock: LONG, deploy: LONG, look_gap: LONG };
    let look = each(redis, 10, |_| assert!(!locks.end("d", &members, &patience).unwrap().ended));
    let rounds = TIMES.min(granted);
    let hand_over = each(redis, rounds, |at| {
        let done = Finish { phase: Some(Phase::Done), in_service: true, ..Finish::default() };
        locks.finish(&names[at], "d", held[at].as_ref(), &done).unwrap();
        assert!(acquire(&mut locks, &names[granted + at]).is_some());
    });
    [join, grant, leave, renew, hand_over, look, arrived]
}

/// The plain scheme: what arrival and a hand-over cost when each box tries suffix after suffix with `SET NX`, and every
/// box that waits tries again once a second. It has no table, no leave, no look.
#[allow(clippy::cast_precision_loss, reason = "thousands")]
pub fn plain(redis: &Redis, size: usize) -> Column {
    forget(redis);
    let (granted, mut connection) = (size / 3, redis.connection());
    let mut take_all = |name: usize| {
        let mut tries = redis::pipe();
        for suffix in 1..=granted {
            tries.cmd("SET").arg(format!("lock:{suffix}")).arg(name).arg("NX").arg("PX").arg(900_000).ignore();
        }
        tries.query::<()>(&mut connection).unwrap();
    };
    take_all(0);
    let before = processor(redis);
    let all = each(redis, TIMES, &mut take_all);
    let cost = (processor(redis) - before) / TIMES as f64;
    // The first third tries half of the suffixes, the others all of them.
    let tries = (granted as f64).mul_add(0.5, (size - granted) as f64);
    let nothing = f64::NAN;
    [nothing, all * tries / size as f64, nothing, nothing, all, nothing, cost * tries]
}
