//! How often a box looks at its load balancers. AWS refills about ten Describe calls a second for the whole account, and
//! as many boxes as there are locks look at the same time.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

/// AWS often answers at once: the first look comes soon.
const FIRST: Duration = Duration::from_millis(500);
/// The first and the longest pause after a call that was throttled or failed on the way.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How soon an interruption is noticed.
const NOTICE: Duration = Duration::from_millis(100);

/// The shortest pause between two looks: 2 s, or what keeps all boxes together below four calls a second.
pub(super) fn floor(locks: u32, load_balancers: usize) -> Duration {
    let calls = u64::from(locks).saturating_mul(load_balancers as u64);
    Duration::from_millis(calls.saturating_mul(250)).max(Duration::from_secs(2))
}

/// The pauses between looks, with jitter upwards: boxes that began together drift apart.
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
            Some(looked) => with_jitter(self.floor.max(now - looked), random()),
        };
        sleep(pause.min(deadline - now), interrupted)?;
        self.looked = Some(Instant::now());
        Ok(true)
    }
}

/// The pause after the failure number `failures` (from 0), with jitter.
pub(super) fn backoff(failures: u32) -> Duration {
    with_jitter(exponential(failures), random())
}

fn exponential(failures: u32) -> Duration {
    BACKOFF.0.saturating_mul(2_u32.saturating_pow(failures)).min(BACKOFF.1)
}

/// 1 to 1.5 times `pause`. `random` is evenly distributed.
fn with_jitter(pause: Duration, random: u32) -> Duration {
    pause + pause.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
}

/// Without randomness boxes only meet more often.
fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

/// Sleeps, and fails when interrupted.
pub(super) fn sleep(pause: Duration, interrupted: &dyn Fn() -> bool) -> Result<()> {
    let end = Instant::now() + pause;
    loop {
        ensure!(!interrupted(), "interrupted");
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(NOTICE));
    }
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
    fn jitter_never_looks_sooner() {
        let pause = Duration::from_secs(2);
        assert_eq!(with_jitter(pause, 0), pause);
        assert_eq!(with_jitter(pause, u32::MAX), Duration::from_secs(3));
    }

    #[test]
    fn backoff_doubles_up_to_its_bound() {
        let pauses: Vec<u64> = [0, 1, 2, 5, 99].map(|failures| exponential(failures).as_secs()).into();
        assert_eq!(pauses, [1, 2, 4, 30, 30]);
    }

    #[test]
    fn looks_begin_soon_and_end_at_the_deadline() {
        let mut pauses = Pauses::new(Duration::from_secs(60));
        let started = Instant::now();
        let deadline = started + Duration::from_millis(700);
        assert!(pauses.sleep(deadline, &|| false).unwrap());
        assert!(started.elapsed() >= FIRST && Instant::now() < deadline, "{:?}", started.elapsed());
        assert!(pauses.sleep(deadline, &|| false).unwrap(), "one look at the deadline itself");
        assert!(!pauses.sleep(deadline, &|| false).unwrap());
        assert!(pauses.sleep(Instant::now() + FIRST, &|| true).is_err());
    }
}
