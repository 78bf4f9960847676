//! `begin`, `queue` and `gates`: how a deploy starts.

use std::{sync::Barrier, thread};

use deployctl::{
    api::{Phase, State},
    coordination::{AcquireReply, BeginReply, DeployRecord, GateStep, Refusal},
    names::Zones,
};

use crate::protocol::world::{BASE, alive, doc, names, on_redis, patient};

fn refusal(begun: &BeginReply) -> Refusal {
    match begun {
        BeginReply::Refused { refused, .. } => *refused,
        BeginReply::Rolling { .. } => panic!("it rolls"),
    }
}

#[test]
fn a_deploy_begins_with_the_boxes_that_the_service_saw() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let deploy = world.deploy("d");
        assert_eq!((deploy.state, deploy.size, deploy.locks, deploy.remaining), (State::Rolling, 3, 1, 3));
        assert!(deploy.boxes.iter().all(|row| row.phase == Phase::Expected));
        assert_eq!(world.locks().current().unwrap().unwrap().schema, deployctl::coordination::SCHEMA);
    });
}

#[test]
fn one_deploy_rolls_at_a_time() {
    on_redis(|world| {
        world.begin("d1", &["a"], "1/3");
        let begun = world.try_begin("d2", &["a"], "1/3", false);
        assert_eq!(begun, BeginReply::Refused { refused: Refusal::Rolling, id: Some("d1".to_owned()) });
        assert_eq!(world.locks().doc("d2").unwrap(), None, "a refusal changes nothing");
        assert_eq!(world.locks().deploys(10).unwrap().len(), 1);
    });
}

