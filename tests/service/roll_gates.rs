//! Gates that are asked while a release rolls: of a real Prometheus, and of `CloudWatch` as moto plays it.

use serde_json::{Value, json};

use crate::service::setup::{DEPLOYCTL, SOON, Service};
use crate::support::{Moto, Prometheus, Scope, require, wait_for, wait_until};

const BOXES: [(&str, &str); 2] = [("staging", "box-1"), ("staging", "box-2")];

fn policy(gate: &Value, more: Value) -> Value {
    let mut policy = more;
    policy["gates"] = json!([gate]);
    json!({ "service": { "roles": { "app": policy } } })
}

/// Boxes under a gate that lets no more than one error pass, as a real Prometheus tells them.
fn under_prometheus(scope: &Scope, failures: u32, more: Value) -> (Prometheus, Service) {
    let prometheus = Prometheus::start(scope);
    prometheus.set("errors", 0.0);
    let query = json!({ "url": prometheus.url(), "query": "errors", "max": 1, "every": "200ms" });
    let gate = json!({ "when": "roll", "prometheus": query, "failures": failures });
    let service = Service::with_boxes(scope, &BOXES, policy(&gate, more));
    (prometheus, service)
}

#[test]
fn a_release_that_serves_errors_stops_at_its_first_box_and_goes_back() {
    require!("redis-server", "serf", "prometheus", "busybox");
    let scope = Scope::new();
    let (prometheus, service) = under_prometheus(&scope, 2, json!({ "auto_rollback": true, "bake": "1m" }));
    service.publish("v1");
    let first = service.start_deploy("staging", json!({}));
    service.complete("staging", &first, &["box-1", "box-2"]);
    service.wait_state(&first, "deployed");

    service.publish("v2");
    let second = service.start_deploy("staging", json!({}));
    service.worker("staging", "box-2").joins(&second);
    service.worker("staging", "box-1").deploys(&second, "v2");
    prometheus.set("errors", 7.0);
    let ended = service.wait_state(&second, "broken");
    let reason = ended["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("`errors` is 7") && reason.contains("at most 1"), "{ended}");
    assert_eq!(service.release("v2")["status"], "broken");
    assert_eq!(box_of(&ended, "box-2")["phase"], "cancelled");
    let back = service.wait_newer("staging", &second);
    let rollback = service.deploy(&back);
    assert_eq!((&rollback["tag"], &rollback["kind"]), (&json!("v1"), &json!("rollback")));
    // The remedy is not judged, though the metric is still bad.
    service.complete("staging", &back, &["box-1", "box-2"]);
    service.wait_state(&back, "deployed");
    assert_eq!(service.release("v1")["status"], "available");
}

#[test]
fn a_release_that_goes_bad_while_it_bakes_is_taken_back() {
    require!("redis-server", "serf", "prometheus", "busybox");
    let scope = Scope::new();
    let (prometheus, service) = under_prometheus(&scope, 1, json!({ "auto_rollback": true, "bake": "5m" }));
    for tag in ["v1", "v2"] {
        service.publish(tag);
        let id = service.start_deploy("staging", json!({}));
        service.complete("staging", &id, &["box-1", "box-2"]);
        service.wait_state(&id, "deployed");
    }
    let (_, answer) = service.http.get("/v1/deploys?role=app&environment=staging&limit=1");
    let second = answer["deploys"][0]["id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    prometheus.set("errors", 7.0);
    wait_for(SOON, "v2 is broken", || {
        let release = service.release("v2");
        if release["status"] == "broken" { Ok(()) } else { Err(release) }
    });
    let back = service.wait_newer("staging", &second);
    assert_eq!(service.deploy(&back)["tag"], "v1");
}

#[test]
fn a_gate_that_cannot_be_asked_holds_the_deploy_and_says_so() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let query = json!({ "url": "http://127.0.0.1:1", "query": "errors", "max": 1, "every": "200ms" });
    let gate = json!({ "when": "roll", "prometheus": query, "unknown_for": "5s", "unknown": "pass" });
    let service = Service::with_boxes(&scope, &BOXES, policy(&gate, json!({})));
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    service.worker("staging", "box-1").deploys(&id, "v1");
    wait_for(SOON, "the deploy says what holds it", || {
        let deploy = service.deploy(&id);
        let gate = deploy["gate"].as_str().unwrap_or_default();
        if gate.contains("cannot be asked") { Ok(()) } else { Err(deploy) }
    });
    let mut status = scope.command(DEPLOYCTL);
    status.arg("status").env("DEPLOYCTL_SERVICE_URL", format!("http://127.0.0.1:{}", service.port));
    let said = String::from_utf8(status.output().unwrap().stdout).unwrap();
    assert!(said.contains("held: a gate cannot be asked: cannot ask Prometheus"), "{said}");
    let metric = |value: u8| {
        let line = format!("deployctl_gate{{role=\"app\",environment=\"staging\"}} {value}");
        wait_for(SOON, &line, || {
            let (_, text) = service.http.try_get("/metrics").unwrap();
            if text.lines().any(|own| own == line) { Ok(()) } else { Err(text) }
        });
    };
    metric(1);
    let mut second = service.worker("staging", "box-2");
    second.joins(&id);
    let waits = second.waits_for(&id).unwrap_or_default();
    assert!(waits.contains("gate"), "{waits}");
    metric(0);
    second.deploys(&id, "v1");
    assert!(service.deploy(&id)["gate"].is_null());
    service.wait_state(&id, "deployed");
}

#[test]
fn what_hits_all_boxes_stops_nothing_and_what_hits_the_new_ones_stops_at_the_first() {
    require!("redis-server", "serf", "prometheus", "busybox");
    let scope = Scope::new();
    let prometheus = Prometheus::start(&scope);
    let [first, second] = ["rate{box=\"box-1\"}", "rate{box=\"box-2\"}"];
    let page = |on: [f64; 2], requests| prometheus.page(&[(first, on[0]), (second, on[1]), ("requests", requests)]);
    let compare = json!({
        "url": prometheus.url(), "query": "sum(rate{box=~\"$boxes\"})", "baseline": "sum(rate{box=~\"$others\"})",
        "max_ratio": 1.5, "samples": "sum(requests)", "min_samples": 100, "every": "200ms",
    });
    let gate = json!({ "when": "roll", "compare": compare, "failures": 2 });
    let service = Service::with_boxes(&scope, &BOXES, policy(&gate, json!({})));
    let first_box_deploys = |tag: &str| {
        service.publish(tag);
        let id = service.start_deploy("staging", json!({}));
        service.worker("staging", "box-2").joins(&id);
        service.worker("staging", "box-1").deploys(&id, tag);
        id
    };
    let finishes = |id: &str, tag: &str| {
        service.worker("staging", "box-2").deploys(id, tag);
        service.wait_state(id, "deployed");
        assert_eq!(service.release(tag)["status"], "available");
    };
    // In the first deploy there is nothing to compare with.
    finishes(&first_box_deploys("v0"), "v0");

    // Both are equally bad: first that is not known yet, then it passes while the second box still serves v0.
    page([0.2, 0.2], 10.0);
    let id = first_box_deploys("v1");
    let waits_for = |what: &str, is_so: &dyn Fn(&Value) -> bool| {
        wait_for(SOON, what, || {
            let deploy = service.deploy(&id);
            if is_so(&deploy["gate"]) { Ok(()) } else { Err(deploy) }
        });
    };
    waits_for("too few requests", &|gate| gate.as_str().is_some_and(|gate| gate.contains("10 samples, and 100")));
    page([0.2, 0.2], 100.0);
    waits_for("the comparison passes", &Value::is_null);
    finishes(&id, "v1");

    page([0.2, 0.01], 100.0);
    let id = first_box_deploys("v2");
    let ended = service.wait_state(&id, "broken");
    let reason = ended["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("is 0.2 on the boxes of the release and 0.01 on the others"), "{ended}");
    assert_eq!(box_of(&ended, "box-2")["phase"], "cancelled");
    assert_eq!(service.release("v2")["status"], "broken");
}

#[test]
fn an_alarm_of_cloudwatch_breaks_a_release() {
    require!("redis-server", "serf", "aws", "moto_server");
    let scope = Scope::new();
    let moto = Moto::start(&scope);
    let aws = |arguments: &str| {
        let mut command = scope.command("aws");
        moto.environment(&mut command);
        let output = command.env("AWS_DEFAULT_REGION", "eu-west-1").args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let metric = "--namespace app --metric-name errors --statistic Sum --period 60 --evaluation-periods 1";
    aws(&format!(
        "cloudwatch put-metric-alarm --alarm-name app-5xx {metric} --threshold 1 \
         --comparison-operator GreaterThanThreshold"
    ));
    aws("cloudwatch set-alarm-state --alarm-name app-5xx --state-value OK --state-reason calm");
    let gate = json!({ "when": "roll", "cloudwatch_alarms": ["app-5xx"], "failures": 1 });
    let mut service = Service::with_boxes(&scope, &BOXES, policy(&gate, json!({})));
    service.process().kill();
    let account = [format!("AWS_ENDPOINT_URL={}", moto.url()), "AWS_DEFAULT_REGION=eu-west-1".to_owned()];
    let keys = ["AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test"];
    let _service = service.another_by(service.port, &["env", &account[0], &account[1], keys[0], keys[1]]);
    for tag in ["v1", "v2"] {
        service.publish(tag);
        let id = service.start_deploy("staging", json!({}));
        let mut second = service.worker("staging", "box-2");
        second.joins(&id);
        service.worker("staging", "box-1").deploys(&id, tag);
        if tag == "v1" {
            second.deploys(&id, tag);
            service.wait_state(&id, "deployed");
            aws("cloudwatch set-alarm-state --alarm-name app-5xx --state-value ALARM --state-reason many");
        } else {
            let ended = service.wait_state(&id, "broken");
            assert!(ended["reason"].as_str().unwrap_or_default().contains("the alarm app-5xx rings: many"), "{ended}");
        }
    }
}

#[test]
fn a_program_is_told_who_serves_what() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let told = scope.dir().join("told");
    let gate = scope.script(
        "compare",
        &format!("cat >{0}.json; echo \"$DEPLOY_TAG on $DEPLOY_BOXES, not on $DEPLOY_OTHERS\" >>{0}", told.display()),
    );
    let gate = json!({ "when": "roll", "command": [gate], "failures": 1 });
    let service = Service::with_boxes(&scope, &BOXES, policy(&gate, json!({})));
    for tag in ["v1", "v2"] {
        service.publish(tag);
        let id = service.start_deploy("staging", json!({}));
        let mut second = service.worker("staging", "box-2");
        second.joins(&id);
        service.worker("staging", "box-1").deploys(&id, tag);
        wait_until(SOON, "the gate is asked", || {
            std::fs::read_to_string(&told).is_ok_and(|lines| lines.contains(&format!("{tag} on")))
        });
        second.deploys(&id, tag);
        service.wait_state(&id, "deployed");
    }
    let lines = std::fs::read_to_string(&told).unwrap();
    let first = lines.lines().find(|line| line.starts_with("v1")).unwrap();
    assert_eq!(first, "v1 on box-1, not on ", "nothing was there before");
    assert!(lines.lines().any(|line| line == "v2 on box-1, not on box-2"), "{lines}");
    let deploy = std::fs::read_to_string(told.with_extension("json")).unwrap();
    let deploy: Value = serde_json::from_str(&deploy).unwrap();
    assert_eq!((&deploy["tag"], &deploy["last_good"]), (&json!("v2"), &json!("v1")), "{deploy}");
    assert_eq!(deploy["boxes"].as_array().unwrap().len(), 2, "{deploy}");
}

fn box_of<'a>(deploy: &'a Value, name: &str) -> &'a Value {
    let boxes = deploy["boxes"].as_array().unwrap();
    boxes.iter().find(|row| row["box"] == name).unwrap_or(&Value::Null)
}
