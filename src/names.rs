//! The names that travel: role, environment, tag and box.
//!
//! They come from the network, from Serf tags and from people, and end up in Redis keys, file names and argument
//! lists. A value of one of these types has been checked, so nothing downstream has to ask again.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a text is not a name: a sentence that names the thing and its grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadName(String);

/// Quotes hostile text for one line of output: escaped, and cut after 64 characters.
#[must_use]
pub fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(64).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown:?}{more}")
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $word:literal, $grammar:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(BadName(format!(concat!("{} is not ", $word, ": ", $grammar), quoted(text))))
                }
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// The name of a Docker image that boxes run.
    Role, "a role", "use 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit", is_label
);
name!(
    /// `staging`, `production`, …
    Environment, "an environment", "use 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit", is_label
);
name!(
    /// A Docker tag ([grammar](https://docs.docker.com/reference/cli/docker/image/tag/)).
    Tag, "a Docker tag", "use 1 to 128 of A-Z, a-z, 0-9, _, . and -, not beginning with . or -", |text| is_word(text, 128, |c| {
        c == '_' || c.is_ascii_alphanumeric()
    })
);
name!(
    /// One machine, by its Serf node name.
    BoxName, "a box", "use 1 to 128 of A-Z, a-z, 0-9, _, . and -, beginning with a letter or digit", |text| is_word(text, 128, |c| {
        c.is_ascii_alphanumeric()
    })
);

name!(
    /// Boxes that fail together: a rack, or a cloud's availability zone.
    ZoneName, "a zone", "use 1 to 63 of A-Z, a-z, 0-9, _, . and -, beginning with a letter or digit", |text| is_word(text, 63, |c| {
        c.is_ascii_alphanumeric()
    })
);

/// The zone of each box that has one.
pub type Zones = BTreeMap<BoxName, ZoneName>;

fn is_label(text: &str) -> bool {
    is_word(text, 63, |c| c.is_ascii_alphanumeric()) && !text.contains(|c: char| c == '.' || c.is_ascii_uppercase())
}

fn is_word(text: &str, longest: usize, first: fn(char) -> bool) -> bool {
    text.len() <= longest
        && text.starts_with(first)
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// An environment and a role: the place that a deploy rolls through, and the scope of every lock.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Where.
    pub environment: Environment,
    /// What.
    pub role: Role,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.role, self.environment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_roles_are_refused() {
        for bad in ["", "../x", "app;rm", ".*", "app\n", "App", "аpp", "-app", "_app", "a.b", "a b", &"a".repeat(64)] {
            assert!(bad.parse::<Role>().is_err(), "{bad:?}");
        }
        for good in ["a", "0", "app", "app_1-x", &"a".repeat(63)] {
            assert!(good.parse::<Role>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn tags_follow_docker() {
        for bad in ["", ".a", "-a", "a:b", "a/b", "a b", "v1\n", &"a".repeat(129)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
        for good in ["v1", "_x", "1.2.3-rc.1", "SHA_abc", &"a".repeat(128)] {
            assert!(good.parse::<Tag>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn an_error_names_the_text_without_its_control_characters() {
        let error = "x\u{1b}[31m\n".parse::<Role>().unwrap_err().to_string();
        assert!(!error.contains('\u{1b}') && !error.contains('\n'), "{error}");
        assert!(error.contains("is not a role"), "{error}");
    }
}
