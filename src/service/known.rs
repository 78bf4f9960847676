//! The names that this service has heard of, to tell a mistyped one from a new one.
//!
//! `freeze -e prodction` would otherwise be accepted while production stays open.

use std::{collections::BTreeSet, fmt::Display, time::Duration};

use anyhow::Result;

use super::{
    Service,
    api_error::{ApiError, ApiResult, ErrorKind},
};
use crate::{
    names::{Environment, Place, Role, quoted},
    tags,
};

/// How old the list of boxes may be.
const BOXES_AGE: Duration = Duration::from_secs(5);
/// How much alike two names are, from 0 to 1, of which one may be meant for the other.
const ALIKE: f64 = 0.8;

/// Roles and environments of the configuration, of deploys that ever began, and of the boxes.
#[derive(Debug, Default)]
struct Known {
    environments: BTreeSet<String>,
    roles: BTreeSet<String>,
}

impl Service {
    /// Every place where a deploy ever began, and every one that has a live box: a box may be kept out where nothing was
    /// ever deployed. Without the Serf agent only the first.
    pub fn known_places(&self) -> Result<Vec<Place>> {
        let mut places: BTreeSet<Place> = self.store.places()?.into_iter().collect();
        for member in self.fleet.all(BOXES_AGE, &|| false).unwrap_or_default() {
            let Some(Ok(environment)) = member.tags.get("environment").map(|name| name.parse::<Environment>()) else {
                continue;
            };
            let images = member.tags.get("images").map(String::as_str).unwrap_or_default();
            let roles = tags::roles(images).filter_map(|name| name.parse::<Role>().ok());
            places.extend(roles.map(|role| Place { environment: environment.clone(), role }));
        }
        Ok(places.into_iter().collect())
    }

    /// Refuses a role or an environment that nothing has. Where none is known any may be meant, and so it is where the
    /// Serf agent does not answer.
    pub fn check_names(&self, role: Option<&Role>, environment: Option<&Environment>) -> ApiResult<()> {
        let known = self.known_beside(role, environment)?;
        known.map_or(Ok(()), |known| known.check(role, environment))
    }

    /// Refuses the first release of a role that nothing has and that is named nearly like another: most likely that one is
    /// meant. A name that is like no other may pass: a pipeline often comes before the first box of its role.
    pub fn check_new_role(&self, role: &Role) -> ApiResult<()> {
        if self.store.count_releases(role)? > 0 {
            return Ok(());
        }
        let Some(known) = self.known_beside(Some(role), None)? else { return Ok(()) };
        if likeliest(role.as_str(), &known.roles).is_none() {
            return Ok(());
        }
        known.check(Some(role), None).map_err(|refusal| {
            ApiError::new(refusal.kind, format!("{}; a role that is new is published with --new", refusal.message))
        })
    }

    /// The names that are known, unless these are among them, or the Serf agent, which may know more, does not answer.
    fn known_beside(&self, role: Option<&Role>, environment: Option<&Environment>) -> ApiResult<Option<Known>> {
        let mut known = Known::default();
        for (role, policy) in &self.config.service.roles {
            known.roles.insert(role.to_string());
            known.environments.extend(policy.environments.iter().map(ToString::to_string));
        }
        for place in self.store.places()? {
            known.environments.insert(place.environment.to_string());
            known.roles.insert(place.role.to_string());
        }
        // The agent is asked only where that decides: it may be slow, and most names are known.
        if known.have(role, environment) {
            return Ok(None);
        }
        let Ok(members) = self.fleet.all(BOXES_AGE, &|| false) else { return Ok(None) };
        for member in &members {
            known.environments.extend(member.tags.get("environment").cloned());
            let images = member.tags.get("images").map(String::as_str).unwrap_or_default();
            known.roles.extend(tags::roles(images).map(str::to_owned));
        }
        Ok(Some(known))
    }
}

impl Known {
    fn have(&self, role: Option<&Role>, environment: Option<&Environment>) -> bool {
        role.is_none_or(|role| self.roles.contains(role.as_str()))
            && environment.is_none_or(|environment| self.environments.contains(environment.as_str()))
    }

    fn check(&self, role: Option<&Role>, environment: Option<&Environment>) -> ApiResult<()> {
        role.map_or(Ok(()), |role| check("role", role, &self.roles))?;
        environment.map_or(Ok(()), |environment| check("environment", environment, &self.environments))
    }
}

/// The known name that is most alike, if one is alike at all.
fn likeliest<'a>(asked: &str, known: &'a BTreeSet<String>) -> Option<&'a String> {
    let alike = |name: &&String| strsim::jaro_winkler(name, asked);
    known.iter().max_by(|a, b| alike(a).total_cmp(&alike(b))).filter(|name| alike(name) >= ALIKE)
}

fn check(what: &str, asked: &impl Display, known: &BTreeSet<String>) -> ApiResult<()> {
    let asked = asked.to_string();
    if known.is_empty() || known.contains(&asked) {
        return Ok(());
    }
    let meant = likeliest(&asked, known).map(|name| format!("did you mean {name}? ")).unwrap_or_default();
    let list: Vec<&str> = known.iter().map(String::as_str).collect();
    let text = format!("no box and no deploy has the {what} {}: {meant}known are {}", quoted(&asked), list.join(", "));
    Err(ApiError::new(ErrorKind::NotFound, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(names: &[&str]) -> Known {
        Known { environments: names.iter().map(|&name| name.to_owned()).collect(), roles: BTreeSet::new() }
    }

    #[test]
    fn a_mistyped_name_is_told_from_a_known_one() {
        let asked = "prodction".parse().unwrap();
        let error = known(&["production", "staging"]).check(None, Some(&asked)).unwrap_err().to_string();
        assert!(
            error.contains("did you mean production?") && error.contains("known are production, staging"),
            "{error}"
        );
        let error = known(&["staging"]).check(None, Some(&asked)).unwrap_err().to_string();
        assert!(!error.contains("did you mean") && error.contains("known are staging"), "{error}");
        assert!(known(&["production"]).check(None, Some(&"production".parse().unwrap())).is_ok());
        assert!(known(&[]).check(None, Some(&asked)).is_ok(), "a new service knows nobody");
    }
}
