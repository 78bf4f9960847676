//! A fleet that heals: boxes that missed something, died, or were interrupted half-way.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Behaviour, Box, Deploy, Fleet, FleetBuilder, Process, require_fleet, wait_for, wait_until};

const EVENT: &str = r#"{"role":"app","environment":"staging"}"#;
const SOON: Duration = Duration::from_secs(60);

/// A fleet whose load balancer is files: it is not what is looked at here.
fn boxes(count: usize) -> FleetBuilder {
    Fleet::builder().boxes(count).switchboard()
}

/// The box's agent is down, the others know, and no replay will tell it what it missed.
fn is_away(fleet: &mut Fleet, number: usize) {
    fleet.node_mut(number).agent.is_away();
    fleet.hub.wait_member(SOON, &format!("box-{number}"), "failed");
}

fn is_back(fleet: &mut Fleet, number: usize) {
    fleet.node_mut(number).agent.resume();
    fleet.hub.wait_member(SOON, &format!("box-{number}"), "alive");
}

/// What a person types on a box, while the test goes on.
fn typed(fleet: &Fleet, node: &Box, arguments: &[&str]) -> Process {
    fleet.scope.start(&format!("{}-{}", node.name(), arguments[0]), &mut node.command(arguments))
}

#[track_caller]
fn ends_with(process: &mut Process, code: i32) {
    process.wait(SOON);
    assert_eq!(process.code(), Some(code), "{}", process.log());
}

fn containers(fleet: &Fleet) -> Vec<Option<String>> {
    fleet.boxes.iter().map(|node| node.container(&fleet.engine, "app")).collect()
}

/// The box serves this, and gets requests.
#[track_caller]
fn serves(node: &Box, tag: &str) {
    assert_eq!((node.serves("app").as_deref(), node.in_service()), (Some(tag), true), "{}", node.log());
}

/// And nobody holds a lock or is out.
#[track_caller]
fn serves_again(fleet: &Fleet, node: &Box, tag: &str) {
    serves(node, tag);
    fleet.at_rest();
}

#[test]
fn sync_brings_what_was_missed_and_fights_nobody() {
    require_fleet!();
    let mut fleet = boxes(3).start();
    is_away(&mut fleet, 3);
    fleet.deployed("v1");
    is_away(&mut fleet, 2);
    fleet.publish("v2", Behaviour::Slow);
    fleet.start("v2").wait_deployed();
    is_back(&mut fleet, 2);
    assert_eq!(fleet.serving(), ["v2", "v1", ""], "nothing but sync brings what was missed");
    fleet.node(2).deployctl(&["sync"]).ok();
    serves_again(&fleet, fleet.node(2), "v2");

    // A new box serves nobody: it needs no lock, and gets requests only once it is healthy.
    fleet.node(1).deployctl(&["out", "-r", "app", "--reason", "has the only lock"]).ok();
    is_back(&mut fleet, 3);
    let new = fleet.node(3);
    let mut sync = typed(&fleet, new, &["sync"]);
    wait_until(SOON, "the new box is in service", || new.in_service());
    assert_eq!(new.serves("app").as_deref(), Some("v2"), "healthy before it is registered");
    ends_with(&mut sync, 0);
    fleet.node(1).deployctl(&["in", "-r", "app"]).ok();
    fleet.all_serve("v2");

    // Events that are repeated or come hours late, and a timer that goes off: nothing to do.
    let before = containers(&fleet);
    for _ in 0..2 {
        fleet.hub.event("deploy", EVENT);
    }
    for node in &fleet.boxes {
        node.deployctl(&["sync"]).ok();
        node.wait_idle();
    }
    assert_eq!(containers(&fleet), before);

    // A person stopped a deploy half-way, and may want it so.
    fleet.publish("v3", Behaviour::Good);
    fleet.boxes.iter().for_each(|node| node.stop_at("deregister"));
    let deploy = fleet.start("v3");
    let ahead = deploy.wait_any("draining");
    deploy.cancel(&["--reason", "wrong day"]).ok();
    fleet.boxes.iter().for_each(|node| node.go_on("deregister"));
    deploy.wait_state("cancelled");
    let (half_way, before) = (fleet.serving(), containers(&fleet));
    assert_eq!(half_way.iter().filter(|tag| *tag == "v3").count(), 1, "{half_way:?}");
    for node in &fleet.boxes {
        node.deployctl(&["sync"]).ok();
    }
    assert_eq!((fleet.serving(), containers(&fleet)), (half_way, before), "left alone");

    // A person ran another tag on one box since the last deploy.
    fleet.start("v2").wait_deployed();
    let node = fleet.named(&ahead);
    node.deployctl(&["run", "-r", "app", "-t", "v1"]).ok();
    let before = containers(&fleet);
    node.deployctl(&["sync"]).ok();
    fleet.hub.event("deploy", EVENT);
    fleet.boxes.iter().for_each(Box::wait_idle);
    assert_eq!(containers(&fleet), before, "left alone");
    serves_again(&fleet, node, "v1");
}

