//! A person lets a deploy stand, and go on.

use std::time::Duration;

use deployctl::{
    api::{Phase, State},
    coordination::{AcquireReply, LeaveReply, Refusal, Timeouts},
};

use crate::protocol::world::{World, alive, on_redis, patient};

fn pause(world: &World) {
    let reply = world.locks().pause("d", "ann", Some("errors?")).unwrap();
    assert_eq!(reply.refused, None);
}

fn resume(world: &World) {
    assert_eq!(world.locks().pause("d", "ann", None).unwrap().refused, None);
}

#[test]
fn nobody_begins_while_it_is_paused_and_who_is_out_comes_back() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "2");
        let (mut a, mut b, mut c) = (world.worker("a", "d"), world.worker("b", "d"), world.worker("c", "d"));
        a.go_out();
        assert!(b.gets_lock());
        pause(world);
        let left = b.leave();
        assert!(matches!(left, LeaveReply::Refused { refused: Refusal::Held, .. }), "{left:?}");
        b.give_back();
        let waits = c.acquire();
        assert!(
            matches!(&waits, AcquireReply::Wait { wait, stands: true, .. } if wait == "paused by ann: errors?"),
            "{waits:?}"
        );
        // One that was interrupted while it was out goes on: that restores capacity.
        let again = a.acquire();
        assert!(matches!(again, AcquireReply::Granted { out: true, not_yet: None, .. }), "{again:?}");
        a.finish(Phase::Done, true);
        assert_eq!(world.out(), Vec::<String>::new());
        assert_eq!(world.locks().pause("d", "bob", Some("me too")).unwrap().refused, Some(Refusal::Paused));
        assert_eq!(world.wakes(), 2, "whoever waits hears of it");
        resume(world);
        c.complete();
        b.complete();
        assert_eq!(world.look("d", &alive(&["a", "b", "c"]), &patient()).state, State::Deployed);
        assert_eq!(world.locks().pause("d", "ann", Some("late")).unwrap().refused, Some(Refusal::Ended));
    });
}

#[test]
fn a_box_that_is_out_from_an_earlier_deploy_does_not_begin() {
    on_redis(|world| {
        world.begin("d0", &["a", "b", "c"], "1");
        let mut old = world.worker("a", "d0");
        old.go_out();
        world.supersede("d", &["a", "b", "c"]);
        pause(world);
        let mut a = world.worker("a", "d");
        for _ in 0..2 {
            let granted = a.acquire();
            assert!(
                matches!(&granted, AcquireReply::Granted { not_yet: Some(why), .. } if why.contains("paused by ann")),
                "it waits under its lock: {granted:?}"
            );
        }
    });
}

#[test]
fn the_deadlines_of_a_paused_deploy_stand_still() {
    on_redis(|world| {
        let soon = Duration::from_secs(1);
        let short = Timeouts { lock: soon, deploy: soon, join: soon, ..patient() };
        world.begin("d", &["a"], "1/3");
        let mut a = world.worker("a", "d");
        pause(world);
        std::thread::sleep(soon * 2);
        let seen = world.look("d", &alive(&["a"]), &short);
        assert!(!seen.ended && seen.state == State::Rolling, "{seen:?}");
        resume(world);
        assert_eq!(world.locks().pause("d", "ann", None).unwrap().refused, Some(Refusal::NotPaused));
        let seen = world.look("d", &alive(&["a"]), &short);
        assert!(!seen.ended, "the time of the pause does not count: {seen:?}");
        a.complete();
        assert_eq!(world.look("d", &alive(&["a"]), &short).state, State::Deployed);
        let ended = world.deploy("d");
        assert_eq!(ended.pause, None);
    });
}

#[test]
fn a_cancel_wins_over_a_pause() {
    on_redis(|world| {
        world.begin("d", &["a"], "1/3");
        let mut a = world.worker("a", "d");
        pause(world);
        world.cancel(false);
        assert!(matches!(a.acquire(), AcquireReply::Stop { .. }));
        assert_eq!(world.look("d", &alive(&["a"]), &patient()).state, State::Cancelled);
    });
}
