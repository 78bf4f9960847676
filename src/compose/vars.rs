//! What programs are told of the deploy that they run for.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::{
    api::Kind,
    names::{Environment, Role, Tag, quoted},
};

/// The variables that compose, `verify` and `command` programs get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployVars {
    /// `DEPLOY_TAG`.
    pub tag: Tag,
    /// `DEPLOY_ROLE`.
    pub role: Role,
    /// `DEPLOY_ENVIRONMENT`.
    pub environment: Environment,
    /// `DEPLOY_ID`: differs with every deploy.
    pub id: String,
    /// `DEPLOY_KIND`: differs between deploys.
    pub kind: Kind,
}

impl DeployVars {
    /// The variables, by name.
    #[must_use]
    pub fn pairs(&self) -> Vec<(String, String)> {
        self.pairs_with(&self.id, self.kind.as_str())
    }

    /// The variables with another id and kind.
    pub(super) fn pairs_with(&self, id: &str, kind: &str) -> Vec<(String, String)> {
        [
            ("DEPLOY_TAG", self.tag.as_str()),
            ("DEPLOY_ROLE", self.role.as_str()),
            ("DEPLOY_ENVIRONMENT", self.environment.as_str()),
            ("DEPLOY_ID", id),
            ("DEPLOY_KIND", kind),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// Refuses an id that could change the structure of the text it is put into.
    pub(super) fn check(&self) -> Result<()> {
        if self.id.len() > 256 || !self.id.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
            bail!("{} is not the id of a deploy: it has letters, digits, dots, _ and - only", quoted(&self.id));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn example() -> DeployVars {
    DeployVars {
        tag: "v42".parse().unwrap(),
        role: "app".parse().unwrap(),
        environment: "production".parse().unwrap(),
        id: "app.production.k3x9".to_owned(),
        kind: Kind::Promotion,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_five_variables() {
        let pairs = example().pairs();
        let shown: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            shown,
            [
                "DEPLOY_TAG=v42",
                "DEPLOY_ROLE=app",
                "DEPLOY_ENVIRONMENT=production",
                "DEPLOY_ID=app.production.k3x9",
                "DEPLOY_KIND=promotion"
            ]
        );
    }

    #[test]
    fn an_id_cannot_carry_yaml() {
        let vars = DeployVars { id: "x\n    privileged: true".to_owned(), ..example() };
        assert!(vars.check().unwrap_err().to_string().contains("is not the id of a deploy"));
        assert!(example().check().is_ok());
    }
}
