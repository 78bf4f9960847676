//! `leave`: the last question before a box goes out of service.

use std::time::Duration;

use deployctl::{
    api::Phase,
    coordination::{LeaveReply, Refusal, Survey},
};

use crate::protocol::world::{BASE, Worker, hand, name, names, on_redis};

const SIX: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// What the load balancer `key` says to `me`.
fn survey(key: &str, me: &str, in_service: &[&str]) -> Survey {
    let in_service = in_service.iter().map(|target| (*target).to_owned()).collect();
    Survey { key: key.to_owned(), me: me.to_owned(), in_service }
}

#[track_caller]
fn refused(left: &LeaveReply) -> Refusal {
    match left {
        LeaveReply::Refused { refused, .. } => *refused,
        LeaveReply::Left { .. } => panic!("it left"),
    }
}

fn floor_of(left: LeaveReply) -> (u32, u32, String) {
    match left {
        LeaveReply::Refused { others, floor, key, refused: Refusal::Floor, .. } => {
            (others.unwrap(), floor.unwrap(), key.unwrap())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_leaves_stands_in_out_and_holds_its_lock_anew() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut worker = world.worker("a", "d");
        worker.ttl = Duration::from_secs(5);
        assert!(worker.gets_lock());
        worker.ttl = Duration::from_secs(50);
        assert_eq!(worker.leave(), LeaveReply::Left { left: true });
        assert_eq!(world.out(), ["a"]);
        assert_eq!(world.phase("d", "a"), Phase::Draining);
        let life: i64 = world.redis.command_count(&["PTTL", &format!("{BASE}lock:1")]).try_into().unwrap();
        assert!(life > 40_000, "{life}");
    });
}

#[test]
fn only_the_owner_leaves() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut slow = world.worker("a", "d");
        slow.ttl = Duration::from_millis(50);
        assert!(slow.gets_lock());
        world.wait_expired(1);
        assert_eq!(refused(&slow.leave()), Refusal::NotOwner, "its lock expired");
        world.worker("b", "d").go_out();
        assert_eq!(refused(&slow.leave()), Refusal::NotOwner, "another holds it");
        assert_eq!(world.out(), ["b"]);
    });
}

#[test]
fn nobody_leaves_after_a_cancel_an_end_or_during_another_boxs_hold() {
    on_redis(|world| {
        world.begin("d1", &SIX, "1/3");
        let (mut a, mut b) = (world.worker("a", "d1"), world.worker("b", "d1"));
        assert!(a.gets_lock() && b.gets_lock());
        b.hold(Duration::from_secs(60));
        assert_eq!(refused(&a.leave()), Refusal::Held);
        b.lift_hold();
        world.cancel(true);
        let LeaveReply::Refused { refused: why, cancel: Some(cancel), .. } = a.leave() else { panic!("it left") };
        assert_eq!((why, cancel.broken), (Refusal::Cancelled, true));
        world.supersede("d2", &SIX);
        assert_eq!(refused(&a.leave()), Refusal::Cancelled);
        assert_eq!(world.out(), Vec::<String>::new());
    });
}

#[test]
fn the_floor_counts_others_in_service_less_those_announced() {
    on_redis(|world| {
        world.begin("d", &SIX, "1/3");
        let workers: Vec<Worker> = SIX.iter().map(|name| world.worker(name, "d")).collect();
        let [mut a, mut b, ..]: [Worker; 6] = workers.try_into().ok().unwrap();
        assert!(a.gets_lock() && b.gets_lock());
        let all = ["i-a", "i-b", "i-c", "i-d", "i-e", "i-f"];
        assert!(matches!(a.leave_with(None, &[survey("tg", "i-a", &all)]), LeaveReply::Left { .. }));
        // The load balancer does not know yet that a leaves: its target is not counted twice.
        assert!(matches!(b.leave_with(None, &[survey("tg", "i-b", &all)]), LeaveReply::Left { .. }));
        b.finish(Phase::Done, true);

        let mut c = world.worker("c", "d");
        assert!(c.gets_lock());
        // d is unhealthy by itself, and b is not back yet: c, e and f serve; without c there would be 2 of 4.
        let few = ["i-a", "i-c", "i-e", "i-f"];
        assert_eq!(floor_of(c.leave_with(None, &[survey("tg", "i-c", &few)])), (2, 4, "tg".to_owned()));
        assert_eq!(world.out(), ["a"], "a refusal changes nothing");
        let enough = ["i-a", "i-b", "i-c", "i-d", "i-e", "i-f"];
        assert!(matches!(c.leave_with(None, &[survey("tg", "i-c", &enough)]), LeaveReply::Left { .. }));
    });
}

