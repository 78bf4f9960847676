//! When deploys may start in an environment: days and hours in a time zone.

use jiff::{
    civil::{Time, Weekday},
    tz::TimeZone,
};
use serde::Deserialize;

use crate::names::Environment;

/// A span of hours on some days of the week, in which deploys may start in an environment.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Where.
    pub environment: Environment,
    /// On which days it opens.
    #[serde(default)]
    pub days: Days,
    /// For which hours.
    #[serde(default)]
    pub hours: Hours,
    /// Where these days and hours are meant.
    #[serde(default)]
    pub zone: Zone,
}

/// `Mon-Thu`, `Mon,Wed-Fri`, `Fri-Mon`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Days([bool; 7]);

impl Days {
    /// Whether it is one of them.
    #[must_use]
    pub fn contain(self, day: Weekday) -> bool {
        NAMES.iter().zip(self.0).any(|((_, known), is_one)| *known == day && is_one)
    }
}

const NAMES: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

impl Default for Days {
    fn default() -> Self {
        Self([true; 7])
    }
}

impl TryFrom<String> for Days {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = |name: &str| {
            let found = NAMES.iter().position(|(known, _)| known.eq_ignore_ascii_case(name.trim()));
            found.ok_or_else(|| format!("{text:?} are no days: write Mon-Thu, or Mon,Wed,Fri"))
        };
        let mut days = [false; 7];
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (mut day, last) = (number(first)?, number(last)?);
            days[day] = true;
            while day != last {
                day = (day + 1) % 7;
                days[day] = true;
            }
        }
        Ok(Self(days))
    }
}

/// `09:00-16:00`: from the first time on, until just before the second one; past midnight where that is the earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Hours {
    /// When it opens.
    pub from: Time,
    /// When it closes: on the next day, if that is not after `from`.
    pub to: Time,
}

impl Default for Hours {
    fn default() -> Self {
        Self { from: Time::midnight(), to: Time::midnight() }
    }
}

impl TryFrom<String> for Hours {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let read = || {
            let (from, to) = text.split_once('-')?;
            let to = to.trim();
            let until_midnight = matches!(to, "24:00" | "24:00:00");
            let to = if until_midnight { Time::midnight() } else { to.parse().ok()? };
            let from: Time = from.trim().parse().ok()?;
            (from != to || until_midnight).then_some(Self { from, to })
        };
        read().ok_or_else(|| format!("{text:?} are no hours: write 09:00-16:00"))
    }
}

/// A time zone by its name in the [IANA database](https://www.iana.org/time-zones).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Zone(TimeZone);

impl Zone {
    /// Its rules.
    #[must_use]
    pub fn rules(&self) -> &TimeZone {
        &self.0
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let known = TimeZone::get(&text).map(Self);
        known.map_err(|_| format!("{text:?} is no time zone: write Europe/Berlin, or UTC"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(text: &str) -> Option<String> {
        let days = Days::try_from(text.to_owned()).ok()?;
        Some(NAMES.iter().filter(|(_, day)| days.contain(*day)).map(|(name, _)| *name).collect())
    }

    #[test]
    fn days_are_named_one_by_one_or_from_to() {
        assert_eq!(days("Mon-Thu").as_deref(), Some("MonTueWedThu"));
        assert_eq!(days("fri-Mon, Wed").as_deref(), Some("MonWedFriSatSun"));
        assert_eq!(days("Sun").as_deref(), Some("Sun"));
        for bad in ["", "Mon-", "Mon-Thu-Fri", "Monday", "1-5", ","] {
            assert_eq!(days(bad), None, "{bad}");
        }
    }

    #[test]
    fn hours_may_go_past_midnight_and_are_never_none() {
        let hours = |text: &str| Hours::try_from(text.to_owned()).map(|hours| format!("{}-{}", hours.from, hours.to));
        assert_eq!(hours("09:00-16:30").unwrap(), "09:00:00-16:30:00");
        assert_eq!(hours("22:00 - 04:00").unwrap(), "22:00:00-04:00:00");
        assert_eq!(hours("00:00-24:00").unwrap(), "00:00:00-00:00:00");
        for bad in ["", "9", "09:00", "09:00-09:00", "09:00-25:00", "00:00-00:00"] {
            assert!(hours(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn zones_are_known_by_name() {
        assert!(Zone::try_from("Europe/Berlin".to_owned()).is_ok());
        assert_eq!(Zone::try_from("UTC".to_owned()), Ok(Zone::default()));
        assert!(Zone::try_from("Europe/Berln".to_owned()).unwrap_err().contains("Europe/Berlin"));
    }
}
