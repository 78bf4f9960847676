//! Zones by the tags of real Serf agents: what people see of them, and what is no name of a zone.

use deployctl::api::Phase;
use serde_json::{Value, json};

use crate::service::setup::{DEPLOYCTL, SOON, Service};
use crate::support::{Scope, require, wait_for};

#[test]
fn zones_are_shown_and_keep_each_other_apart() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let mut service = Service::with_boxes(&scope, &[("staging", "box-5")], json!({ "zone_tag": "rack" }));
    for (name, rack) in
        [("box-1", "eu-1a"), ("box-2", "eu-1a"), ("box-3", "eu-1b"), ("box-4", "eu-1b"), ("box-6", "a b}:")]
    {
        service.add_box_with("staging", name, &[("rack", rack)]);
    }
    service.publish("v1");
    let (_, preview) =
        service.http.post("/v1/deploys", &json!({"role": "app", "environment": "staging", "dry_run": true}));
    let zones = json!([
        {"zone": "eu-1a", "size": 2, "locks": 1, "lost": false}, {"zone": "eu-1b", "size": 2, "locks": 1, "lost": false},
    ]);
    assert_eq!(preview["zones"], zones, "{preview}");
    let id = service.start_deploy("staging", json!({}));
    let deploy = service.deploy(&id);
    assert_eq!(deploy["zones"], zones);
    let zone_of = |deploy: &Value, name: &str| {
        deploy["boxes"].as_array().unwrap().iter().find(|row| row["box"] == name).unwrap()["zone"].clone()
    };
    let all = ["box-1", "box-4", "box-5", "box-6"].map(|name| zone_of(&deploy, name));
    assert_eq!(all, [json!("eu-1a"), json!("eu-1b"), Value::Null, Value::Null]);
    let log = service.process().log();
    assert_eq!(log.matches("the box \"box-6\" counts as one without a zone").count(), 1, "{log}");

    let mut first = service.worker("staging", "box-1");
    first.joins(&id);
    let held = first.goes_out(&id);
    let mut second = service.worker("staging", "box-2");
    second.joins(&id);
    let why = "1 of zone eu-1a is out, and 1 may be: box-1";
    assert_eq!(second.waits_for(&id).as_deref(), Some(why));
    let (_, metrics) = service.http.try_get("/metrics").unwrap();
    let labels = "role=\"app\",environment=\"staging\",zone=\"eu-1a\"";
    assert!(metrics.contains(&format!("deployctl_zone_boxes_out{{{labels}}} 1")), "{metrics}");
    let said = |line: &str| {
        let mut command = scope.command(DEPLOYCTL);
        command.args(line.split(' ')).env("DEPLOYCTL_SERVICE_URL", format!("http://127.0.0.1:{}", service.port));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    for (line, words) in [
        ("status", &["ZONE", why][..]),
        ("why -r app -e staging", &[why, "back in service"]),
        ("locks -r app -e staging", &["ZONE", "eu-1a"]),
        ("start -r app -e staging --dry-run --supersede", &["zones: eu-1a 2 boxes, 1 at a time; eu-1b 2 boxes"]),
    ] {
        let shown = said(line);
        assert!(words.iter().all(|word| shown.contains(word)), "{line}: {shown}");
    }
    let (_, page) = service.http.try_get(&format!("/deploys/{id}")).unwrap();
    assert!(page.contains("Zone") && page.contains("eu-1b"), "{page}");
    first.comes_back(&id, &held, Phase::Done, "v1");
    let held = second.goes_out(&id);
    second.comes_back(&id, &held, Phase::Done, "v1");
}

#[test]
fn a_zone_whose_agents_are_gone_frees_nothing() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let mut service = Service::with_boxes(&scope, &[("staging", "box-9")], json!({}));
    for (name, zone) in [("box-1", "x"), ("box-2", "x"), ("box-3", "y"), ("box-4", "y")] {
        service.add_box_with("staging", name, &[("zone", zone)]);
    }
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    // The agents of the zone y, which were started last.
    service.agents.truncate(4);
    wait_for(SOON * 3, "the zone y is lost", || {
        let deploy = service.deploy(&id);
        if deploy["zones"][1]["lost"] == true { Ok(()) } else { Err(deploy) }
    });
    let mut first = service.worker("staging", "box-1");
    first.joins(&id);
    let why = "zone y is lost, and what it uses up is free for nobody else";
    assert_eq!(first.waits_for(&id).as_deref(), Some(why), "1 of 5 at a time, and the lost zone uses that up");
}
