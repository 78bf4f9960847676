//! The verdicts `gone` and `lost`, which only the service passes, and `unlock`, which only a person does.

use std::time::Duration;

use deployctl::{
    api::{Phase, State},
    coordination::{Finish, JoinReply, ManualRun, Members, Refusal, Timeouts},
};

use crate::protocol::world::{LONG, SOON, World, alive, hand, name, names, on_redis, patient};
use crate::support::wait_until;

fn failed(boxes: &[&str]) -> Members {
    Members { failed: names(boxes), ..alive(&["b"]) }
}

/// Every renewal is long ago.
fn unheard() -> Timeouts {
    Timeouts { interval: Duration::ZERO, ..patient() }
}

/// A whole life of a lock is over.
fn long_dead() -> Timeouts {
    Timeouts { interval: Duration::ZERO, ttl: Duration::ZERO, ..patient() }
}

/// No lock lives any more.
fn expired() -> Timeouts {
    Timeouts { ttl: Duration::ZERO, ..patient() }
}

#[track_caller]
fn look_until(world: &World, members: &Members, patience: &Timeouts, box_: &str, phase: Phase) {
    wait_until(SOON, &format!("{box_} is {phase}"), || {
        world.look("d", members, patience);
        world.phase("d", box_) == phase
    });
}

#[test]
fn a_dead_box_is_gone_frees_everything_and_no_longer_counts() {
    for members in [failed(&["a"]), Members { left: names(&["a"]), ..Members::default() }] {
        on_redis(|world| {
            world.begin("d", &["a", "b", "c", "e", "f", "g"], "1/3");
            let mut b = world.worker("b", "d");
            world.worker("a", "d").go_out();
            world.worker("c", "d").go_out();
            assert!(!b.gets_lock());
            look_until(world, &members, &unheard(), "a", Phase::Gone);
            assert_eq!((world.out(), world.holders()), (vec!["c".to_owned()], vec![(2, "c".to_owned())]));
            let deploy = world.deploy("d");
            assert_eq!((deploy.size, deploy.locks, world.remaining("d")), (5, 1, 5));
            assert!(!b.gets_lock(), "5 boxes have one lock");
        });
    }
}

#[test]
fn a_box_that_renews_is_not_gone_whatever_serf_says() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d");
        a.go_out();
        a.renew(Some(Phase::Starting), true);
        world.look("d", &failed(&["a"]), &patient());
        assert_eq!((world.phase("d", "a"), world.out()), (Phase::Starting, vec!["a".to_owned()]));
    });
}

#[test]
fn missing_from_the_list_is_no_evidence() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        world.worker("a", "d").go_out();
        world.look("d", &alive(&[]), &unheard());
        assert_eq!((world.phase("d", "a"), world.phase("d", "b")), (Phase::Draining, Phase::Expected));
    });
}

#[test]
fn a_box_that_was_gone_counts_again_when_it_joins() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        look_until(world, &failed(&["a"]), &unheard(), "a", Phase::Gone);
        assert_eq!((world.deploy("d").size, world.remaining("d")), (2, 2));
        let mut a = world.stranger("a", "d");
        assert!(matches!(a.join(), JoinReply::Seated { joined: true, phase: Phase::Gone, size: 3, .. }));
        assert_eq!(world.remaining("d"), 3);
        a.complete();
    });
}

#[test]
fn a_box_that_died_out_of_service_in_an_earlier_deploy_is_buried_too() {
    on_redis(|world| {
        world.begin("d0", &["z", "b", "c"], "1/3");
        world.worker("z", "d0").go_out();
        world.supersede("d", &["b", "c"]);
        assert!(!world.worker("b", "d").gets_lock(), "z may be out");
        wait_until(SOON, "z is buried", || {
            world.look("d", &failed(&["z"]), &long_dead());
            world.out().is_empty()
        });
        assert!(world.worker("b", "d").gets_lock());
    });
}

#[test]
fn a_worker_that_vanished_while_it_was_out_is_lost_and_counts_to_the_end() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d");
        a.ttl = Duration::from_secs(1);
        a.go_out();
        let mut b = world.worker("b", "d");
        world.look("d", &alive(&["a", "b", "c"]), &expired());
        assert_eq!(world.phase("d", "a"), Phase::Draining, "its lock still lives");
        world.wait_expired(1);
        assert!(!b.gets_lock(), "no cascade");
        let ended = world.look_until_ended("d", &alive(&["a", "b", "c"]), &expired());
        assert_eq!(ended.state, State::Failed);
        assert!(ended.reason.as_deref().unwrap().contains("a failed or stay out"), "{ended:?}");
        assert_eq!((world.phase("d", "a"), world.out()), (Phase::Lost, vec!["a".to_owned()]));
        assert!(world.deploy("d").boxes[0].detail.as_deref().unwrap().contains("deployctl run"));
    });
}

