//! Pause and resume, by the commands that a person has.

use serde_json::json;

use crate::service::setup::{DEPLOYCTL, SOON, Service};
use crate::support::{Scope, require, wait_for};

#[test]
fn a_person_pauses_and_status_says_who_and_why() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let service = Service::with_boxes(&scope, &[("staging", "box-1")], json!({}));
    let deployctl = |line: &str| {
        let mut command = scope.command(DEPLOYCTL);
        command.args(line.split(' ')).env("DEPLOYCTL_SERVICE_URL", format!("http://127.0.0.1:{}", service.port));
        let output = command.env("USER", "ann").output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.code(), text)
    };
    let (code, said) = deployctl("pause -r app -e staging --reason errors");
    assert!(code == Some(1) && said.contains("nothing rolls for app in staging"), "{said}");
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    let (code, said) = deployctl("pause -r app -e staging --reason errors");
    assert!(code == Some(0) && said.contains("deployctl resume -r app -e staging"), "{said}");
    let (_, said) = deployctl("status");
    assert!(said.contains("paused for") && said.contains(": errors") && said.contains("ann"), "{said}");
    let (_, metrics) = service.http.try_get("/metrics").unwrap();
    assert!(metrics.contains("deployctl_paused{role=\"app\",environment=\"staging\"} 1"), "{metrics}");
    let (code, said) = deployctl("pause -r app -e staging --reason again");
    assert!(code == Some(1) && said.contains("is paused already by"), "{said}");
    let (code, said) = deployctl("resume -r app -e staging");
    assert!(code == Some(0), "{said}");
    let again = service.refused(&format!("/v1/deploys/{id}/resume"), &json!({}));
    assert_eq!(again, (409, "not_paused".to_owned()));
    service.complete("staging", &id, &["box-1"]);
    service.wait_state(&id, "deployed");
    assert_eq!(service.audit(&id)[..3], ["start", "pause", "resume"]);
}

#[test]
fn one_box_goes_first_unless_somebody_says_otherwise() {
    require!("redis-server", "serf");
    let policy = json!({ "service": { "roles": { "app": { "first": { "boxes": 1, "for": "2s" } } } } });
    let service = Service::with_boxes(&Scope::new(), &[("staging", "box-1"), ("staging", "box-2")], policy);
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    assert_eq!(service.deploy(&id)["step"]["of"], 1);
    service.worker("staging", "box-1").deploys(&id, "v1");
    wait_for(SOON, "the first box serves", || {
        let step = service.deploy(&id)["step"].clone();
        if step["since"].is_string() { Ok(()) } else { Err(step) }
    });
    let (_, metrics) = service.http.try_get("/metrics").unwrap();
    assert!(metrics.contains("deployctl_step{role=\"app\",environment=\"staging\"} 1"), "{metrics}");
    wait_for(SOON, "the step passes", || {
        let deploy = service.deploy(&id);
        if deploy["step"].is_null() { Ok(()) } else { Err(deploy) }
    });
    service.worker("staging", "box-2").deploys(&id, "v1");
    service.wait_state(&id, "deployed");
    service.publish("v2");
    let id = service.start_deploy("staging", json!({ "all_at_once": true }));
    assert!(service.deploy(&id)["step"].is_null());
    let (_, body) = service.http.get("/v1/audit?limit=10");
    let started = body["entries"].as_array().unwrap().iter().find(|entry| entry["deploy"] == id).unwrap().clone();
    assert_eq!(started["detail"], "all at once, without its steps");
}
