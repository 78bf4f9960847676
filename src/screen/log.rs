//! A deploy as a log tells it, where nothing can be drawn again: a line a wave, and one for whatever is not as usual.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{Style, causes, halt, is_told, news, outcome, progress::done, progress_words};
use crate::{
    api::{BoxRow, Deploy, Phase, State},
    names::BoxName,
};

/// A line is due after this long, whatever has happened: CI systems end jobs that are silent for ten minutes.
const LONGEST_SILENCE: Duration = Duration::from_secs(300);

/// What was told of a deploy already.
#[derive(Debug, Default)]
pub struct DeployLog {
    /// Each change of each box has a line.
    verbose: bool,
    state: Option<State>,
    phases: BTreeMap<BoxName, Phase>,
    done: u32,
    halt: Option<String>,
    causes: Vec<String>,
    told_at: Option<Timestamp>,
}

impl DeployLog {
    /// Nothing yet. `verbose`: a line for each box and phase, too.
    #[must_use]
    pub fn new(verbose: bool) -> Self {
        Self { verbose, ..Self::default() }
    }

    /// The lines on what has changed; `out`: how many boxes are out of service.
    #[must_use]
    pub fn lines(&mut self, deploy: &Deploy, out: usize, now: Timestamp) -> Vec<String> {
        let mut lines = Vec::new();
        if self.state.replace(deploy.state) != Some(deploy.state) && !deploy.state.is_ended() {
            lines.extend(outcome(Style::plain(), deploy, now).into_iter().take(1));
        }
        lines.extend(self.boxes(deploy));
        lines.extend(self.halted(deploy, now));
        lines.extend(
            causes(deploy).into_iter().filter_map(|cause| self.first_time(cause)).map(|text| format!("  {text}")),
        );
        if self.wave_is_over(deploy, out) || lines.is_empty() && self.is_due(now) && deploy.state == State::Rolling {
            self.done = done(deploy);
            lines.push(format!("{} {}", clock(now), progress_words(deploy, out, now)));
        }
        if !lines.is_empty() {
            self.told_at = Some(now);
        }
        lines
    }

    /// `line`, unless what it tells was told before.
    pub fn first_time(&mut self, line: String) -> Option<String> {
        let bare = line.trim_start().strip_prefix("cause: ").unwrap_or(&line).to_owned();
        let new = !self.causes.iter().any(|told| is_told(told, &bare));
        new.then(|| {
            self.causes.push(bare);
            line
        })
    }

    /// A line for each box that ended badly; for each that is in another phase than before, where that is wanted.
    fn boxes(&mut self, deploy: &Deploy) -> Vec<String> {
        let told = |row: &&BoxRow| self.verbose || is_bad(row.phase);
        let changed = |row: &&BoxRow| self.phases.get(&row.name) != Some(&row.phase);
        let mut changed: Vec<&BoxRow> = deploy.boxes.iter().filter(changed).filter(told).collect();
        changed.sort_by(|a, b| a.since.cmp(&b.since));
        let mut lines = Vec::new();
        for row in changed {
            let from = self.phases.get(&row.name).map(|phase| format!("{phase} → ")).unwrap_or_default();
            let at = row.since.parse().map_or_else(|_| row.since.clone(), clock);
            lines.push(format!("{at} {} {from}{}", row.name, row.phase));
            lines.extend(news(deploy, row).and_then(|news| self.first_time(news)).map(|news| format!("  {news}")));
        }
        self.phases = deploy.boxes.iter().map(|row| (row.name.clone(), row.phase)).collect();
        lines
    }

    /// A line when something begins to halt the deploy, or does no more. For how long it stands is no change.
    fn halted(&mut self, deploy: &Deploy, now: Timestamp) -> Option<String> {
        let what = match (&deploy.pause, &deploy.gate, &deploy.step) {
            (Some(pause), ..) => Some(format!("paused {}", pause.at)),
            (None, Some(gate), _) => Some(gate.clone()),
            (None, None, Some(step)) => Some(format!("step {} {}", step.number, step.since.is_some())),
            (None, None, None) => None,
        };
        if deploy.state != State::Rolling || what == self.halt {
            return None;
        }
        self.halt = what;
        Some(format!("{} {}", clock(now), halt(deploy, now).unwrap_or_else(|| "it goes on".to_owned())))
    }

    /// Whether as many more boxes are done as may be out at once, or whoever was out is back.
    fn wave_is_over(&self, deploy: &Deploy, out: usize) -> bool {
        let new = done(deploy).saturating_sub(self.done);
        deploy.state == State::Rolling && new > 0 && (new >= deploy.locks || out == 0)
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let silence = SignedDuration::try_from(LONGEST_SILENCE).unwrap_or(SignedDuration::MAX);
        self.told_at.is_some_and(|at| now.duration_since(at) >= silence)
    }
}

/// Whether a box's end is worth a line of its own. That boxes are stopped with the deploy is what a cancel is for.
fn is_bad(phase: Phase) -> bool {
    matches!(phase, Phase::Failed | Phase::RolledBack | Phase::Lost | Phase::Gone)
}

