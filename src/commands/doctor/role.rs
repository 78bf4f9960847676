//! A role: its compose file renders, its load balancers answer.

use anyhow::{Context as _, Result};

use super::Finding;
use crate::{
    agent,
    api::Kind,
    compose::{DeployVars, Project},
    config::{Config, RoleConfig},
    load_balancer::Waiting,
    names::{Environment, Role},
    process::never,
};

/// Everything that is to be said of one role.
pub fn check(config: &Config, role: &Role, environment: Option<&Environment>) -> Vec<(String, Finding)> {
    let Ok(own) = config.role(role) else { return Vec::new() };
    let vars = match example(role, environment) {
        Ok(vars) => vars,
        Err(error) => return vec![(format!("role {role}"), Err(error))],
    };
    let mut findings = vec![(format!("{role}, compose file"), renders(config, role, &vars))];
    if !own.load_balancers.is_empty() {
        findings.push((format!("{role}, load balancers"), balancers(config, own, &vars)));
    }
    findings
}

/// A deploy that nobody starts: it shows whether the compose file wants variables that no deploy has.
fn example(role: &Role, environment: Option<&Environment>) -> Result<DeployVars> {
    let environment = environment.context("its environment is not known: see the Serf tag environment")?;
    Ok(DeployVars {
        tag: "doctor".parse()?,
        role: role.clone(),
        environment: environment.clone(),
        id: "doctor".to_owned(),
        kind: Kind::Manual,
    })
}

fn renders(config: &Config, role: &Role, vars: &DeployVars) -> Finding {
    let rendered = Project::new(config, role)?.render(vars, &never)?;
    Ok(format!("renders; the image would be {}", rendered.image()))
}

fn balancers(config: &Config, own: &RoleConfig, vars: &DeployVars) -> Finding {
    let balancers = agent::balancers(config, own, vars, &never)?;
    let count = own.load_balancers.len();
    let state = if balancers.in_service(&Waiting::quietly(&never, None))? {
        "this box is in service"
    } else {
        "this box is not in service"
    };
    Ok(format!("{count} answer; {state}"))
}
