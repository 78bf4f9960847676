//! Durations as people write them in the configuration: `500ms`, `30s`, `15m`, `2h`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

/// Reads `500ms`, `30s`, `15m` or `2h`; the error says so.
pub fn parse(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration: write 500ms, 30s, 15m or 2h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(bad)
}

/// For `#[serde(deserialize_with)]`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// For `#[serde(serialize_with)]`: as [`deserialize`] reads it, to the millisecond.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}ms", duration.as_millis()))
}

/// A duration for people, in the largest unit that loses nothing they would miss: `1h 5m`, `2m 3s`, `4.2s`, `350ms`.
#[must_use]
pub fn display(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..10 => format!("{:.1}s", duration.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        _ => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(parse("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "5", "5 s", "s", "-5s", "1.5s", "5d", "99999999999999999999s", "18446744073709551615h"] {
            assert!(parse(bad).unwrap_err().contains("is not a duration"), "{bad}");
        }
    }

    #[test]
    fn people_read_two_units_at_most() {
        let shown: Vec<String> =
            [350, 4_200, 42_000, 123_000, 3_900_000].map(|ms| display(Duration::from_millis(ms))).into();
        assert_eq!(shown, ["350ms", "4.2s", "42s", "2m 3s", "1h 5m"]);
    }
}