/// A time of day as logs have it: in UTC.
fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Six boxes, two at a time, in these phases.
    fn deploy(phases: [&str; 6], mut more: Value) -> Deploy {
        let since = "2026-01-01T00:00:30Z";
        let boxes: Vec<Value> = (1..)
            .zip(phases)
            .map(|(number, phase)| {
                let (phase, detail) = phase.split_once(": ").unwrap_or((phase, ""));
                json!({"box": format!("box-{number}"), "phase": phase, "since": since, "detail": detail})
            })
            .collect();
        let over = ["done", "failed", "rolled_back", "cancelled"];
        let remaining = phases.iter().filter(|phase| !over.iter().any(|over| phase.starts_with(over))).count();
        let mut value = json!({
            "id": "x", "role": "app", "environment": "staging", "tag": "v2", "kind": "deploy", "state": "rolling",
            "size": 6, "locks": 2, "remaining": remaining, "by": "ci", "last_good": "v1",
            "started_at": "2026-01-01T00:00:00Z", "boxes": boxes,
        });
        value.as_object_mut().unwrap().append(more.as_object_mut().unwrap());
        serde_json::from_value(value).unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:01:00Z".parse().unwrap()
    }

    #[test]
    fn a_deploy_that_goes_well_has_a_line_a_wave() {
        let mut log = DeployLog::new(false);
        let mut told = Vec::new();
        let mut seen = |out, phases| told.extend(log.lines(&deploy(phases, json!({})), out, now()));
        let (e, w, d) = ("expected", "waiting", "done");
        seen(0, [e; 6]);
        seen(0, [w, w, w, e, e, e]);
        seen(2, ["draining", "draining", w, w, w, w]);
        seen(2, ["starting", "starting", w, w, w, w]);
        seen(2, [d, "registering", "draining", w, w, w]);
        seen(2, [d, d, "starting", "draining", w, w]);
        seen(1, [d, d, d, "starting", w, w]);
        seen(0, [d, d, d, d, w, w]);
        assert_eq!(
            told,
            [
                "app in staging: v1 → v2, rolling for 1m 0s: 0 of 6 boxes finished, 2 at a time",
                "00:01:00Z 2 of 6, 2 out, about 1 min",
                "00:01:00Z 4 of 6, under a minute",
            ]
        );
    }

    #[test]
    fn a_cause_is_told_once_whoever_tells_it() {
        let mut log = DeployLog::new(false);
        let _ = log.lines(
            &deploy(["starting", "starting", "waiting", "waiting", "waiting", "waiting"], json!({})),
            2,
            now(),
        );
        let stopped = "cancelled: the release is broken: box-1: exit code 1 (by box-1)";
        let told =
            log.lines(&deploy(["starting", "starting", stopped, stopped, stopped, stopped], json!({})), 2, now());
        assert_eq!(told, ["  cause: the release is broken: box-1: exit code 1 (by box-1)"]);
        let back = "rolled_back: exit code 1";
        let told = log.lines(&deploy([back, back, stopped, stopped, stopped, stopped], json!({})), 0, now());
        let rows = ["00:00:30Z box-1 starting → rolled_back", "00:00:30Z box-2 starting → rolled_back"];
        assert_eq!(told, rows);
        assert_eq!(log.first_time("  cause: box-1: exit code 1".to_owned()), None, "nor at the end");
    }

    #[test]
    fn what_halts_it_is_told_when_it_begins_and_when_it_ends() {
        let mut log = DeployLog::new(false);
        let phases = ["done", "waiting", "waiting", "waiting", "waiting", "waiting"];
        let _ = log.lines(&deploy(phases, json!({})), 0, now());
        let paused = json!({"pause": {"by": "ann", "reason": "errors?", "at": "2026-01-01T00:00:50Z"}});
        let later = now() + SignedDuration::from_secs(5);
        assert_eq!(log.lines(&deploy(phases, paused.clone()), 0, now()), ["00:01:00Z paused for 10s by ann: errors?"]);
        assert!(log.lines(&deploy(phases, paused), 0, later).is_empty());
        assert_eq!(log.lines(&deploy(phases, json!({})), 0, later), ["00:01:05Z it goes on"]);
    }

    #[test]
    fn nobody_waits_in_silence_for_ten_minutes() {
        let mut log = DeployLog::new(false);
        let phases = ["starting", "waiting", "waiting", "waiting", "waiting", "waiting"];
        assert_eq!(log.lines(&deploy(phases, json!({})), 1, now()).len(), 1);
        let after = |seconds| now() + SignedDuration::from_secs(seconds);
        assert!(log.lines(&deploy(phases, json!({})), 1, after(299)).is_empty());
        assert_eq!(log.lines(&deploy(phases, json!({})), 1, after(300)), ["00:06:00Z 0 of 6, 1 out"]);
    }

    #[test]
    fn each_change_has_a_line_where_that_is_wanted() {
        let mut log = DeployLog::new(true);
        let phases = |first| [first, "waiting", "waiting", "waiting", "waiting", "waiting"];
        assert_eq!(log.lines(&deploy(phases("waiting: 1 of 1 lock: b"), json!({})), 0, now()).len(), 8);
        assert_eq!(log.lines(&deploy(phases("draining"), json!({})), 1, now()), ["00:00:30Z box-1 waiting → draining"]);
    }
}
