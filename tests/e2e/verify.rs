//! What a new container must prove beyond being healthy, and who may be spared meanwhile.

use serde_json::json;

use crate::support::{Behaviour, Fleet, require_fleet};

/// Two boxes on v1 whose `verify` answers `script`: v2 is broken, and everybody stays in service on v1.
fn fails_its_verify(script: &str) {
    let role = json!({ "verify": ["/bin/sh", "-c", script] });
    let config = json!({ "command_timeout": "25s", "roles": { "app": role } });
    let fleet = Fleet::builder().boxes(2).switchboard().config(config).start();
    fleet.deployed("v1");
    fleet.publish("v2", Behaviour::Good);
    let deploy = fleet.start("v2");
    deploy.wait_state("broken");
    fleet.all_serve("v1");
    fleet.at_rest();
    let release = fleet.release("v2");
    assert!(release["reason"].as_str().unwrap_or_default().contains("verify"), "{release}");
    assert!(release["logs"].as_str().unwrap_or_default().contains("verifying for"), "{release}");
}

#[test]
fn a_release_that_fails_its_verify_is_broken() {
    require_fleet!();
    fails_its_verify(r#"test "$DEPLOY_TAG" = v1 || { echo "no answer from /orders" >&2; exit 1; }"#);
}

#[test]
fn a_verify_that_hangs_ends_with_its_deadline() {
    require_fleet!();
    fails_its_verify(r#"test "$DEPLOY_TAG" = v1 || sleep 1000"#);
}

#[test]
fn a_box_that_is_not_in_service_goes_first_and_the_floor_holds_the_others() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(3).start();
    fleet.deployed("v1");
    let (group, sick) = (fleet.target_group("app"), fleet.node(3));
    group.deregister(sick.address());
    let watch = group.sample();
    fleet.publish("v2", Behaviour::Good);
    fleet.start("v2").wait_deployed();
    watch.never_fewer_than(2);
    fleet.all_serve("v2");
    fleet.at_rest();
}

#[test]
fn recreate_makes_every_container_anew() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(2).switchboard().start();
    fleet.deployed("v1");
    let containers = || -> Vec<_> { fleet.boxes.iter().map(|node| node.container(&fleet.engine, "app")).collect() };
    let before = containers();
    fleet.start_with("app", "staging", &["-t", "v1"]).wait_deployed();
    assert_eq!(containers(), before, "the same release touches nobody");
    fleet.start_with("app", "staging", &["-t", "v1", "--recreate"]).wait_deployed();
    assert!(containers().iter().all(|container| !before.contains(container)), "{before:?}");
    fleet.all_serve("v1");
}
