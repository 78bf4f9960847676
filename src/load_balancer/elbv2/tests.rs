use std::{cell::RefCell, time::Duration};

use super::*;
use crate::load_balancer::ServingTargets;

const ARN: &str = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/app/0123456789abcdef";

fn entry(id: &str, port: Option<u16>) -> Elbv2 {
    Elbv2 { target_group_arn: ARN.to_owned(), target_id: id.to_owned(), port, drain: Duration::from_secs(30) }
}

fn no_auto(auto: Auto) -> Result<String> {
    panic!("{auto:?} is not needed")
}

fn no_ask(_: &str, program: &Program) -> Result<String> {
    panic!("{program:?} is not needed")
}

fn argv(program: &Program) -> String {
    program.argv.join(" ")
}

#[test]
fn the_argument_lists_name_region_group_and_target() {
    let aws = resolve(&entry("i-0abc", Some(8080)), &no_auto, &no_ask).unwrap();
    let call = |verb| format!("aws --region eu-west-1 --output json elbv2 {verb} --target-group-arn {ARN}");
    assert_eq!(argv(&aws.list), call("describe-target-health"));
    let target = "--targets Id=i-0abc,Port=8080";
    assert_eq!(argv(&aws.look), format!("{} {target}", call("describe-target-health")));
    assert_eq!(argv(&aws.register), format!("{} {target}", call("register-targets")));
    assert_eq!(argv(&aws.deregister), format!("{} {target}", call("deregister-targets")));
    assert_eq!((aws.name.as_str(), aws.key.as_str(), aws.me.as_str()), ("target group app", ARN, "i-0abc:8080"));
}

#[test]
fn what_is_not_written_is_found_out() {
    let asked = RefCell::new(Vec::new());
    let found = |target_type: &str, id: &str, port| {
        let answer = format!(
            r#"{{"TargetGroups": [{{"TargetGroupArn": "{ARN}", "Port": 80, "TargetType": "{target_type}"}}]}}"#
        );
        let ask = |_: &str, program: &Program| {
            asked.borrow_mut().push(argv(program));
            Ok(answer.clone())
        };
        let auto = |auto| {
            Ok(match auto {
                Auto::InstanceId => "i-0abc",
                Auto::LocalIpv4 => "10.0.0.7",
                Auto::Region => panic!("the ARN tells"),
            }
            .to_owned())
        };
        resolve(&entry(id, port), &auto, &ask).map(|aws| aws.me).map_err(|e| e.to_string())
    };
    assert_eq!(found("instance", "auto", None), Ok("i-0abc:80".to_owned()));
    assert_eq!(found("ip", "auto", Some(8080)), Ok("10.0.0.7:8080".to_owned()));
    assert_eq!(found("ip", "10.0.0.8", None), Ok("10.0.0.8:80".to_owned()));
    assert!(found("lambda", "auto", None).unwrap_err().contains("type lambda"));
    let describe =
        format!("aws --region eu-west-1 --output json elbv2 describe-target-groups --target-group-arns {ARN}");
    assert!(asked.borrow().iter().all(|argv| *argv == describe), "{asked:?}");
}

#[test]
fn what_is_no_target_or_group_is_refused() {
    for bad in ["", "web-1", "i-", "i-0abc,Port=1", "10.0.0", "--help"] {
        let error = resolve(&entry(bad, Some(80)), &no_auto, &no_ask).unwrap_err().to_string();
        assert!(error.starts_with(&format!("target_id {bad:?} is neither")), "{error}");
    }
    let ok = resolve(&entry("fd00::1", Some(80)), &no_auto, &no_ask).unwrap();
    assert_eq!(ok.me, "fd00::1:80");
    for bad in [
        "app",
        "",
        "arn:aws:elasticloadbalancing:eu-west-1:1:loadbalancer/app/x/y",
        "arn:aws:elasticloadbalancing::1:targetgroup/x/y",
    ] {
        let entry = Elbv2 { target_group_arn: bad.to_owned(), ..entry("i-0abc", Some(80)) };
        let error = resolve(&entry, &no_auto, &no_ask).unwrap_err().to_string();
        assert!(error.contains("is not one: write arn:aws:"), "{error}");
    }
}

