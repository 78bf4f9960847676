//! Places for reboots: from the same budget as deploys, kept by no worker.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use deployctl::{
    api::{FLEET_LOCK, Phase, State},
    coordination::{ManualRunZone, Members, Refusal, Reservation, ReserveReply, Timeouts},
};

use crate::protocol::world::{LONG, SOON, World, alive, hand, name, names, on_redis, patient};
use crate::support::wait_until;

fn reserve(world: &World, box_: &str) -> ReserveReply {
    reserve_in(world, box_, None)
}

fn reserve_in(world: &World, box_: &str, zone: Option<ManualRunZone>) -> ReserveReply {
    let name = name(box_);
    let wanted = Reservation {
        name: &name,
        id: &format!("id-{box_}"),
        purpose: "reboot",
        size: 6,
        max_parallel: "1/3".parse().unwrap(),
        zone,
        settle: 0,
        epoch: None,
    };
    world.locks().reserve(&wanted).unwrap()
}

fn release(world: &World, box_: &str) -> bool {
    let released = world.locks().release(&format!("id-{box_}")).unwrap();
    assert!(released.is_none() || released == Some(name(box_)), "{released:?}");
    released.is_some()
}

#[test]
fn as_many_may_reboot_as_a_deploy_may_take_out() {
    on_redis(|world| {
        assert!(!release(world, "a"), "it has none");
        let first = reserve(world, "a");
        assert!(first.reserved && !first.again);
        let again = reserve(world, "a");
        assert!(again.reserved && again.again, "who has one has it still");
        assert!(reserve(world, "b").reserved);
        let third = reserve(world, "c");
        assert_eq!((third.reserved, third.wait.as_deref()), (false, Some("2 of 2 locks: a, b")));
        let by_hand = world.stranger("d", "hand.d").acquire_with(Duration::ZERO, Some(&hand(6)));
        assert!(format!("{by_hand:?}").contains("2 of 2 locks: a, b"), "{by_hand:?}");
        let listed = world.locks().locks().unwrap().out;
        assert_eq!((listed[0].deploy.as_str(), listed[0].purpose.as_deref()), (FLEET_LOCK, Some("reboot")));
        assert!(release(world, "a") && !release(world, "a"));
        assert!(reserve(world, "c").reserved);
    });
}

#[test]
fn a_deploy_and_reboots_share_the_locks() {
    on_redis(|world| {
        assert!(reserve(world, "a").reserved);
        world.begin("d", &["a", "b", "c", "e", "f", "g"], "1/3");
        let (mut b, mut c) = (world.worker("b", "d"), world.worker("c", "d"));
        b.go_out();
        assert!(!c.gets_lock(), "a reboots, b is out");
        assert!(!reserve(world, "e").reserved);
        let busy = reserve(world, "b");
        assert!(busy.wait.is_some_and(|wait| wait.contains("at work")), "b would be torn from its work");
        // Its own part in the deploy counts once with its reboot.
        let mut a = world.worker("a", "d");
        a.complete();
        assert!(!c.gets_lock(), "a has deployed, and reboots still");
        assert!(release(world, "a"));
        assert!(c.gets_lock());
        // What has its lock may still leave, and no more than n do.
        assert!(!reserve(world, "e").reserved);
        c.leave();
        b.finish(Phase::Done, true);
        assert!(reserve(world, "b").reserved);
        assert!(!world.worker("e", "d").gets_lock());
    });
}

#[test]
fn no_order_of_asking_takes_more_than_n_out() {
    on_redis(|world| {
        let boxes = ["a", "b", "c", "e", "f", "g"];
        world.begin("d", &boxes, "1/3");
        let (world, away) = (&*world, &AtomicU32::new(0));
        let with = move |act: &mut dyn FnMut()| {
            let others = away.fetch_add(1, Ordering::SeqCst);
            assert!(others < 2, "{} are away at once", others + 1);
            act();
            away.fetch_sub(1, Ordering::SeqCst);
        };
        thread::scope(|scope| {
            for box_ in &boxes[..3] {
                let mut worker = world.worker(box_, "d");
                scope.spawn(move || {
                    for _ in 0..60 {
                        if worker.gets_lock() {
                            with(&mut || {
                                worker.leave();
                            });
                            worker.give_back();
                        }
                    }
                });
            }
            for box_ in &boxes[3..] {
                scope.spawn(move || {
                    for _ in 0..60 {
                        if reserve(world, box_).reserved {
                            with(&mut || ());
                            release(world, box_);
                        }
                    }
                });
            }
        });
        assert_eq!(world.out(), Vec::<String>::new());
    });
}

