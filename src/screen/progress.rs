//! How far a deploy is, and how long it may still take. Pure: the time comes in as a value.

use std::time::Duration;

use jiff::Timestamp;

use super::{Paint, Style};
use crate::api::{Deploy, Phase, State};

/// How many columns the bar has.
const BAR: u32 = 20;
/// A box that was done this soon after the one before it in its lock ran the release already: it says nothing of how
/// long a box takes.
const AT_ONCE: Duration = Duration::from_secs(1);

/// `████░░ 12 of 60, 2 out, about 4 min`, of a deploy that rolls.
#[must_use]
pub fn progress(style: Style, deploy: &Deploy, out: usize, now: Timestamp) -> Option<String> {
    if deploy.state != State::Rolling || deploy.size == 0 {
        return None;
    }
    let full = BAR * done(deploy).min(deploy.size) / deploy.size;
    let bar = |times: u32, what: &str| what.repeat(times.try_into().unwrap_or(0));
    let text = progress_words(deploy, out, now);
    Some(style.fit(&format!("{}{} {text}", style.paint(Paint::Green, &bar(full, "█")), bar(BAR - full, "░"))))
}

/// `12 of 60, 2 out, 1 failed, about 4 min`.
#[must_use]
pub fn progress_words(deploy: &Deploy, out: usize, now: Timestamp) -> String {
    let failed = deploy.boxes.iter().filter(|row| matches!(row.phase, Phase::Failed | Phase::Lost)).count();
    let mut words = vec![format!("{} of {}", done(deploy), deploy.size)];
    for (boxes, what) in [(out, "out"), (failed, "failed")] {
        if boxes > 0 {
            words.push(format!("{boxes} {what}"));
        }
    }
    words.extend(still(deploy, now).map(about));
    words.join(", ")
}

/// How many boxes run the release, in service.
#[must_use]
pub fn done(deploy: &Deploy) -> u32 {
    let done = deploy.boxes.iter().filter(|row| row.phase == Phase::Done).count();
    u32::try_from(done).unwrap_or(u32::MAX)
}

/// How long the deploy may still take, by what its boxes have taken so far. Nothing where no box has shown it yet, or
/// where something else decides: a person, a gate, a step, a release that breaks.
#[must_use]
pub fn still(deploy: &Deploy, now: Timestamp) -> Option<Duration> {
    let stands = deploy.pause.is_some() || deploy.gate.is_some() || deploy.step.is_some();
    let breaks = deploy.boxes.iter().any(|row| matches!(row.phase, Phase::RolledBack | Phase::Cancelled));
    if deploy.state != State::Rolling || stands || breaks || deploy.remaining == 0 {
        return None;
    }
    let began = millis(&deploy.started_at)?;
    let mut ends: Vec<i64> =
        deploy.boxes.iter().filter(|row| row.phase == Phase::Done).filter_map(|row| millis(&row.since)).collect();
    ends.sort_unstable();
    // A box that failed uses up one lock.
    let failed = deploy.boxes.iter().filter(|row| row.phase == Phase::Failed).count();
    let locks = usize::try_from(deploy.locks).ok()?.saturating_sub(failed).max(1);
    let takes = usual(&ends, began, locks)?;
    let now = now.as_millisecond();
    for _ in 0..deploy.remaining {
        // A box begins when the one that had its lock has ended.
        let begins = ends.len().checked_sub(locks).map_or(began, |before| ends[before]);
        ends.push((begins + takes).max(now));
        ends.sort_unstable();
    }
    let last = ends.last().copied().unwrap_or(now);
    u64::try_from(last - now).ok().map(Duration::from_millis)
}

/// What a box takes from the lock to the end, in milliseconds: the median of those that are done. `ends`: when they were,
/// oldest first.
fn usual(ends: &[i64], began: i64, locks: usize) -> Option<i64> {
    let begins = std::iter::repeat_n(began, locks).chain(ends.iter().copied());
    let mut took: Vec<i64> = ends.iter().zip(begins).map(|(end, begin)| end - begin).collect();
    took.retain(|took| u64::try_from(*took).is_ok_and(|took| Duration::from_millis(took) >= AT_ONCE));
    took.sort_unstable();
    took.get(took.len() / 2).copied()
}

