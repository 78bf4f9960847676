//! Waiting between two looks at something: with jitter, and not longer than the caller may go on.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How soon an interruption is noticed.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// Sleeps for `duration`; false as soon as `interrupted` answers true.
#[must_use]
pub fn sleep(duration: Duration, interrupted: &dyn Fn() -> bool) -> bool {
    let started = Instant::now();
    while !interrupted() {
        let left = duration.saturating_sub(started.elapsed());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(LONGEST_SLEEP));
    }
    false
}

/// 75 to 125 % of `duration`: boxes that lost something together do not come back to it together.
#[must_use]
pub fn jittered(duration: Duration) -> Duration {
    let random = getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX));
    duration.mul_f64(0.75 + random / 2.0)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_sleep_ends_by_itself_or_when_interrupted() {
        assert!(sleep(Duration::from_millis(1), &|| false));
        assert!(!sleep(Duration::ZERO, &|| true));
        let looks = Cell::new(0);
        assert!(!sleep(Duration::MAX, &|| looks.replace(looks.get() + 1) == 2));
    }

    #[test]
    fn jitter_stays_near() {
        for _ in 0..100 {
            let pause = jittered(Duration::from_secs(4));
            assert!((Duration::from_secs(3)..=Duration::from_secs(5)).contains(&pause), "{pause:?}");
        }
    }
}
