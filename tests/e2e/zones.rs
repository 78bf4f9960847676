//! A fleet in two zones: of neither are two boxes out at once.

use std::time::Duration;

use serde_json::json;

use crate::support::{Behaviour, Fleet, require_fleet, wait_for};

#[test]
fn boxes_of_one_zone_take_turns() {
    require_fleet!();
    let policy = json!({ "roles": { "app": { "max_parallel": "1/2" } } });
    let fleet = Fleet::builder().boxes(4).zones(&["eu-1a", "eu-1b"]).switchboard().service(policy).start();
    fleet.deployed("v1");
    fleet.publish("v2", Behaviour::Slow);
    let deploy = fleet.start("v2");
    let mut both = false;
    wait_for(Duration::from_secs(180), "v2 is deployed", || {
        let out: Vec<usize> = (0..4).filter(|at| !fleet.boxes[*at].in_service()).collect();
        for zone in 0..2 {
            let of_zone = out.iter().filter(|at| **at % 2 == zone).count();
            assert!(of_zone <= 1, "{out:?} are out: {:?}", deploy.phases());
        }
        both |= out.len() == 2;
        let shown = deploy.json();
        if shown["state"] == "deployed" { Ok(()) } else { Err(shown.to_string()) }
    });
    assert!(both, "one of each zone is out at once");
    let zone_of = |row: &serde_json::Value| row["zone"].as_str().unwrap_or_default().to_owned();
    let zones: Vec<String> = deploy.json()["boxes"].as_array().unwrap().iter().map(zone_of).collect();
    assert_eq!(zones, ["eu-1a", "eu-1b", "eu-1a", "eu-1b"]);
    fleet.all_serve("v2");
    fleet.at_rest();
}
