//! A release proves itself on one box first, and a person pauses a deploy and lets it go on.

use std::time::Duration;

use serde_json::json;

use crate::support::{Behaviour, Box, Fleet, require_fleet, wait_for};

const SOON: Duration = Duration::from_secs(120);

#[test]
fn one_box_gets_the_release_until_a_person_resumes() {
    require_fleet!();
    let policy = json!({ "first": { "boxes": 1, "for": "manual" } });
    let fleet = Fleet::builder().boxes(3).switchboard().service(json!({ "roles": { "app": policy } })).start();
    fleet.publish("v1", Behaviour::Good);
    fleet.start_with("app", "staging", &["--all-at-once"]).wait_deployed();

    fleet.publish("v2", Behaviour::Good);
    let deploy = fleet.start("v2");
    wait_for(SOON, "one box serves v2", || {
        let step = deploy.json()["step"].clone();
        if step["since"].is_string() { Ok(()) } else { Err(step.to_string()) }
    });
    let mut serving = fleet.serving();
    serving.sort_unstable();
    assert_eq!(serving, ["v1", "v1", "v2"], "{:?}", deploy.phases());
    let status = fleet.deployctl(&["status"]).ok().stdout;
    assert!(status.contains("step 1 of 1") && status.contains("deployctl resume"), "{status}");

    fleet.deployctl(&["resume", "-r", "app", "-e", "staging", "--reason", "looks fine"]).ok();
    deploy.wait_deployed();
    fleet.all_serve("v2");
    fleet.at_rest();
}

#[test]
fn nobody_leaves_while_a_deploy_is_paused_and_who_is_out_comes_back() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(3).switchboard().start();
    fleet.deployed("v1");
    fleet.publish("v2", Behaviour::Slow);
    let deploy = fleet.start("v2");
    let working = deploy.wait_any("starting");
    fleet.deployctl(&["pause", "-r", "app", "-e", "staging", "--reason", "errors are up"]).ok();
    deploy.wait_phase(&working, "done");
    wait_for(SOON, "nobody is out", || {
        let out = fleet.deployctl(&["locks", "-r", "app", "-e", "staging"]).ok().stdout;
        if fleet.boxes.iter().all(Box::in_service) { Ok(()) } else { Err(out) }
    });
    let status = fleet.deployctl(&["status"]).ok().stdout;
    assert!(status.contains("paused for") && status.contains("errors are up"), "{status}");
    let others = |phase: &str| deploy.phases().iter().filter(|(name, at)| **name != working && *at == phase).count();
    assert_eq!(others("waiting"), 2, "{:?}", deploy.phases());

    fleet.deployctl(&["resume", "-r", "app", "-e", "staging"]).ok();
    deploy.wait_deployed();
    fleet.all_serve("v2");
    fleet.at_rest();
}
