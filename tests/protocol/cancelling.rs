//! `cancel` and `hold`: how a deploy is stopped, for good or until a box knows.

use std::{sync::Barrier, thread, time::Duration};

use deployctl::{
    api::{Phase, State},
    coordination::{AcquireReply, CancelReply, Refusal},
};

use crate::protocol::world::{BASE, LONG, SOON, World, alive, on_redis, patient};
use crate::support::wait_until;

/// Starts `count` waiters and gives how long each waited once `act` was done.
fn waited(world: &World, names: &[&str], deploy: &str, act: impl FnOnce()) -> Vec<Duration> {
    let waiting: Vec<_> = names.iter().map(|name| world.worker(name, deploy).waits(Duration::from_secs(5))).collect();
    wait_until(SOON, "all of them wait", || {
        world.redis.command(&["INFO", "clients"]).contains(&format!("blocked_clients:{}", names.len()))
    });
    act();
    waiting.into_iter().map(|waiter| waiter.join().unwrap()).collect()
}

#[test]
fn after_a_cancel_nobody_gets_a_lock_and_who_is_out_finishes() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let (mut a, mut b) = (world.worker("a", "d"), world.worker("b", "d"));
        a.go_out();
        assert_eq!(world.cancel(false), CancelReply::Stopped { id: "d".to_owned() });
        let AcquireReply::Stop { stop, cancel: Some(cancel), .. } = b.acquire() else { panic!("b got a lock") };
        assert_eq!((stop, cancel.by.as_str(), cancel.reason.as_str()), (Refusal::Cancelled, "ann", "enough"));
        b.finish(Phase::Cancelled, true);
        let pulse = a.renew(Some(Phase::Starting), true);
        assert!(pulse.cancel.is_some_and(|cancel| !cancel.broken) && !pulse.ended);
        assert!(!world.look("d", &alive(&[]), &patient()).ended, "a works");
        a.finish(Phase::Done, true);
        let ended = world.look("d", &alive(&[]), &patient());
        assert_eq!((ended.ended, ended.state, ended.reason.as_deref()), (true, State::Cancelled, Some("enough")));
        assert_eq!((world.phase("d", "a"), world.phase("d", "c")), (Phase::Done, Phase::Cancelled));
        assert_eq!(world.remaining("d"), 0);
    });
}

#[test]
fn cancel_against_acquire_no_grant_comes_after_it() {
    on_redis(|world| {
        let boxes: Vec<String> = (0..30).map(|n| format!("b{n}")).collect();
        let boxes: Vec<&str> = boxes.iter().map(String::as_str).collect();
        world.begin("d", &boxes, "100%");
        let start = Barrier::new(boxes.len() + 1);
        thread::scope(|scope| {
            for box_ in &boxes {
                let (mut worker, start) = (world.worker(box_, "d"), &start);
                scope.spawn(move || {
                    start.wait();
                    let left = worker.gets_lock()
                        && matches!(worker.leave(), deployctl::coordination::LeaveReply::Left { .. });
                    let cancelled = worker.locks.cancel_of("d").unwrap();
                    if left && let Some(cancel) = cancelled {
                        // It left, so it left before.
                        assert!(!cancel.by.is_empty());
                    }
                    assert!(matches!(worker.acquire(), AcquireReply::Granted { .. } | AcquireReply::Stop { .. }));
                });
            }
            start.wait();
            world.cancel(true);
            let out = world.out();
            assert!(!world.worker("late", "d").gets_lock());
            assert_eq!(world.out(), out, "nobody left after the cancel");
        });
    });
}

#[test]
fn every_waiting_box_hears_of_a_cancel_within_a_second() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        world.worker("a", "d").go_out();
        let waited = waited(world, &["b", "c"], "d", || drop(world.cancel(true)));
        assert!(waited.iter().all(|wait| *wait < Duration::from_secs(4)), "{waited:?}");
    });
}

#[test]
fn every_waiting_box_hears_of_a_newer_deploy_within_a_second() {
    on_redis(|world| {
        world.begin("d1", &["a", "b", "c"], "1/3");
        world.worker("a", "d1").go_out();
        let waited = waited(world, &["b", "c"], "d1", || world.supersede("d2", &["a", "b", "c"]));
        assert!(waited.iter().all(|wait| *wait < Duration::from_secs(4)), "{waited:?}");
    });
}

