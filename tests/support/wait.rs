//! Waiting for a condition, with a deadline and the last state seen.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

/// Polls `look` until it gives something. Its error is the state it saw instead, and stands in the panic when time is up.
#[track_caller]
pub fn wait_for<T, S: Display>(within: Duration, what: &str, mut look: impl FnMut() -> Result<T, S>) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look() {
            Ok(found) => return found,
            Err(state) if Instant::now() >= deadline => {
                panic!("{what}: not within {within:?}; last seen: {state}")
            }
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// [`wait_for`] a plain condition, where there is no more to say than that it does not hold.
#[track_caller]
pub fn wait_until(within: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(within, what, || if holds() { Ok(()) } else { Err("no") });
}

/// The end of a log.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
