//! How many outside programs one box starts for one good deploy: each costs a tenth of a second and more, and the ones
//! under the lock keep other boxes waiting.

use std::fs;

use crate::support::{Behaviour, Fleet, path, program, require_fleet, run};

#[test]
fn a_good_deploy_starts_ten_programs_at_most() {
    require_fleet!();
    let fleet = Fleet::builder().boxes(1).compose(&["docker-compose"]).start();
    fleet.deployed("v1");
    fleet.publish("v2", Behaviour::Good);

    let record = fleet.scope.dir().join("programs");
    let recorders = fleet.scope.subdir("recorders");
    for name in ["aws", "docker", "docker-compose"] {
        let body = format!("echo {name} \"$@\" >>{}; exec {} \"$@\"", record.display(), program(name).display());
        fleet.scope.script(&format!("recorders/{name}"), &body);
    }
    let path = format!("{}:{}", recorders.display(), path());
    run(fleet.node(1).command(&["run", "-r", "app", "-t", "v2"]).env("PATH", path)).ok();
    fleet.all_serve("v2");

    let recorded = fs::read_to_string(record).unwrap();
    let count = |name: &str| recorded.lines().filter(|line| line.split(' ').next() == Some(name)).count();
    assert!(recorded.lines().count() <= 10, "{recorded}");
    assert_eq!((count("docker-compose"), count("docker")), (2, 1), "{recorded}");
}