#[test]
fn an_id_begins_at_most_once_however_many_services_try() {
    on_redis(|world| {
        let start = Barrier::new(8);
        let begun = thread::scope(|scope| {
            let racing: Vec<_> = (0..8)
                .map(|_| {
                    let (mut locks, start) = (world.locks(), &start);
                    scope.spawn(move || {
                        start.wait();
                        locks.begin(&doc("d"), &names(&["a"]), &Zones::new(), true, false, None).unwrap()
                    })
                })
                .collect();
            racing.into_iter().map(|race| race.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(begun.iter().filter(|begun| matches!(begun, BeginReply::Rolling { .. })).count(), 1, "{begun:?}");
        world.worker("a", "d").complete();
        assert!(world.look("d", &alive(&["a"]), &patient()).ended);
        assert_eq!(refusal(&world.try_begin("d", &["a"], "1/3", false)), Refusal::Exists, "nor after its end");
        world.begin("d2", &["a"], "1/3");
        assert_eq!(
            refusal(&world.try_begin("d", &["a"], "1/3", true)),
            Refusal::Exists,
            "nor in the place of a newer one"
        );
        assert_eq!(world.state("d2"), State::Rolling);
    });
}

#[test]
fn superseding_ends_the_old_deploy_in_the_same_step() {
    on_redis(|world| {
        world.begin("d1", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d1");
        a.go_out();
        world.supersede("d2", &["a", "b", "c"]);
        let old = world.deploy("d1");
        assert_eq!((old.state, old.reason.as_deref()), (State::Cancelled, Some("superseded by d2")));
        assert!(old.ended_at.is_some());
        let cancel = world.locks().cancel_of("d1").unwrap().unwrap();
        assert!(cancel.superseded && !cancel.broken);
        let pulse = a.renew(Some(Phase::Starting), true);
        assert!(pulse.ended && pulse.cancel.unwrap().superseded);
        let look = world.look("d1", &alive(&[]), &patient());
        assert_eq!((look.ended, look.state), (false, State::Cancelled), "its end is written once");
    });
}

#[test]
fn superseding_a_broken_deploy_leaves_it_broken() {
    on_redis(|world| {
        world.begin("d1", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d1");
        a.go_out();
        world.cancel(true);
        world.supersede("d2", &["a", "b", "c"]);
        assert_eq!(world.state("d1"), State::Broken);
        assert_eq!(world.look("d1", &alive(&[]), &patient()).state, State::Broken);
        assert!(a.renew(Some(Phase::Starting), true).cancel.unwrap().broken, "a still has to go back");
    });
}

#[test]
fn the_last_good_tag_is_handed_on() {
    on_redis(|world| {
        let last_good = |id: &str| world.deploy(id).last_good.map(|tag| tag.to_string());
        world.begin("v1", &["a"], "1/3");
        assert_eq!(last_good("v1"), None);
        world.worker("a", "v1").complete();
        world.look("v1", &alive(&["a"]), &patient());
        world.begin("v2", &["a"], "1/3");
        assert_eq!(last_good("v2").as_deref(), Some("v1"));
        world.cancel(true);
        assert_eq!(world.look("v2", &alive(&["a"]), &patient()).state, State::Broken);
        world.begin("v3", &["a"], "1/3");
        assert_eq!(last_good("v3").as_deref(), Some("v1"), "v2 never was good");
        assert_eq!(world.locks().complete().unwrap().unwrap().id, "v1");
    });
}

#[test]
fn one_waits_in_the_queue_and_the_newest_wins() {
    on_redis(|world| {
        world.begin("d1", &["a"], "1/3");
        let mut locks = world.locks();
        assert_eq!(locks.queue(&doc("d2")).unwrap(), None);
        assert_eq!(locks.queue(&doc("d3")).unwrap().as_deref(), Some("d2"));
        assert_eq!(locks.queued().unwrap().unwrap().id, "d3");
        let replaced = world.deploy("d2");
        assert_eq!(
            (replaced.state, replaced.reason.as_deref()),
            (State::Cancelled, Some("replaced in the queue by d3"))
        );
        assert!(world.redis.command_count(&["PTTL", &format!("{BASE}deploy:d2:record")]) > 0);
        assert_eq!(world.state("d3"), State::Queued);
        world.worker("a", "d1").complete();
        world.look("d1", &alive(&["a"]), &patient());
        world.begin("d3", &["a"], "1/3");
        assert_eq!((world.state("d3"), locks.queued().unwrap()), (State::Rolling, None));
        assert_eq!(
            refusal(&world.try_begin("d2", &["a"], "1/3", true)),
            Refusal::Exists,
            "a replaced one never begins"
        );
    });
}

#[test]
fn no_box_takes_a_lock_before_the_gates_have_passed() {
    on_redis(|world| {
        let mut locks = world.locks();
        locks.begin(&doc("d"), &names(&["a", "b", "c"]), &Zones::new(), false, true, None).unwrap();
        let mut a = world.worker("a", "d");
        assert!(matches!(a.acquire(), AcquireReply::Wait { wait, .. } if wait == "the gates before the start"));
        assert_eq!(locks.gates("d", GateStep::Claim, "one", None).unwrap().refused, None);
        let second = locks.gates("d", GateStep::Claim, "two", None).unwrap();
        assert_eq!((second.refused, second.owner.as_deref()), (Some(Refusal::Claimed), Some("one")));
        assert!(!a.gets_lock());
        let waiter = world.worker("b", "d").waits(std::time::Duration::from_secs(5));
        locks.gates("d", GateStep::Pass, "one", None).unwrap();
        assert!(waiter.join().unwrap() < std::time::Duration::from_secs(4), "who waits is woken");
        assert!(a.gets_lock());
        assert_eq!(locks.gates("d", GateStep::Claim, "two", None).unwrap().refused, Some(Refusal::Ended));
    });
}

#[test]
fn a_gate_that_fails_ends_the_deploy() {
    on_redis(|world| {
        let mut locks = world.locks();
        locks
            .begin(
                &DeployRecord { tag: "v2".parse().unwrap(), ..doc("d") },
                &names(&["a"]),
                &Zones::new(),
                false,
                true,
                None,
            )
            .unwrap();
        locks.gates("d", GateStep::Claim, "one", None).unwrap();
        locks.gates("d", GateStep::Fail, "one", Some("the migration failed")).unwrap();
        let deploy = world.deploy("d");
        assert_eq!((deploy.state, deploy.reason.as_deref()), (State::Failed, Some("the migration failed")));
        assert_eq!(world.remaining("d"), 0);
        world.begin("d2", &["a"], "1/3");
        assert!(world.worker("a", "d2").gets_lock(), "the next one has none to wait for");
    });
}

#[test]
fn what_waits_in_the_queue_is_older_than_what_begins_after_it() {
    on_redis(|world| {
        world.begin("v4", &["a", "b", "c"], "1/3");
        world.locks().queue(&doc("v5")).unwrap();
        let begun = world.try_begin("v6", &["a", "b", "c"], "1/3", true);
        assert!(
            matches!(&begun, BeginReply::Rolling { replaced: Some(id), .. } if id == "v5"),
            "its owner is told: {begun:?}"
        );
        assert_eq!(world.locks().queued().unwrap(), None);
        assert_eq!(world.state("v5"), State::Cancelled);
    });
}
