//! Waiting for something outside to come back: exponential, with jitter, up to a deadline, and never in silence.

use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use log::warn;

use crate::pause::{jittered, pause};

/// The first pause, and the longest.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);

/// Retries until a deadline.
#[derive(Debug)]
pub struct Patience {
    deadline: Instant,
    next: Duration,
    said: Option<String>,
}

impl Patience {
    /// Patience for `time`.
    #[must_use]
    pub fn new(time: Duration) -> Self {
        Self { deadline: Instant::now() + time, next: FIRST, said: None }
    }

    /// Waits before the next try after `error`; each wait is twice as long as the one before. Gives the error back when
    /// the patience is over or it is interrupted. What repeats is said once.
    pub fn wait(&mut self, error: Error, interrupted: &dyn Fn() -> bool) -> Result<()> {
        let time = jittered(self.next);
        if Instant::now() + time > self.deadline {
            return Err(error);
        }
        let text = format!("{error:#}");
        if self.said.as_ref() != Some(&text) {
            warn!("{text}; trying again");
            self.said = Some(text);
        }
        self.next = (self.next * 2).min(LONGEST);
        if pause(time, interrupted) { Ok(()) } else { Err(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_and_gives_the_error_back() {
        let error = Patience::new(Duration::ZERO).wait(anyhow::anyhow!("down"), &|| false).unwrap_err();
        assert_eq!(error.to_string(), "down");
        let error = Patience::new(Duration::from_secs(60)).wait(anyhow::anyhow!("down"), &|| true).unwrap_err();
        assert_eq!(error.to_string(), "down");
    }

    #[test]
    fn waits_grow_up_to_the_longest() {
        let mut patience = Patience { next: Duration::from_micros(1), ..Patience::new(Duration::from_secs(60)) };
        patience.wait(anyhow::anyhow!("down"), &|| false).unwrap();
        assert_eq!(patience.next, Duration::from_micros(2));
        patience.next = LONGEST;
        assert!(patience.wait(anyhow::anyhow!("down"), &|| true).is_err());
        assert_eq!(patience.next, LONGEST);
    }
}