#[test]
fn a_lost_box_counts_for_later_deploys_until_its_ttl_has_passed() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d");
        a.ttl = Duration::from_millis(1500);
        a.go_out();
        world.supersede("d2", &["a", "b", "c"]);
        let mut b = world.worker("b", "d2");
        assert!(!b.gets_lock(), "a may still be at work");
        wait_until(SOON, "a no longer prevents a new deploy", || {
            assert!(!world.look("d2", &alive(&["a", "b", "c"]), &patient()).ended, "that is worth waiting for");
            b.gets_lock()
        });
        assert_eq!(world.out(), ["a"], "but it is still known to be out");
    });
}

#[test]
fn a_lost_box_that_shows_itself_counts_again() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c", "e", "f", "g"], "1/3");
        let mut a = world.worker("a", "d");
        a.ttl = Duration::from_millis(500);
        a.go_out();
        world.worker("b", "d").go_out();
        world.wait_expired(1);
        look_until(world, &alive(&[]), &expired(), "a", Phase::Lost);
        assert_eq!(world.remaining("d"), 5);
        a.ttl = LONG;
        a.renew(Some(Phase::Registering), true);
        assert_eq!((world.phase("d", "a"), world.remaining("d")), (Phase::Registering, 6));
        a.finish(Phase::Done, true);
        assert_eq!((world.remaining("d"), world.out()), (5, vec!["b".to_owned()]));
    });
}

#[test]
fn a_box_that_a_person_keeps_out_stays_so_even_when_it_dies_but_no_longer_counts() {
    on_redis(|world| {
        let kept = ManualRun { reason: Some("new disk".to_owned()), ..hand(3) };
        for (box_, in_table) in [("a", true), ("z", false)] {
            let mut by_hand = world.stranger(box_, "hand.1");
            by_hand.acquire_with(Duration::ZERO, Some(&kept));
            by_hand.leave_with(Some(&kept), &[]);
            by_hand.locks.finish(&name(box_), "hand.1", by_hand.held.as_ref(), &Finish::default()).unwrap();
            let id = format!("d-{box_}");
            world.begin(&id, if in_table { &["a", "b", "c"] } else { &["b", "c"] }, "1/3");
            let mut b = world.worker("b", &id);
            assert!(!b.gets_lock(), "{box_} is out");
            wait_until(SOON, "b gets a lock", || {
                world.look(&id, &failed(&[box_]), &long_dead());
                b.gets_lock()
            });
            assert_eq!(world.out(), [box_], "`deployctl in` is a person's");
            b.give_back();
            world.cancel(false);
            world.look(&id, &alive(&[]), &patient());
            let back = Finish { in_service: true, ..Default::default() };
            by_hand.locks.finish(&name(box_), "hand.1", None, &back).unwrap();
        }
    });
}

#[test]
fn a_box_that_is_out_for_a_reboot_is_gone_only_after_a_whole_lock_ttl() {
    on_redis(|world| {
        let reboots = ManualRun { purpose: Some("new kernel".to_owned()), ..hand(3) };
        let mut a = world.stranger("a", "hand.a");
        a.acquire_with(Duration::ZERO, Some(&reboots));
        a.leave_with(Some(&reboots), &[]);
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut b = world.worker("b", "d");
        for _ in 0..3 {
            world.look("d", &failed(&["a"]), &unheard());
        }
        assert_eq!((world.phase("d", "a"), world.out()), (Phase::Expected, vec!["a".to_owned()]));
        assert!(!b.gets_lock(), "it counts");
        look_until(world, &failed(&["a"]), &long_dead(), "a", Phase::Gone);
        assert!(b.gets_lock());
        // It boots after all, and says so before anything else.
        a.held = None;
        a.renew(None, true);
        assert_eq!(world.out(), ["a"]);
    });
}

#[test]
fn what_a_box_was_out_for_is_told_until_that_is_over() {
    on_redis(|world| {
        let errand = ManualRun { purpose: Some("new kernel".to_owned()), ..hand(3) };
        let mut a = world.stranger("a", "hand.a");
        a.acquire_with(Duration::ZERO, Some(&errand));
        a.leave_with(Some(&errand), &[]);
        let told = || world.locks().locks().unwrap().out[0].purpose.clone();
        assert_eq!(told().as_deref(), Some("new kernel"));
        a.finish(Phase::Failed, false);
        assert_eq!((told(), world.out()), (None, vec!["a".to_owned()]), "it stays out for another reason");
    });
}

#[test]
fn unlock_is_refused_while_the_holder_renews_and_frees_everything_after() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d");
        a.go_out();
        let mut locks = world.locks();
        assert_eq!(locks.unlock(&name("b"), true, LONG, "ann", "why").unwrap().refused, Some(Refusal::Nothing));
        let refused = locks.unlock(&name("a"), false, LONG, "ann", "why").unwrap();
        assert_eq!(refused.refused, Some(Refusal::Renewed));
        assert!(refused.ago.unwrap() < 10_000);
        assert_eq!(world.out(), ["a"]);
        wait_until(SOON, "it may be unlocked", || {
            locks.unlock(&name("a"), false, Duration::from_millis(1), "ann", "why").unwrap().refused.is_none()
        });
        assert_eq!((world.out(), world.holders(), world.phase("d", "a")), (vec![], vec![], Phase::Lost));
        assert!(world.worker("b", "d").gets_lock());
    });
}

