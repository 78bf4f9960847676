//! How one target of `service.notify` is told: its kind, what that needs, and what is wrong with what is written.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

use super::is_loopback;
use crate::names::Environment;

/// How a target is told.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// A program on the service's host.
    Command {
        /// The program and its arguments.
        argv: Vec<String>,
        /// Whether it is run again when it fails.
        again: bool,
    },
    /// A channel of Slack.
    Slack(Slack),
    /// Whatever speaks HTTP.
    Webhook(Webhook),
    /// Deployments of a repository at GitHub.
    Github(Github),
    /// Deployments of a project at GitLab.
    Gitlab(Gitlab),
}

/// An [incoming webhook](https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks/).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slack {
    /// A file that holds its address, which is a secret.
    pub url_file: PathBuf,
}

/// A receiver of [Standard Webhooks](https://www.standardwebhooks.com).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Its address.
    pub url: String,
    /// A file that holds `whsec_` and at least 24 random bytes in base64.
    pub secret_file: PathBuf,
}

/// Deployments of a repository at GitHub.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Github {
    /// `owner/name`.
    pub repository: String,
    /// A file that holds a token which may write deployments.
    pub token_file: PathBuf,
    /// Where the API is; that of GitHub Enterprise is `https://HOST/api/v3`.
    #[serde(default = "github")]
    pub api: String,
    /// Where people find what was deployed.
    #[serde(default)]
    pub environment_urls: BTreeMap<Environment, String>,
}

/// Deployments of a project at GitLab.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gitlab {
    /// `group/project`, of any depth.
    pub repository: String,
    /// A file that holds a token with the scope `api`.
    pub token_file: PathBuf,
    /// Where the API is.
    #[serde(default = "gitlab")]
    pub api: String,
}

fn github() -> String {
    "https://api.github.com".to_owned()
}

fn gitlab() -> String {
    "https://gitlab.com/api/v4".to_owned()
}

impl Delivery {
    /// The key that means it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Command { .. } => "command",
            Self::Slack(_) => "slack",
            Self::Webhook(_) => "webhook",
            Self::Github(_) => "github",
            Self::Gitlab(_) => "gitlab",
        }
    }

    /// The file that holds its secret, and the key that names it.
    #[must_use]
    pub fn secret_file(&self) -> Option<(&'static str, &PathBuf)> {
        match self {
            Self::Command { .. } => None,
            Self::Slack(slack) => Some(("url_file", &slack.url_file)),
            Self::Webhook(webhook) => Some(("secret_file", &webhook.secret_file)),
            Self::Github(github) => Some(("token_file", &github.token_file)),
            Self::Gitlab(gitlab) => Some(("token_file", &gitlab.token_file)),
        }
    }

    pub(super) fn secret_file_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Command { .. } => None,
            Self::Slack(slack) => Some(&mut slack.url_file),
            Self::Webhook(webhook) => Some(&mut webhook.secret_file),
            Self::Github(github) => Some(&mut github.token_file),
            Self::Gitlab(gitlab) => Some(&mut gitlab.token_file),
        }
    }

    /// What is wrong with what is written.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::Command { argv, .. } if argv.iter().all(|word| word.trim().is_empty()) => {
                Err("command: write the program".to_owned())
            }
            Self::Webhook(webhook) => is_address("webhook.url", &webhook.url),
            Self::Github(github) => {
                if !is_repository(&github.repository) || github.repository.split('/').count() != 2 {
                    return Err(format!("github.repository: {:?} is not owner/name", github.repository));
                }
                let mut urls = github.environment_urls.iter();
                urls.try_for_each(|(at, url)| is_address(&format!("github.environment_urls.{at}"), url))?;
                is_safe_address("github.api", &github.api)
            }
            Self::Gitlab(gitlab) => {
                if !is_repository(&gitlab.repository) || !gitlab.repository.contains('/') {
                    return Err(format!("gitlab.repository: {:?} is not group/project", gitlab.repository));
                }
                is_safe_address("gitlab.api", &gitlab.api)
            }
            Self::Command { .. } | Self::Slack(_) => Ok(()),
        }
    }
}

/// Whether the name of a repository may stand in an address.
fn is_repository(name: &str) -> bool {
    let is_name = |word: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !word.is_empty() && word.bytes().all(plain) && !word.bytes().all(|byte| byte == b'.')
    };
    name.split('/').all(is_name)
}

/// Whether what is sent to `url` can be read on its way: plain HTTP, to another host than this one.
#[must_use]
pub fn is_in_clear(url: &str) -> bool {
    let host = url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
    host.is_some_and(|host| !is_loopback(host))
}

/// Whether `url` may be sent a token.
fn is_safe_address(key: &str, url: &str) -> Result<(), String> {
    if is_in_clear(url) {
        return Err(format!("{key}: http:// would send the token in clear: write https://"));
    }
    is_address(key, url)
}

/// Whether `url` can be asked: HTTP, and no credentials, which would end up in a log.
fn is_address(key: &str, url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    if host.is_empty() || host.contains('@') || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("{key}: write https://HOST/PATH, without a user or a password"));
    }
    Ok(())
}
