//! Zones: boxes that fail together. Of each not more than its own n are out at once.

use std::time::Duration;

use deployctl::{
    api::{Phase, State, ZoneRow},
    coordination::{
        AcquireReply, BeginReply, DeployRecord, LeaveReply, ManualRun, ManualRunZone, Members, Refusal, StepRecord,
        Timeouts,
    },
    names::Zones,
};

use crate::protocol::world::{BASE, SOON, Worker, World, alive, doc, hand, name, names, on_redis, patient};
use crate::support::wait_until;

const SIX: [&str; 6] = ["a", "b", "c", "e", "f", "g"];
/// Two zones of three.
const HALVES: [(&str, &[&str]); 2] = [("x", &["a", "b", "c"]), ("y", &["e", "f", "g"])];

fn zones(of: &[(&str, &[&str])]) -> Zones {
    let each = |(zone, boxes): &(&str, &[&str])| -> Vec<_> {
        boxes.iter().map(|of| (name(of), zone.parse().unwrap())).collect()
    };
    of.iter().flat_map(each).collect()
}

fn begin(world: &World, of: &[(&str, &[&str])], max_parallel: &str) {
    begin_with(world, of, &DeployRecord { max_parallel: max_parallel.parse().unwrap(), ..doc("d") });
}

fn begin_with(world: &World, of: &[(&str, &[&str])], doc: &DeployRecord) {
    let begun = world.locks().begin(doc, &names(&SIX), &zones(of), true, false, None).unwrap();
    assert!(matches!(begun, BeginReply::Rolling { .. }), "{begun:?}");
}

#[track_caller]
fn workers<const N: usize>(world: &World, of: [&str; N]) -> [Worker; N] {
    of.map(|name| world.worker(name, "d"))
}

#[track_caller]
fn waits_for(worker: &mut Worker, what: &str) {
    let reply = worker.acquire();
    let fits = matches!(&reply, AcquireReply::Wait { wait, refused: Some(Refusal::Zone), .. } if wait == what);
    assert!(fits, "{reply:?}");
}

#[test]
fn not_more_than_its_n_of_a_zone_are_out() {
    on_redis(|world| {
        begin(world, &HALVES, "1/3");
        let [mut a, mut b, mut e] = workers(world, ["a", "b", "e"]);
        a.go_out();
        waits_for(&mut b, "1 of zone x is out, and 1 may be: a");
        let row = world.deploy("d").boxes.into_iter().find(|row| row.name.as_str() == "b").unwrap();
        assert_eq!(row.detail.as_deref(), Some("1 of zone x is out, and 1 may be: a"));
        assert_eq!(row.zone.unwrap().as_str(), "x");
        e.go_out();
        let locks = world.locks().locks().unwrap();
        assert_eq!(locks.locks.iter().map(|lock| lock.zone.as_ref().unwrap().as_str()).collect::<Vec<_>>(), ["x", "y"]);
        a.finish(Phase::Done, true);
        b.go_out();
    });
}

#[test]
fn the_rule_for_the_whole_holds_beside() {
    on_redis(|world| {
        begin(world, &[("x", &["a", "b"]), ("y", &["c", "e"]), ("z", &["f", "g"])], "1/3");
        let [mut a, mut c, mut f] = workers(world, ["a", "c", "f"]);
        a.go_out();
        c.go_out();
        assert!(matches!(f.acquire(), AcquireReply::Wait { wait, refused: None, .. } if wait == "2 of 2 locks: a, c"));
    });
}

#[test]
fn one_zone_or_none_changes_nothing() {
    let none: [(&str, &[&str]); 0] = [];
    for of in [&none[..], &[("x", &SIX[..])], &[("x", &["a", "b"])]] {
        on_redis(|world| {
            begin(world, of, "1/3");
            let [mut a, mut b] = workers(world, ["a", "b"]);
            a.go_out();
            b.go_out();
            assert_eq!(world.deploy("d").zones, []);
        });
    }
}

#[test]
fn boxes_without_a_zone_are_bound_by_the_whole_alone() {
    on_redis(|world| {
        begin(world, &[("x", &["a"]), ("y", &["b"])], "1/2");
        let [mut c, mut e, mut f, mut a] = workers(world, ["c", "e", "f", "a"]);
        c.go_out();
        e.go_out();
        f.go_out();
        assert!(!a.gets_lock());
    });
}