#[test]
fn the_cancel_key_is_set_once_but_broken_outweighs() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut locks = world.locks();
        locks.cancel(None, "ann", "first", false).unwrap();
        locks.cancel(Some("d"), "ben", "second", false).unwrap();
        assert_eq!(locks.cancel_of("d").unwrap().unwrap().by, "ann");
        locks.cancel(Some("d"), "a", "exits at once", true).unwrap();
        locks.cancel(Some("d"), "ben", "third", false).unwrap();
        let cancel = locks.cancel_of("d").unwrap().unwrap();
        assert_eq!((cancel.by.as_str(), cancel.broken), ("a", true));
        let text = world.redis.command(&["GET", &format!("{BASE}deploy:d:cancel")]);
        let stored: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(stored["at"].as_u64().unwrap() > 1_600_000_000_000, "{stored}");
        assert_eq!(world.look("d", &alive(&[]), &patient()).state, State::Broken);
    });
}

#[test]
fn what_has_ended_cannot_be_cancelled() {
    on_redis(|world| {
        let refused = |cancelled: CancelReply| match cancelled {
            CancelReply::Refused { refused, state } => (refused, state),
            CancelReply::Stopped { id } => panic!("stopped {id}"),
        };
        assert_eq!(refused(world.cancel(false)), (Refusal::Ended, None));
        world.begin("d", &["a"], "1/3");
        world.worker("a", "d").complete();
        assert_eq!(world.look("d", &alive(&["a"]), &patient()).state, State::Deployed);
        assert_eq!(refused(world.cancel(true)), (Refusal::Ended, Some(State::Deployed)));
        assert_eq!(world.state("d"), State::Deployed);
        assert_eq!(world.locks().cancel_of("d").unwrap(), None);
    });
}

#[test]
fn a_hold_stops_grants_for_others_until_every_holder_knows() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "3");
        let (mut a, mut b, mut c) = (world.worker("a", "d"), world.worker("b", "d"), world.worker("c", "d"));
        a.go_out();
        b.go_out();
        a.hold(LONG);
        b.hold(LONG);
        let AcquireReply::Wait { wait, .. } = c.acquire() else { panic!("c got a lock") };
        assert!(wait.contains("finds out whether the release is broken"), "{wait}");
        a.lift_hold();
        assert!(!c.gets_lock(), "b still finds out");
        b.finish(Phase::Failed, true);
        assert!(c.gets_lock(), "who finishes knows");
    });
}

#[test]
fn a_hold_ends_by_itself() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "3");
        let (mut a, mut b) = (world.worker("a", "d"), world.worker("b", "d"));
        a.go_out();
        a.hold(Duration::from_millis(300));
        assert!(!b.gets_lock());
        wait_until(SOON, "b gets a lock", || b.gets_lock());
    });
}

#[test]
fn when_a_hold_is_lifted_all_who_wait_are_woken() {
    for lift_by_finishing in [false, true] {
        on_redis(|world| {
            world.begin("d", &["a", "b", "c"], "3");
            let mut a = world.worker("a", "d");
            a.go_out();
            a.hold(LONG);
            let waited = waited(world, &["b", "c"], "d", || {
                if lift_by_finishing {
                    a.finish(Phase::Failed, true);
                } else {
                    a.lift_hold();
                }
            });
            assert!(waited.iter().all(|wait| *wait < Duration::from_secs(4)), "{waited:?}");
        });
    }
}

#[test]
fn a_box_that_is_out_is_not_stopped_by_a_hold() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "2");
        let (mut a, mut b) = (world.worker("a", "d"), world.worker("b", "d"));
        a.go_out();
        b.go_out();
        b.hold(LONG);
        let mut again = world.worker("a", "d");
        assert!(again.gets_lock());
        assert!(matches!(again.leave(), deployctl::coordination::LeaveReply::Left { .. }));
    });
}

#[test]
fn a_hold_of_a_deploy_that_ended_is_no_hold() {
    on_redis(|world| {
        world.begin("d1", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d1");
        a.go_out();
        a.hold(LONG);
        world.supersede("d2", &["a", "b", "c"]);
        a.hold(LONG);
        a.finish(Phase::RolledBack, true);
        assert!(world.worker("b", "d2").gets_lock());
    });
}
