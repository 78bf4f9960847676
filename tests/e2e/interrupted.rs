//! Something dies in the middle of a deploy.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::json;

use crate::support::{Behaviour, Fleet, require_fleet, run, wait_until};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_killed_worker_costs_one_lock_and_a_person_repairs_the_box() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(3).config(json!({ "lock_ttl": "6s" })).start();
    fleet.deployed("v1");
    let watch = fleet.target_group("app").sample();
    fleet.publish("v2", Behaviour::Slow);
    let deploy = fleet.start("v2");
    let victim = fleet.named(&deploy.wait_any("starting"));
    victim.kill_workers();

    // With one lock for three boxes, nobody else may go out while one box is lost.
    let ended = deploy.wait_state("failed");
    assert!(ended["reason"].to_string().contains(victim.name()), "the end names the box: {ended}");
    assert_eq!(deploy.phases()[victim.name()], "lost");
    watch.never_fewer_than(2);
    assert!(!fleet.target_group("app").registered().contains(victim.address()));

    victim.deployctl(&["run", "-r", "app"]).ok();
    assert_eq!(fleet.target_group("app").registered().len(), 3, "everybody is in service again");
    assert!(victim.serves("app").is_some());
    fleet.at_rest();
}

#[test]
fn a_worker_outlives_its_agent() {
    require_fleet!();
    let mut fleet = Fleet::builder().boxes(2).start();
    fleet.publish("v1", Behaviour::Slow);
    let deploy = fleet.start("v1");
    let name = deploy.wait_any("starting");
    let node = fleet.named_mut(&name);
    node.agent.kill();
    assert!(!node.workers().is_empty(), "the worker goes on");
    node.agent.resume();
    deploy.wait_deployed();
    fleet.all_serve("v1");
    fleet.at_rest();
}

#[test]
fn a_service_that_is_killed_goes_on_where_it_was() {
    require_fleet!();
    let mut fleet = Fleet::builder().boxes(3).start();
    fleet.publish("v1", Behaviour::Slow);
    let deploy = fleet.start("v1");
    let working = deploy.wait_any("starting");
    fleet.kill_service();
    // Who is out finishes; the others ask the service before they go, and so wait for it.
    fleet.named(&working).wait_serves("app", "v1");
    fleet.start_service();
    deploy.wait_deployed();
    fleet.all_serve("v1");
    assert_eq!(fleet.release("v1")["status"], "available");
    fleet.at_rest();
}

#[test]
fn redis_that_restarts_is_ridden_out() {
    require_fleet!();
    let mut fleet = Fleet::builder().boxes(3).start();
    fleet.publish("v1", Behaviour::Slow);
    let deploy = fleet.start("v1");
    deploy.wait_any("starting");
    fleet.redis.kill();
    fleet.redis.resume();
    deploy.wait_deployed();
    fleet.all_serve("v1");
    fleet.at_rest();
}

#[test]
fn a_service_that_is_away_for_long_makes_no_box_failed() {
    require_fleet!();
    let mut fleet = Fleet::builder().boxes(2).switchboard().start();
    fleet.deployed("v1");
    fleet.boxes.iter().for_each(|node| node.configure(|config| config["command_timeout"] = json!("3s")));
    fleet.publish("v2", Behaviour::Good);
    fleet.boxes.iter().for_each(|node| node.stop_at("verify"));
    let deploy = fleet.start("v2");
    let first = deploy.wait_any("verifying");
    let second = if first == "box-1" { "box-2" } else { "box-1" };
    deploy.wait_phase(second, "waiting");
    fleet.kill_service();
    fleet.boxes.iter().for_each(|node| node.go_on("verify"));
    // The second box gets its lock, and cannot ask for longer than command_timeout.
    let asked = || fleet.named(second).log().matches("the deployment service").count();
    let before = asked();
    let began = std::time::Instant::now();
    wait_until(SOON, "it asks again and again", || asked() > before && began.elapsed() > Duration::from_secs(6));
    fleet.start_service();
    deploy.wait_deployed();
    fleet.all_serve("v2");
    fleet.at_rest();
}

/// A disk of 64 KiB in place of a folder, with what the folder held.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(folder: &Path) -> Self {
        let held: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .map(|path| (fs::read(&path).unwrap(), path))
            .collect();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(folder)).ok();
        for (bytes, path) in &held {
            fs::write(path, bytes).unwrap();
        }
        Self(folder.to_owned())
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_fills_up_while_the_box_is_out_hides_no_result() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(1).switchboard().start();
    fleet.deployed("v1");
    let node = fleet.node(1);
    let disk = SmallDisk::at(&node.dir().join("state"));
    fleet.publish("v2", Behaviour::Good);
    node.stop_at("verify");
    let deploy = fleet.start("v2");
    deploy.wait_phase("box-1", "verifying");
    disk.fill();
    node.go_on("verify");
    let ended = deploy.wait_deployed();
    let detail = ended["boxes"][0]["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("cannot write") && detail.contains("state"), "{ended}");
    assert!(node.in_service());
    fleet.all_serve("v2");
    fleet.at_rest();
    disk.free();
    node.deployctl(&["sync"]).ok();
    fleet.all_serve("v2");
    fleet.at_rest();
}
