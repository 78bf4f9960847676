//! [Deployments](https://docs.gitlab.com/api/deployments/) of a project at GitLab. They belong to a commit, and have neither
//! a text nor a place for ours: one that runs with our commit is taken for ours.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    post::{Call, Refused},
    token,
};
use crate::{
    api::{Turn, TurnKind},
    config::Gitlab,
    secret::Secret,
};

/// A deployment as GitLab shows it.
#[derive(Deserialize)]
struct Deployment {
    id: u64,
    sha: String,
    status: String,
}

/// Tells GitLab where a deploy stands. `commit`: what its release was built from.
pub fn send(gitlab: &Gitlab, turn: &Turn, commit: Option<&str>) -> Result<(), Refused> {
    let (Some(deploy), Some(status)) = (&turn.deploy, status(turn.turn)) else { return Ok(()) };
    let Some(commit) = commit else {
        let why =
            format!("{} {} has no commit, and GitLab wants one: publish it with --commit", deploy.role, deploy.tag);
        return Err(Refused::No { why, wait: None });
    };
    let site = Site { gitlab, token: token(&gitlab.token_file)? };
    let listed = format!("?environment={}&order_by=id&sort=desc&per_page=20", deploy.environment);
    let text = site.call("GET", &listed, None)?;
    let found: Vec<Deployment> = serde_json::from_str(&text).context("GitLab's list of deployments")?;
    match found.iter().find(|one| one.sha == commit && one.status == "running") {
        Some(_) if status == "running" => Ok(()),
        Some(one) => site.call("PUT", &format!("/{}", one.id), Some(&json!({"status": status}))).map(drop),
        None => {
            let body = json!({
                "environment": deploy.environment, "sha": commit, "ref": commit, "tag": false, "status": status,
            });
            site.call("POST", "", Some(&body)).map(drop)
        }
    }
}

/// GitLab's word; none for what changes nothing about a deployment.
fn status(turn: TurnKind) -> Option<&'static str> {
    match turn {
        TurnKind::Started | TurnKind::GoingBack => Some("running"),
        TurnKind::Deployed => Some("success"),
        TurnKind::Broken | TurnKind::Failed => Some("failed"),
        TurnKind::Cancelled => Some("canceled"),
        TurnKind::Step | TurnKind::Stuck | TurnKind::NeedsApproval | TurnKind::Frozen | TurnKind::Ended => None,
    }
}

struct Site<'a> {
    gitlab: &'a Gitlab,
    token: Secret,
}

impl Site<'_> {
    fn call(&self, method: &'static str, path: &str, body: Option<&Value>) -> Result<String, Refused> {
        let project = self.gitlab.repository.replace('/', "%2F");
        let url = format!("{}/projects/{project}/deployments{path}", self.gitlab.api.trim_end_matches('/'));
        let (headers, body) = ([("private-token", self.token.expose())], body.map(Value::to_string));
        Call { method, url: &url, headers: &headers, body: body.as_deref(), secret: &self.token }.make()
    }
}
