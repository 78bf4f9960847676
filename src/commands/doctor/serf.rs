//! Serf: the agent answers, and its tags say what the configuration knows.

use anyhow::{Context as _, Result, anyhow, bail};

use super::Finding;
use crate::{
    agent,
    config::Config,
    names::{BoxName, Environment, Place, Role},
    process::never,
    serf::{LocalNode, Member},
    tags,
};

/// What the agent of this box says.
pub struct SerfView {
    node: LocalNode,
    members: Vec<Member>,
}

/// Asks the agent.
pub fn look(config: &Config) -> Result<SerfView> {
    let serf = agent::serf(config)?;
    Ok(SerfView { node: serf.local_node(&never)?, members: serf.members(&never)? })
}

/// The environment of this box, as far as it is known.
pub fn environment(config: &Config, seen: &Result<SerfView>) -> Option<Environment> {
    let tag = || seen.as_ref().ok()?.node.tags.get("environment")?.parse().ok();
    config.environment.clone().or_else(tag)
}

/// Whether the agent was told of roles: then this is a box, whatever its configuration lacks.
pub fn names_roles(seen: &Result<SerfView>) -> bool {
    seen.as_ref().is_ok_and(|seen| seen.node.tags.contains_key("images"))
}

/// Everything that is to be said of Serf.
pub fn check(config: &Config, seen: &Result<SerfView>) -> Vec<(String, Finding)> {
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => return vec![("serf".to_owned(), Err(anyhow!("{error:#}")))],
    };
    let environment = tag_environment(config, seen);
    let mut findings = vec![("serf".to_owned(), agent(config, seen))];
    let images = seen.node.tags.get("images").map_or("", String::as_str);
    if tags::roles(images).next().is_none() {
        let advice = "the tag is missing: set it to this box's roles, comma separated, in the agent's configuration";
        findings.push(("serf tag images".to_owned(), Err(anyhow!(advice))));
    }
    for role in tags::roles(images) {
        let place = environment.as_ref().ok();
        findings.push((format!("serf tag images, {}", role.escape_debug()), role_of(config, seen, role, place)));
    }
    findings.push(("serf tag environment".to_owned(), environment.map(|environment| environment.to_string())));
    let zone =
        tags::zone(&seen.node.tags, &config.zone_tag).context("mend the tag: this box counts as one without a zone");
    if let Some(zone) = zone.transpose() {
        findings.push((format!("serf tag {}", config.zone_tag), zone.map(|zone| zone.to_string())));
    }
    findings
}

fn agent(config: &Config, seen: &SerfView) -> Finding {
    let name: BoxName = match &config.box_name {
        Some(name) => name.clone(),
        None => seen.node.name.parse().context("the node name cannot be a box's: write \"box\"")?,
    };
    let members = seen.members.len();
    Ok(format!("{} answers; this box is {name}; {members} known", config.serf_rpc_addr))
}

fn tag_environment(config: &Config, seen: &SerfView) -> Result<Environment> {
    let tag = seen.node.tags.get("environment");
    let tag = tag.context("the tag is missing: set it in the agent's configuration, or no event is for this box")?;
    let environment: Environment = tag.parse().context("mend the agent's configuration")?;
    match &config.environment {
        Some(other) if *other != environment => {
            bail!("is {environment}, but \"environment\" in the configuration is {other}: make them the same")
        }
        _ => Ok(environment),
    }
}

fn role_of(config: &Config, seen: &SerfView, role: &str, environment: Option<&Environment>) -> Finding {
    let role: Role = role.parse().context("mend the tag in the agent's configuration")?;
    config.role(&role)?;
    let Some(environment) = environment else { return Ok("configured".to_owned()) };
    let place = Place { environment: environment.clone(), role };
    let live = seen.members.iter().filter(|member| member.is_live_in(&place)).count();
    Ok(format!("configured; {live} live in {environment}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(config: &str, images: &str, environment: &str) -> Vec<(String, bool)> {
        let tags = [("images", images), ("environment", environment)];
        let tags = tags.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let seen = Ok(SerfView { node: LocalNode { name: "box-1".to_owned(), tags }, members: Vec::new() });
        let findings = check(&Config::parse(config).unwrap(), &seen);
        findings.into_iter().map(|(name, finding)| (name, finding.is_ok())).collect()
    }

    #[test]
    fn every_role_of_the_tag_must_be_configured() {
        let found = findings(r#"{"roles": {"app": {"load_balancers": []}}}"#, "app,web", "staging");
        let expected = [
            ("serf", true),
            ("serf tag images, app", true),
            ("serf tag images, web", false),
            ("serf tag environment", true),
        ];
        assert_eq!(found, expected.map(|(name, ok)| (name.to_owned(), ok)));
    }

    #[test]
    fn two_opinions_of_the_environment_are_a_fault() {
        let found = findings(r#"{"environment": "production"}"#, "", "staging");
        assert_eq!(found[1..], [("serf tag images".to_owned(), false), ("serf tag environment".to_owned(), false)]);
    }
}
