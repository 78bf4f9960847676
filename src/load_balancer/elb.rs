//! An instance behind a classic load balancer
//! ([instance state](https://docs.aws.amazon.com/elasticloadbalancing/2012-06-01/APIReference/API_InstanceState.html)).

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::{
    Auto, TargetState,
    aws::{self, Aws},
    looks::Targets,
};
use crate::{config::Elb, names::quoted};

pub(super) fn resolve(entry: &Elb, auto: &dyn Fn(Auto) -> Result<String>) -> Result<Aws> {
    let name = &entry.name;
    ensure!(
        !name.is_empty() && !name.starts_with('-') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'),
        "{} is no load balancer's name: use a-z, A-Z, 0-9 and -",
        quoted(name)
    );
    let id = if entry.instance_id == "auto" { auto(Auto::InstanceId)? } else { entry.instance_id.clone() };
    ensure!(is_instance_id(&id), "instance_id {} is no instance id: write i-…, or auto", quoted(&id));
    let region = auto(Auto::Region)?;
    let call = |verb| ["elb", verb, "--load-balancer-name", name.as_str()];
    let on_instance = |verb| aws::program(&region, &[&call(verb)[..], &["--instances", &id]].concat());
    Ok(Aws {
        name: format!("load balancer {name}"),
        key: name.clone(),
        drain: entry.drain,
        list: aws::program(&region, &call("describe-instance-health")),
        look: on_instance("describe-instance-health"),
        register: on_instance("register-instances-with-load-balancer"),
        deregister: on_instance("deregister-instances-from-load-balancer"),
        read,
        me: id,
    })
}

pub(super) fn is_instance_id(text: &str) -> bool {
    text.strip_prefix("i-").is_some_and(|id| !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric()))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    instance_states: Vec<Seen>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Seen {
    instance_id: String,
    state: String,
    description: Option<String>,
}

fn read(answer: &str) -> Result<Targets> {
    let answer: Answer = serde_json::from_str(answer)?;
    Ok(answer.instance_states.into_iter().map(|seen| (seen.instance_id.clone(), seen.state())).collect())
}

impl Seen {
    /// A draining instance is called `InService`, too; only its description tells.
    fn state(self) -> TargetState {
        let description = self.description.filter(|text| !text.is_empty() && text != "N/A");
        let says = |part| description.as_ref().is_some_and(|text| text.contains(part));
        match self.state.as_str() {
            "InService" if !says("deregistration currently in progress") => TargetState::InService,
            "OutOfService" if says("not currently registered") => TargetState::Out,
            state => TargetState::Between(description.map_or(state.to_owned(), |text| format!("{state} ({text})"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn resolved(name: &str, id: &str) -> Result<Aws> {
        let entry = Elb { name: name.to_owned(), instance_id: id.to_owned(), drain: Duration::from_secs(30) };
        resolve(&entry, &|auto| {
            Ok(match auto {
                Auto::InstanceId => "i-0abc",
                Auto::Region => "eu-west-1",
                Auto::LocalIpv4 => panic!("only instances stand behind it"),
            }
            .to_owned())
        })
    }

    #[test]
    fn the_argument_lists_name_region_load_balancer_and_instance() {
        let aws = resolved("app-lb", "auto").unwrap();
        let argv = |program: &crate::process::Program| program.argv.join(" ");
        let call = |verb| format!("aws --region eu-west-1 --output json elb {verb} --load-balancer-name app-lb");
        assert_eq!(argv(&aws.list), call("describe-instance-health"));
        assert_eq!(argv(&aws.look), call("describe-instance-health") + " --instances i-0abc");
        assert_eq!(argv(&aws.register), call("register-instances-with-load-balancer") + " --instances i-0abc");
        assert_eq!(argv(&aws.deregister), call("deregister-instances-from-load-balancer") + " --instances i-0abc");
        assert_eq!((aws.key.as_str(), aws.me.as_str()), ("app-lb", "i-0abc"));
    }

    #[test]
    fn what_is_no_name_or_instance_is_refused() {
        for bad in ["", "-app", "app lb", "app;rm"] {
            assert!(resolved(bad, "auto").unwrap_err().to_string().contains("is no load balancer's name"), "{bad}");
        }
        for bad in ["10.0.0.1", "i-", "i-0 i-1"] {
            assert!(resolved("app-lb", bad).unwrap_err().to_string().contains("is no instance id"), "{bad}");
        }
    }

    #[test]
    fn recorded_states_are_read() {
        let recorded = r#"{"InstanceStates": [
            {"InstanceId": "i-0abc", "State": "InService", "ReasonCode": "N/A", "Description": "N/A"},
            {"InstanceId": "i-1", "State": "InService", "ReasonCode": "N/A", "Description": "Instance deregistration currently in progress."},
            {"InstanceId": "i-2", "State": "OutOfService", "ReasonCode": "Instance", "Description": "Instance is not currently registered with the LoadBalancer."},
            {"InstanceId": "i-3", "State": "OutOfService", "ReasonCode": "Instance", "Description": "Instance has failed at least the UnhealthyThreshold number of health checks consecutively."},
            {"InstanceId": "i-4", "State": "OutOfService", "ReasonCode": "ELB", "Description": "Instance registration is still in progress."},
            {"InstanceId": "i-5", "State": "Unknown"}]}"#;
        let states: Vec<TargetState> = read(recorded).unwrap().into_iter().map(|(_, state)| state).collect();
        assert_eq!(states[0], TargetState::InService);
        assert_eq!(states[1].to_string(), "InService (Instance deregistration currently in progress.)");
        assert_eq!(states[2], TargetState::Out);
        assert!(matches!(&states[3], TargetState::Between(words) if words.contains("UnhealthyThreshold")));
        assert_eq!(states[4].to_string(), "OutOfService (Instance registration is still in progress.)");
        assert_eq!(states[5], TargetState::Between("Unknown".to_owned()));
        let survey = resolved("app-lb", "auto").unwrap().count(read(recorded).unwrap());
        assert_eq!(survey.in_service, ["i-0abc"]);
    }
}
