//! Waiting for something outside to come back: exponential, with jitter, up to a deadline, and never in silence.

use std::{
    fmt::Display,
    mem,
    time::{Duration, Instant},
};

use log::warn;

use crate::sleep::{jittered, sleep};

/// The first wait, and the longest. Each is twice the one before.
struct Backoff(Duration, Duration);

impl Backoff {
    fn next(&mut self) -> Duration {
        let longer = (self.0 * 2).min(self.1);
        mem::replace(&mut self.0, longer)
    }
}

/// For what is ours: Redis, the service, the Serf agent, the Docker engine.
const NEAR: Backoff = Backoff(Duration::from_millis(200), Duration::from_secs(5));
/// For what many share, and what slows down those who ask often: AWS, registries.
const FAR: Backoff = Backoff(Duration::from_secs(1), Duration::from_secs(30));

/// Calls again while its error `is_transient`, each time after twice the wait, until `patience` is over or `interrupted`
/// answers true; then gives back the last error. What repeats is said once. Only for calls that may arrive twice.
pub fn retrying<T, E: Display>(
    patience: Duration,
    interrupted: &dyn Fn() -> bool,
    is_transient: impl FnMut(&E) -> bool,
    call: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    retry(NEAR, patience, interrupted, is_transient, call)
}

/// Like [`retrying`], with longer waits, for AWS and registries.
pub fn retrying_slowly<T, E: Display>(
    patience: Duration,
    interrupted: &dyn Fn() -> bool,
    is_transient: impl FnMut(&E) -> bool,
    call: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    retry(FAR, patience, interrupted, is_transient, call)
}

fn retry<T, E: Display>(
    mut waits: Backoff,
    patience: Duration,
    interrupted: &dyn Fn() -> bool,
    mut is_transient: impl FnMut(&E) -> bool,
    mut call: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let begun = Instant::now();
    let mut said = String::new();
    loop {
        let error = match call() {
            Err(error) if is_transient(&error) => error,
            answer => return answer,
        };
        let time = jittered(waits.next());
        if begun.elapsed() + time > patience || interrupted() {
            return Err(error);
        }
        let text = format!("{error:#}");
        if said != text {
            warn!("{text}; trying again");
            said = text;
        }
        if !sleep(time, interrupted) {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(
        patience: Duration,
        interrupted: bool,
        answers: &mut Vec<Result<u8, &'static str>>,
    ) -> Result<u8, &'static str> {
        let away = |error: &&str| *error == "away";
        retrying(patience, &|| interrupted, away, || answers.pop().unwrap_or(Ok(0)))
    }

    #[test]
    fn what_may_pass_is_asked_again_and_nothing_else() {
        let patience = Duration::from_secs(30);
        assert_eq!(ask(patience, false, &mut vec![Ok(7), Err("away"), Err("away")]), Ok(7));
        assert_eq!(ask(patience, false, &mut vec![Ok(7), Err("refused")]), Err("refused"));
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut waits = FAR;
        let seconds: Vec<u64> = (0..7).map(|_| waits.next().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn patience_ends_and_gives_the_error_back() {
        assert_eq!(ask(Duration::ZERO, false, &mut vec![Ok(7), Err("away")]), Err("away"));
        assert_eq!(ask(Duration::from_secs(30), true, &mut vec![Ok(7), Err("away")]), Err("away"));
    }
}
