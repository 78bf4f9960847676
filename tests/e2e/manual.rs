//! What people do on a box, and what they are told when something is wrong there.

use std::{fs, time::Duration};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Behaviour, Fleet, Output, require_fleet, run, wait_for};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_box_that_a_person_takes_out_stays_out_until_that_person_brings_it_back() {
    require_fleet!();
    // Two may be out at once, or the box that is kept out would leave no lock to the other.
    let policy = json!({ "roles": { "app": { "max_parallel": "2" } } });
    let fleet = Fleet::builder().boxes(2).switchboard().service(policy).start();
    fleet.deployed("v1");
    let (kept, other) = (fleet.node(1), fleet.node(2));
    let by_hand = |arguments: &[&str]| kept.deployctl(&[arguments, &["-r", "app", "--reason", "new disk"]].concat());

    // Not in the middle of a deploy.
    fleet.publish("v2", Behaviour::Good);
    fleet.boxes.iter().for_each(|node| node.stop_at("verify"));
    let deploy = fleet.start("v2");
    deploy.wait_phase("box-2", "verifying");
    deploy.wait_phase("box-1", "verifying");
    kept.go_on("verify");
    deploy.wait_phase("box-1", "done");
    let refused = by_hand(&["out"]).expect(6);
    assert!(refused.stderr.contains("a deploy is rolling"), "{refused}");
    assert!(kept.in_service());
    other.go_on("verify");
    deploy.wait_deployed();

    by_hand(&["out"]).ok();
    assert!(!kept.in_service());
    assert_eq!(kept.serves("app").as_deref(), Some("v2"), "its container goes on");
    let locks = fleet.deployctl(&["locks", "-r", "app", "-e", "staging"]).ok();
    assert!(locks.stdout.contains("box-1") && locks.stdout.contains("new disk"), "{locks}");
    by_hand(&["out"]).ok();

    // A deploy leaves it alone, and so does sync; run is refused.
    fleet.publish("v3", Behaviour::Good);
    let deploy = fleet.start("v3");
    deploy.wait_deployed();
    assert_eq!(deploy.phases()["box-1"], "cancelled");
    kept.deployctl(&["sync"]).ok();
    let refused = kept.deployctl(&["run", "-r", "app"]).expect(6);
    assert!(refused.stderr.contains("new disk") && refused.stderr.contains("deployctl in"), "{refused}");
    assert!(!kept.in_service());
    assert_eq!(fleet.serving(), ["v2", "v3"]);

    by_hand(&["in"]).ok();
    fleet.all_serve("v3");
    fleet.at_rest();
}

#[test]
fn a_box_that_is_brought_back_while_a_deploy_rolls_takes_part_in_it() {
    require_fleet!();
    let policy = json!({ "roles": { "app": { "max_parallel": "2" } } });
    let fleet = Fleet::builder().boxes(2).switchboard().service(policy).start();
    fleet.deployed("v1");
    let (kept, other) = (fleet.node(1), fleet.node(2));
    kept.deployctl(&["out", "-r", "app", "--reason", "new disk"]).ok();
    fleet.publish("v2", Behaviour::Good);
    other.stop_at("verify");
    let deploy = fleet.start("v2");
    deploy.wait_phase("box-2", "verifying");
    deploy.wait_phase("box-1", "cancelled");
    kept.deployctl(&["in", "-r", "app"]).ok();
    deploy.wait_phase("box-1", "done");
    other.go_on("verify");
    deploy.wait_deployed();
    fleet.all_serve("v2");
    fleet.at_rest();
}

#[test]
fn a_box_whose_journal_is_damaged_fails_at_once_in_the_deploy() {
    require_fleet!();
    let policy = json!({ "roles": { "app": { "max_parallel": "2" } } });
    let fleet = Fleet::builder().boxes(2).switchboard().service(policy).start();
    fleet.deployed("v1");
    fs::write(fleet.node(1).dir().join("state/app.json"), "{half").unwrap();
    fleet.publish("v2", Behaviour::Good);
    let ended = fleet.start("v2").wait_state("failed");
    let row = &ended["boxes"][0];
    assert_eq!((&row["box"], &row["phase"]), (&json!("box-1"), &json!("failed")), "{ended}");
    assert!(row["detail"].as_str().unwrap().contains("app.json is damaged"), "{ended}");
}

#[test]
fn a_box_without_a_configuration_of_the_role_says_so_in_the_deploy() {
    require_fleet!();
    let policy = json!({ "roles": { "app": { "max_parallel": "2" } } });
    let fleet = Fleet::builder().boxes(2).switchboard().service(policy).start();
    fleet.deployed("v1");
    fleet.node(2).configure(|config| {
        let app = config["roles"]["app"].take();
        config["roles"] = json!({ "other": app });
    });
    fleet.publish("v2", Behaviour::Good);
    let ended = fleet.start("v2").wait_state("failed");
    let row = &ended["boxes"][1];
    assert_eq!((&row["box"], &row["phase"]), (&json!("box-2"), &json!("failed")), "{ended}");
    assert!(row["detail"].as_str().unwrap().contains("the role app has no configuration"), "{ended}");
    assert_eq!(fleet.node(1).serves("app").as_deref(), Some("v2"));
}

