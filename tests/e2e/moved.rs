//! Tags that move: what runs is an image, and a tag is only its name.

use serde_json::json;

use crate::support::{Behaviour, Fleet, require_fleet};

#[test]
fn a_tag_that_was_pushed_again_is_deployed_again() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(1).start();
    fleet.deployed("v1");
    let node = fleet.node(1);
    let runs = |format: &str| {
        let container = node.container(&fleet.engine, "app").expect("a container");
        fleet.engine.docker(&["inspect", "--format", format, &container])
    };
    let (image, container) = (runs("{{.Image}}"), runs("{{.Id}}"));
    fleet.start("v1").wait_deployed();
    assert_eq!(runs("{{.Id}}"), container, "nothing moved, and the container was made anew");

    fleet.push("app", "v1", Behaviour::Slow);
    // The engine that builds is the box's own here: its tag is still where the deploy left it.
    fleet.engine.docker(&["tag", &image, &fleet.image("app", "v1")]);
    node.deployctl(&["sync"]).ok();
    assert_eq!(runs("{{.Id}}"), container, "a timer asked the registry");

    fleet.start("v1").wait_deployed();
    assert_ne!(runs("{{.Image}}"), image, "the old image is called deployed");
    assert!(node.log().contains("v1 stands for another image now"), "{}", node.log());
    fleet.all_serve("v1");
    fleet.at_rest();
}

#[test]
fn the_same_tag_again_is_done_while_the_registry_is_away() {
    require_fleet!();
    let mut fleet = Fleet::builder().boxes(1).config(json!({ "command_timeout": "3s" })).start();
    fleet.deployed("v1");
    fleet.registry.stop();
    let ended = fleet.start("v1").wait_deployed();
    fleet.all_serve("v1");
    let detail = ended["boxes"][0]["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("going on with the image of v1 that is on this box"), "{ended}");
}

#[test]
fn a_helper_s_tag_that_moved_with_the_release_is_fetched_too() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(1).start();
    let node = fleet.node(1);
    fleet.push("side", "v1", Behaviour::Good);
    let side = fleet.image("side", "v1");
    let service = format!(
        "services:\n  side:\n    image: {}:${{DEPLOY_TAG:?}}\n    network_mode: bridge\n    restart: unless-stopped\n",
        side.strip_suffix(":v1").expect("a tag")
    );
    node.edit_compose("app", "services:\n", &service);
    fleet.deployed("v1");
    let image = || {
        let container = node.container_of(&fleet.engine, "app", "side").expect("a container of side");
        fleet.engine.docker(&["inspect", "--format", "{{.Image}}", &container])
    };
    let before = image();
    fleet.push("side", "v1", Behaviour::Slow);
    fleet.engine.docker(&["tag", &before, &side]);
    fleet.start("v1").wait_deployed();
    assert_ne!(image(), before, "the old helper is called deployed");
    fleet.all_serve("v1");
    fleet.at_rest();
}

#[test]
fn a_tag_that_moved_to_a_bad_image_goes_back_to_the_old_one() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(1).start();
    fleet.deployed("v1");
    let image = || {
        let container = fleet.node(1).container(&fleet.engine, "app").expect("a container");
        fleet.engine.docker(&["inspect", "--format", "{{.Image}}", &container])
    };
    let old = image();
    fleet.push("app", "v1", Behaviour::Exits);
    fleet.engine.docker(&["tag", &old, &fleet.image("app", "v1")]);
    fleet.start("v1").wait_state("failed");
    fleet.node(1).wait_idle();
    assert_eq!(image(), old);
    fleet.all_serve("v1");
}

#[test]
fn an_image_that_somebody_removed_while_the_box_waited_is_fetched_before_it_leaves() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(2).switchboard().start();
    fleet.deployed("v1");
    fleet.publish("v2", Behaviour::Good);
    fleet.boxes.iter().for_each(|node| node.stop_at("deregister"));
    let deploy = fleet.start("v2");
    let first = deploy.wait_any("draining");
    let second = if first == "box-1" { "box-2" } else { "box-1" };
    deploy.wait_phase(second, "waiting");
    // As `docker image prune --all` does: no container is made from it yet.
    fleet.named(&first).go_on("deregister");
    fleet.named(&first).wait_serves("app", "v2");
    fleet.engine.docker(&["rmi", "--force", &fleet.image("app", "v2")]);
    fleet.named(second).go_on("deregister");
    deploy.wait_deployed();
    fleet.all_serve("v2");
    assert!(fleet.named(second).log().contains("somebody removed"), "{}", fleet.named(second).log());
}
