//! `deployctl with-lock`: what a person does to a machine under the locks of the deploys.

use std::{fs, path::PathBuf, time::Duration};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Behaviour, Box, Fleet, Process, require_fleet, wait_for};

const SOON: Duration = Duration::from_secs(60);

/// A command that says what it sees of the box, and waits for the file `go`.
fn errand(fleet: &Fleet, node: &Box, exit: i32) -> (PathBuf, PathBuf) {
    let go = node.dir().join("go");
    let body = format!(
        "echo to the terminal; echo to stderr >&2; while [ ! -e {go} ]; do sleep 0.1; done; exit {exit}",
        go = go.display()
    );
    (fleet.scope.script(&format!("{}.errand", node.name()), &body), go)
}

#[track_caller]
fn wait_says(process: &Process, words: &str) {
    wait_for(SOON, &format!("it says {words:?}"), || {
        let log = process.log();
        if log.contains(words) { Ok(()) } else { Err(log) }
    });
}

#[test]
fn the_budget_is_that_of_the_deploys_whatever_a_box_has_for_itself() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(2).switchboard().config(json!({ "max_parallel": 2 })).start();
    fleet.deployed("v1");
    let (node, other) = (fleet.node(1), fleet.node(2));
    let (script, go) = errand(&fleet, node, 0);
    let script = script.display().to_string();
    let mut first = fleet.scope.start("first", &mut node.command(&["with-lock", "--reason", "disk", "--", &script]));
    wait_says(&first, "to the terminal");
    let mut second = fleet.scope.start("second", &mut other.command(&["with-lock", "--reason", "disk", "--", "true"]));
    wait_says(&second, "waits for 1 of 1 lock: box-1");
    assert!(other.in_service());
    fs::write(&go, "").unwrap();
    for process in [&mut first, &mut second] {
        process.wait(SOON);
        assert_eq!(process.code(), Some(0), "{}", process.log());
    }
    fleet.at_rest();
}

#[test]
fn a_command_runs_while_the_box_is_out_and_deploys_wait_for_it() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(2).switchboard().start();
    fleet.deployed("v1");
    let (node, other) = (fleet.node(1), fleet.node(2));
    let (script, go) = errand(&fleet, node, 0);
    let script = script.display().to_string();
    let arguments = ["with-lock", "-r", "app", "--reason", "new kernel", "--", &script];
    let mut process = fleet.scope.start("with-lock", &mut node.command(&arguments));
    wait_says(&process, "to the terminal");
    assert!(!node.in_service() && other.in_service());
    assert_eq!(node.serves("app").as_deref(), Some("v1"), "its container goes on");
    let locks = fleet.deployctl(&["locks", "-r", "app", "-e", "staging"]).ok();
    assert!(locks.stdout.contains("box-1") && locks.stdout.contains("new kernel"), "{locks}");
    let why = fleet.deployctl(&["why", "-r", "app", "-e", "staging", "--box", "box-1"]).ok();
    assert!(why.stdout.contains("for this: new kernel"), "{why}");

    // There is one lock: a deploy waits for it, another command waits for the deploy.
    fleet.publish("v2", Behaviour::Good);
    let deploy = fleet.start("v2");
    deploy.wait_phase("box-2", "waiting");
    assert!(other.in_service());
    let mut second = fleet.scope.start("second", &mut other.command(&["with-lock", "--reason", "disk", "--", "true"]));
    fs::write(&go, "").unwrap();
    process.wait(SOON);
    let log = process.log();
    assert_eq!(process.code(), Some(0), "{log}");
    assert!(log.contains("to stderr") && log.contains("box-1 is back in service"), "{log}");
    deploy.wait_deployed();
    second.wait(SOON);
    assert_eq!(second.code(), Some(0), "{}", second.log());
    node.wait_idle();
    fleet.all_serve("v2");
    fleet.at_rest();
}

#[test]
fn a_command_that_fails_or_is_ended_brings_the_box_back_all_the_same() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(1).switchboard().start();
    fleet.deployed("v1");
    let node = fleet.node(1);
    let with_lock = |more: &[&str]| node.deployctl(&[&["with-lock", "--reason", "kernel"], more].concat());
    let failed = with_lock(&["--", "sh", "-c", "exit 7"]).expect(1);
    assert!(failed.stderr.contains("exit code 7; box-1 is back in service"), "{failed}");
    fleet.all_serve("v1");
    fleet.at_rest();
    let late = with_lock(&["--timeout", "300ms", "--", "sleep", "100"]).expect(1);
    assert!(late.stderr.contains("--timeout 300ms; box-1 is back in service"), "{late}");
    fleet.at_rest();

    // Ctrl-C: the command is ended with all that it started.
    let mut process =
        fleet.scope.start("with-lock", &mut node.command(&["with-lock", "--reason", "x", "--", "sleep", "12345"]));
    wait_says(&process, "runs sleep 12345");
    process.signal(Signal::INT);
    process.wait(SOON);
    assert_eq!(process.code(), Some(3), "{}", process.log());
    assert!(process.log().contains("told to stop; box-1 is back in service"), "{}", process.log());
    assert!(!node.children().iter().any(|child| child.line.contains("12345")), "{:?}", node.children());
    fleet.all_serve("v1");
    fleet.at_rest();

    // Killed: the next sync brings the box back, and not before the command has ended.
    let mut process =
        fleet.scope.start("killed", &mut node.command(&["with-lock", "--reason", "x", "--", "sleep", "3"]));
    wait_says(&process, "runs sleep 3");
    process.kill();
    assert!(!node.in_service());
    node.deployctl(&["sync"]).ok();
    fleet.all_serve("v1");
    fleet.at_rest();
}

