//! `service.notify`: whom the service tells of what.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, iter,
    path::PathBuf,
};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use super::is_loopback;
use crate::{
    api::{Turn, TurnKind},
    names::{Environment, Role},
};

/// Everybody who is told.
#[derive(Debug, Clone, Default)]
pub struct Notify(Vec<Target>);

/// One who is told, of what, and how.
#[derive(Debug, Clone)]
pub struct Target {
    /// In the log, in metrics, and of its outbox in Redis: other targets have other names.
    pub name: String,
    /// How it is told.
    pub how: Delivery,
    on: BTreeSet<TurnKind>,
    roles: Option<BTreeSet<Role>>,
    environments: Option<BTreeSet<Environment>>,
}

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

/// A target as it is written. Exactly one of `command`, `slack`, `webhook`, `github` and `gitlab` is given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    on: Option<Vec<TurnKind>>,
    roles: Option<BTreeSet<Role>>,
    environments: Option<BTreeSet<Environment>>,
    command: Option<Vec<String>>,
    slack: Option<Slack>,
    webhook: Option<Webhook>,
    github: Option<Github>,
    gitlab: Option<Gitlab>,
}

/// An entry of the list: a word of a program's command line, or a target.
enum Entry {
    Word(String),
    Target(Box<Written>),
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

