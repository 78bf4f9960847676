//! How long a deploy took, and which box is slow by it. Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::{BoxRow, Deploy, State};

/// Whether a box is at work for much longer than a whole wave took the last time.
#[must_use]
pub fn is_slow(row: &BoxRow, deploy: &Deploy, past: &[Deploy], now: Timestamp) -> bool {
    let usual = a_wave(deploy, past).map(|wave| (wave * 2).max(Duration::from_secs(60)));
    row.phase.is_working() && between(&row.since, now).zip(usual).is_some_and(|(time, usual)| time > usual)
}

/// How long the last complete deploy of that place took for a wave of boxes.
#[must_use]
pub fn a_wave(deploy: &Deploy, past: &[Deploy]) -> Option<Duration> {
    let complete = past.iter().find(|past| {
        let same_place = past.role == deploy.role && past.environment == deploy.environment;
        same_place && past.state == State::Deployed && past.size > 0
    })?;
    Some(took(complete)? / waves(complete, complete.size).max(1))
}

fn waves(deploy: &Deploy, boxes: u32) -> u32 {
    boxes.div_ceil(deploy.locks.max(1))
}

/// How long a deploy took that has ended.
#[must_use]
pub fn took(deploy: &Deploy) -> Option<Duration> {
    between(&deploy.started_at, deploy.ended_at.as_ref()?.parse().ok()?)
}

fn between(from: &str, to: Timestamp) -> Option<Duration> {
    let from: Timestamp = from.parse().ok()?;
    Duration::try_from(to - from).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deploy(state: &str, size: u32, remaining: u32, ended: Option<&str>) -> Deploy {
        serde_json::from_value(json!({
            "id": "app.staging.1", "role": "app", "environment": "staging", "tag": "v2", "kind": "deploy",
            "state": state, "size": size, "locks": 2, "remaining": remaining, "by": "ci",
            "started_at": "2026-01-01T00:00:00Z", "ended_at": ended,
        }))
        .unwrap()
    }

    #[test]
    fn a_box_is_slow_by_what_a_wave_takes() {
        let past = [deploy("deployed", 6, 0, Some("2026-01-01T00:03:00Z"))];
        let row = |phase: &str| -> BoxRow {
            serde_json::from_value(json!({"box": "a", "phase": phase, "since": "2026-01-01T00:00:00Z"})).unwrap()
        };
        let slow = |phase, seconds: i64, past: &[Deploy]| {
            let now = Timestamp::from_second(1_767_225_600 + seconds).unwrap();
            is_slow(&row(phase), &deploy("rolling", 6, 6, None), past, now)
        };
        assert!(slow("starting", 121, &past) && !slow("starting", 119, &past));
        assert!(!slow("waiting", 999, &past) && !slow("starting", 999, &[]));
    }
}
