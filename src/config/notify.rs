//! `service.notify`: whom the service tells of what. How, is in [`super::delivery`].

use std::{collections::BTreeSet, fmt, iter, path::PathBuf};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use super::delivery::{Delivery, Github, Gitlab, Slack, Webhook};
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