#[test]
fn a_container_that_the_command_removed_is_brought_back_and_one_that_cannot_be_keeps_the_box_out() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(1).switchboard().start();
    fleet.deployed("v1");
    let node = fleet.node(1);
    let remove = || {
        let id = node.container(&fleet.engine, "app").unwrap();
        ["with-lock", "--reason", "engine", "--", "docker", "rm", "-f", &id].map(str::to_owned)
    };
    let words = remove();
    node.deployctl(&words.each_ref().map(String::as_str)).ok();
    fleet.all_serve("v1");
    fleet.at_rest();

    node.configure(|config| config["roles"]["app"]["health"]["timeout"] = json!("5s"));
    node.curse(Behaviour::Exits);
    let words = remove();
    let stays = node.deployctl(&words.each_ref().map(String::as_str)).expect(1);
    for words in ["box-1 STAYS OUT OF SERVICE as app", "deployctl run -r app"] {
        assert!(stays.stderr.contains(words), "{stays}");
    }
    assert!(!node.in_service());
    let locks = fleet.deployctl(&["locks"]).ok();
    assert!(locks.stdout.contains("box-1") && !locks.stdout.contains("engine"), "{locks}");
    node.bless();
    node.deployctl(&["sync"]).ok();
    fleet.all_serve("v1");
    fleet.at_rest();
}

#[test]
fn what_cannot_be_done_is_refused_and_touches_nothing() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(1).switchboard().start();
    fleet.deployed("v1");
    let node = fleet.node(1);
    let with_lock = |more: &[&str]| node.deployctl(&[&["with-lock", "--reason", "kernel"], more].concat());
    let refused = with_lock(&["-r", "web", "--", "true"]).expect(2);
    assert!(refused.stderr.contains("the role web has no configuration"), "{refused}");
    let refused = with_lock(&["--", "no-such-program"]).expect(2);
    assert!(refused.stderr.contains("no-such-program"), "{refused}");
    fleet.all_serve("v1");
    node.deployctl(&["out", "-r", "app", "--reason", "new disk"]).ok();
    let refused = with_lock(&["--", "true"]).expect(6);
    assert!(refused.stderr.contains("new disk") && refused.stderr.contains("deployctl in -r app"), "{refused}");
    assert!(!node.in_service());
    node.deployctl(&["in", "-r", "app"]).ok();
    fleet.all_serve("v1");
    fleet.at_rest();
}

#[test]
fn a_box_with_two_roles_is_out_in_both_at_once() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(2).roles(&["app", "web"]).switchboard().start();
    for role in ["app", "web"] {
        fleet.publish_role(role, "v1", Behaviour::Good);
        fleet.start_with(role, "staging", &["-t", "v1"]).wait_deployed();
    }
    let (node, other) = (fleet.node(1), fleet.node(2));
    let (script, go) = errand(&fleet, node, 0);
    let script = script.display().to_string();
    let mut process =
        fleet.scope.start("with-lock", &mut node.command(&["with-lock", "--reason", "kernel", "--", &script]));
    wait_says(&process, "to the terminal");
    assert!(!node.in_service() && other.in_service());
    let locks = fleet.deployctl(&["locks"]).ok();
    assert_eq!(locks.stdout.matches("kernel").count(), 2, "out in both roles: {locks}");
    // The other box waits for both: it keeps neither while it waits.
    let mut second = fleet.scope.start("second", &mut other.command(&["with-lock", "--reason", "disk", "--", "true"]));
    wait_says(&second, "waits for 1 of 1 lock: box-1");
    fs::write(&go, "").unwrap();
    for process in [&mut process, &mut second] {
        process.wait(SOON);
        assert_eq!(process.code(), Some(0), "{}", process.log());
    }
    assert!(node.in_service() && other.in_service());
    fleet.at_rest();
}

#[test]
fn a_box_that_reboots_stays_out_until_sync_brings_it_back_after_the_boot() {
    require_fleet!();
    let mut fleet = Fleet::builder().boxes(1).switchboard().start();
    fleet.deployed("v1");
    let asked = fleet.node(1).dir().join("asked");
    // This machine is not to reboot: the program says what it was asked.
    let body = format!("echo \"$*\" >>{}; [ \"$1\" = reboot ] || echo running", asked.display());
    fleet.node_mut(1).replace_program("systemctl", &body);
    let node = fleet.node(1);
    let mut process =
        fleet.scope.start("with-lock", &mut node.command(&["with-lock", "--reason", "new kernel", "--reboot"]));
    wait_says(&process, "box-1 reboots");
    wait_for(SOON, "systemd is asked", || {
        let said = fs::read_to_string(&asked).unwrap_or_default();
        if said.lines().any(|line| line == "reboot") { Ok(()) } else { Err(said) }
    });
    assert!(process.is_running() && !node.in_service());
    // The machine goes down.
    process.signal(Signal::TERM);
    process.wait(SOON);
    assert_eq!(process.code(), Some(0), "{}", process.log());
    assert!(!node.in_service());
    let locks = fleet.deployctl(&["locks"]).ok();
    assert!(locks.stdout.contains("new kernel"), "{locks}");
    let journal = fs::read_to_string(node.dir().join("state/app.json")).unwrap();
    assert!(journal.contains("new kernel"), "the journal says why the box is out");

    let synced = node.deployctl(&["sync"]).ok();
    assert!(synced.stderr.contains("for this: new kernel"), "{synced}");
    fleet.all_serve("v1");
    fleet.at_rest();
}