#[test]
fn a_new_box_takes_what_is_proven_while_a_deploy_rolls() {
    require_fleet!();
    let mut fleet = boxes(4).start();
    is_away(&mut fleet, 3);
    is_away(&mut fleet, 4);
    fleet.deployed("v1");

    fleet.publish("v2", Behaviour::Good);
    (1..=3).for_each(|number| fleet.node(number).stop_at("deregister"));
    let deploy = fleet.start("v2");
    let first = deploy.wait_any("draining");
    is_back(&mut fleet, 3);
    let mut early = typed(&fleet, fleet.node(3), &["sync"]);
    deploy.wait_phase("box-3", "waiting");
    assert_eq!(fleet.node(3).serves("app").as_deref(), Some("v1"), "nobody knows yet whether v2 works");
    assert!(fleet.node(3).in_service());

    // Once one box runs v2 and another holds the only lock, a new box takes v2 at once.
    fleet.named(&first).go_on("deregister");
    deploy.wait_phase(&first, "done");
    let second = deploy.wait_any("draining");
    is_back(&mut fleet, 4);
    fleet.node(4).deployctl(&["sync"]).ok();
    assert_eq!(fleet.node(4).serves("app").as_deref(), Some("v2"));
    assert_eq!(deploy.phases()[&second], "draining", "the lock is still held");

    (1..=3).filter(|number| fleet.node(*number).name() != first).for_each(|n| fleet.node(n).go_on("deregister"));
    assert_eq!(deploy.wait_deployed()["size"], 4);
    ends_with(&mut early, 0);
    fleet.all_serve("v2");
    fleet.at_rest();
}

#[test]
fn a_box_that_dies_while_it_is_out_frees_its_lock_and_one_that_only_left_does_not() {
    require_fleet!();
    let mut fleet = boxes(3).config(json!({ "lock_ttl": "6s" })).start();
    fleet.deployed("v1");
    fleet.publish("v2", Behaviour::Good);
    fleet.boxes.iter().for_each(|node| node.stop_at("verify"));
    let deploy = fleet.start("v2");
    let dead = deploy.wait_any("verifying");
    fleet.power_cut(&dead);
    let died = Instant::now();
    deploy.wait_phase(&dead, "gone");
    assert!(died.elapsed() < Duration::from_secs(30), "a dead box frees its lock in half a minute");

    // Serf's own leave says nothing of the worker, which goes on.
    let leaver = wait_for(SOON, "the next box works", || {
        let phases = deploy.phases();
        phases
            .iter()
            .find_map(|(name, phase)| (phase == "verifying").then(|| name.clone()))
            .ok_or(format!("{phases:?}"))
    });
    fleet.named_mut(&leaver).agent.leave();
    fleet.hub.wait_member(SOON, &leaver, "left");
    stays(&deploy, &leaver, "verifying", Duration::from_secs(8));
    fleet.boxes.iter().for_each(|node| node.go_on("verify"));
    let ended = deploy.wait_deployed();
    assert_eq!((deploy.phases()[&dead].as_str(), deploy.phases()[&leaver].as_str()), ("gone", "done"), "{ended}");
    assert!(fleet.boxes.iter().all(|node| node.name() == dead || node.serves("app").as_deref() == Some("v2")));

    // Power is back.
    fleet.named_mut(&leaver).agent.resume();
    fleet.named_mut(&dead).agent.resume();
    fleet.named(&dead).deployctl(&["sync"]).ok();
    fleet.all_serve("v2");
    fleet.at_rest();
}

