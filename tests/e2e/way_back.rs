//! The way back to the last good release depends on nothing that has changed since: neither the configuration, nor the
//! compose program, nor what other tags stand for.

use std::{fs, path::PathBuf};

use serde_json::json;

use crate::support::{Behaviour, Fleet, docker_config, require_fleet};

/// One box, on v1, quick to judge.
fn on_v1() -> Fleet {
    let config = json!({ "roles": { "app": { "health": { "timeout": "8s" } } } });
    let fleet = Fleet::builder().boxes(1).switchboard().config(config).start();
    fleet.deployed("v1");
    fleet
}

/// Rolls `v2`, which exits; the box is back on v1, in service, and the release is broken.
fn goes_back(fleet: &Fleet) {
    fleet.publish("v2", Behaviour::Exits);
    let ended = fleet.start("v2").wait_state("broken");
    fleet.node(1).wait_idle();
    assert_eq!(fleet.node(1).serves("app").as_deref(), Some("v1"), "{ended}\n{}", fleet.node(1).log());
    assert!(fleet.node(1).in_service(), "{}", fleet.node(1).log());
    fleet.at_rest();
}

#[test]
fn a_service_that_was_renamed_together_with_compose_service() {
    require_fleet!();
    let fleet = on_v1();
    let node = fleet.node(1);
    node.edit_compose("app", "\n  app:\n", "\n  web:\n");
    node.configure(|config| config["roles"]["app"]["compose_service"] = "web".into());
    goes_back(&fleet);
    assert_eq!(node.container_of(&fleet.engine, "app", "web"), None, "the new service's container is left");
}

#[test]
fn a_health_url_that_moved_with_the_new_file() {
    require_fleet!();
    let fleet = on_v1();
    fleet.node(1).configure(|config| config["roles"]["app"]["health"]["url"] = "http://127.0.0.1:9/health".into());
    goes_back(&fleet);
}

/// The compose program of version 2: `docker`'s plugin, in the tools folder on machines whose own `docker` has none.
fn version_2(fleet: &Fleet) -> PathBuf {
    let line = format!("DOCKER_CONFIG={} exec docker compose \"$@\"", docker_config().display());
    fleet.scope.script("compose-2", &line)
}

#[test]
fn a_compose_program_of_the_other_version() {
    require_fleet!();
    for (before, after) in [(1, 2), (2, 1)] {
        let fleet = Fleet::builder().boxes(1).switchboard().start();
        let program = |version| match version {
            1 => json!(["docker-compose"]),
            _ => json!([version_2(&fleet)]),
        };
        fleet.node(1).configure(|config| config["compose"] = program(before));
        fleet.deployed("v1");
        fleet.node(1).configure(|config| config["compose"] = program(after));
        goes_back(&fleet);
    }
}

#[test]
fn a_compose_program_that_is_gone_and_cannot_be_done_without() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(1).switchboard().start();
    let node = fleet.node(1);
    let old = version_2(&fleet);
    node.configure(|config| config["compose"] = json!([old]));
    fleet.deployed("v1");
    fs::remove_file(&old).unwrap();
    node.configure(|config| config["compose"] = json!(["docker-compose"]));
    fleet.publish("v2", Behaviour::Good);
    let ended = fleet.start("v2").wait_state("failed").to_string();
    assert!(ended.contains("compose-2") && ended.contains("could not go back to v1"), "{ended}");
    assert!(node.in_service(), "it left its load balancer");
    assert_eq!(node.serves("app").as_deref(), Some("v1"));
    assert_eq!(fleet.release("v2")["status"], "available");
}

#[test]
fn a_project_that_was_renamed_is_refused_before_the_box_leaves() {
    require_fleet!();
    let fleet = on_v1();
    let node = fleet.node(1);
    let (old, new) = (node.project("app"), format!("{}-new", node.project("app")));
    node.configure(|config| config["roles"]["app"]["project"] = new.as_str().into());
    fleet.publish("v2", Behaviour::Good);
    let ended = fleet.start("v2").wait_state("failed").to_string();
    assert!(ended.contains(&old) && ended.contains(&new), "{ended}");
    assert!(ended.contains(&format!("`docker compose --project-name {old} down`")), "{ended}");
    assert!(node.in_service(), "it left its load balancer");
    assert_eq!(node.serves("app").as_deref(), Some("v1"));

    // As it was told to. What the old project ran comes back in the new one, if it must.
    let id = node.container(&fleet.engine, "app").expect("a container");
    fleet.engine.docker(&["rm", "--force", &id]);
    goes_back_with_another_tag(&fleet, "v3");
}

#[test]
fn a_role_that_was_renamed_with_its_project_is_refused_before_the_box_leaves() {
    require_fleet!();
    let fleet = on_v1();
    let node = fleet.node(1);
    let (old, file) = (node.project("app"), node.compose_file("app"));
    node.configure(|config| {
        let mut app = config["roles"]["app"].take();
        app["project"] = format!("{old}-web").into();
        app["compose_file"] = json!(file);
        app["compose_service"] = "app".into();
        config["roles"] = json!({ "web": app });
    });
    let said = node.deployctl(&["run", "-r", "web", "-t", "v1"]).expect(1);
    assert!(said.stderr.contains(&format!("containers of the compose project {old} still run here")), "{said}");
    assert!(node.in_service(), "it left its load balancer");
    assert_eq!(node.serves("app").as_deref(), Some("v1"));
}

