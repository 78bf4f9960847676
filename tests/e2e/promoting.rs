//! Good releases go on to production by themselves; a bad one brings the last good one back.

use std::{fs, time::Duration};

use serde_json::json;

use crate::support::{Behaviour, Fleet, require_fleet, wait_for};

const SOON: Duration = Duration::from_secs(120);

#[test]
fn a_complete_deploy_is_promoted_once_it_has_baked() {
    require_fleet!();
    let policy = json!({ "environments": ["staging", "production"], "auto_promote": true, "bake": "1s" });
    let fleet = Fleet::builder()
        .boxes(1)
        .boxes_in("production", 2)
        .switchboard()
        .service(json!({ "roles": { "app": policy } }))
        .start();
    fleet.publish("v1", Behaviour::Good);
    let staging = fleet.start("v1");
    staging.wait_deployed();
    let newest = wait_for(SOON, "a deploy in production", || {
        let (_, answer) = fleet.http().get("/v1/deploys?role=app&environment=production");
        let deploys = answer["deploys"].as_array().cloned().unwrap_or_default();
        if deploys.is_empty() { Err(answer.to_string()) } else { Ok(deploys) }
    });
    assert_eq!(newest.len(), 1, "{newest:?}");
    let production = fleet.newest_deploy("app", "production");
    let deploy = production.wait_deployed();
    assert_eq!((&deploy["kind"], &deploy["tag"]), (&json!("promotion"), &json!("v1")), "{deploy}");
    assert_eq!(deploy["source"], staging.id(), "{deploy}");
    fleet.all_serve("v1");
}

#[test]
fn a_broken_deploy_that_left_boxes_on_the_release_is_rolled_back() {
    require_fleet!();
    let policy = json!({ "auto_rollback": true, "max_parallel": "2" });
    let fleet = Fleet::builder().boxes(2).switchboard().service(json!({ "roles": { "app": policy } })).start();
    fleet.deployed("v1");
    // v2 works on the first box, and fails on the second once the first is done.
    let second = fleet.node(2);
    let go = second.dir().join("go");
    let verify =
        format!(r#"test "$DEPLOY_TAG" = v1 || {{ until test -e {}; do sleep 0.1; done; exit 1; }}"#, go.display());
    second.configure(|config| config["roles"]["app"]["verify"] = json!(["/bin/sh", "-c", verify]));
    fleet.publish("v2", Behaviour::Good);
    let deploy = fleet.start("v2");
    deploy.wait_phase("box-1", "done");
    fs::write(&go, "").unwrap();
    deploy.wait_state("broken");

    let newest = wait_for(SOON, "a rollback", || {
        let newest = fleet.newest_deploy("app", "staging");
        if newest.id() == deploy.id() { Err(format!("{} is the newest", newest.id())) } else { Ok(newest) }
    });
    let back = newest.wait_deployed();
    assert_eq!((&back["kind"], &back["tag"]), (&json!("rollback"), &json!("v1")), "{back}");
    fleet.all_serve("v1");
    fleet.at_rest();
}
