//! [Deployments](https://docs.github.com/en/rest/deployments) of a repository at GitHub.
//!
//! A deployment is found again by the deploy's id in its payload, so nothing about it is kept here, and a service that is
//! killed in between makes no second one.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    post::{Call, Refused},
    text::short,
    token,
};
use crate::{
    api::{Deploy, Turn, TurnKind},
    config::Github,
    secret::Secret,
};

/// The longest description that GitHub takes, in characters.
const DESCRIPTION: usize = 140;

/// A deployment as GitHub shows it.
#[derive(Deserialize)]
struct Deployment {
    id: u64,
    #[serde(default)]
    payload: Value,
}

/// Tells GitHub where a deploy stands. `commit`: what its release was built from; the tag names it where nobody knows.
pub fn send(github: &Github, turn: &Turn, commit: Option<&str>) -> Result<(), Refused> {
    let (Some(deploy), Some(state)) = (&turn.deploy, state(turn.turn)) else { return Ok(()) };
    let site = Site { github, token: token(&github.token_file)? };
    let id = match site.find(deploy)? {
        Some(id) => id,
        None => site.create(deploy, commit.unwrap_or(deploy.tag.as_str()))?,
    };
    let why = turn.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let mut status = json!({"state": state, "description": short(&format!("{}{why}", turn.text), DESCRIPTION)});
    let found = github.environment_urls.get(&deploy.environment).or(turn.url.as_ref());
    for (key, url) in [("log_url", turn.url.as_ref()), ("environment_url", found)] {
        if let Some(url) = url {
            status[key] = json!(url);
        }
    }
    site.call("POST", &format!("/{id}/statuses"), Some(&status)).map(drop)
}

/// GitHub's word; none for what says nothing about a deployment.
fn state(turn: TurnKind) -> Option<&'static str> {
    match turn {
        TurnKind::Started | TurnKind::GoingBack | TurnKind::Step | TurnKind::Stuck | TurnKind::NeedsApproval => {
            Some("in_progress")
        }
        TurnKind::Deployed => Some("success"),
        TurnKind::Broken => Some("failure"),
        TurnKind::Failed => Some("error"),
        TurnKind::Cancelled => Some("inactive"),
        TurnKind::Frozen | TurnKind::Ended => None,
    }
}

struct Site<'a> {
    github: &'a Github,
    token: Secret,
}

impl Site<'_> {
    fn find(&self, deploy: &Deploy) -> Result<Option<u64>, Refused> {
        let text = self.call("GET", &format!("?environment={}&per_page=100", deploy.environment), None)?;
        let found: Vec<Deployment> = serde_json::from_str(&text).context("GitHub's list of deployments")?;
        let is_ours = |payload: &Value| payload["deployctl"] == json!(deploy.id);
        Ok(found.into_iter().find(|deployment| is_ours(&deployment.payload)).map(|deployment| deployment.id))
    }

    fn create(&self, deploy: &Deploy, reference: &str) -> Result<u64, Refused> {
        let body = json!({
            "ref": reference, "environment": deploy.environment, "payload": {"deployctl": deploy.id},
            "description": format!("{} {}", deploy.role, deploy.tag),
            // What is deployed is an image that CI has made and tested.
            "auto_merge": false, "required_contexts": [],
        });
        let text = self.call("POST", "", Some(&body))?;
        let made: Deployment = serde_json::from_str(&text).context("GitHub's new deployment")?;
        Ok(made.id)
    }

    fn call(&self, method: &'static str, path: &str, body: Option<&Value>) -> Result<String, Refused> {
        let Github { api, repository, .. } = self.github;
        let (url, body) =
            (format!("{}/repos/{repository}/deployments{path}", api.trim_end_matches('/')), body.map(Value::to_string));
        let bearer = format!("Bearer {}", self.token.expose());
        let headers = [
            ("authorization", bearer.as_str()),
            ("accept", "application/vnd.github+json"),
            ("x-github-api-version", "2022-11-28"),
        ];
        Call { method, url: &url, headers: &headers, body: body.as_deref(), secret: &self.token }.make()
    }
}
