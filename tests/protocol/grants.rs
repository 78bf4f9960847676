//! `acquire`: how many locks there are, who gets one, and what counts as used.

use std::{sync::Barrier, thread, time::Duration};

use deployctl::{
    api::Phase,
    coordination::{AcquireReply, JoinReply, Refusal},
};

use crate::protocol::world::{BASE, LONG, SOON, World, hand, name, on_redis};
use crate::support::wait_for;

const SIX: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// As many workers of `deploy` as there are names, all joined.
fn fleet(world: &World, deploy: &str, boxes: &[&str]) -> Vec<crate::protocol::world::Worker> {
    boxes.iter().map(|name| world.worker(name, deploy)).collect()
}

#[test]
fn there_are_as_many_locks_as_max_parallel_says() {
    let cases = [
        ("1/3", 1, 1),
        ("1/3", 5, 1),
        ("1/3", 6, 2),
        ("1/3", 11, 3),
        ("50%", 7, 3),
        ("33%", 9, 2),
        ("4", 9, 4),
        ("9", 3, 3),
    ];
    for (max_parallel, size, locks) in cases {
        on_redis(|world| {
            let boxes: Vec<String> = (0..size).map(|n| format!("b{n}")).collect();
            let boxes: Vec<&str> = boxes.iter().map(String::as_str).collect();
            world.begin("d", &boxes, max_parallel);
            let mut workers = fleet(world, "d", &boxes);
            let granted = workers.iter_mut().filter_map(|worker| match worker.acquire() {
                AcquireReply::Granted { granted, size: of, locks: n, .. } => Some((granted, of, n)),
                _ => None,
            });
            let expected: Vec<_> = (1..=locks).map(|suffix| (suffix, size, locks)).collect();
            assert_eq!(granted.collect::<Vec<_>>(), expected, "{max_parallel} of {size}");
            assert_eq!(world.deploy("d").locks, locks, "the API's own arithmetic");
        });
    }
}

#[test]
fn a_race_of_many_grants_exactly_n_and_each_suffix_once() {
    on_redis(|world| {
        let boxes: Vec<String> = (0..60).map(|n| format!("b{n}")).collect();
        let boxes: Vec<&str> = boxes.iter().map(String::as_str).collect();
        world.begin("d", &boxes, "1/3");
        let workers = fleet(world, "d", &boxes);
        let start = Barrier::new(workers.len());
        let mut suffixes: Vec<u32> = thread::scope(|scope| {
            let racing: Vec<_> = workers
                .into_iter()
                .map(|mut worker| {
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        (0..5).for_each(|_| drop(worker.held.is_none().then(|| worker.acquire())));
                        worker.held.map(|held| held.suffix)
                    })
                })
                .collect();
            racing.into_iter().filter_map(|race| race.join().unwrap()).collect()
        });
        suffixes.sort_unstable();
        assert_eq!(suffixes, (1..=20).collect::<Vec<_>>());
    });
}

#[test]
fn many_boxes_at_once_all_get_through_and_never_more_than_n_are_out() {
    on_redis(|world| {
        let boxes: Vec<String> = (0..24).map(|n| format!("b{n}")).collect();
        let boxes: Vec<&str> = boxes.iter().map(String::as_str).collect();
        world.begin("d", &boxes, "1/3");
        let out = std::sync::atomic::AtomicUsize::new(0);
        thread::scope(|scope| {
            for box_ in &boxes {
                let (mut worker, out) = (world.worker(box_, "d"), &out);
                scope.spawn(move || {
                    wait_for(LONG, "a lock", || match worker.acquire() {
                        AcquireReply::Granted { .. } => Ok(()),
                        other => {
                            worker.locks.wait_for_wake(Duration::from_millis(500)).unwrap();
                            Err(format!("{other:?}"))
                        }
                    });
                    worker.leave();
                    let now_out = out.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
                    assert!(now_out <= 8, "{now_out} are out");
                    worker.renew(Some(Phase::Starting), true);
                    out.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    worker.finish(Phase::Done, true);
                });
            }
        });
        assert_eq!((world.remaining("d"), world.out(), world.holders()), (0, vec![], vec![]));
    });
}

#[test]
fn a_box_that_waits_is_told_for_whom_and_the_table_says_so() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        world.worker("a", "d").go_out();
        let AcquireReply::Wait { wait, .. } = world.worker("b", "d").acquire() else { panic!("b got a lock") };
        assert_eq!(wait, "1 of 1 lock: a");
        let row = world.deploy("d").boxes.into_iter().find(|row| row.name == name("b")).unwrap();
        assert_eq!(row.detail.as_deref(), Some("1 of 1 lock: a"));
    });
}