/// Fails unless the box is in this phase all the time.
#[track_caller]
fn stays(deploy: &Deploy, node: &str, phase: &str, time: Duration) {
    let since = Instant::now();
    wait_for(time + SOON, "time passes", || {
        assert_eq!(deploy.phases()[node], phase);
        if since.elapsed() >= time { Ok(()) } else { Err(format!("{:?}", since.elapsed())) }
    });
}

#[test]
fn a_lost_box_does_not_keep_later_deploys_from_their_locks() {
    require_fleet!();
    let fleet = boxes(2).config(json!({ "lock_ttl": "6s" })).service(json!({ "join_timeout": "20s" })).start();
    fleet.deployed("v1");
    fleet.publish("v2", Behaviour::Good);
    fleet.boxes.iter().for_each(|node| node.stop_at("verify"));
    let deploy = fleet.start("v2");
    let lost = fleet.named(&deploy.wait_any("verifying"));
    let other = fleet.boxes.iter().find(|node| node.name() != lost.name()).unwrap();
    lost.kill_workers();
    fleet.boxes.iter().for_each(|node| node.go_on("verify"));
    // Whatever wakes it finds a configuration that it cannot read.
    lost.configure(|config| config["colour"] = json!("blue"));
    let ended = deploy.wait_state("failed");
    assert!(ended["reason"].to_string().contains(lost.name()), "{ended}");
    assert_eq!(other.serves("app").as_deref(), Some("v1"), "the one lock was used up");

    fleet.publish("v3", Behaviour::Good);
    let next = fleet.start("v3");
    next.wait_phase(other.name(), "done");
    serves(other, "v3");
    lost.configure(|config| drop(config.as_object_mut().unwrap().remove("colour")));
    lost.deployctl(&["run", "-r", "app"]).ok();
    next.wait_deployed();
    fleet.all_serve("v3");
    fleet.at_rest();
}

#[test]
fn a_worker_killed_at_any_step_has_a_successor_that_brings_the_box_back() {
    require_fleet!();
    let fleet = boxes(1).start();
    let node = fleet.node(1);
    fleet.deployed("v1");
    let killed_at = |step: &str, phase: &str, tag: &str, behaviour: Behaviour| {
        fleet.publish(tag, behaviour);
        node.stop_at(step);
        let deploy = fleet.start(tag);
        deploy.wait_phase("box-1", phase);
        node.kill_workers();
        node.go_on(step);
        deploy
    };
    let is_through = |deploy: &Deploy, tag: &str| {
        deploy.wait_deployed();
        node.wait_idle();
        serves_again(&fleet, node, tag);
    };

    let deploy = killed_at("deregister", "draining", "v2", Behaviour::Good);
    node.deployctl(&["sync"]).ok();
    is_through(&deploy, "v2");
    let deploy = killed_at("verify", "starting", "v3", Behaviour::Slow);
    fleet.hub.event("deploy", EVENT);
    is_through(&deploy, "v3");
    let deploy = killed_at("verify", "verifying", "v4", Behaviour::Good);
    node.deployctl(&["run", "-r", "app"]).ok();
    is_through(&deploy, "v4");
    let deploy = killed_at("register", "registering", "v5", Behaviour::Good);
    node.deployctl(&["sync"]).ok();
    is_through(&deploy, "v5");

    // The deploy was found broken while nobody was there: its successor restores what was good.
    let deploy = killed_at("verify", "verifying", "v6", Behaviour::Good);
    deploy.cancel(&["--broken", "--reason", "loses orders"]).ok();
    node.deployctl(&["sync"]).expect(4);
    deploy.wait_state("broken");
    serves_again(&fleet, node, "v5");
}

