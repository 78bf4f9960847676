//! One box first: only so many get a release until they have served with it for a while.

use std::time::Duration;

use deployctl::{
    api::{Phase, State},
    coordination::{AcquireReply, BeginReply, DeployRecord, Members, StepRecord, Timeouts},
    names::Zones,
};

use crate::protocol::world::{LONG, SOON, World, alive, doc, name, names, on_redis, patient};
use crate::support::wait_until;

const BOXES: [&str; 6] = ["a", "b", "c", "e", "f", "g"];
const MOMENT: u64 = 300;

fn step(boxes: &str, lasts: Option<u64>) -> StepRecord {
    StepRecord { boxes: boxes.parse().unwrap(), lasts }
}

fn begin(world: &World, id: &str, steps: Vec<StepRecord>) {
    let doc = DeployRecord { steps, ..doc(id) };
    let begun = world.locks().begin(&doc, &names(&BOXES), &Zones::new(), true, false, None).unwrap();
    assert!(matches!(begun, BeginReply::Rolling { .. }), "{begun:?}");
}

fn number(world: &World) -> Option<usize> {
    world.deploy("d").step.map(|step| step.number)
}

/// The service looks until the deploy stands at this step.
#[track_caller]
fn wait_step(world: &World, wanted: Option<usize>) {
    wait_until(SOON, &format!("step {wanted:?}"), || {
        world.look("d", &alive(&BOXES), &patient());
        number(world) == wanted
    });
}

#[track_caller]
fn waits_for(reply: &AcquireReply, what: &str) {
    assert!(matches!(reply, AcquireReply::Wait { wait, stands: true, .. } if wait == what), "{reply:?}");
}

#[test]
fn no_box_beyond_a_step_begins_before_it_has_passed() {
    on_redis(|world| {
        begin(world, "d", vec![step("1", Some(MOMENT)), step("50%", Some(MOMENT))]);
        let mut workers: Vec<_> = BOXES.iter().map(|name| world.worker(name, "d")).collect();
        workers[0].go_out();
        waits_for(&workers[1].acquire(), "step 1 of 2");
        workers[0].finish(Phase::Done, true);
        waits_for(&workers[1].acquire(), "step 1 of 2");
        world.look("d", &alive(&BOXES), &patient());
        assert!(world.deploy("d").step.unwrap().since.is_some(), "it serves from now on");
        waits_for(&workers[1].acquire(), "step 1 of 2");
        wait_step(world, Some(2));
        workers[1].go_out();
        workers[2].go_out();
        waits_for(&workers[3].acquire(), "step 2 of 2");
        workers[1].finish(Phase::Done, true);
        workers[2].finish(Phase::Done, true);
        waits_for(&workers[3].acquire(), "step 2 of 2");
        wait_step(world, None);
        for worker in &mut workers[3..] {
            worker.complete();
        }
        assert_eq!(world.look("d", &alive(&BOXES), &patient()).state, State::Deployed);
    });
}

#[test]
fn a_box_that_fails_or_dies_in_a_step_is_replaced() {
    on_redis(|world| {
        begin(world, "d", vec![step("1", Some(MOMENT))]);
        let (mut a, mut b, mut c) = (world.worker("a", "d"), world.worker("b", "d"), world.worker("c", "d"));
        a.go_out();
        a.finish(Phase::Failed, true);
        b.complete();
        waits_for(&c.acquire(), "step 1 of 1");
        // It dies while it serves.
        let members = Members { alive: names(&["a", "c", "e", "f", "g"]), left: vec![name("b")], ..Members::default() };
        let quick = Timeouts { interval: Duration::from_millis(10), ..patient() };
        wait_until(SOON, "another may begin", || {
            world.look("d", &members, &quick);
            c.gets_lock()
        });
        assert_eq!(number(world), Some(1));
    });
}

#[test]
fn a_step_whose_box_is_lost_ends_the_deploy() {
    on_redis(|world| {
        begin(world, "d", vec![step("1", Some(MOMENT))]);
        let mut a = world.worker("a", "d");
        let _b = world.worker("b", "d");
        a.ttl = Duration::from_millis(500);
        a.go_out();
        let quick = Timeouts { interval: Duration::from_millis(10), ttl: Duration::from_millis(500), ..patient() };
        let ended = world.look_until_ended("d", &alive(&BOXES), &quick);
        assert_eq!(ended.state, State::Failed);
        assert!(ended.reason.unwrap().contains("step 1 of 1 cannot pass"));
    });
}

#[test]
fn a_manual_step_waits_for_a_person() {
    on_redis(|world| {
        begin(world, "d", vec![step("1", None)]);
        let (mut a, mut b) = (world.worker("a", "d"), world.worker("b", "d"));
        a.complete();
        world.look("d", &alive(&BOXES), &patient());
        let pause = world.deploy("d").pause.expect("it waits for a person");
        assert!(pause.reason.contains("step 1 of 1 is done"), "{pause:?}");
        assert!(!b.gets_lock());
        assert_eq!(world.locks().pause("d", "ann", None).unwrap().refused, None);
        b.go_out();
        assert_eq!(number(world), None);
    });
}

#[test]
fn a_lock_from_an_earlier_deploy_is_no_place_in_this_one() {
    on_redis(|world| {
        world.begin("d0", &BOXES, "2");
        assert!(world.worker("a", "d0").gets_lock());
        begin(world, "d", vec![step("1", Some(MOMENT))]);
        world.worker("b", "d").go_out();
        waits_for(&world.worker("a", "d").acquire(), "step 1 of 1");
    });
}

#[test]
fn a_box_that_is_out_from_an_earlier_deploy_takes_a_place_or_waits_for_one() {
    on_redis(|world| {
        world.begin("d0", &BOXES, "2");
        world.worker("a", "d0").go_out();
        world.worker("b", "d0").go_out();
        begin(world, "d", vec![step("1", Some(MOMENT))]);
        let (mut a, mut b) = (world.worker("a", "d"), world.worker("b", "d"));
        a.ttl = LONG;
        assert!(matches!(a.acquire(), AcquireReply::Granted { not_yet: None, .. }));
        for _ in 0..2 {
            let again = b.acquire();
            assert!(
                matches!(&again, AcquireReply::Granted { not_yet: Some(why), .. } if why == "step 1 of 1"),
                "{again:?}"
            );
        }
        a.finish(Phase::Done, true);
        wait_step(world, None);
        assert!(matches!(b.acquire(), AcquireReply::Granted { not_yet: None, .. }));
    });
}
