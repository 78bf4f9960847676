//! A rolling deploy, from the published tag to the last box.

use std::time::Duration;

use crate::support::{Behaviour, Box, Fleet, require_fleet, wait_for};

#[test]
fn a_good_release_reaches_six_boxes_and_never_takes_more_than_a_third_out() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(6).compose(&["docker-compose"]).start();
    // Nothing is registered yet.
    fleet.deployed("v1");
    fleet.all_serve("v1");

    let watch = fleet.target_group("app").sample();
    fleet.publish("v2", Behaviour::Good);
    let deploy = fleet.start("v2").wait_deployed();
    watch.never_fewer_than(4);
    let addresses = fleet.boxes.iter().map(Box::address);
    assert_eq!(watch.ever_missing(addresses).len(), 6, "every box was out once:\n{}", watch.timeline());
    assert_eq!((&deploy["size"], &deploy["locks"]), (&6.into(), &2.into()), "{deploy}");
    fleet.all_serve("v2");
    fleet.at_rest();
}

#[test]
fn two_roles_roll_over_the_same_boxes_at_once() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(3).roles(&["app", "web"]).start();
    fleet.publish_role("app", "v1", Behaviour::Slow);
    fleet.publish_role("web", "w1", Behaviour::Slow);
    let app = fleet.start_with("app", "staging", &["-t", "v1"]);
    let web = fleet.start_with("web", "staging", &["-t", "w1"]);
    // A box whose worker for one role waits or works is still all ears for the other.
    web.wait_any("starting");
    app.wait_deployed();
    web.wait_deployed();
    for node in &fleet.boxes {
        assert_eq!((node.serves("app").as_deref(), node.serves("web").as_deref()), (Some("v1"), Some("w1")));
    }
    fleet.at_rest();
}

#[test]
fn compose_version_2_deploys_as_well() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(2).compose(&["docker", "compose"]).start();
    fleet.deployed("v1");
    fleet.deployed("v2");
    fleet.all_serve("v2");
    fleet.at_rest();
}

#[test]
fn a_repeated_event_and_a_deploy_of_the_same_tag_take_nobody_out() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(2).start();
    fleet.deployed("v1");
    let containers = || fleet.boxes.iter().map(|node| node.container(&fleet.engine, "app")).collect::<Vec<_>>();
    let before = containers();

    let watch = fleet.target_group("app").sample();
    for _ in 0..3 {
        fleet.hub.event("deploy", r#"{"role":"app","environment":"staging"}"#);
    }
    fleet.start("v1").wait_deployed();
    fleet.boxes.iter().for_each(|node| node.wait_idle());
    watch.never_fewer_than(2);
    assert_eq!(containers(), before, "containers are the same");

    fleet.start_with("app", "staging", &["-t", "v1", "--recreate"]).wait_deployed();
    assert!(containers().iter().zip(&before).all(|(now, then)| now != then), "--recreate makes new containers");
}

#[test]
fn an_event_for_others_moves_nobody() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(1).boxes_in("production", 1).start();
    fleet.deployed("v1");
    assert_eq!(fleet.serving(), ["v1", ""], "production is untouched");

    fleet.hub.event("deploy", r#"{"role":"web","environment":"staging"}"#);
    fleet.hub.event("deploy", r#"{"role":"app","environment":"qa"}"#);
    // What comes after them is handled, so they were.
    fleet.publish("v2", Behaviour::Good);
    let production = fleet.start_with("app", "production", &["-t", "v2"]);
    production.wait_deployed();
    assert_eq!(fleet.serving(), ["v1", "v2"]);
    assert!(!fleet.node(1).log().contains("web"), "{}", fleet.node(1).log());
    fleet.at_rest();
}

#[test]
fn a_cancelled_deploy_stops_the_boxes_that_wait_and_lets_the_others_finish() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(4).start();
    fleet.deployed("v1");
    fleet.publish("v2", Behaviour::Slow);
    let deploy = fleet.start("v2");
    let working = deploy.wait_any("starting");
    deploy.cancel(&["--reason", "wrong day"]).ok();
    wait_for(Duration::from_secs(5), "the boxes that wait stop", || {
        let phases = deploy.phases();
        if phases.values().any(|phase| phase == "waiting") { Err(format!("{phases:?}")) } else { Ok(()) }
    });
    let ended = deploy.wait_state("cancelled");
    assert!(ended["reason"].to_string().contains("wrong day"), "{ended}");
    let expected: Vec<_> =
        fleet.boxes.iter().map(|node| if node.name() == working { "v2" } else { "v1" }.to_owned()).collect();
    assert_eq!(fleet.serving(), expected);
    assert_eq!(fleet.target_group("app").registered().len(), 4);
    fleet.at_rest();
}