/// In the words of a group behind an application load balancer, and of one behind a network load balancer.
const RECORDED: &str = r#"{"TargetHealthDescriptions": [
    {"Target": {"Id": "i-1", "Port": 8080}, "HealthCheckPort": "8080", "TargetHealth": {"State": "healthy"},
     "AdministrativeOverride": {"State": "no_override", "Reason": "AdministrativeOverride.NoOverride", "Description": "No override is currently active on target"}},
    {"Target": {"Id": "i-2", "Port": 8080}, "HealthCheckPort": "8080",
     "TargetHealth": {"State": "draining", "Reason": "Target.DeregistrationInProgress", "Description": "Target deregistration is in progress"}},
    {"Target": {"Id": "i-3", "Port": 8080}, "HealthCheckPort": "8080",
     "TargetHealth": {"State": "initial", "Reason": "Elb.RegistrationInProgress", "Description": "Target registration is in progress"}},
    {"Target": {"Id": "i-4", "Port": 8080}, "HealthCheckPort": "8080",
     "TargetHealth": {"State": "unhealthy", "Reason": "Target.ResponseCodeMismatch", "Description": "Health checks failed with these codes: [502]"}},
    {"Target": {"Id": "i-5", "Port": 8080}, "HealthCheckPort": "8080",
     "TargetHealth": {"State": "unhealthy.draining", "Reason": "Target.FailedHealthChecks", "Description": "Health checks failed"}},
    {"Target": {"Id": "i-6", "Port": 8080}, "HealthCheckPort": "8080",
     "TargetHealth": {"State": "unused", "Reason": "Target.NotInUse", "Description": "Target group is not configured to receive traffic from the load balancer"}},
    {"Target": {"Id": "i-7", "Port": 8080}, "HealthCheckPort": "8080",
     "TargetHealth": {"State": "unused", "Reason": "Target.NotRegistered", "Description": "Target is not registered to the target group"}},
    {"Target": {"Id": "i-8", "Port": 8080}, "TargetHealth": {"State": "unavailable", "Reason": "Elb.InternalError", "Description": "Target health is unavailable"}},
    {"Target": {"Id": "i-9", "Port": 8080}, "TargetHealth": {"State": "unavailable", "Reason": "Target.HealthCheckDisabled", "Description": "Health checks are not enabled"}},
    {"Target": {"Id": "i-1", "Port": 9090}, "TargetHealth": {"State": "some-day", "Reason": "Elb.New"}}]}"#;

#[test]
fn only_who_gets_requests_counts() {
    let count = |id| resolve(&entry(id, Some(8080)), &no_auto, &no_ask).unwrap().count(read(RECORDED).unwrap());
    let in_service = vec!["i-1:8080".to_owned(), "i-9:8080".to_owned()];
    let survey = ServingTargets { key: ARN.to_owned(), me: "i-1:8080".to_owned(), in_service };
    assert_eq!(count("i-1"), survey);
    assert!(!count("i-2").in_service.contains(&"i-2:8080".to_owned()), "who drains is not in service");
}

#[test]
fn recorded_states_of_this_box() {
    let state = |id, port| resolve(&entry(id, Some(port)), &no_auto, &no_ask).unwrap().find_me(read(RECORDED).unwrap());
    let between = |words: &str| TargetState::Between(words.to_owned());
    assert_eq!(state("i-1", 8080), TargetState::InService);
    assert_eq!(
        state("i-2", 8080),
        between("draining (Target.DeregistrationInProgress: Target deregistration is in progress)")
    );
    assert_eq!(state("i-3", 8080), between("initial (Elb.RegistrationInProgress: Target registration is in progress)"));
    assert_eq!(state("i-7", 8080), TargetState::Out);
    assert_eq!(state("i-404", 8080), TargetState::Out);
    assert_eq!(state("i-1", 9090), between("some-day (Elb.New)"));
    for waits in ["i-4", "i-5", "i-6", "i-8"] {
        assert!(matches!(state(waits, 8080), TargetState::Between(_)), "{waits}");
    }
    assert!(read("{}").is_err() && read("").is_err());
    assert!(read(r#"{"TargetHealthDescriptions": []}"#).unwrap().is_empty());
}
