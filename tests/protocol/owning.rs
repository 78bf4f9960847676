//! `renew` and `finish`: what is a worker's own, and what is not any more.

use std::time::Duration;

use deployctl::{
    api::Phase,
    coordination::{AcquireReply, Finish, LeaveReply, Members, Refusal, Timeouts},
};

use crate::{
    protocol::world::{BASE, LONG, SOON, alive, names, on_redis, patient},
    support::wait_until,
};

const SHORT: Duration = Duration::from_millis(100);

#[test]
fn renewing_keeps_a_lock_and_stopping_lets_it_expire() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d");
        a.ttl = Duration::from_millis(400);
        a.go_out();
        let start = std::time::Instant::now();
        wait_until(SOON, "three lives of the lock pass", || {
            a.renew(Some(Phase::Starting), true);
            start.elapsed() > 3 * a.ttl
        });
        assert_eq!(world.holders(), [(1, "a".to_owned())]);
        assert_eq!(world.phase("d", "a"), Phase::Starting);
        world.wait_expired(1);
        assert_eq!(world.out(), ["a"], "out is the truth, not the lock");
        assert!(!world.worker("b", "d").gets_lock());
    });
}

#[test]
fn a_former_holder_neither_frees_nor_extends_its_successors_lock() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut slow = world.worker("a", "d");
        slow.ttl = SHORT;
        assert!(slow.gets_lock());
        world.wait_expired(1);
        let mut next = world.worker("b", "d");
        next.ttl = Duration::from_secs(5);
        next.go_out();
        let before = world.redis.command(&["GET", &format!("{BASE}lock:1")]);
        slow.ttl = LONG;
        assert_eq!(slow.renew(None, false).lost_to.unwrap().as_str(), "b");
        let held = slow.held.clone();
        slow.give_back();
        assert_eq!(world.redis.command(&["GET", &format!("{BASE}lock:1")]), before);
        slow.held = held;
        slow.finish(Phase::Failed, true);
        assert_eq!(world.redis.command(&["GET", &format!("{BASE}lock:1")]), before);
        assert!(world.redis.command_count(&["PTTL", &format!("{BASE}lock:1")]) <= 5000);
        assert_eq!(world.out(), ["b"]);
    });
}

#[test]
fn a_missing_lock_comes_back_when_its_suffix_is_free() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d");
        a.go_out();
        world.redis.command(&["DEL", &format!("{BASE}lock:1")]);
        assert_eq!(a.renew(Some(Phase::Starting), true).lost_to, None);
        assert_eq!(world.holders(), [(1, "a".to_owned())]);
        // So does an `out` entry: the box is out, whatever Redis remembers.
        world.redis.command(&["DEL", &format!("{BASE}out")]);
        a.renew(Some(Phase::Starting), true);
        assert_eq!(world.out(), ["a"]);
    });
}

#[test]
fn a_lock_does_not_come_back_over_the_capacity() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "2");
        let mut slow = world.worker("a", "d");
        slow.ttl = SHORT;
        assert!(slow.gets_lock());
        world.worker("b", "d").go_out();
        world.wait_expired(1);
        // c takes a's suffix, fails and stays out: its lock is free again, the capacity is not.
        let mut c = world.worker("c", "d");
        c.go_out();
        c.finish(Phase::Failed, false);
        assert_eq!(world.out(), ["b", "c"]);
        let pulse = slow.renew(None, false);
        assert!(pulse.lost_to.is_some(), "{pulse:?}");
        assert!(matches!(slow.leave(), LeaveReply::Refused { refused, .. } if refused == Refusal::NotOwner));
    });
}

#[test]
fn a_worker_that_is_out_without_its_lock_finishes_and_comes_back() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d");
        a.ttl = SHORT;
        a.go_out();
        world.wait_expired(1);
        world.redis.command(&["SET", &format!("{BASE}lock:1"), r#"{"box":"z","token":"t"}"#, "PX", "60000"]);
        assert_eq!(a.renew(Some(Phase::Registering), true).lost_to.unwrap().as_str(), "z");
        assert_eq!(a.finish(Phase::Done, true), Some(2));
        assert_eq!(world.out(), Vec::<String>::new());
        assert_eq!(world.holders(), [(1, "z".to_owned())]);
    });
}