fn millis(at: &str) -> Option<i64> {
    at.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

/// A guess, as exact as it is: `under a minute`, `about 4 min`, `about 2 h`.
fn about(time: Duration) -> String {
    let minutes = (time.as_secs() + 30) / 60;
    match minutes {
        0 => "under a minute".to_owned(),
        1..90 => format!("about {minutes} min"),
        _ => format!("about {} h", (minutes + 30) / 60),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A deploy of `size` boxes that began at midnight; `done`: when boxes were, in seconds since then.
    fn deploy(size: u32, locks: u32, done: &[u32], mut more: serde_json::Value) -> Deploy {
        let boxes: Vec<_> = (1..=size)
            .map(|number| {
                let at = usize::try_from(number - 1).ok().and_then(|at| done.get(at));
                let phase = if at.is_some() { "done" } else { "waiting" };
                let at = at.copied().unwrap_or(0);
                let since = format!("2026-01-01T{:02}:{:02}:{:02}Z", at / 3600, at / 60 % 60, at % 60);
                json!({"box": format!("box-{number}"), "phase": phase, "since": since})
            })
            .collect();
        let mut value = json!({
            "id": "x", "role": "app", "environment": "staging", "tag": "v2", "kind": "deploy", "state": "rolling",
            "size": size, "locks": locks, "remaining": size - u32::try_from(done.len()).unwrap(), "by": "ci",
            "started_at": "2026-01-01T00:00:00Z", "boxes": boxes,
        });
        value.as_object_mut().unwrap().append(more.as_object_mut().unwrap());
        serde_json::from_value(value).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + jiff::SignedDuration::from_secs(seconds)
    }

    fn seconds(deploy: &Deploy, now: i64) -> Option<u64> {
        still(deploy, at(now)).map(|time| time.as_secs())
    }

    #[test]
    fn the_line_shows_how_far_and_how_long_still() {
        let deploy = deploy(60, 20, &[60; 12], json!({}));
        let line = progress(Style::plain(), &deploy, 2, at(60)).unwrap();
        assert_eq!(line, "████░░░░░░░░░░░░░░░░ 12 of 60, 2 out, about 2 min");
        let deploy = self::deploy(3, 1, &[], json!({}));
        assert_eq!(progress(Style::plain(), &deploy, 0, at(9)).unwrap(), "░░░░░░░░░░░░░░░░░░░░ 0 of 3");
    }

    #[test]
    fn waves_are_counted_with_what_a_box_has_taken() {
        assert_eq!(seconds(&deploy(6, 2, &[60, 60], json!({})), 60), Some(120), "two waves more");
        assert_eq!(seconds(&deploy(6, 2, &[60, 60], json!({})), 100), Some(80));
        assert_eq!(
            seconds(&deploy(6, 1, &[60, 100, 140, 180], json!({})), 180),
            Some(80),
            "the first one pulled for long"
        );
        assert_eq!(seconds(&deploy(2, 1, &[60], json!({})), 600), Some(0), "a slow one may be done at any time");
    }

    #[test]
    fn boxes_that_ran_it_already_and_one_that_failed_do_not_mislead() {
        assert_eq!(seconds(&deploy(6, 1, &[2, 2, 2, 62], json!({})), 62), Some(120));
        let mut failed = deploy(6, 2, &[60, 60], json!({"remaining": 3}));
        failed.boxes[5].phase = Phase::Failed;
        assert_eq!(seconds(&failed, 60), Some(180), "one lock is left");
    }

    #[test]
    fn nothing_is_said_where_nothing_is_known() {
        assert_eq!(seconds(&deploy(6, 2, &[], json!({})), 60), None);
        let pause = json!({"by": "ann", "reason": "x", "at": "2026-01-01T00:00:00Z"});
        for more in [
            json!({"pause": pause}),
            json!({"gate": "too many errors"}),
            json!({"step": {"number": 1, "of": 2, "boxes": 1}}),
            json!({"state": "deployed"}),
        ] {
            assert_eq!(seconds(&deploy(6, 2, &[60, 60], more.clone()), 60), None, "{more}");
        }
        let mut breaking = deploy(6, 2, &[60, 60], json!({}));
        breaking.boxes[2].phase = Phase::RolledBack;
        assert_eq!(seconds(&breaking, 60), None);
    }

    #[test]
    fn a_guess_is_as_exact_as_it_is() {
        let said = [10, 40, 240, 5_300, 7_200].map(|seconds| about(Duration::from_secs(seconds)));
        assert_eq!(said, ["under a minute", "about 1 min", "about 4 min", "about 88 min", "about 2 h"]);
    }
}
