//! `end`: when a deploy is over, and how it ended.

use std::time::Duration;

use deployctl::{
    api::{Phase, State},
    coordination::Timeouts,
};

use crate::protocol::world::{SOON, alive, on_redis, patient};

const THREE: [&str; 3] = ["a", "b", "c"];

#[test]
fn a_deploy_is_deployed_when_every_box_is_done_and_its_end_is_written_once() {
    on_redis(|world| {
        world.begin("d", &THREE, "1/3");
        for box_ in THREE {
            assert!(!world.look("d", &alive(&THREE), &patient()).ended);
            world.worker(box_, "d").complete();
        }
        let ended = world.look("d", &alive(&THREE), &patient());
        assert_eq!((ended.ended, ended.state), (true, State::Deployed));
        let again = world.look("d", &alive(&THREE), &patient());
        assert_eq!((again.ended, again.state), (false, State::Deployed));
        assert_eq!(world.locks().complete().unwrap().unwrap().id, "d");
    });
}

#[test]
fn live_boxes_that_are_not_in_the_table_are_added_before_a_deploy_is_deployed() {
    on_redis(|world| {
        world.begin("d", &["a"], "1/3");
        world.worker("a", "d").complete();
        let look = world.look("d", &alive(&["a", "new"]), &patient());
        assert_eq!((look.ended, look.silent), (false, 1), "and is asked to join");
        assert_eq!((world.phase("d", "new"), world.remaining("d")), (Phase::Expected, 1));
        world.worker("new", "d").complete();
        assert_eq!(world.look("d", &alive(&["a", "new"]), &patient()).state, State::Deployed);
    });
}

#[test]
fn who_sees_nobody_calls_no_deploy_complete() {
    on_redis(|world| {
        world.begin("d", &["a"], "1/3");
        world.worker("a", "d").complete();
        assert!(!world.look("d", &alive(&[]), &patient()).ended, "a box that is not in the table may live");
        assert!(!world.look("d", &alive(&["a", "new"]), &patient()).ended);
        world.worker("new", "d").complete();
        assert_eq!(world.look("d", &alive(&["a", "new"]), &patient()).state, State::Deployed);
    });
}

#[test]
fn without_a_single_box_that_is_done_a_deploy_is_not_deployed() {
    on_redis(|world| {
        world.begin("none", &[], "1/3");
        assert_eq!(world.look("none", &alive(&[]), &patient()).state, State::Failed);
        world.begin("d", &["a"], "1/3");
        let gone =
            deployctl::coordination::Members { left: crate::protocol::world::names(&["a"]), ..Default::default() };
        let ended = world.look_until_ended("d", &gone, &Timeouts { interval: Duration::ZERO, ..patient() });
        assert_eq!(ended.state, State::Failed);
    });
}

#[test]
fn the_look_at_a_superseded_deploy_says_how_that_one_ended() {
    on_redis(|world| {
        world.begin("d1", &["a"], "1/3");
        world.worker("a", "d1").complete();
        world.look("d1", &alive(&["a"]), &patient());
        world.begin("d2", &["a"], "1/3");
        let look = world.look("d1", &alive(&["a"]), &patient());
        assert_eq!((look.ended, look.state), (false, State::Deployed));
        assert_eq!(world.state("d2"), State::Rolling);
    });
}

#[test]
fn boxes_that_failed_or_withdrew_make_it_failed_by_name() {
    for (phase, in_service) in [(Phase::Failed, true), (Phase::RolledBack, true), (Phase::Cancelled, true)] {
        on_redis(|world| {
            world.begin("d", &["a", "b", "c", "e", "f", "g"], "1/3");
            let mut a = world.worker("a", "d");
            a.go_out();
            a.finish(phase, in_service);
            for box_ in ["b", "c", "e", "f", "g"] {
                world.worker(box_, "d").complete();
            }
            let ended = world.look("d", &alive(&["a"]), &patient());
            assert_eq!((ended.state, ended.reason.as_deref()), (State::Failed, Some("not through: a")));
        });
    }
}

#[test]
fn when_no_grant_is_possible_and_nobody_works_it_ends_failed() {
    on_redis(|world| {
        world.begin("d", &THREE, "1/3");
        let mut b = world.worker("b", "d");
        let mut a = world.worker("a", "d");
        a.go_out();
        assert!(!world.look("d", &alive(&THREE), &patient()).ended, "a works");
        a.finish(Phase::Failed, true);
        assert!(!b.gets_lock());
        let ended = world.look("d", &alive(&THREE), &patient());
        assert_eq!(ended.state, State::Failed);
        assert_eq!(ended.reason.as_deref(), Some("no lock is left: a failed or stay out"));
        assert_eq!(world.phase("d", "b"), Phase::Cancelled);
    });
}

#[test]
fn a_box_that_is_out_and_may_still_restore_itself_is_waited_for_but_not_for_ever() {
    on_redis(|world| {
        world.begin("d", &THREE, "1/3");
        world.worker("a", "d").go_out();
        // Its worker starts again, and dies before it has asked for a lock.
        world.worker("a", "d");
        world.redis.command(&["DEL", "t:{staging:app}:lock:1"]);
        let mut b = world.worker("b", "d");
        assert!(!world.look("d", &alive(&THREE), &patient()).ended, "a may come");
        // a never does, while b goes on asking.
        let patience = Timeouts { join: Duration::from_millis(300), ..patient() };
        let ended = crate::support::wait_for(SOON, "d ends", || {
            assert!(!b.gets_lock());
            let ended = world.look("d", &alive(&THREE), &patience);
            if ended.ended { Ok(ended) } else { Err(format!("{ended:?}")) }
        });
        assert_eq!(ended.state, State::Failed);
        assert!(ended.reason.unwrap().contains('a'));
    });
}