#[test]
fn a_successor_keeps_the_box_out_when_its_predecessor_finishes_late() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut old = world.worker("a", "d");
        old.go_out();
        let mut new = world.worker("a", "d");
        assert!(matches!(new.acquire(), AcquireReply::Granted { out: true, .. }));
        old.finish(Phase::Done, true);
        assert_eq!(world.out(), ["a"]);
        assert_eq!(world.holders(), [(1, "a".to_owned())]);
        assert_eq!(world.phase("d", "a"), Phase::Waiting, "the row is the successor's, too");
        new.finish(Phase::Done, true);
        assert_eq!((world.out(), world.remaining("d")), (vec![], 2));
    });
}

#[test]
fn only_a_return_to_service_takes_a_box_from_out() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d");
        a.go_out();
        a.finish(Phase::Failed, false);
        assert_eq!((world.out(), world.holders(), world.remaining("d")), (vec!["a".to_owned()], vec![], 2));
        // A later repair by hand brings it back.
        let mut repair = world.stranger("a", "hand.1");
        let finish = Finish { in_service: true, running: Some("v1".parse().unwrap()), ..Finish::default() };
        repair.locks.finish(&repair.name, "hand.1", None, &finish).unwrap();
        assert_eq!(world.out(), Vec::<String>::new());
        assert_eq!(world.locks().running().unwrap()["a"], "v1");
    });
}

#[test]
fn a_box_that_gives_its_lock_back_keeps_its_place_and_wakes_nobody() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let (mut a, mut b) = (world.worker("a", "d"), world.worker("b", "d"));
        assert!(a.gets_lock() && !b.gets_lock());
        a.give_back();
        assert_eq!((world.wakes(), world.remaining("d")), (0, 3));
        assert_eq!(world.phase("d", "a"), Phase::Waiting);
        assert!(b.gets_lock());
    });
}

#[test]
fn a_freed_lock_wakes_one_waiter() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d");
        a.go_out();
        let waiting = ["b", "c"].map(|name| world.worker(name, "d").waits(Duration::from_secs(3)));
        wait_until(SOON, "two wait", || world.redis.command(&["INFO", "clients"]).contains("blocked_clients:2"));
        a.finish(Phase::Done, true);
        let mut waited = waiting.map(|waiter| waiter.join().unwrap());
        waited.sort();
        assert!(waited[0] < Duration::from_secs(2) && waited[1] >= Duration::from_secs(2), "{waited:?}");
    });
}

#[test]
fn a_renewal_that_arrives_after_the_end_brings_nothing_back() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut late = world.worker("a", "d");
        late.go_out();
        let held = late.held.clone();
        late.finish(Phase::Done, true);
        late.held = held;
        late.renew(Some(Phase::Registering), true);
        assert_eq!((world.out(), world.holders()), (vec![], vec![]), "the token has ended");
        assert_eq!(world.phase("d", "a"), Phase::Done);
        assert!(world.worker("b", "d").gets_lock(), "nothing keeps the next box waiting");
    });
}

#[test]
fn a_box_that_is_out_learns_what_its_lock_is_not_for() {
    on_redis(|world| {
        world.begin("d1", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d1");
        a.go_out();
        world.cancel(false);
        let AcquireReply::Granted { cancel: Some(_), .. } = a.acquire() else { panic!("no cancel is told") };
        world.supersede("d2", &["a", "b", "c"]);
        let AcquireReply::Granted { over: true, .. } = a.acquire() else { panic!("d1 is over") };
        let mut on_d2 = world.worker("a", "d2");
        world.worker("b", "d2").hold(LONG);
        let AcquireReply::Granted { not_yet: Some(what), .. } = on_d2.acquire() else {
            panic!("it runs past the hold")
        };
        assert!(what.starts_with("b finds out"), "{what}");
    });
}

#[test]
fn a_box_that_was_called_gone_while_it_was_out_counts_again_and_goes_first() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c", "d", "e", "f"], "1/3");
        let mut a = world.worker("a", "d");
        a.go_out();
        let dead = Members { failed: names(&["a"]), ..alive(&["b", "c", "d", "e", "f"]) };
        wait_until(SOON, "a is gone", || {
            world.look("d", &dead, &Timeouts { interval: Duration::ZERO, ..patient() });
            world.out().is_empty()
        });
        world.worker("b", "d").go_out();
        assert!(!world.worker("c", "d").gets_lock(), "one of five may be out");
        let mut back = world.stranger("a", "d");
        back.renew(None, true);
        assert!(world.out().contains(&"a".to_owned()), "its journal says so");
        assert!(matches!(back.acquire(), AcquireReply::Granted { out: true, .. }), "it goes first");
    });
}
