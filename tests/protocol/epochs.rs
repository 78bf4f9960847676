//! A Redis that restarted, came back empty, or lost everything under the workers' hands.

use std::time::Duration;

use deployctl::{
    api::Phase,
    coordination::{AcquireReply, JoinReply, Refusal, RenewRequest},
};

use crate::protocol::world::{LONG, SOON, Worker, name, on_redis};
use crate::support::wait_until;

const THREE: [&str; 3] = ["a", "b", "c"];

#[track_caller]
fn settles(worker: &mut Worker) {
    let acquired = worker.acquire_with(LONG, None);
    assert!(matches!(&acquired, AcquireReply::Wait { wait, .. } if wait.contains("Redis restarted")), "{acquired:?}");
}

#[test]
fn a_new_redis_grants_at_once() {
    on_redis(|world| {
        world.begin("d", &THREE, "1/3");
        assert!(matches!(world.worker("a", "d").acquire_with(LONG, None), AcquireReply::Granted { .. }));
    });
}

#[test]
fn after_a_restart_nothing_is_granted_for_a_while_and_all_is_as_it_was() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c", "e", "f", "g"], "1/3");
        let (mut a, mut b) = (world.worker("a", "d"), world.worker("b", "d"));
        a.go_out();
        let before = a.epoch.clone();
        world.redis.kill();
        world.redis.resume();
        settles(&mut b);
        let pulse = a.renew(Some(Phase::Starting), true);
        assert!(Some(pulse.epoch) != before, "a worker can see that the epoch is another");
        assert_eq!((world.out(), world.holders()), (vec!["a".to_owned()], vec![(1, "a".to_owned())]));
        // Who is out gets a lock even now.
        assert!(matches!(world.worker("a", "d").acquire_with(LONG, None), AcquireReply::Granted { out: true, .. }));
        wait_until(SOON, "b gets a lock", || {
            matches!(b.acquire_with(Duration::from_millis(500), None), AcquireReply::Granted { .. })
        });
    });
}

#[test]
fn an_emptied_redis_hears_who_is_out_before_it_grants() {
    on_redis(|world| {
        world.begin("d1", &THREE, "1/3");
        let (mut a, mut b) = (world.worker("a", "d1"), world.worker("b", "d1"));
        a.go_out();
        world.redis.flush();
        assert!(
            matches!(b.acquire(), AcquireReply::Stop { stop, .. } if stop == Refusal::Ended),
            "nothing rolls any more"
        );
        let pulse = a.renew(Some(Phase::Starting), true);
        assert!(pulse.ended && pulse.cancel.is_none());
        assert_eq!((world.out(), world.holders()), (vec!["a".to_owned()], vec![(1, "a".to_owned())]));
        world.begin("d2", &THREE, "1/3");
        settles(&mut world.worker("b", "d2"));
        assert!(!world.worker("c", "d2").gets_lock(), "and then a's word counts");
        a.finish(Phase::Done, true);
        assert_eq!(world.out(), Vec::<String>::new());
        assert!(world.worker("c", "d2").gets_lock());
    });
}

#[test]
fn an_emptied_redis_hears_whom_a_person_keeps_out() {
    on_redis(|world| {
        let says = RenewRequest {
            name: &name("a"),
            deploy: "hand.a",
            phase: None,
            detail: None,
            suffix: None,
            token: None,
            ttl: 60_000,
            out: true,
            kept_out_reason: Some("new disk"),
            purpose: None,
            epoch: None,
        };
        world.locks().renew(&says).unwrap();
        let locks = world.locks().locks().unwrap();
        assert_eq!(locks.out[0].reason.as_deref(), Some("new disk"));
        world.begin("d", &THREE, "1/3");
        assert!(!world.worker("b", "d").gets_lock(), "it uses up the only lock");
    });
}

#[test]
fn whoever_remembers_another_epoch_makes_an_emptied_redis_settle() {
    on_redis(|world| {
        world.begin("d1", &THREE, "1/3");
        let mut b = world.worker("b", "d1");
        world.redis.flush();
        // A service that has just started remembers nothing.
        world.begin("d2", &THREE, "1/3");
        b.deploy = "d2".to_owned();
        assert!(matches!(b.join(), JoinReply::Seated { .. }));
        settles(&mut world.worker("c", "d2"));
    });
}

#[test]
fn work_by_hand_settles_too() {
    on_redis(|world| {
        world.begin("d1", &THREE, "1/3");
        let epoch = world.worker("b", "d1").epoch;
        world.redis.flush();
        let mut by_hand = world.stranger("a", "hand.1");
        by_hand.epoch = epoch;
        let acquired = by_hand.acquire_with(LONG, Some(&crate::protocol::world::hand(3)));
        assert!(matches!(acquired, AcquireReply::Wait { .. }), "{acquired:?}");
    });
}

#[test]
fn a_box_that_is_out_says_so_even_while_it_waits_for_its_lock() {
    on_redis(|world| {
        world.begin("d1", &THREE, "1/3");
        world.worker("a", "d1").go_out();
        world.supersede("d2", &THREE);
        let mut again = world.worker("a", "d2");
        world.redis.flush();
        again.renew(None, true);
        assert_eq!(world.out(), ["a"]);
        assert!(matches!(again.acquire_with(LONG, None), AcquireReply::Granted { out: true, .. }));
    });
}