#[test]
fn a_worker_that_is_told_to_stop_withdraws_or_finishes_or_goes_back() {
    require_fleet!();
    let fleet = boxes(2).config(json!({ "stop_grace": "3s" })).start();
    fleet.deployed("v1");
    fleet.publish("v2", Behaviour::Good);
    fleet.boxes.iter().for_each(|node| node.stop_at("verify"));
    let deploy = fleet.start("v2");
    let working = fleet.named(&deploy.wait_any("verifying"));
    let waiting = fleet.boxes.iter().find(|node| node.name() != working.name()).unwrap();
    deploy.wait_phase(waiting.name(), "waiting");
    let gone = |node: &Box, within: Duration| {
        wait_for(within, &format!("nothing is left on {}", node.name()), || {
            let left = node.children();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    };

    waiting.signal_workers(Signal::TERM);
    gone(waiting, Duration::from_secs(2));
    deploy.wait_phase(waiting.name(), "expected");
    serves(waiting, "v1");

    // What hangs ends with its worker, and the box goes back.
    working.signal_workers(Signal::TERM);
    gone(working, SOON);
    assert_eq!(deploy.phases()[working.name()], "expected");
    serves_again(&fleet, working, "v1");

    // The next event goes on; a step that ends within stop_grace is not cut off.
    fleet.hub.event("deploy", EVENT);
    let working = fleet.named(&deploy.wait_any("verifying"));
    let waiting = fleet.boxes.iter().find(|node| node.name() != working.name()).unwrap();
    deploy.wait_phase(waiting.name(), "waiting");
    waiting.kill_workers();
    working.signal_workers(Signal::TERM);
    working.go_on("verify");
    deploy.wait_phase(working.name(), "done");
    gone(working, SOON);
    // One that was killed while it waited has a successor, too.
    waiting.go_on("verify");
    waiting.deployctl(&["sync"]).ok();
    deploy.wait_deployed();
    fleet.all_serve("v2");
    fleet.at_rest();
}

#[test]
fn a_redis_that_comes_back_empty_strands_nobody() {
    require_fleet!();
    let fleet = boxes(3).config(json!({ "lock_ttl": "6s" })).start();
    fleet.deployed("v1");
    fleet.publish("v2", Behaviour::Good);
    fleet.boxes.iter().for_each(|node| node.stop_at("verify"));
    let deploy = fleet.start("v2");
    let out = fleet.named(&deploy.wait_any("verifying"));
    fleet.redis.flush();
    // Who is out says so again.
    wait_for(SOON, "the box that is out stands in Redis again", || {
        let entries = fleet.redis.hash("deployctl:{staging:app}:out");
        if entries.contains_key(out.name()) { Ok(()) } else { Err(format!("{entries:?}")) }
    });
    fleet.boxes.iter().for_each(|node| node.go_on("verify"));
    fleet.boxes.iter().for_each(Box::wait_idle);
    for node in &fleet.boxes {
        serves_again(&fleet, node, if node.name() == out.name() { "v2" } else { "v1" });
    }
    assert!(fleet.service_log().contains("no longer knows the deploy"), "{}", fleet.service_log());

    // What CI and people say is said again.
    fleet.deployed("v3");
    fleet.boxes.iter().for_each(Box::wait_idle);
    fleet.all_serve("v3");
    fleet.at_rest();
}

#[test]
fn a_redis_that_is_away_keeps_nobody_out() {
    require_fleet!();
    let mut fleet = boxes(2).config(json!({ "lock_ttl": "9s" })).start();
    fleet.deployed("v1");
    fleet.publish("v2", Behaviour::Good);
    fleet.boxes.iter().for_each(|node| node.stop_at("verify"));
    let deploy = fleet.start("v2");
    let out = deploy.wait_any("verifying");
    fleet.redis.stop();
    fleet.named(&out).go_on("verify");
    wait_until(SOON, "the box is in service again", || fleet.named(&out).in_service());
    let waiting = fleet.boxes.iter().find(|node| node.name() != out).unwrap();
    serves(waiting, "v1");
    waiting.go_on("verify");
    // It reports later, and the other one takes its turn.
    fleet.redis.resume();
    deploy.wait_deployed();
    fleet.all_serve("v2");
    fleet.at_rest();
}
