//! Waiting for something outside to come back: exponential, with jitter, up to a deadline, and never in silence.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use log::warn;

use crate::pause::{jittered, pause};

/// The first wait, and the longest.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);

/// Calls again while its error `may_pass`, each time after twice the wait, until `patience` is over or `interrupted`
/// answers true; then gives back the last error. What repeats is said once. Only for calls that may arrive twice.
pub fn retrying<T, E: Display>(
    patience: Duration,
    interrupted: &dyn Fn() -> bool,
    may_pass: impl Fn(&E) -> bool,
    mut call: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let begun = Instant::now();
    let (mut wait, mut said) = (FIRST, String::new());
    loop {
        let error = match call() {
            Err(error) if may_pass(&error) => error,
            answer => return answer,
        };
        let time = jittered(wait);
        if begun.elapsed() + time > patience || interrupted() {
            return Err(error);
        }
        let text = format!("{error:#}");
        if said != text {
            warn!("{text}; trying again");
            said = text;
        }
        if !pause(time, interrupted) {
            return Err(error);
        }
        wait = (wait * 2).min(LONGEST);
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
    fn patience_ends_and_gives_the_error_back() {
        assert_eq!(ask(Duration::ZERO, false, &mut vec![Ok(7), Err("away")]), Err("away"));
        assert_eq!(ask(Duration::from_secs(30), true, &mut vec![Ok(7), Err("away")]), Err("away"));
    }
}