#[test]
fn a_box_that_is_kept_out_where_nothing_was_deployed_is_listed_and_comes_back_as_it_is() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(1).switchboard().start();
    let node = fleet.node(1);
    for unlocked in [false, true] {
        node.deployctl(&["out", "-r", "app", "--reason", "new disk"]).ok();
        let locks = fleet.deployctl(&["locks"]).ok();
        assert!(locks.stdout.contains("box-1") && locks.stdout.contains("new disk"), "{locks}");
        if unlocked {
            let words = ["unlock", "-r", "app", "-e", "staging", "--box", "box-1", "--reason", "gone?", "--force"];
            fleet.deployctl(&words).ok();
        }
        node.deployctl(&["in", "-r", "app"]).ok();
        assert!(node.in_service(), "unlocked: {unlocked}");
        fleet.at_rest();
    }
}

#[test]
fn taking_a_box_out_can_be_interrupted_and_done_again() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(1).switchboard().config(json!({ "stop_grace": "1s" })).start();
    fleet.deployed("v1");
    let node = fleet.node(1);
    let out = ["out", "-r", "app", "--reason", "new disk"];
    let interrupted = |signal| {
        node.stop_at("deregister");
        let mut process = fleet.scope.start("out", &mut node.command(&out));
        let words = ["deregister", "box-1"];
        wait_for(SOON, "it drains", || {
            let children = node.children();
            let drains = children.iter().any(|child| words.iter().all(|word| child.line.contains(word)));
            if drains { Ok(()) } else { Err(format!("{children:?}")) }
        });
        process.signal(signal);
        process.wait(SOON);
        node.go_on("deregister");
        node.wait_idle();
        process
    };

    // Ctrl-C: it comes back, and deploys are for it again.
    let mut process = interrupted(Signal::INT);
    assert_eq!(process.code(), Some(3), "{}", process.log());
    assert!(node.in_service());
    fleet.at_rest();
    fleet.deployed("v2");
    fleet.all_serve("v2");

    interrupted(Signal::KILL);
    node.deployctl(&out).ok();
    assert!(!node.in_service());
    node.deployctl(&["sync"]).ok();
    assert!(!node.in_service());
    node.deployctl(&["in", "-r", "app"]).ok();
    fleet.all_serve("v2");
    fleet.at_rest();
}

#[test]
fn what_is_wrong_on_a_box_is_one_line_and_touches_nothing() {
    require_fleet!();
    let mut fleet = Fleet::builder().boxes(1).switchboard().config(json!({ "lock_ttl": "9s" })).start();
    fleet.deployed("v1");
    fleet.push("app", "v2", Behaviour::Good);
    fleet.node(1).configure(|config| config["command_timeout"] = json!("4s"));
    let before = fleet.node(1).container(&fleet.engine, "app");
    // What was tried again may stand before the error, its causes behind it, indented.
    let refused = |fleet: &Fleet, said: Output, code: i32, words: &[&str]| {
        let said = said.expect(code);
        let (_, error) = said.stderr.split_once("deployctl: ").unwrap_or_else(|| panic!("no error in {said}"));
        assert!(error.lines().skip(1).all(|line| line.starts_with("  ")), "one line says what is wrong: {said}");
        for word in words {
            assert!(error.contains(word), "{word:?} is not in the error of {said}");
        }
        assert_eq!(fleet.node(1).container(&fleet.engine, "app"), before, "the container is the same");
        assert_eq!((fleet.serving(), fleet.node(1).in_service()), (vec!["v1".to_owned()], true));
        fleet.at_rest();
    };
    let deploy = |fleet: &Fleet| fleet.node(1).deployctl(&["run", "-r", "app", "-t", "v2"]);

    // What a person wrote.
    let node = fleet.node(1);
    refused(&fleet, node.deployctl(&["run", "-r", "web"]), 2, &["web"]);
    refused(&fleet, node.deployctl(&["run", "-r", "app", "-e", "production"]), 2, &["staging", "production"]);
    let file = node.compose_file("app");
    let text = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    refused(&fleet, deploy(&fleet), 2, &["app.yml"]);
    fs::write(&file, text.replace("ports:", "prots:")).unwrap();
    refused(&fleet, deploy(&fleet), 2, &["prots"]);
    fs::write(&file, text.replace("${DEPLOY_TAG:?}", "${COLOUR:?}")).unwrap();
    refused(&fleet, deploy(&fleet), 2, &["COLOUR"]);
    fs::write(&file, &text).unwrap();

    // What is away.
    let mut blind = fleet.node(1).command(&["run", "-r", "app", "-t", "v2"]);
    let said = run(blind.env("DOCKER_HOST", "unix:///nowhere/docker.sock"));
    refused(&fleet, said, 1, &["docker", "see that Docker answers"]);
    fleet.registry.stop();
    refused(&fleet, deploy(&fleet), 1, &["v2", "see that its registry answers"]);
    fleet.registry.resume();
    fleet.kill_service();
    refused(&fleet, fleet.node(1).deployctl(&["run", "-r", "app"]), 1, &["service"]);
    fleet.start_service();
    fleet.redis.stop();
    let said = deploy(&fleet);
    fleet.redis.resume();
    refused(&fleet, said, 1, &["Redis"]);
    fleet.node_mut(1).agent.kill();
    refused(&fleet, deploy(&fleet), 1, &["Serf"]);
    fleet.node_mut(1).agent.resume();

    fleet.node(1).configure(|config| config["command_timeout"] = json!("60s"));
    deploy(&fleet).ok();
    fleet.all_serve("v2");
    fleet.at_rest();
}

#[test]
fn a_variable_that_compose_finds_unset_stands_in_the_log() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(1).start();
    let node = fleet.node(1);
    node.edit_compose("app", "    image:", "    labels: {page: \"${NOBODY_SETS_THIS}\"}\n    image:");
    fleet.deployed("v1");
    let log = node.log();
    assert!(log.contains("compose warns") && log.contains("NOBODY_SETS_THIS"), "{log}");
}
