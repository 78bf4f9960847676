//! Deploy ids: `ROLE.ENVIRONMENT.SERIAL`. An id says its place, so that a call that names only an id finds its keys, and
//! an id that is made of another's serial can exist only once: that is how a promotion happens exactly once.

use crate::names::Place;

/// The id of a new deploy to `place`: in the order of time (milliseconds since 1970), and unlike any other.
#[must_use]
pub fn new(place: &Place, now_ms: i64, random: u32) -> String {
    let number = u64::try_from(now_ms).unwrap_or_default();
    // Four digits of randomness: two services may start something in the same millisecond.
    with_serial(place, &format!("{}{:0>4}", base36(number), base36(u64::from(random) % 36_u64.pow(4))))
}

/// The one id of the deploy that promotes the deploy `source` to `target`.
#[must_use]
pub fn promoted(source: &str, target: &Place) -> String {
    with_serial(target, serial(source))
}

/// The one id of the deploy that brings back what was good before the deploy `broken`, by itself.
#[must_use]
pub fn brought_back(broken: &str, place: &Place) -> String {
    with_serial(place, &format!("{}-back", serial(broken)))
}

/// The place of the deploy `id`; none when it is no id.
#[must_use]
pub fn place(id: &str) -> Option<Place> {
    let mut parts = id.split('.');
    let (role, environment, serial) = (parts.next()?, parts.next()?, parts.next()?);
    let well_formed = !serial.is_empty()
        && serial.len() <= 64
        && serial.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && parts.next().is_none();
    well_formed.then_some(())?;
    Some(Place { environment: environment.parse().ok()?, role: role.parse().ok()? })
}

fn serial(id: &str) -> &str {
    id.rsplit('.').next().unwrap_or(id)
}

fn with_serial(place: &Place, serial: &str) -> String {
    format!("{}.{}.{serial}", place.role, place.environment)
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        let digit = u32::try_from(number % 36).unwrap_or_default();
        digits.extend(char::from_digit(digit, 36));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(environment: &str) -> Place {
        Place { environment: environment.parse().unwrap(), role: "app".parse().unwrap() }
    }

    #[test]
    fn an_id_says_its_place_and_stands_in_the_order_of_time() {
        let (first, second) = (new(&at("staging"), 1_795_000_000_000, 7), new(&at("staging"), 1_795_000_000_001, 3));
        assert!(first < second && first.starts_with("app.staging."), "{first} {second}");
        assert_eq!(place(&first), Some(at("staging")));
        assert_ne!(first, new(&at("staging"), 1_795_000_000_000, 8));
    }

    #[test]
    fn a_promotion_keeps_the_serial_of_its_source() {
        assert_eq!(promoted("app.staging.abc1", &at("production")), "app.production.abc1");
        let back = brought_back("app.staging.abc1", &at("staging"));
        assert_eq!((back.as_str(), place(&back)), ("app.staging.abc1-back", Some(at("staging"))));
    }

    #[test]
    fn what_is_no_id_has_no_place() {
        for bad in
            ["", "app", "app.staging", "app.staging.", "app.staging.a.b", "a/b.staging.x", "app.staging.X", "..x"]
        {
            assert_eq!(place(bad), None, "{bad}");
        }
    }
}