    fn secret_file_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Command { .. } => None,
            Self::Slack(slack) => Some(&mut slack.url_file),
            Self::Webhook(webhook) => Some(&mut webhook.secret_file),
            Self::Github(github) => Some(&mut github.token_file),
            Self::Gitlab(gitlab) => Some(&mut gitlab.token_file),
        }
    }

    /// What is wrong with what is written.
    fn check(&self) -> Result<(), String> {
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

/// Whether `url` may be sent a token: plain HTTP on this host only.
fn is_safe_address(key: &str, url: &str) -> Result<(), String> {
    let in_clear = url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
    if in_clear.is_some_and(|host| !is_loopback(host)) {
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

impl Notify {
    /// Everybody, as written.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.0.iter()
    }

    /// The files that hold secrets, relative ones from the configuration's folder on.
    pub(super) fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.0.iter_mut().filter_map(|target| target.how.secret_file_mut())
    }

    /// The list form: one program that is told of each end, and is not run again when it fails.
    fn one_command(argv: Vec<String>) -> Self {
        Self(vec![Target {
            name: "command".to_owned(),
            how: Delivery::Command { argv, again: false },
            on: BTreeSet::from([TurnKind::Ended]),
            roles: None,
            environments: None,
        }])
    }

    fn of(written: Vec<Written>) -> Result<Self, String> {
        let mut targets: Vec<Target> = Vec::new();
        for (at, written) in written.into_iter().enumerate() {
            let target = Target::of(written, &targets).map_err(|error| format!("target {}: {error}", at + 1))?;
            if targets.iter().any(|known| known.name == target.name) {
                return Err(format!("two targets are named {:?}: give one of them another name", target.name));
            }
            targets.push(target);
        }
        Ok(Self(targets))
    }
}

impl Target {
    /// Whether it is to be told of `turn`.
    #[must_use]
    pub fn wants(&self, turn: &Turn) -> bool {
        let is_theirs = self.roles.as_ref().is_none_or(|roles| turn.role.as_ref().is_none_or(|r| roles.contains(r)));
        let is_there = self.environments.as_ref().is_none_or(|all| all.contains(&turn.environment));
        self.on.contains(&turn.turn) && is_theirs && is_there && (turn.deploy.is_some() || !self.is_of_deploys())
    }

    /// GitHub and GitLab know deployments, and nothing else.
    fn is_of_deploys(&self) -> bool {
        matches!(self.how, Delivery::Github(_) | Delivery::Gitlab(_))
    }

    fn of(written: Written, before: &[Self]) -> Result<Self, String> {
        let Written { name, on, roles, environments, command, slack, webhook, github, gitlab } = written;
        let hows = [
            command.map(|argv| Delivery::Command { argv, again: true }),
            slack.map(Delivery::Slack),
            webhook.map(Delivery::Webhook),
            github.map(Delivery::Github),
            gitlab.map(Delivery::Gitlab),
        ];
        let mut hows = hows.into_iter().flatten();
        let (Some(how), None) = (hows.next(), hows.next()) else {
            return Err("write exactly one of command, slack, webhook, github and gitlab".to_owned());
        };
        how.check()?;
        let kind = how.kind();
        let is_free = |name: &String| before.iter().all(|target| target.name != *name);
        let numbered = (2..).map(|number| format!("{kind}-{number}"));
        let name = name.or_else(|| iter::once(kind.to_owned()).chain(numbered).find(is_free)).unwrap_or_default();
        // The rules of a role's name do for it: it stands in a key of Redis, and in metrics.
        if name.parse::<Role>().is_err() {
            return Err(format!("the name {name:?} is none: write small letters, digits, - and _"));
        }
        let usual = TurnKind::ALL.iter().copied().filter(|kind| kind.is_told_by_default());
        let on = on.map_or_else(|| usual.collect(), |on| on.into_iter().collect());
        Ok(Self { name, how, on, roles, environments })
    }
}

impl<'de> Deserialize<'de> for Notify {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Notify;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of targets, or one program as a list of words")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Notify, A::Error> {
                let (mut words, mut targets) = (Vec::new(), Vec::new());
                while let Some(entry) = list.next_element::<Entry>()? {
                    match entry {
                        Entry::Word(word) => words.push(word),
                        Entry::Target(target) => targets.push(*target),
                    }
                }
                match (words.is_empty(), targets.is_empty()) {
                    (true, _) => Notify::of(targets).map_err(A::Error::custom),
                    (false, true) => Ok(Notify::one_command(words)),
                    (false, false) => Err(A::Error::custom("write targets only, the program as {\"command\": […]}")),
                }
            }
        }
        deserializer.deserialize_seq(List)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a target, for example {\"slack\": {\"url_file\": \"slack-url\"}}")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Entry, E> {
                Ok(Entry::Word(word.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                Written::deserialize(MapAccessDeserializer::new(map)).map(|target| Entry::Target(Box::new(target)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn notify(value: &Value) -> Result<Notify, String> {
        serde_json::from_str(&value.to_string()).map_err(|error| error.to_string())
    }

    fn turn(kind: TurnKind, role: &str, environment: &str) -> Turn {
        serde_json::from_value(json!({
            "id": "x:y", "turn": kind, "at": "", "role": role, "environment": environment, "text": "",
        }))
        .unwrap()
    }

    #[test]
    fn a_list_of_words_is_one_program_that_is_told_of_ends_only() {
        let Notify(targets) = notify(&json!(["tell", "--loud"])).unwrap();
        let Delivery::Command { argv, again: false } = &targets[0].how else { panic!("{targets:?}") };
        assert_eq!(argv, &["tell", "--loud"]);
        let wants = |kind| targets[0].wants(&turn(kind, "app", "staging"));
        assert!(wants(TurnKind::Ended) && !wants(TurnKind::Started) && !wants(TurnKind::Deployed));
        assert_eq!(notify(&json!([])).unwrap().targets().count(), 0);
    }

    #[test]
    fn a_target_is_told_of_what_it_asks_for() {
        let entry = json!({"command": ["a"], "roles": ["app"], "environments": ["production"]});
        let Notify(targets) = notify(&json!([entry, {"command": ["b"], "on": ["step"]}])).unwrap();
        assert_eq!([&targets[0].name, &targets[1].name], ["command", "command-2"]);
        let wants = |at: usize, kind, role, environment| targets[at].wants(&turn(kind, role, environment));
        for kind in TurnKind::ALL.iter().copied() {
            let default = !matches!(kind, TurnKind::Step | TurnKind::Ended);
            assert_eq!(wants(0, kind, "app", "production"), default, "{kind}");
            assert_eq!(wants(1, kind, "web", "staging"), kind == TurnKind::Step, "{kind}");
        }
        assert!(!wants(0, TurnKind::Started, "web", "production") && !wants(0, TurnKind::Started, "app", "staging"));
    }

    #[test]
    fn a_bad_target_is_refused_by_what_is_wrong_with_it() {
        let repository = |repository: &str| json!([{"github": {"repository": repository, "token_file": "t"}}]);
        for (value, says) in [
            (json!([{"slak": {}}]), "unknown field `slak`"),
            (json!([{"on": ["started"]}]), "target 1: write exactly one of command, slack"),
            (json!([{"command": ["a"], "slack": {"url_file": "u"}}]), "exactly one"),
            (json!([{"command": ["a"], "on": ["startet"]}]), "unknown variant `startet`"),
            (json!([{"command": []}]), "command: write the program"),
            (json!(["a", {"command": ["a"]}]), "write targets only"),
            (json!([{"slack": {"url": "https://x"}}]), "unknown field `url`"),
            (json!([{"webhook": {"url": "ftp://x", "secret_file": "s"}}]), "webhook.url: write https://HOST/PATH"),
            (json!([{"webhook": {"url": "https://a:b@x", "secret_file": "s"}}]), "without a user"),
            (repository("name"), "github.repository: \"name\" is not owner/name"),
            (repository("a/../b"), "is not owner/name"),
            (repository("a/.."), "is not owner/name"),
            (
                json!([{"github": {"repository": "a/b", "token_file": "t", "api": "http://github.internal"}}]),
                "github.api: http:// would send the token in clear",
            ),
            (json!([{"name": "A b", "command": ["a"]}]), "the name \"A b\" is none"),
            (json!([{"name": "a", "command": ["a"]}, {"name": "a", "command": ["b"]}]), "two targets are named \"a\""),
            (json!([1]), "a target, for example"),
            (json!({"command": ["a"]}), "a list of targets"),
        ] {
            let error = notify(&value).unwrap_err();
            assert!(error.contains(says), "{value}: {error}");
        }
    }
}
