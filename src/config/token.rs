//! Who may call the service: tokens, and what each of them may do.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::names::Environment;

/// A bearer token, by its SHA-256, so that the configuration can be read by people who may not act.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Stands in the audit log.
    pub name: String,
    /// Lower-case hexadecimal SHA-256 of the token.
    pub sha256: String,
    /// What it may do.
    pub can: Vec<Scope>,
}

/// One permission of a token: a verb, in all environments or in one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope {
    /// What.
    pub verb: Verb,
    /// Where; everywhere when absent.
    pub environment: Option<Environment>,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Read everything but secrets.
    Read,
    /// Make releases known.
    Publish,
    /// Start, promote, roll back, freeze.
    Start,
    /// Promote what the environment before has completed and its gates let pass, and nothing else.
    Approve,
    /// Cancel a deploy.
    Cancel,
    /// Free a lock by force.
    Unlock,
    /// What the worker on a box reports.
    Box,
    /// Take and give back a place for a reboot, by the `FleetLock` protocol.
    Reboot,
}

impl FromStr for Verb {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "read" => Self::Read,
            "publish" => Self::Publish,
            "start" => Self::Start,
            "approve" => Self::Approve,
            "cancel" => Self::Cancel,
            "unlock" => Self::Unlock,
            "box" => Self::Box,
            "reboot" => Self::Reboot,
            _ => {
                return Err(format!(
                    "{text:?} is not a scope: use read, publish, start, approve, cancel, unlock, box or reboot"
                ));
            }
        })
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Publish => "publish",
            Self::Start => "start",
            Self::Approve => "approve",
            Self::Cancel => "cancel",
            Self::Unlock => "unlock",
            Self::Box => "box",
            Self::Reboot => "reboot",
        })
    }
}

impl TryFrom<String> for Scope {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let (verb, environment) = match text.split_once(':') {
            Some((verb, environment)) => (verb, Some(environment.parse().map_err(|e| format!("scope {text:?}: {e}"))?)),
            None => (text.as_str(), None),
        };
        Ok(Self { verb: verb.parse()?, environment })
    }
}

impl FromStr for Scope {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.environment {
            Some(environment) => write!(f, "{}:{environment}", self.verb),
            None => self.verb.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_may_be_narrowed_to_an_environment() {
        let scope = Scope::try_from("start:staging".to_owned()).unwrap();
        assert_eq!((scope.verb, scope.environment.unwrap().as_str()), (Verb::Start, "staging"));
        assert_eq!(Scope::try_from("read".to_owned()).unwrap().environment, None);
        assert!(Scope::try_from("admin".to_owned()).unwrap_err().contains("is not a scope"));
        assert!(Scope::try_from("start:".to_owned()).is_err());
    }
}
