//! How many boxes of a deploy may be out of service at once.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A share of the size (`1/3`, `33%`) or a plain number of boxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxParallel {
    /// `numerator / denominator` of the size.
    Share(u32, u32),
    /// This many boxes, whatever the size.
    Boxes(u32),
}

impl Default for MaxParallel {
    fn default() -> Self {
        Self::Share(1, 3)
    }
}

impl MaxParallel {
    /// The number of locks for a deploy of `size` boxes: rounded down, at least 1, at most `size`.
    #[must_use]
    pub fn locks(self, size: u32) -> u32 {
        let wanted = match self {
            Self::Share(numerator, denominator) => {
                u32::try_from(u64::from(size) * u64::from(numerator) / u64::from(denominator)).unwrap_or(u32::MAX)
            }
            Self::Boxes(boxes) => boxes,
        };
        wanted.min(size).max(1)
    }
}

impl FromStr for MaxParallel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "max_parallel {text:?}: write a fraction (1/3), a percentage (33%) or a number of boxes (2), above 0"
            )
        };
        let number = |digits: &str| digits.trim().parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(bad);
        if let Some((numerator, denominator)) = text.split_once('/') {
            Ok(Self::Share(number(numerator)?, number(denominator)?))
        } else if let Some(percent) = text.strip_suffix('%') {
            Ok(Self::Share(number(percent)?, 100))
        } else {
            Ok(Self::Boxes(number(text)?))
        }
    }
}

impl fmt::Display for MaxParallel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(numerator, 100) => write!(f, "{numerator}%"),
            Self::Share(numerator, denominator) => write!(f, "{numerator}/{denominator}"),
            Self::Boxes(boxes) => write!(f, "{boxes}"),
        }
    }
}

impl Serialize for MaxParallel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MaxParallel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A JSON number is welcome too: `"max_parallel": 2`.
        let text = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locks(text: &str, size: u32) -> u32 {
        text.parse::<MaxParallel>().unwrap().locks(size)
    }

    #[test]
    fn a_third_is_rounded_down_and_never_nothing() {
        let third: Vec<u32> = (1..=9).map(|size| locks("1/3", size)).collect();
        assert_eq!(third, [1, 1, 1, 1, 1, 2, 2, 2, 3]);
        assert_eq!(locks("1/3", 0), 1);
    }

    #[test]
    fn shares_and_numbers_are_capped_by_the_size() {
        assert_eq!((locks("50%", 9), locks("100%", 9), locks("300%", 9)), (4, 9, 9));
        assert_eq!((locks("2", 9), locks("20", 9), locks("4000000000/1", 9)), (2, 9, 9));
    }

    #[test]
    fn nothing_and_less_are_refused() {
        for bad in ["0", "0%", "0/3", "1/0", "-1", "-1/3", "", "a third", "0.5", "1/3/4"] {
            assert!(bad.parse::<MaxParallel>().is_err(), "{bad}");
        }
    }
}
