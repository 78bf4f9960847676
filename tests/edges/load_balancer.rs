//! Target groups and classic load balancers of moto, by the real AWS CLI.

use std::time::Duration;

use serde_json::{Value, json};

use crate::edges::actor::{Act, Outcome};
use crate::support::{Moto, Scope, require};

fn act(scope: &Scope, moto: &Moto, act: &Act) -> Outcome {
    act.run(scope, |command| moto.environment(command))
}

#[test]
fn an_address_leaves_a_target_group_and_returns() {
    require!("aws", "moto_server");
    let scope = Scope::new();
    let moto = Moto::start(&scope);
    let group = moto.target_group("app", "ip");
    group.register("127.0.0.12");
    let lbs = json!([{"elbv2": {"target_group_arn": group.arn(), "target_id": "127.0.0.11", "port": 80}}]);
    let act = |verb: &str| act(&scope, &moto, &Act::new(verb, &lbs));

    let never_registered = act("deregister");
    assert!(never_registered.took < Duration::from_secs(20), "there is nothing to wait for: {never_registered:?}");
    never_registered.ok();
    assert_eq!(act("in_service").ok(), false);
    let registering = act("register");
    assert!(registering.took < Duration::from_secs(20), "the first look is enough: {registering:?}");
    registering.ok();
    assert_eq!(act("in_service").ok(), true);
    let mut survey = act("survey").ok();
    survey[0]["in_service"].as_array_mut().unwrap().sort_by_key(Value::to_string);
    let both = ["127.0.0.11:80", "127.0.0.12:80"];
    let mine = json!([{"key": group.arn(), "me": "127.0.0.11:80", "in_service": both}]);
    assert_eq!(survey, mine);

    let leaving = act("deregister");
    assert!(leaving.took < Duration::from_secs(20), "drained long before 30 s: {leaving:?}");
    leaving.ok();
    assert_eq!(group.registered().into_iter().collect::<Vec<_>>(), ["127.0.0.12"]);
}

#[test]
fn several_are_left_and_joined_and_count_by_themselves() {
    require!("aws", "moto_server");
    let scope = Scope::new();
    let moto = Moto::start(&scope);
    let (group, classic) = (moto.target_group("app", "instance"), moto.load_balancer("old"));
    let id = moto.instances(1).remove(0);
    let lbs = json!([
        {"elbv2": {"target_group_arn": group.arn()}},
        {"elb": {"name": classic.name(), "drain": "2s"}},
    ]);
    let act = |verb: &str| act(&scope, &moto, &Act::new(verb, &lbs).auto(&id));

    act("register").ok();
    assert!(group.registered().contains(&id) && classic.registered().contains(&id));
    let mine: Vec<Value> = act("survey").ok().as_array().unwrap().iter().map(|survey| survey["me"].clone()).collect();
    assert_eq!(mine, [format!("{id}:80"), id.clone()]);
    group.deregister(&id);
    assert_eq!(act("in_service").ok(), false, "in service means all");
    act("deregister").ok();
    assert!(group.registered().is_empty() && classic.registered().is_empty());
}

#[test]
fn what_aws_refuses_is_one_line_that_says_what_to_check() {
    require!("aws", "moto_server");
    let scope = Scope::new();
    let moto = Moto::start(&scope);
    let arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/nope/0123456789abcdef";
    let nope = json!([{"elbv2": {"target_group_arn": arn, "target_id": "i-0abc", "port": 80}}]);
    let error = act(&scope, &moto, &Act::new("survey", &nope)).error();
    assert!(error.starts_with("target group nope: ") && error.contains("TargetGroupNotFound"), "{error}");
    assert!(error.contains("names and ids under load_balancers") && !error.contains('\n'), "{error}");

    let classic = json!([{"elb": {"name": "nope", "instance_id": "i-0abc"}}]);
    let error = act(&scope, &moto, &Act::new("deregister", &classic)).error();
    assert!(error.contains("LoadBalancerNotFound") && error.contains("names and ids"), "{error}");

    let anonymous = Act::new("survey", &nope).run(&scope, |command| {
        moto.environment(command);
        command.env_remove("AWS_ACCESS_KEY_ID").env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", scope.dir());
    });
    let error = anonymous.error();
    assert!(error.contains("Unable to locate credentials") && error.contains("instance profile"), "{error}");
}