#[test]
fn unlock_by_force_frees_a_lock_of_any_kind() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d");
        a.go_out();
        assert_eq!(world.locks().unlock(&a.name, true, LONG, "ann", "why").unwrap().refused, None);
        assert_eq!(world.holders(), []);
        // Somebody else's lock, by the box's name only.
        world.redis.command(&["SET", "t:{staging:app}:lock:1", "z"]);
        assert_eq!(world.locks().unlock(&name("z"), false, LONG, "ann", "why").unwrap().refused, None);
        assert_eq!(world.holders(), []);
    });
}

#[test]
fn unlocking_a_box_that_is_out_from_an_earlier_deploy_lets_it_take_part_in_this_one() {
    on_redis(|world| {
        world.begin("d1", &["a", "b", "c"], "1/3");
        world.worker("a", "d1").go_out();
        world.supersede("d2", &["a", "b", "c"]);
        world.locks().unlock(&name("a"), true, LONG, "ann", "it serves").unwrap();
        assert_eq!((world.phase("d2", "a"), world.remaining("d2")), (Phase::Expected, 3));
    });
}

#[test]
fn who_sees_nobody_judges_nobody() {
    on_redis(|world| {
        let boxes = ["a", "b", "c", "d", "e", "f"];
        world.begin("d", &boxes, "1/3");
        world.worker("a", "d").complete();
        world.worker("b", "d").complete();
        let now = Timeouts { interval: Duration::ZERO, ..patient() };
        let failed = names(&["c", "d", "e", "f"]);
        let blind = Members { failed: failed.clone(), ..Members::default() };
        assert!(!world.look("d", &blind, &now).ended);
        assert_eq!(world.phase("d", "c"), Phase::Expected, "the service's agent sees nobody");
        let cut_off = Members { failed, ..alive(&["a", "b"]) };
        assert!(!world.look("d", &cut_off, &now).ended);
        let gone = world.deploy("d").boxes.iter().filter(|row| row.phase == Phase::Gone).count();
        assert_eq!(gone, 3, "half of the boxes at most are called gone by Serf's word alone");
        let waits = world.deploy("d").boxes.into_iter().find(|row| row.phase == Phase::Expected).unwrap();
        assert!(waits.detail.unwrap().contains("deployctl unlock"));
        let left = Members { left: names(&["c", "d", "e", "f"]), ..alive(&["a", "b"]) };
        let ended = world.look_until_ended("d", &left, &now);
        assert_eq!(ended.state, State::Failed, "2 of 6 boxes are no complete deploy: {ended:?}");
    });
}

#[test]
fn nobody_is_judged_right_after_the_service_was_away() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d");
        a.ttl = Duration::from_millis(300);
        a.go_out();
        let away = Timeouts {
            interval: Duration::from_millis(200),
            ttl: Duration::ZERO,
            look_gap: Duration::from_millis(50),
            ..patient()
        };
        world.look("d", &Members::default(), &Timeouts { ttl: LONG, ..away });
        let looked = std::time::Instant::now();
        wait_until(SOON, "the gap is long enough", || looked.elapsed() > away.look_gap + a.ttl);
        world.look("d", &Members::default(), &away);
        assert_eq!(world.phase("d", "a"), Phase::Draining, "its worker had no time to speak");
        let often = Timeouts { look_gap: LONG, ..away };
        look_until(world, &Members::default(), &often, "a", Phase::Lost);
    });
}

#[test]
fn a_box_that_failed_and_stays_out_is_not_gone_when_its_agent_restarts() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "2/3");
        let mut a = world.worker("a", "d");
        a.go_out();
        a.finish(Phase::Failed, false);
        let left = Members { left: names(&["a"]), ..alive(&["b", "c"]) };
        world.look("d", &left, &unheard());
        world.look("d", &left, &unheard());
        assert_eq!(world.out(), ["a"], "its agent only restarts");
        look_until(world, &left, &long_dead(), "a", Phase::Gone);
        assert!(world.out().is_empty());
    });
}

#[test]
fn a_box_that_is_kept_out_and_no_more_is_named_with_the_command_that_frees_it() {
    on_redis(|world| {
        let kept = ManualRun { reason: Some("new disk".to_owned()), ..hand(3) };
        let mut by_hand = world.stranger("z", "hand.z");
        by_hand.acquire_with(Duration::ZERO, Some(&kept));
        by_hand.leave_with(Some(&kept), &[]);
        by_hand.locks.finish(&name("z"), "hand.z", by_hand.held.as_ref(), &Finish::default()).unwrap();
        world.begin("d", &["a", "b", "c"], "1/3");
        let ended = world.look_until_ended("d", &alive(&["a", "b", "c"]), &patient());
        let reason = ended.reason.unwrap();
        assert!(reason.contains("deployctl unlock -r app -e staging --box z"), "{reason}");
        assert!(world.locks().unlock(&name("z"), true, LONG, "ann", "it was terminated").unwrap().refused.is_none());
        world.begin("d2", &["a", "b", "c"], "1/3");
        assert!(world.worker("a", "d2").gets_lock());
    });
}