#[test]
fn a_box_says_its_own_zone_where_the_service_did_not_know() {
    on_redis(|world| {
        world.begin("d", &SIX, "1/3");
        let join = |of: &str| {
            let mut worker = world.stranger(of, "d");
            worker.locks.join(&name(of), "d", &[], &zones(&HALVES), false, None).unwrap();
            worker
        };
        let (mut a, mut b, mut e) = (join("a"), join("b"), join("e"));
        let row = |zone: &str, size| ZoneRow { zone: zone.parse().unwrap(), size, locks: 1, lost: false };
        assert_eq!(world.deploy("d").zones, [row("x", 2), row("y", 1)]);
        a.go_out();
        assert!(!b.gets_lock());
        e.go_out();
    });
}

#[test]
fn a_zone_that_became_smaller_lets_nobody_more_leave() {
    on_redis(|world| {
        begin(world, &[("x", &["a", "b", "c", "e"]), ("y", &["f", "g"])], "1/2");
        let [mut a, mut b] = workers(world, ["a", "b"]);
        assert!(a.gets_lock() && b.gets_lock());
        assert!(matches!(a.leave(), LeaveReply::Left { .. }));
        let members = Members { left: names(&["c", "e"]), ..alive(&["a", "b", "f", "g"]) };
        look_until_gone(world, &members, "e");
        look_until_gone(world, &members, "c");
        let left = b.leave();
        let expected = "1 of zone x is out, and 1 may be: a";
        let refused =
            matches!(&left, LeaveReply::Refused { refused: Refusal::Zone, wait: Some(wait), .. } if wait == expected);
        assert!(refused, "{left:?}");
    });
}

/// The service looks until it has called a box gone.
#[track_caller]
fn look_until_gone(world: &World, members: &Members, of: &str) {
    let quick = Timeouts { interval: Duration::from_millis(10), ..patient() };
    wait_until(SOON, &format!("{of} is gone"), || {
        world.look("d", members, &quick);
        world.phase("d", of) == Phase::Gone
    });
}

#[test]
fn a_step_takes_a_box_of_the_smallest_zone_first() {
    on_redis(|world| {
        let steps = vec![StepRecord { boxes: "1".parse().unwrap(), lasts: Some(60_000) }];
        begin_with(world, &[("x", &["a", "b", "c", "e"]), ("y", &["f", "g"])], &DeployRecord { steps, ..doc("d") });
        let [mut a, mut f] = workers(world, ["a", "f"]);
        waits_for(&mut a, "step 1 of 1: a box of zone y goes first");
        f.go_out();
        assert!(matches!(a.acquire(), AcquireReply::Wait { wait, stands: true, .. } if wait == "step 1 of 1"));
        // It fails, and no lock is left in its zone: another zone has the next.
        f.finish(Phase::Failed, true);
        let _g = world.worker("g", "d");
        a.go_out();
    });
}

#[test]
fn a_step_waits_a_while_for_the_smallest_zone_to_come() {
    on_redis(|world| {
        let steps = vec![StepRecord { boxes: "1".parse().unwrap(), lasts: Some(60_000) }];
        begin_with(world, &[("x", &["a", "b", "c", "e"]), ("y", &["f", "g"])], &DeployRecord { steps, ..doc("d") });
        let mut a = world.worker("a", "d");
        let settle = Duration::from_secs(30);
        let early = a.acquire_with(settle, None);
        assert!(matches!(&early, AcquireReply::Wait { wait, .. } if wait.ends_with("zone y goes first")), "{early:?}");
        let _f = world.worker("f", "d");
        assert!(!a.gets_lock());
    });
}

/// Nobody of the zone `y` lives, as Serf says.
fn lost() -> Members {
    Members { failed: names(&["e", "f", "g"]), ..alive(&["a", "b", "c"]) }
}

#[test]
fn a_zone_that_is_lost_frees_nothing_for_the_others() {
    on_redis(|world| {
        begin(world, &HALVES, "2");
        let [mut a, mut b, mut e] = workers(world, ["a", "b", "e"]);
        a.go_out();
        e.go_out();
        // Before any verdict.
        world.look("d", &lost(), &patient());
        assert_eq!(world.phase("d", "e"), Phase::Draining);
        assert!(world.deploy("d").zones[1].lost);
        a.finish(Phase::Done, true);
        let why = "zone y is lost, and what it uses up is free for nobody else";
        waits_for(&mut b, why);
        look_until_gone(world, &lost(), "e");
        assert!(world.out().is_empty());
        waits_for(&mut b, why);
        assert_eq!(world.state("d"), State::Rolling);
        // One of them is back.
        let _f = world.worker("f", "d");
        world.look("d", &Members { failed: names(&["e", "g"]), ..alive(&["a", "b", "c", "f"]) }, &patient());
        assert!(!world.deploy("d").zones[1].lost);
        b.go_out();
    });
}