#[test]
fn a_lock_that_somebody_else_set_is_respected() {
    for value in
        [r#"{"box":"z","deploy":"x","token":"t","since":1,"renewed":1}"#, r#"{"box":"z"}"#, "z", "1", "{", "\"z\""]
    {
        on_redis(|world| {
            world.begin("d", &["a", "b", "c"], "1/3");
            let mut worker = world.worker("a", "d");
            world.redis.command(&["SET", &format!("{BASE}lock:1"), value, "PX", "60000"]);
            let acquired = worker.acquire();
            assert!(matches!(acquired, AcquireReply::Wait { .. }), "{value}: {acquired:?}");
            assert_eq!(world.holders().len(), 1, "{value}: `locks` shows it");
            assert!(!world.look("d", &crate::protocol::world::alive(&["a"]), &crate::protocol::world::patient()).ended);
            world.redis.command(&["SET", &format!("{BASE}lock:1"), value, "PX", "1"]);
            world.wait_expired(1);
            wait_for(SOON, "a lock", || if worker.gets_lock() { Ok(()) } else { Err("none") });
        });
    }
}

#[test]
fn with_two_locks_one_set_from_outside_leaves_the_other() {
    on_redis(|world| {
        world.begin("d", &SIX, "1/3");
        world.redis.command(&["SET", &format!("{BASE}lock:1"), "z", "PX", "60000"]);
        let mut workers = fleet(world, "d", &SIX);
        let got: Vec<bool> = workers.iter_mut().map(crate::protocol::world::Worker::gets_lock).collect();
        assert_eq!(got, [true, false, false, false, false, false]);
        assert_eq!(workers[0].held.as_ref().unwrap().suffix, 2);
    });
}

/// So many that the scripts go by what they keep.
#[test]
fn in_a_large_fleet_locks_that_others_set_or_delete_count_within_seconds() {
    on_redis(|world| {
        let boxes: Vec<String> = (0..120).map(|n| format!("b{n}")).collect();
        let boxes: Vec<&str> = boxes.iter().map(String::as_str).collect();
        world.begin("d", &boxes, "1/3");
        let mut workers = fleet(world, "d", &boxes);
        assert!(workers[..39].iter_mut().all(crate::protocol::world::Worker::gets_lock));
        world.redis.command(&["SET", &format!("{BASE}lock:40"), "z", "PX", "60000"]);
        assert!(!workers[39].gets_lock(), "another program holds the last one");
        world.redis.command(&["DEL", &format!("{BASE}lock:7")]);
        wait_for(SOON, "the lock that was deleted", || if workers[39].gets_lock() { Ok(()) } else { Err("none") });
        assert_eq!(workers[39].held.as_ref().unwrap().suffix, 7);
        assert!(!workers[40].gets_lock(), "40 of 40");
    });
}

#[test]
fn a_worker_that_starts_again_gets_its_own_lock_with_a_new_token_at_once() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut old = world.worker("a", "d");
        assert!(old.gets_lock());
        // Others have asked meanwhile, so that Redis remembers that there is none.
        assert!(!world.worker("b", "d").gets_lock());
        let mut new = world.worker("a", "d");
        assert!(!world.worker("c", "d").gets_lock());
        assert!(new.gets_lock(), "the lock is its own");
        assert_eq!(new.held.as_ref().unwrap().suffix, 1);
        assert_ne!(new.held.as_ref().unwrap().token, old.held.as_ref().unwrap().token);
        assert!(
            matches!(old.leave(), deployctl::coordination::LeaveReply::Refused { refused, .. } if refused == Refusal::NotOwner)
        );
        old.finish(Phase::Failed, true);
        assert_eq!(world.holders(), [(1, "a".to_owned())], "the old worker cannot free its successor's lock");
    });
}

#[test]
fn a_box_that_failed_uses_up_a_lock_until_it_tries_again() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d");
        a.go_out();
        a.finish(Phase::Failed, true);
        assert_eq!((world.out(), world.holders()), (vec![], vec![]));
        let mut b = world.worker("b", "d");
        assert!(!b.gets_lock(), "a failed and uses up the only lock");
        assert!(matches!(a.join(), JoinReply::Seated { joined: false, phase: Phase::Failed, .. }), "it stays as it is");
        assert!(matches!(a.join_with(&[], true), JoinReply::Seated { joined: true, .. }), "unless a person retries");
        assert!(a.gets_lock(), "it is not blocked by itself");
        a.leave();
        a.finish(Phase::Done, true);
        assert!(b.gets_lock());
    });
}

