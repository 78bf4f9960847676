//! What real load balancers do and moto does not: they throttle, drain and take their time.

use std::time::Duration;

use serde_json::{Value, json};

use crate::edges::actor::{Act, Outcome};
use crate::edges::aws_script::Script;
use crate::support::{Scope, free_port, require};

const HEALTH: &str = "DescribeTargetHealth";

fn target(drain: &str) -> Value {
    let arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/app/0123456789abcdef";
    json!([{"elbv2": {"target_group_arn": arn, "target_id": "10.0.0.7", "port": 8080, "drain": drain}}])
}

fn act(url: &str, act: &Act) -> Outcome {
    act.run(&Scope::new(), |command| {
        command.env("AWS_ENDPOINT_URL", url).env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
    })
}

#[test]
fn registering_waits_for_health_and_rides_throttling_out() {
    require!("aws");
    let aws = Script::start(&[
        ("RegisterTargets", &["Throttling", "ok"]),
        (
            HEALTH,
            &[
                "initial Elb.RegistrationInProgress",
                "RequestLimitExceeded",
                "initial Elb.InitialHealthChecking",
                "healthy -",
            ],
        ),
    ]);
    let outcome = act(aws.url(), &Act::new("register", &target("30s")));
    let said = ["initial (Elb.RegistrationInProgress)", "initial (Elb.InitialHealthChecking)"];
    assert_eq!(outcome.progress, said.map(|words| format!("target group app: {words}")));
    outcome.ok();
    let calls = aws.calls();
    assert_eq!(calls.len(), 6, "{calls:?}");
    let looks: Vec<f64> = calls[3..].iter().map(|(_, after)| *after).collect();
    assert!(looks[0] >= 2.0 && looks[2] >= 2.0, "looks are 2 s apart at least: {calls:?}");
}

#[test]
fn what_is_never_healthy_is_told_with_its_last_state() {
    require!("aws");
    let aws = Script::start(&[("RegisterTargets", &["ok"]), (HEALTH, &["unhealthy Target.ResponseCodeMismatch"])]);
    let outcome = act(aws.url(), &Act::new("register", &target("30s")).within(Duration::from_secs(4)));
    assert!(outcome.took < Duration::from_secs(20), "{outcome:?}");
    let error = outcome.error();
    assert!(error.contains("not in service") && error.contains("unhealthy (Target.ResponseCodeMismatch)"), "{error}");
}

#[test]
fn draining_ends_when_the_target_is_unused() {
    require!("aws");
    let draining = "draining Target.DeregistrationInProgress";
    let aws = Script::start(&[
        ("DeregisterTargets", &["ok"]),
        (HEALTH, &["healthy -", draining, "Throttling", draining, "unused Target.NotRegistered"]),
    ]);
    let outcome = act(aws.url(), &Act::new("deregister", &target("60s")));
    assert!(outcome.took < Duration::from_secs(50), "{outcome:?}");
    assert_eq!(outcome.progress, vec!["target group app: draining (Target.DeregistrationInProgress)"; 2]);
    outcome.ok();
}

#[test]
fn draining_ends_after_its_time() {
    require!("aws");
    let aws = Script::start(&[
        ("DeregisterTargets", &["ok"]),
        (HEALTH, &["healthy -", "draining Target.DeregistrationInProgress"]),
    ]);
    let outcome = act(aws.url(), &Act::new("deregister", &target("4s")));
    let took = outcome.took;
    outcome.ok();
    assert!(took >= Duration::from_secs(4) && took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_call_that_does_not_get_through_is_tried_a_few_times() {
    require!("aws");
    let url = format!("http://127.0.0.1:{}", free_port());
    let outcome = act(&url, &Act::new("in_service", &target("30s")));
    assert!(outcome.took > Duration::from_secs(10) && outcome.took < Duration::from_secs(60), "{outcome:?}");
    let error = outcome.error();
    assert!(error.contains("Could not connect") && error.contains("AWS_ENDPOINT_URL"), "{error}");
}