#[test]
fn the_others_go_on_with_what_a_lost_zone_does_not_use_up() {
    on_redis(|world| {
        begin(world, &HALVES, "1/3");
        let [mut a, mut b, mut e] = workers(world, ["a", "b", "e"]);
        a.go_out();
        e.go_out();
        look_until_gone(world, &lost(), "e");
        assert!(!b.gets_lock());
        a.finish(Phase::Done, true);
        b.complete();
        world.worker("c", "d").complete();
        let ended =
            world.look_until_ended("d", &lost(), &Timeouts { interval: Duration::from_millis(10), ..patient() });
        assert_eq!(ended.state, State::Failed, "half of it is gone");
    });
}

#[test]
fn a_service_that_sees_nobody_calls_no_zone_lost() {
    on_redis(|world| {
        begin(world, &HALVES, "1/3");
        world.look("d", &Members { failed: names(&SIX), ..Members::default() }, &patient());
        assert!(world.deploy("d").zones.iter().all(|zone| !zone.lost));
    });
}

#[test]
fn a_deploy_ends_when_no_zone_has_a_lock_for_who_is_left() {
    on_redis(|world| {
        begin(world, &HALVES, "1/3");
        let mut all = workers(world, SIX);
        all[0].go_out();
        all[0].finish(Phase::Failed, true);
        for worker in &mut all[3..] {
            worker.complete();
        }
        assert!(!all[1].gets_lock());
        let ended = world.look("d", &alive(&SIX), &patient());
        assert_eq!(
            (ended.state, ended.reason.as_deref()),
            (State::Failed, Some("no lock is left: a failed or stay out"))
        );
    });
}

#[test]
fn work_by_hand_is_bound_too() {
    on_redis(|world| {
        let of = zones(&HALVES);
        let by_hand = |box_name: &str| {
            let zone = ManualRunZone::of(&name(box_name), &names(&SIX), &of);
            (world.stranger(box_name, "hand.1"), ManualRun { zone, ..hand(6) })
        };
        let ((mut a, of_a), (mut b, of_b), (mut e, of_e)) = (by_hand("a"), by_hand("b"), by_hand("e"));
        assert!(matches!(a.acquire_with(Duration::ZERO, Some(&of_a)), AcquireReply::Granted { .. }));
        let waits = b.acquire_with(Duration::ZERO, Some(&of_b));
        assert!(matches!(waits, AcquireReply::Wait { refused: Some(Refusal::Zone), .. }), "{waits:?}");
        assert!(matches!(e.acquire_with(Duration::ZERO, Some(&of_e)), AcquireReply::Granted { .. }));
        assert!(matches!(a.leave_with(Some(&of_a), &[]), LeaveReply::Left { .. }));
    });
}

#[test]
fn counts_of_zones_are_right_above_the_number_of_locks_that_are_counted_each_time() {
    on_redis(|world| {
        let boxes: Vec<String> = (0..160).map(|at| format!("box-{at}")).collect();
        let boxes: Vec<&str> = boxes.iter().map(String::as_str).collect();
        let halves = [("x", &boxes[..40]), ("y", &boxes[40..])];
        let begun = world.locks().begin(&doc("d"), &names(&boxes), &zones(&halves), false, false, None).unwrap();
        assert!(matches!(begun, BeginReply::Rolling { .. }));
        let mut all: Vec<Worker> = boxes.iter().map(|name| world.worker(name, "d")).collect();
        // A third of 40, and of the whole 53.
        let granted = |all: &mut [Worker]| {
            let waiting = all.iter_mut().filter(|worker| worker.held.is_none());
            waiting.map(Worker::gets_lock).filter(|got| *got).count()
        };
        assert_eq!((granted(&mut all[..40]), granted(&mut all[40..])), (13, 40));
        all[0].leave();
        all[0].finish(Phase::Done, true);
        assert_eq!((granted(&mut all[40..]), granted(&mut all[1..40]), granted(&mut all[1..40])), (0, 1, 0));
    });
}

#[test]
fn nothing_of_zones_outlives_an_ended_deploy_for_long() {
    on_redis(|world| {
        begin(world, &HALVES, "1/3");
        for worker in &mut workers(world, SIX) {
            worker.complete();
        }
        world.look("d", &lost(), &patient());
        assert_eq!(world.look("d", &alive(&SIX), &patient()).state, State::Deployed);
        for key in world.redis.keys(&format!("{BASE}deploy:d:*")) {
            assert_ne!(world.redis.command(&["TTL", &key]), "-1", "{key}");
        }
        // Who is no more is forgotten with the next deploy.
        let begun = world.locks().begin(&doc("d2"), &names(&["a", "e"]), &zones(&HALVES), true, false, None).unwrap();
        assert!(matches!(begun, BeginReply::Rolling { .. }));
        assert_eq!(world.locks().zones().unwrap().len(), 2);
    });
}
