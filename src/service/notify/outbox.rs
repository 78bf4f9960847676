//! What of an outbox is due, what comes again later, what is given up. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::service::store::Unsent;

/// How long it is tried, in milliseconds.
const TRIED_FOR: i64 = 24 * 3600 * 1000;
/// The first wait, and the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// A target that asks for more time gets this much at most.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// The entries that may be tried now: of each lane the oldest, if it is due. What comes after it waits for it.
pub fn due(waiting: &BTreeMap<u64, Unsent>, now: i64) -> Vec<u64> {
    let mut lanes = BTreeSet::new();
    let first = waiting.iter().filter(|(_, entry)| lanes.insert(&entry.lane));
    first.filter(|(_, entry)| entry.due <= now).map(|(number, _)| *number).collect()
}

/// Whether it was tried for long enough. A turn's number is the time at which it was written down.
pub fn is_given_up(number: u64, now: i64) -> bool {
    i64::try_from(number).is_ok_and(|at| now - at > TRIED_FOR)
}

/// How an entry waits that was not taken: for twice as long each time, and for as long as the target asked.
pub fn later(entry: &Unsent, asked: Option<Duration>, now: i64, jitter: fn(Duration) -> Duration) -> Unsent {
    let wait = FIRST_WAIT.saturating_mul(1 << entry.tries.min(20)).min(LONGEST_WAIT);
    let wait = jitter(wait).max(asked.unwrap_or_default().min(LONGEST_ASKED));
    let due = now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
    Unsent { tries: entry.tries.saturating_add(1), due, ..entry.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(lane: &str, due: i64) -> Unsent {
        Unsent { lane: lane.to_owned(), tries: 0, due }
    }

    #[test]
    fn an_entry_waits_for_those_before_it_in_its_lane_and_for_no_others() {
        let waiting = BTreeMap::from([(1, entry("a", 50)), (2, entry("b", 0)), (3, entry("a", 0)), (4, entry("b", 0))]);
        assert_eq!(due(&waiting, 10), [2]);
        assert_eq!(due(&waiting, 50), [1, 2]);
        assert!(due(&BTreeMap::new(), 0).is_empty());
    }

    #[test]
    fn the_wait_doubles_up_to_ten_minutes() {
        let same = |wait| wait;
        let waits = |tries, asked| later(&Unsent { tries, ..entry("a", 0) }, asked, 0, same).due;
        assert_eq!(
            [0, 1, 5, 9, 10, 500].map(|tries| waits(tries, None)),
            [1000, 2000, 32_000, 512_000, 600_000, 600_000]
        );
        assert_eq!(waits(0, Some(Duration::from_secs(30))), 30_000);
        assert_eq!(waits(0, Some(Duration::from_secs(1_000_000))), 3_600_000);
    }

    #[test]
    fn a_day_is_enough() {
        assert!(!is_given_up(1000, 1000 + TRIED_FOR) && is_given_up(1000, 1001 + TRIED_FOR) && !is_given_up(9, 0));
    }
}
