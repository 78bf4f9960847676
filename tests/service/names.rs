//! What names something that nobody has is refused, with what is known.

use serde_json::{Value, json};

use crate::service::setup::{DEPLOYCTL, Service};
use crate::support::{Output, Scope, require, run};

fn deployctl(service: &Service, line: &str) -> Output {
    let mut command = service.scope.command(DEPLOYCTL);
    command.args(line.split(' ')).env("DEPLOYCTL_SERVICE_URL", format!("http://127.0.0.1:{}", service.port));
    run(&mut command)
}

#[test]
fn the_first_release_of_a_mistyped_role_is_refused_and_that_of_a_new_one_is_not() {
    require!("redis-server", "serf");
    let service = Service::with_boxes(&Scope::new(), &[("staging", "box-1")], json!({}));
    // The box has it; nothing was ever deployed.
    assert_eq!(deployctl(&service, "publish -r app -t v1").code, Some(0));
    let said = deployctl(&service, "publish -r ap -t v1");
    assert_eq!(said.code, Some(1), "{said}");
    said.one_line(&["the role \"ap\"", "did you mean app?", "known are app, web", "--new"]);
    assert_eq!(service.http.get("/v1/releases?role=ap").1["releases"], json!([]), "nothing was published");
    let body = |role: &str, more: bool| json!({ "role": role, "tag": "v1", "new_role": more });
    assert_eq!(service.refused("/v1/releases", &body("appp", false)), (404, "not_found".to_owned()));
    // It is like nothing that is known: its pipeline comes before its first box.
    assert_eq!(service.http.post("/v1/releases", &body("billing", false)).0, 201);
    assert_eq!(deployctl(&service, "publish -r ap -t v1 --new").code, Some(0));
    assert_eq!(service.http.post("/v1/releases", &json!({ "role": "ap", "tag": "v2" })).0, 201, "it is known now");
}

#[test]
fn who_stops_what_is_nowhere_is_told_what_there_is() {
    require!("redis-server", "serf");
    let service = Service::with_boxes(&Scope::new(), &[("production", "box-1")], json!({}));
    for line in ["cancel -r nosuch -e production", "pause -r nosuch -e production --reason x"] {
        let said = deployctl(&service, line);
        assert_eq!(said.code, Some(1), "{said}");
        said.one_line(&["the role \"nosuch\"", "known are app, web"]);
    }
    for line in ["cancel -r app -e prodction", "unfreeze -e prodction"] {
        let said = deployctl(&service, line);
        assert_eq!(said.code, Some(1), "{said}");
        said.one_line(&["did you mean production?"]);
    }
    let said = deployctl(&service, "unfreeze -e production");
    assert!(said.code == Some(0) && said.stdout.contains("production was not frozen"), "{said}");
    let said = deployctl(&service, "cancel -r app -e production");
    assert!(said.code == Some(0) && said.stdout.contains("nothing rolls for app in production"), "{said}");
    let deploys = service.http.get("/v1/deploys?role=nosuch&environment=production").1;
    assert_eq!(deploys["deploys"], Value::Array(Vec::new()), "a script's list stays a list");
}
