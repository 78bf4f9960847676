//! How many new releases a token may make known. One that has leaked must neither fill Redis nor push everything else out
//! of the audit log.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    api_error::{ApiError, ApiResult, ErrorKind},
    auth::Caller,
};

/// So many at once: a pipeline that publishes every service of a large repository.
const BURST: u32 = 300;
/// And one more after each of these.
const REFILL: Duration = Duration::from_secs(6);

/// What each token has left, by its name.
#[derive(Debug, Default)]
pub struct Quota(Mutex<HashMap<String, Bucket>>);

#[derive(Debug)]
struct Bucket {
    left: u32,
    filled: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let periods = now.saturating_duration_since(self.filled).as_secs() / REFILL.as_secs();
        match u32::try_from(periods) {
            Ok(periods) if periods < BURST => {
                self.left = (self.left + periods).min(BURST);
                self.filled += REFILL * periods;
            }
            _ => (self.left, self.filled) = (BURST, now),
        }
        let granted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        granted
    }
}

impl Quota {
    /// Takes one for `caller`. Refused when its token has none left; who needs no token has no bound.
    pub fn take(&self, caller: &Caller, now: Instant) -> ApiResult<()> {
        let Some((name, _)) = caller.token() else { return Ok(()) };
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(name.to_owned()).or_insert(Bucket { left: BURST, filled: now });
        if bucket.take(now) {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorKind::TooMany,
            format!(
                "the token {name} has published {BURST} releases and has one more every {} s: try again then",
                REFILL.as_secs()
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_after_each_period() {
        let begun = Instant::now();
        let mut bucket = Bucket { left: BURST, filled: begun };
        assert!((0..BURST).all(|_| bucket.take(begun)));
        assert!(!bucket.take(begun + REFILL / 2));
        assert!(bucket.take(begun + REFILL));
        assert!(!bucket.take(begun + REFILL));
        let later = begun + REFILL * 10 * BURST;
        assert!((0..BURST).all(|_| bucket.take(later)) && !bucket.take(later), "it holds no more than a burst");
    }
}
