//! Which boxes an event is for. The one place that compares Serf tags with a deploy: the handler asks it about its own
//! box, the count of the members about all of them, so both always mean the same boxes.

use crate::names::Place;

/// Whether a box with these Serf tags (`images`: roles, comma separated) takes part in deploys to `place`.
#[must_use]
pub fn matches(images: &str, environment: &str, place: &Place) -> bool {
    environment.trim() == place.environment.as_str() && roles(images).any(|role| role == place.role.as_str())
}

/// The roles that a tag `images` names, unchecked, in its order.
pub fn roles(images: &str) -> impl Iterator<Item = &str> {
    images.split(',').map(str::trim).filter(|role| !role.is_empty())
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
    fn the_environment_is_the_same() {
        for environment in ["", "production", "staging2", "Staging", "staging,production", ".*"] {
            assert!(!matches_app_in_staging("app", environment), "{environment}");
        }
    }
}
