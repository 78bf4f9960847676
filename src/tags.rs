//! Which boxes an event is for. The one place that compares Serf tags with a deploy: the handler asks it about its own
//! box, the count of the members about all of them, so both always mean the same boxes.

use std::collections::BTreeMap;

use crate::names::{BadName, Place, ZoneName};

/// Whether a box with these Serf tags (`images`: roles, comma separated) takes part in deploys to `place`.
#[must_use]
pub fn matches(images: &str, environment: &str, place: &Place) -> bool {
    environment.trim() == place.environment.as_str() && roles(images).any(|role| role == place.role.as_str())
}

/// The roles that a tag `images` names, unchecked, in its order.
pub fn roles(images: &str) -> impl Iterator<Item = &str> {
    images.split(',').map(str::trim).filter(|role| !role.is_empty())
}

/// The zone that Serf tags name by the tag `zone_tag`; none without it, or where it is empty. Refuses what is no name.
pub fn zone(tags: &BTreeMap<String, String>, zone_tag: &str) -> Result<Option<ZoneName>, BadName> {
    tags.get(zone_tag).map(|zone| zone.trim()).filter(|zone| !zone.is_empty()).map(str::parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches_app_in_staging(images: &str, environment: &str) -> bool {
        let place = Place { environment: "staging".parse().unwrap(), role: "app".parse().unwrap() };
        matches(images, environment, &place)
    }

    #[test]
    fn a_role_stands_anywhere_in_the_list() {
        for images in ["app", "app,web", "web,app", "web,app,db", " web , app "] {
            assert!(matches_app_in_staging(images, "staging"), "{images}");
        }
    }

    #[test]
    fn a_role_is_the_whole_word() {
        for images in ["", ",", "web", "apps", "my-app", "app-2", "App", "app web", "app;web", ".*", "a.p"] {
            assert!(!matches_app_in_staging(images, "staging"), "{images}");
        }
    }

    #[test]
    fn a_zone_is_a_name() {
        let zone = |value: &str| zone(&[("zone".to_owned(), value.to_owned())].into(), "zone");
        assert_eq!(zone("eu-1a").unwrap().unwrap().as_str(), "eu-1a");
        assert_eq!((zone(" "), super::zone(&BTreeMap::new(), "zone")), (Ok(None), Ok(None)));
        for bad in ["a b", "../x", "a}:", "a\n"] {
            assert!(zone(bad).is_err() || bad.trim() == "a", "{bad:?}");
        }
    }

    #[test]
    fn the_environment_is_the_same() {
        for environment in ["", "production", "staging2", "Staging", "staging,production", ".*"] {
            assert!(!matches_app_in_staging("app", environment), "{environment}");
        }
    }
}