fn goes_back_with_another_tag(fleet: &Fleet, tag: &str) {
    fleet.publish(tag, Behaviour::Exits);
    fleet.start(tag).wait_state("broken");
    fleet.node(1).wait_idle();
    assert_eq!(fleet.node(1).serves("app").as_deref(), Some("v1"), "{}", fleet.node(1).log());
}

#[test]
fn a_file_that_the_old_release_needs_and_that_is_gone_is_refused_before_the_box_leaves() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(1).switchboard().start();
    let node = fleet.node(1);
    let key = fleet.scope.file("box-1/compose/app.key", "secret");
    let (declared, used) = ("secrets: {key: {file: ./app.key}}\nservices:\n", "    secrets: [key]\n    restart:");
    node.edit_compose("app", "services:\n", declared);
    node.edit_compose("app", "    restart:", used);
    fleet.deployed("v1");
    // Neither the new compose file nor its folder has it any more.
    node.edit_compose("app", declared, "services:\n");
    node.edit_compose("app", used, "    restart:");
    fs::remove_file(&key).unwrap();
    fleet.publish("v2", Behaviour::Exits);
    let ended = fleet.start("v2").wait_state("failed").to_string();
    assert!(ended.contains(&key.display().to_string()) && ended.contains("could not go back to v1"), "{ended}");
    assert!(node.in_service(), "it left its load balancer");
    assert_eq!(node.serves("app").as_deref(), Some("v1"));

    fs::write(&key, "secret").unwrap();
    goes_back_with_another_tag(&fleet, "v3");
}

#[test]
fn a_verify_that_fails_for_the_old_release_too_blames_nobody() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(1).switchboard().start();
    let node = fleet.node(1);
    let away = fleet.scope.dir().join("database-is-away");
    let verify = format!("test ! -e {} || {{ echo no database >&2; exit 1; }}", away.display());
    node.configure(|config| config["roles"]["app"]["verify"] = json!(["/bin/sh", "-c", verify]));
    fleet.deployed("v1");
    fs::write(&away, "").unwrap();
    fleet.publish("v2", Behaviour::Good);
    let ended = fleet.start("v2").wait_state("failed").to_string();
    node.wait_idle();
    assert!(ended.contains("no database"), "{ended}");
    assert_eq!(node.serves("app").as_deref(), Some("v1"));
    assert!(node.in_service(), "{}", node.log());
    assert_eq!(fleet.release("v2")["status"], "available");
    fleet.at_rest();
}

#[test]
fn an_old_image_that_somebody_removed_meanwhile_is_fetched_again() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(1).switchboard().start();
    let node = fleet.node(1);
    let stop = node.dir().join("stop-at-verify");
    let verify = format!("while [ -e {} ]; do sleep 0.2; done; test $DEPLOY_TAG = v1", stop.display());
    node.configure(|config| config["roles"]["app"]["verify"] = json!(["/bin/sh", "-c", verify]));
    fleet.deployed("v1");
    fleet.publish("v2", Behaviour::Good);
    node.stop_at("verify");
    let deploy = fleet.start("v2");
    deploy.wait_phase("box-1", "verifying");
    // As `docker image prune --all` does: no container is made from it now.
    fleet.engine.docker(&["rmi", "--force", &fleet.image("app", "v1")]);
    node.go_on("verify");
    deploy.wait_state("broken");
    node.wait_idle();
    assert_eq!(node.serves("app").as_deref(), Some("v1"), "{}", node.log());
    assert!(node.in_service(), "{}", node.log());
    fleet.at_rest();
}

#[test]
fn the_other_services_go_back_to_their_images_too() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(1).switchboard().start();
    let node = fleet.node(1);
    fleet.push("side", "stable", Behaviour::Good);
    let side = fleet.image("side", "stable");
    let file = node.compose_file("app");
    let text = fs::read_to_string(&file).unwrap();
    let service = format!("  side:\n    image: {side}\n    network_mode: bridge\n    restart: unless-stopped\n");
    fs::write(&file, text.replace("services:\n", &format!("services:\n{service}"))).unwrap();
    fleet.deployed("v1");
    let image = || {
        let container = node.container_of(&fleet.engine, "app", "side").expect("a container of side");
        fleet.engine.docker(&["inspect", "--format", "{{.Image}}", &container])
    };
    let before = image();
    // Somebody fetched the tag after it was pushed again.
    fleet.push("side", "stable", Behaviour::Slow);
    goes_back(&fleet);
    assert_eq!(image(), before);
}

#[test]
fn a_load_balancer_that_was_taken_out_of_the_configuration_is_left_too() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(1).switchboard().start();
    let node = fleet.node(1);
    let target = fleet.scope.dir().join("behind-the-old-one");
    let program = |line: String| json!(["/bin/sh", "-c", line]);
    let old = json!({ "command": {
        "register": program(format!("touch {}", target.display())),
        "deregister": program(format!("rm -f {}", target.display())),
        "in_service": program(format!("test -e {}", target.display())),
    }});
    node.configure(|config| config["roles"]["app"]["load_balancers"].as_array_mut().unwrap().push(old));
    fleet.deployed("v1");
    assert!(target.exists());
    node.configure(|config| _ = config["roles"]["app"]["load_balancers"].as_array_mut().unwrap().pop());
    fleet.deployed("v2");
    assert!(!target.exists(), "the old load balancer still sends requests to it");
    assert!(node.in_service());
}