#[test]
fn join_timeout_ends_a_deploy_of_which_nothing_is_heard() {
    on_redis(|world| {
        world.begin("d", &THREE, "1/3");
        world.worker("a", "d").complete();
        let patience = Timeouts { join: Duration::from_millis(300), silence: Duration::ZERO, ..patient() };
        let ended = world.look_until_ended("d", &alive(&THREE), &patience);
        assert_eq!(ended.state, State::Failed);
        assert_eq!(ended.reason.as_deref(), Some("nothing was heard of b, c within join_timeout"));
    });
}

#[test]
fn silent_boxes_are_counted_so_that_they_are_asked_again() {
    on_redis(|world| {
        world.begin("d", &THREE, "1/3");
        assert_eq!(world.look("d", &alive(&THREE), &patient()).silent, 0);
        let impatient = Timeouts { silence: Duration::from_millis(200), ..patient() };
        let mut a = world.worker("a", "d");
        crate::support::wait_until(SOON, "two are silent", || {
            a.renew(None, false);
            world.look("d", &alive(&THREE), &impatient).silent == 2
        });
    });
}

#[test]
fn a_worker_that_was_killed_at_work_is_called_again_before_its_lock_expires() {
    on_redis(|world| {
        world.begin("d", &["a"], "1/3");
        world.worker("a", "d").go_out();
        let impatient = Timeouts { silence: Duration::from_millis(200), ..patient() };
        assert_eq!(world.look("d", &alive(&["a"]), &impatient).silent, 0);
        crate::support::wait_until(SOON, "it is silent", || world.look("d", &alive(&["a"]), &impatient).silent == 1);
        assert_eq!(world.phase("d", "a"), Phase::Draining, "it is not lost yet");
    });
}

#[test]
fn join_timeout_does_not_end_a_deploy_in_which_somebody_works() {
    on_redis(|world| {
        world.begin("d", &THREE, "1/3");
        let mut a = world.worker("a", "d");
        a.go_out();
        let start = std::time::Instant::now();
        crate::support::wait_until(SOON, "time passes", || {
            assert!(!world.look("d", &alive(&THREE), &Timeouts { join: Duration::ZERO, ..patient() }).ended);
            start.elapsed() > Duration::from_millis(200)
        });
    });
}

#[test]
fn lock_timeout_counts_from_the_last_progress() {
    on_redis(|world| {
        world.begin("d", &THREE, "1/3");
        let mut a = world.worker("a", "d");
        a.go_out();
        let patience = Timeouts { lock: Duration::from_millis(400), ..patient() };
        let start = std::time::Instant::now();
        let mut phases = [Phase::Starting, Phase::Verifying].iter().cycle();
        crate::support::wait_until(SOON, "twice the time passes", || {
            a.renew(phases.next().copied(), true);
            assert!(!world.look("d", &alive(&THREE), &patience).ended);
            start.elapsed() > Duration::from_millis(800)
        });
        assert_eq!(world.locks().cancel_of("d").unwrap(), None, "a made progress");
        crate::support::wait_until(SOON, "it is cancelled", || {
            world.look("d", &alive(&THREE), &patience);
            world.locks().cancel_of("d").unwrap().is_some_and(|cancel| cancel.failed)
        });
        a.finish(Phase::Done, true);
        let ended = world.look("d", &alive(&THREE), &patience);
        assert_eq!((ended.state, ended.reason.as_deref()), (State::Failed, Some("no progress within lock_timeout")));
    });
}

#[test]
fn deploy_timeout_bounds_the_whole_and_waits_for_who_works() {
    on_redis(|world| {
        world.begin("d", &THREE, "1/3");
        let mut a = world.worker("a", "d");
        a.go_out();
        let patience = Timeouts { deploy: Duration::from_millis(1), ..patient() };
        crate::support::wait_until(SOON, "it is cancelled", || {
            assert!(!world.look("d", &alive(&THREE), &patience).ended, "a works");
            world.locks().cancel_of("d").unwrap().is_some()
        });
        a.finish(Phase::Done, true);
        assert_eq!(world.look("d", &alive(&THREE), &patience).state, State::Failed);
    });
}

#[test]
fn a_lock_that_never_expires_does_not_keep_a_deploy_for_ever() {
    on_redis(|world| {
        world.begin("d", &THREE, "1/3");
        world.redis.command(&["SET", "t:{staging:app}:lock:1", "a"]);
        assert!(!world.worker("b", "d").gets_lock());
        let patience = Timeouts { ttl: Duration::ZERO, deploy: Duration::from_millis(200), ..patient() };
        assert_eq!(world.look_until_ended("d", &alive(&THREE), &patience).state, State::Failed);
    });
}

#[test]
fn a_box_that_a_person_keeps_out_does_not_make_a_deploy_fail() {
    on_redis(|world| {
        let kept = deployctl::coordination::ManualRun {
            reason: Some("new disk".to_owned()),
            ..crate::protocol::world::hand(6)
        };
        let mut z = world.stranger("z", "hand.1");
        z.acquire_with(Duration::ZERO, Some(&kept));
        z.leave_with(Some(&kept), &[]);
        z.finish(Phase::Done, false);
        world.begin("d", &["a", "b", "c", "e", "f", "z"], "1/3");
        for box_ in ["a", "b", "c", "e", "f"] {
            world.worker(box_, "d").complete();
        }
        world.worker("z", "d").finish(Phase::Cancelled, false);
        assert_eq!(world.look("d", &alive(&["z"]), &patient()).state, State::Deployed);
        assert_eq!(world.out(), ["z"]);
    });
}
