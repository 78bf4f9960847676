//! How often a box looks at its load balancers. AWS refills about ten Describe calls a second for the whole account, and
//! as many boxes as there are locks look at the same time.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::sleep::{self, jittered};

/// AWS often answers at once: the first look comes soon.
const FIRST: Duration = Duration::from_millis(500);

/// The shortest pause between two looks: 2 s, or what keeps all boxes together below four calls a second.
pub(super) fn floor(locks: u32, load_balancers: usize) -> Duration {
    let calls = u64::from(locks).saturating_mul(load_balancers as u64);
    Duration::from_millis(calls.saturating_mul(250)).max(Duration::from_secs(2))
}

/// The pauses between looks: boxes that began together drift apart, and none looks sooner than `floor`.
pub(super) struct Pauses {
    floor: Duration,
    looked: Option<Instant>,
}

impl Pauses {
    pub(super) fn new(floor: Duration) -> Self {
        Self { floor, looked: None }
    }

    /// Sleeps till the next look, at most until `deadline`; false when that had come already. A look that took long was
    /// throttled: as long a pause follows it.
    pub(super) fn sleep(&mut self, deadline: Instant, interrupted: &dyn Fn() -> bool) -> Result<bool> {
        let now = Instant::now();
        if now >= deadline {
            return Ok(false);
        }
        let pause = match self.looked {
            None => FIRST,
            Some(looked) => jittered(self.floor.max(now - looked) * 4 / 3),
        };
        sleep(pause.min(deadline - now), interrupted)?;
        self.looked = Some(Instant::now());
        Ok(true)
    }
}

/// Sleeps, and fails when interrupted.
pub(super) fn sleep(duration: Duration, interrupted: &dyn Fn() -> bool) -> Result<()> {
    ensure!(sleep::sleep(duration, interrupted), "interrupted");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_boxes_look_less_often() {
        assert_eq!(floor(1, 1), Duration::from_secs(2));
        assert_eq!(floor(4, 2), Duration::from_secs(2));
        assert_eq!(floor(20, 2), Duration::from_secs(10));
        assert_eq!(floor(0, 0), Duration::from_secs(2));
    }

    #[test]
    fn looks_begin_soon_keep_their_distance_and_end_at_the_deadline() {
        let floor = Duration::from_millis(300);
        let mut pauses = Pauses::new(floor);
        let deadline = Instant::now() + Duration::from_millis(1500);
        let mut looks = Vec::new();
        while pauses.sleep(deadline, &|| false).unwrap() {
            looks.push(Instant::now());
        }
        assert!(looks[0] < deadline, "the first look comes after {FIRST:?}");
        let (last, between) = looks.split_last().unwrap();
        assert!(between.windows(2).all(|pair| pair[1] - pair[0] >= floor), "{looks:?}");
        assert!(*last >= deadline, "the last look comes at the deadline itself");
        assert!(pauses.sleep(Instant::now() + FIRST, &|| true).is_err());
    }
}
