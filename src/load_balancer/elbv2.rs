//! A target in a target group of an application or network load balancer
//! ([target health](https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_TargetHealth.html)).

use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{
    Auto, TargetState,
    aws::{self, Aws},
    elb,
    looks::Targets,
};
use crate::{config::Elbv2, names::quoted, process::Program};

/// `ask` calls AWS: for the group's port or the type of its targets, and only where they are needed.
pub(super) fn resolve(
    entry: &Elbv2,
    auto: &dyn Fn(Auto) -> Result<String>,
    ask: &dyn Fn(&str, &Program) -> Result<String>,
) -> Result<Aws> {
    let group = Group::parse(&entry.target_group_arn)?;
    let (id, port) = match (entry.target_id.as_str(), entry.port) {
        (id, Some(port)) if id != "auto" => (id.to_owned(), port),
        (id, port) => {
            let described = group.read_description(&ask(&group.title(), &group.describe())?)?;
            let id = match (id, described.target_type.as_str()) {
                ("auto", "instance") => auto(Auto::InstanceId)?,
                ("auto", "ip") => auto(Auto::LocalIpv4)?,
                (id, "instance" | "ip") => id.to_owned(),
                (_, other) => {
                    bail!("{}: its targets are of type {other}: a box is an instance or an ip", group.title())
                }
            };
            let port = port.or(described.port).with_context(|| format!("{}: write its port", group.title()))?;
            (id, port)
        }
    };
    ensure!(
        elb::is_instance_id(&id) || id.parse::<IpAddr>().is_ok(),
        "target_id {} is neither an instance id (i-…) nor an IP address: write one, or auto",
        quoted(&id)
    );
    Ok(group.target(&id, port, entry))
}

struct Group<'a> {
    arn: &'a str,
    region: &'a str,
    name: &'a str,
}

impl<'a> Group<'a> {
    fn parse(arn: &'a str) -> Result<Self> {
        let parts: Vec<&str> = arn.split(':').collect();
        if let ["arn", _, "elasticloadbalancing", region, _, resource] = parts[..]
            && let Some((name, _)) = resource.strip_prefix("targetgroup/").and_then(|rest| rest.split_once('/'))
            && !region.is_empty()
        {
            return Ok(Self { arn, region, name });
        }
        bail!(
            "target_group_arn {} is not one: write arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID",
            quoted(arn)
        )
    }

    fn title(&self) -> String {
        format!("target group {}", self.name)
    }

    fn describe(&self) -> Program {
        aws::program(self.region, &["elbv2", "describe-target-groups", "--target-group-arns", self.arn])
    }

    fn read_description(&self, answer: &str) -> Result<Description> {
        let groups: Descriptions =
            serde_json::from_str(answer).with_context(|| format!("{}: cannot read what AWS answers", self.title()))?;
        groups.target_groups.into_iter().next().with_context(|| format!("{}: AWS does not know it", self.title()))
    }

    fn target(&self, id: &str, port: u16, entry: &Elbv2) -> Aws {
        let target = format!("Id={id},Port={port}");
        let call = |verb| ["elbv2", verb, "--target-group-arn", self.arn];
        let on_target = |verb| aws::program(self.region, &[&call(verb)[..], &["--targets", &target]].concat());
        Aws {
            name: self.title(),
            key: self.arn.to_owned(),
            me: format!("{id}:{port}"),
            drain: entry.drain,
            list: aws::program(self.region, &call("describe-target-health")),
            look: on_target("describe-target-health"),
            register: on_target("register-targets"),
            deregister: on_target("deregister-targets"),
            read,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Descriptions {
    target_groups: Vec<Description>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    target_type: String,
    port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    target_health_descriptions: Vec<Seen>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Seen {
    target: Target,
    target_health: Health,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Target {
    id: String,
    port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    state: String,
    reason: Option<String>,
    description: Option<String>,
}

fn read(answer: &str) -> Result<Targets> {
    let answer: Answer = serde_json::from_str(answer)?;
    let target = |Target { id, port }| port.map_or_else(|| id.clone(), |port| format!("{id}:{port}"));
    Ok(answer
        .target_health_descriptions
        .into_iter()
        .map(|seen| (target(seen.target), seen.target_health.state()))
        .collect())
}

impl Health {
    /// `healthy` targets get requests. So do those whose health nobody checks. A group without any healthy target sends
    /// requests to all ("fails open"); that is an emergency, and no reason to count on them.
    fn state(self) -> TargetState {
        match (self.state.as_str(), self.reason.as_deref()) {
            ("healthy", _) | ("unavailable", Some("Target.HealthCheckDisabled")) => TargetState::InService,
            // A target that is `unused` for another reason is registered: its group may go into use at any time.
            (_, Some("Target.NotRegistered")) | ("unused", None) => TargetState::Out,
            _ => {
                let why: Vec<String> = self.reason.into_iter().chain(self.description).collect();
                TargetState::Between(if why.is_empty() {
                    self.state
                } else {
                    format!("{} ({})", self.state, why.join(": "))
                })
            }
        }
    }
}

#[cfg(test)]
mod tests;