#[test]
fn every_load_balancer_must_be_able_to_spare_the_box() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d");
        assert!(a.gets_lock());
        let spare = survey("tg-1", "i-a", &["i-a", "i-b", "i-c"]);
        let short = survey("tg-2", "10.0.0.1", &["10.0.0.1", "10.0.0.2"]);
        assert_eq!(floor_of(a.leave_with(None, &[spare.clone(), short])), (1, 2, "tg-2".to_owned()));
        let spare_too = survey("tg-2", "10.0.0.1", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert!(matches!(a.leave_with(None, &[spare, spare_too]), LeaveReply::Left { .. }));
    });
}

#[test]
fn a_box_that_gets_no_requests_skips_the_floor() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d");
        assert!(a.gets_lock());
        assert!(matches!(a.leave_with(None, &[survey("tg", "i-a", &[])]), LeaveReply::Left { .. }));
    });
}

#[test]
fn a_box_that_is_out_already_is_not_held_up_by_the_floor() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d");
        a.go_out();
        // Killed before it had left the load balancer, it does so again.
        let mut again = world.worker("a", "d");
        assert!(again.gets_lock());
        assert!(matches!(again.leave_with(None, &[survey("tg", "i-a", &["i-a", "i-b"])]), LeaveReply::Left { .. }));
    });
}

#[test]
fn when_the_fleet_shrank_since_the_grant_fewer_may_leave() {
    on_redis(|world| {
        world.begin("d", &SIX, "1/3");
        let (mut a, mut b) = (world.worker("a", "d"), world.worker("b", "d"));
        assert!(a.gets_lock() && b.gets_lock(), "2 of 6");
        let left = deployctl::coordination::Members { left: names(&["e", "f"]), ..Default::default() };
        let patience =
            deployctl::coordination::Timeouts { interval: Duration::ZERO, ..crate::protocol::world::patient() };
        crate::support::wait_until(crate::protocol::world::SOON, "e and f are gone", || {
            world.look("d", &left, &patience);
            world.deploy("d").size == 4
        });
        assert!(matches!(a.leave(), LeaveReply::Left { .. }));
        assert_eq!(floor_of(b.leave()), (2, 3, "deploy".to_owned()), "1 of 4");
        a.finish(Phase::Done, true);
        assert!(matches!(b.leave(), LeaveReply::Left { .. }));
    });
}

#[test]
fn by_hand_a_box_leaves_under_its_lock_and_the_floor_of_its_own_size() {
    on_redis(|world| {
        let by_hand = hand(3);
        let mut a = world.stranger("a", "hand.1");
        a.acquire_with(Duration::ZERO, Some(&by_hand));
        let short = survey("tg", "i-a", &["i-a", "i-b"]);
        assert_eq!(floor_of(a.leave_with(Some(&by_hand), &[short])), (1, 2, "tg".to_owned()));
        let kept = deployctl::coordination::ManualRun { reason: Some("new disk".to_owned()), ..by_hand };
        assert!(matches!(a.leave_with(Some(&kept), &[]), LeaveReply::Left { .. }));
        let shown = world.locks().locks().unwrap();
        assert_eq!(shown.out[0].reason.as_deref(), Some("new disk"));
    });
}

#[test]
fn an_entry_of_out_that_cannot_be_read_stops_nothing() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        world.redis.command(&["HSET", &format!("{BASE}out"), "b", "{half"]);
        world.redis.command(&["HSET", &format!("{BASE}out"), "no box", "{}"]);
        world.redis.command(&["HSET", &format!("{BASE}walk"), "top", "4000000000"]);
        let listed: Vec<String> = world.locks().locks().unwrap().out.iter().map(|row| row.name.to_string()).collect();
        assert_eq!(listed, ["b"]);
        world.worker("a", "d").complete();
        assert!(world.locks().unlock(&name("b"), false, Duration::ZERO, "ann", "bad").unwrap().refused.is_none());
    });
}
