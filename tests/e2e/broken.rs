//! Bad releases stop themselves: one wave goes out, fails and comes back; the rest is never touched.

use serde_json::json;

use crate::support::{Behaviour, Box, Fleet, require_fleet};

/// Six boxes on v1, then a bad v2: the deploy ends `broken`, everybody is on v1 again, and at most one wave went out.
/// Gives the release as the service tells it afterwards.
fn bad_release_is_stopped(behaviour: Behaviour) -> serde_json::Value {
    let fleet = Fleet::builder().boxes(6).config(quick_to_judge()).start();
    fleet.deployed("v1");
    let watch = fleet.target_group("app").sample();
    fleet.publish("v2", behaviour);
    let deploy = fleet.start("v2");
    deploy.wait_state("broken");
    fleet.boxes.iter().for_each(Box::wait_idle);
    watch.never_fewer_than(4);
    let missing = watch.ever_missing(fleet.boxes.iter().map(Box::address));
    assert!((1..=2).contains(&missing.len()), "one wave went out: {missing:?}\n{}", watch.timeline());
    fleet.all_serve("v1");
    fleet.at_rest();

    let refused = fleet.deployctl(&["start", "-r", "app", "-e", "staging", "-t", "v2"]).expect(1);
    assert!(refused.stderr.contains("v2") && refused.stderr.contains("broken"), "{refused}");
    let release = fleet.release("v2");
    assert_eq!(release["status"], "broken", "{release}");
    release
}

/// A container that is not healthy by then never will be.
fn quick_to_judge() -> serde_json::Value {
    json!({ "roles": { "app": { "health": { "timeout": "8s", "stable_for": "5s" } } } })
}

#[test]
fn a_release_that_exits_at_once_is_broken_with_its_own_last_words() {
    require_fleet!();
    let release = bad_release_is_stopped(Behaviour::Exits);
    assert!(release.to_string().contains("no database called orders"), "{release}");
}

#[test]
fn a_release_that_is_never_healthy_is_broken() {
    require_fleet!();
    bad_release_is_stopped(Behaviour::Unhealthy);
}

#[test]
fn a_release_that_dies_after_a_while_is_broken() {
    require_fleet!();
    let release = bad_release_is_stopped(Behaviour::Dies);
    assert!(release.to_string().contains("out of patience"), "{release}");
}

#[test]
fn a_tag_that_the_registry_does_not_know_is_broken_and_takes_nobody_out() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(3).start();
    fleet.deployed("v1");
    let watch = fleet.target_group("app").sample();
    fleet.deployctl(&["publish", "-r", "app", "-t", "v2"]).ok();
    fleet.start("v2").wait_state("broken");
    watch.never_fewer_than(3);
    fleet.all_serve("v1");
    assert_eq!(fleet.release("v2")["status"], "broken");
    fleet.at_rest();
}

#[test]
fn a_registry_that_is_down_blames_nobody() {
    require_fleet!();
    let mut fleet = Fleet::builder().boxes(2).config(json!({ "command_timeout": "40s" })).start();
    fleet.deployed("v1");
    fleet.publish("v2", Behaviour::Good);
    fleet.registry.stop();
    let watch = fleet.target_group("app").sample();
    let deploy = fleet.start("v2");
    deploy.wait_any("pulling");
    fleet.registry.resume();
    deploy.wait_deployed();
    watch.never_fewer_than(1);
    fleet.all_serve("v2");
    assert_eq!(fleet.release("v2")["status"], "available");
}

#[test]
fn a_box_on_which_every_image_fails_is_at_fault_and_the_release_is_not() {
    require_fleet!();
    // Two locks: the box uses up one, and the others go on with the other.
    let fleet = Fleet::builder().boxes(6).config(quick_to_judge()).start();
    fleet.deployed("v1");
    let cursed = fleet.node(3);
    cursed.curse(Behaviour::Exits);
    fleet.publish("v2", Behaviour::Good);
    let deploy = fleet.start("v2");
    let ended = deploy.wait_state("failed");
    assert!(ended.to_string().contains(cursed.name()), "{ended}");
    assert_eq!(deploy.phases()["box-3"], "failed");
    let serving = fleet.serving();
    assert_eq!(serving.iter().filter(|tag| *tag == "v2").count(), 5, "{serving:?}");
    assert_eq!(fleet.release("v2")["status"], "available");
}

#[test]
fn a_fix_supersedes_the_bad_release_at_once() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(3).start();
    fleet.deployed("v1");
    fleet.publish("v2", Behaviour::Unhealthy);
    let bad = fleet.start("v2");
    bad.wait_any("starting");
    fleet.publish("v3", Behaviour::Good);
    let fix = fleet.start_with("app", "staging", &["-t", "v3", "--supersede"]);
    fix.wait_deployed();
    let ended = bad.json();
    assert!(["cancelled", "broken"].contains(&ended["state"].as_str().unwrap()), "{ended}");
    fleet.all_serve("v3");
    fleet.at_rest();
}

#[test]
fn an_engine_that_restarts_under_a_deploy_blames_nobody() {
    require_fleet!();
    let mut fleet = Fleet::builder().boxes(2).private_engine().start();
    fleet.deployed("v1");
    fleet.publish("v2", Behaviour::Slow);
    let deploy = fleet.start("v2");
    deploy.wait_any("starting");
    fleet.engine.stop();
    fleet.engine.resume(&fleet.scope);
    let ended = deploy.wait_phases("the deploy ends", |_| deploy.json()["state"] != "rolling");
    assert_ne!(deploy.json()["state"], "broken", "{ended:?}");
    assert_eq!(fleet.release("v2")["status"], "available");
}
