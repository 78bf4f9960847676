//! A role: its compose file renders, its load balancers answer.

use anyhow::{Context as _, Result};

use super::{Finding, Limit};
use crate::{
    agent,
    api::Kind,
    compose::{DeployVars, Project},
    config::{Config, RoleConfig},
    load_balancer::Waiting,
    names::{Environment, Role},
};

/// Everything that is to be said of one role.
pub fn check(config: &Config, role: &Role, environment: Option<&Environment>, limit: &Limit) -> Vec<(String, Finding)> {
    let Ok(own) = config.role(role) else { return Vec::new() };
    let vars = match example(role, environment) {
        Ok(vars) => vars,
        Err(error) => return vec![(format!("role {role}"), Err(error))],
    };
    let mut findings = vec![(format!("{role}, compose file"), renders(config, role, &vars, &Limit::new()))];
    // Nothing is said of one that can be read.
    if let Err(damaged) = agent::Journal::open(&config.state_dir, role) {
        findings.push((format!("{role}, journal"), Err(damaged)));
    }
    if !own.load_balancers.is_empty() {
        findings.push((format!("{role}, load balancers"), balancers(config, own, &vars, limit)));
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

fn renders(config: &Config, role: &Role, vars: &DeployVars, limit: &Limit) -> Finding {
    let rendered = Project::new(config, role)?.render(vars, &|| limit.is_over());
    let finding = rendered.map(|rendered| format!("renders; the image would be {}", rendered.image()));
    limit.explain(finding, "see what the compose program waits for")
}

fn balancers(config: &Config, own: &RoleConfig, vars: &DeployVars, limit: &Limit) -> Finding {
    let over = || limit.is_over();
    let in_service = agent::balancers(config, &own.load_balancers, vars, &over)
        .and_then(|balancers| balancers.in_service(&Waiting::quietly(&over, None)));
    let count = own.load_balancers.len();
    let finding = in_service.map(|inside| {
        format!("{count} answer; {}", if inside { "this box is in service" } else { "this box is not in service" })
    });
    limit.explain(finding, "see that the load balancer's programs answer, for example `aws sts get-caller-identity`")
}