#[test]
fn a_deploy_waits_for_a_box_that_reboots_however_long_it_is_silent() {
    on_redis(|world| {
        assert!(reserve(world, "a").reserved);
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut b = world.worker("b", "d");
        // Nobody else can have the only lock, and that is no reason to give up.
        let impatient =
            Timeouts { interval: Duration::ZERO, join: Duration::ZERO, silence: Duration::ZERO, ..patient() };
        let dead = Members { failed: names(&["a"]), ..alive(&["b", "c"]) };
        for _ in 0..3 {
            assert!(!b.gets_lock());
            world.look("d", &dead, &impatient);
        }
        assert_eq!((world.state("d"), world.phase("d", "a")), (State::Rolling, Phase::Expected));
        assert!(release(world, "a"));
        b.complete();
        wait_until(SOON, "a is gone without its place", || {
            world.look("d", &dead, &impatient);
            world.phase("d", "a") == Phase::Gone || world.state("d") != State::Rolling
        });
    });
}

#[test]
fn a_place_is_taken_back_only_from_a_box_that_was_dead_all_the_time() {
    on_redis(|world| {
        assert!(reserve(world, "a").reserved && reserve(world, "b").reserved);
        let dead = Members { failed: names(&["a"]), left: names(&["b"]), ..alive(&["c"]) };
        let blind = Members { alive: Vec::new(), ..dead.clone() };
        let judge = |members: &Members, ttl, gap| world.locks().judge_reboots(members, ttl, gap).unwrap();
        assert_eq!(judge(&dead, LONG, LONG), []);
        assert_eq!(judge(&blind, Duration::ZERO, LONG), [], "who sees nobody judges nobody");
        // One that is seen again begins anew, and so does everybody when the service was away.
        let back = Members { failed: Vec::new(), ..dead.clone() };
        let mut all_looks = Vec::new();
        wait_until(SOON, "b alone is gone", || {
            world.locks().judge_reboots(&back, LONG, LONG).unwrap();
            all_looks.extend(judge(&dead, Duration::from_millis(60), LONG));
            all_looks == names(&["b"])
        });
        assert_eq!(world.out(), ["a"]);
        wait_until(SOON, "a is gone, too", || judge(&dead, Duration::from_millis(60), LONG) == names(&["a"]));
        assert_eq!(world.out(), Vec::<String>::new());
    });
}

#[test]
fn a_service_that_was_away_takes_nothing_back_at_once() {
    on_redis(|world| {
        assert!(reserve(world, "a").reserved);
        let dead = Members { failed: names(&["a"]), ..alive(&["c"]) };
        let ttl = Duration::from_millis(60);
        let begun = Instant::now();
        while begun.elapsed() < 3 * ttl {
            // Each look is more than a gap after the one before.
            assert_eq!(world.locks().judge_reboots(&dead, ttl, Duration::ZERO).unwrap(), []);
        }
    });
}

#[test]
fn reboots_are_bound_by_zones_too() {
    on_redis(|world| {
        let zone = |name: &str| Some(ManualRunZone { name: name.parse().unwrap(), size: 3 });
        assert!(reserve_in(world, "a", zone("x")).reserved);
        let second = reserve_in(world, "b", zone("x"));
        assert_eq!(second.wait.as_deref(), Some("1 of zone x is out, and 1 may be: a"));
        assert!(reserve_in(world, "c", zone("y")).reserved);
        assert!(release(world, "a"));
        assert!(reserve_in(world, "b", zone("x")).reserved);
    });
}

#[test]
fn a_person_may_take_a_place_back() {
    on_redis(|world| {
        assert!(reserve(world, "a").reserved);
        let unlocked = world.locks().unlock(&name("a"), false, LONG, "ann", "it never boots").unwrap();
        assert_eq!((unlocked.refused, world.out()), (None, Vec::<String>::new()));
        let again = world.locks().unlock(&name("a"), false, LONG, "ann", "it never boots").unwrap();
        assert_eq!(again.refused, Some(Refusal::Nothing));
    });
}

#[test]
fn a_new_epoch_gives_no_place_until_everybody_has_spoken() {
    on_redis(|world| {
        let name = name("a");
        let wanted = Reservation {
            name: &name,
            id: "a",
            purpose: "reboot",
            size: 3,
            max_parallel: "1/3".parse().unwrap(),
            zone: None,
            settle: 60_000,
            epoch: Some("another"),
        };
        let reply = world.locks().reserve(&wanted).unwrap();
        assert!(!reply.reserved && reply.wait.is_some_and(|wait| wait.contains("Redis restarted")));
    });
}
