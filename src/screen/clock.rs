//! Times of day for people: where they read them, in their own zone; in a log, in UTC.

use jiff::{Timestamp, tz::TimeZone};

use super::is_terminal;

/// `2026-12-24 09:00:00 CET` on a terminal, in UTC elsewhere.
#[must_use]
pub fn time(at: Timestamp) -> String {
    let here = || TimeZone::try_system().unwrap_or(TimeZone::UTC);
    time_in(if is_terminal() { here() } else { TimeZone::UTC }, at)
}

/// The same for an RFC 3339 text; the text itself when it is none.
#[must_use]
pub fn time_of(at: &str) -> String {
    at.parse().map_or_else(|_| at.to_owned(), time)
}

fn time_in(zone: TimeZone, at: Timestamp) -> String {
    at.to_zoned_datetime(zone).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_with_its_zone() {
        let at = "2026-12-24T08:00:00.123Z".parse().unwrap();
        assert_eq!(time_in(TimeZone::UTC, at), "2026-12-24 08:00:00 UTC");
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        assert_eq!(time_in(zone.clone(), at), "2026-12-24 09:00:00 CET");
        assert_eq!(time_in(zone, "2026-07-01T08:00:00Z".parse().unwrap()), "2026-07-01 10:00:00 CEST");
    }
}