#[test]
fn a_box_that_is_out_goes_first_and_is_not_blocked_by_itself() {
    on_redis(|world| {
        world.begin("d1", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d1");
        a.go_out();
        world.supersede("d2", &["a", "b", "c"]);
        assert!(!world.worker("b", "d2").gets_lock(), "a is out");
        let mut again = world.worker("a", "d2");
        let acquired = again.acquire();
        assert!(matches!(acquired, AcquireReply::Granted { out: true, .. }), "{acquired:?}");
        again.leave();
        again.finish(Phase::Done, true);
        assert!(world.worker("b", "d2").gets_lock());
    });
}

#[test]
fn a_box_that_is_out_gets_a_lock_even_where_none_is_free_and_after_a_cancel() {
    on_redis(|world| {
        world.begin("d1", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d1");
        a.ttl = Duration::from_millis(500);
        a.go_out();
        world.wait_expired(1);
        world.redis.command(&["SET", &format!("{BASE}lock:1"), "z", "PX", "60000"]);
        world.cancel(false);
        let mut again = world.worker("a", "d1");
        let AcquireReply::Granted { granted, out, cancel, .. } = again.acquire() else { panic!("no lock") };
        assert_eq!((granted, out), (2, true));
        assert_eq!(cancel.unwrap().by, "ann");
        // Also after the end.
        again.finish(Phase::RolledBack, false);
        world.look_until_ended("d1", &crate::protocol::world::alive(&[]), &crate::protocol::world::patient());
        assert!(matches!(again.acquire(), AcquireReply::Granted { out: true, .. }));
        again.finish(Phase::RolledBack, true);
        assert_eq!(world.out(), Vec::<String>::new());
    });
}

#[test]
fn the_search_goes_on_where_a_lock_was_freed_and_wraps() {
    on_redis(|world| {
        world.begin("d", &SIX, "3");
        let mut workers = fleet(world, "d", &SIX);
        for worker in &mut workers[..3] {
            worker.go_out();
        }
        workers[1].finish(Phase::Done, true);
        assert!(workers[3].gets_lock());
        assert_eq!(workers[3].held.as_ref().unwrap().suffix, 2, "the one that was freed");
        workers[0].finish(Phase::Done, true);
        workers[2].finish(Phase::Done, true);
        assert!(workers[4].gets_lock() && workers[5].gets_lock());
        let mut suffixes: Vec<u32> = workers.iter().filter_map(|worker| Some(worker.held.as_ref()?.suffix)).collect();
        suffixes.sort_unstable();
        assert_eq!(suffixes, [1, 2, 3]);
    });
}

#[test]
fn work_by_hand_takes_a_lock_of_the_same_and_never_during_a_deploy() {
    on_redis(|world| {
        let mut by_hand = world.stranger("a", "hand.1");
        assert!(matches!(
            by_hand.acquire_with(Duration::ZERO, Some(&hand(3))),
            AcquireReply::Granted { granted: 1, .. }
        ));
        let mut other = world.stranger("b", "hand.2");
        assert!(matches!(other.acquire_with(Duration::ZERO, Some(&hand(3))), AcquireReply::Wait { .. }));
        // A deploy that begins now waits for it as for any other.
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut worker = world.worker("b", "d");
        assert!(!worker.gets_lock());
        let stop = world.stranger("c", "hand.3").acquire_with(Duration::ZERO, Some(&hand(3)));
        assert!(
            matches!(stop, AcquireReply::Stop { stop, current: Some(id), .. } if stop == Refusal::Rolling && id == "d")
        );
        by_hand.give_back();
        assert!(worker.gets_lock());
    });
}

#[test]
fn nobody_gets_a_lock_for_a_deploy_that_is_not_the_current_one() {
    on_redis(|world| {
        let mut nowhere = world.stranger("a", "d0");
        assert!(matches!(nowhere.acquire(), AcquireReply::Stop { stop, .. } if stop == Refusal::Ended));
        world.begin("d1", &["a", "b", "c"], "1/3");
        let mut old = world.worker("a", "d1");
        world.supersede("d2", &["a", "b", "c"]);
        let AcquireReply::Stop { stop, current, cancel } = old.acquire() else { panic!("granted") };
        assert_eq!((stop, current.as_deref()), (Refusal::Ended, Some("d2")));
        assert!(cancel.unwrap().superseded);
        assert!(matches!(old.join(), JoinReply::Refused { refused, .. } if refused == Refusal::Ended));
    });
}
