//! Pause and resume, by the commands that a person has.

use serde_json::json;

use crate::service::setup::{DEPLOYCTL, Service};
use crate::support::{Scope, require};

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
