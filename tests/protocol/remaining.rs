//! `remaining` is always what the table says, and never falls below 0.

use deployctl::{
    api::Phase,
    coordination::{Finish, JoinReply},
};

use crate::protocol::world::{BASE, alive, name, on_redis, patient};

#[test]
fn it_counts_the_boxes_and_each_way_out_once() {
    on_redis(|world| {
        world.begin("d", &["a", "b"], "1/3");
        assert_eq!(world.remaining("d"), 2);
        let mut a = world.stranger("a", "d");
        // a sees c, which the service did not.
        let joined = a.join_with(&["a", "b", "c"], false);
        assert!(matches!(joined, JoinReply::Seated { joined: true, size: 3, locks: 1, out: false, .. }), "{joined:?}");
        assert_eq!(world.remaining("d"), 3);
        a.join_with(&["a", "b", "c"], false);
        assert_eq!(world.remaining("d"), 3, "joining twice changes nothing");
        a.go_out();
        assert_eq!(a.finish(Phase::Done, true), Some(2));
        assert_eq!(a.finish(Phase::Done, true), Some(2), "nor does finishing twice");
        assert_eq!(world.remaining("d"), 2);
        assert!(matches!(a.join(), JoinReply::Seated { joined: false, phase: Phase::Done, .. }), "a repeated event");
        assert_eq!(world.remaining("d"), 2);
    });
}

#[test]
fn a_missing_key_is_never_taken_for_0() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let mut a = world.worker("a", "d");
        let key = format!("{BASE}deploy:d:remaining");
        world.redis.command(&["DEL", &key]);
        assert_eq!(world.deploy("d").remaining, 3, "what is shown");
        assert!(!world.look("d", &alive(&[]), &patient()).ended);
        world.redis.command(&["DEL", &key]);
        a.go_out();
        world.redis.command(&["DEL", &key]);
        assert_eq!(a.finish(Phase::Done, true), Some(2));
        assert_eq!(world.remaining("d"), 2);
    });
}

#[test]
fn no_order_of_steps_breaks_it() {
    // Every step twice, by workers that do not know of each other, in an order that a generator picks.
    on_redis(|world| {
        let boxes = ["a", "b", "c", "d", "e", "f"];
        world.begin("d", &boxes, "1/3");
        let phases = [Phase::Done, Phase::Failed, Phase::RolledBack, Phase::Cancelled];
        let mut seed = 7_u64;
        for _ in 0..300 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick = |of: usize, shift: u32| usize::try_from(seed >> shift).unwrap_or(0) % of;
            let mut worker = world.stranger(boxes[pick(6, 40)], "d");
            match pick(6, 50) {
                0 => drop(worker.join_with(&boxes, pick(2, 33) == 0)),
                1 => drop(worker.acquire()),
                2 if worker.gets_lock() => drop(worker.leave()),
                3 => drop(worker.renew(Some(Phase::Starting), false)),
                4 => drop(worker.finish(phases[pick(4, 35)], pick(2, 37) == 0)),
                _ => {
                    let finish = Finish { phase: Some(Phase::Done), in_service: true, ..Finish::default() };
                    worker.locks.finish(&name(boxes[pick(6, 41)]), "d", None, &finish).unwrap();
                }
            }
            world.remaining("d");
        }
    });
}

#[test]
fn after_the_end_a_late_worker_changes_nothing_that_counts() {
    for phase in [Phase::Done, Phase::Failed] {
        on_redis(|world| {
            world.begin("d1", &["a", "b", "c"], "1/3");
            let mut a = world.worker("a", "d1");
            a.go_out();
            world.supersede("d2", &["a", "b", "c"]);
            assert_eq!((world.remaining("d1"), world.phase("d1", "a")), (0, Phase::Cancelled));
            a.renew(Some(Phase::Registering), true);
            assert_eq!(world.remaining("d1"), 0);
            assert!(matches!(a.leave(), deployctl::coordination::LeaveReply::Left { .. }), "it is out already");
            assert_eq!(world.remaining("d1"), 0);
            assert_eq!(a.finish(phase, true), Some(0));
            assert_eq!((world.remaining("d1"), world.remaining("d2")), (0, 3));
            assert_eq!(world.phase("d1", "a"), phase, "what became of it is still shown");
            assert_eq!(world.out(), Vec::<String>::new());
            for key in world.redis.keys(&format!("{BASE}deploy:d1:*")) {
                let life = world.redis.command_count(&["PTTL", &key]);
                assert!(life > 0, "{key} would stay for ever");
            }
        });
    }
}

#[test]
fn a_lost_box_of_an_ended_deploy_does_not_count_again() {
    on_redis(|world| {
        world.begin("d1", &["a"], "1/3");
        let mut a = world.worker("a", "d1");
        a.go_out();
        world.locks().unlock(&a.name, true, crate::protocol::world::LONG, "ann", "stuck").unwrap();
        assert_eq!(world.phase("d1", "a"), Phase::Lost);
        assert!(world.look("d1", &alive(&["a"]), &patient()).ended);
        a.renew(Some(Phase::Starting), true);
        assert_eq!(world.remaining("d1"), 0);
    });
}
