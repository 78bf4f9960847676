//! A deploy whose boxes do not move.

use std::time::Duration;

use anyhow::Result;

use super::{happened::Happened, text::short};
use crate::service::{Service, usual_time};
use crate::{
    api::{BoxRow, Deploy, State, TurnKind},
    config::duration,
    coordination::DeployRecord,
    names::Place,
};

/// How many past deploys are looked at.
const PAST: u32 = 20;
/// So many boxes are named.
const NAMED: usize = 3;

/// How long a deploy may go without a box that moves: three times what a wave of boxes took the last time, from its locks to
/// the end, and no less than `least`.
fn patience(least: Duration, wave: Option<Duration>) -> Duration {
    wave.map_or(least, |wave| least.max(wave.saturating_mul(3)))
}

/// Whether something else than a box decides when the deploy goes on: a gate before the start, a person, the time of a step.
fn stands_on_purpose(doc: &DeployRecord) -> bool {
    doc.state() != State::Rolling || doc.gated.is_some() || doc.pause.is_some() || doc.step_since.is_some()
}

/// Which boxes do not move, and what they are at.
fn who(deploy: &Deploy) -> Option<String> {
    let unfinished = |works: bool| {
        deploy.boxes.iter().filter(move |row| row.phase.is_unfinished() && row.phase.is_working() == works)
    };
    let mut rows: Vec<&BoxRow> = unfinished(true).collect();
    if rows.is_empty() {
        rows = unfinished(false).collect();
    }
    let words = rows.iter().take(NAMED).map(|row| {
        let detail = row.detail.as_ref().map(|detail| format!(" ({})", short(detail, 200))).unwrap_or_default();
        format!("{} is {}{detail}", row.name, row.phase)
    });
    let mut words: Vec<String> = words.collect();
    if rows.len() > NAMED {
        words.push(format!("and {} more", rows.len() - NAMED));
    }
    Some(words.join(", ")).filter(|words| !words.is_empty())
}

impl Service {
    /// Tells that a deploy is stuck, once for each stall: what follows the next box that moves is another one.
    pub fn tell_if_stuck(&self, place: &Place, doc: &DeployRecord) -> Result<()> {
        if stands_on_purpose(doc) {
            return Ok(());
        }
        let least = self.config.service.stuck_after;
        let Some((moved, stands)) = self.store.at(place, |locks| locks.stands(&doc.id))? else { return Ok(()) };
        let id = format!("{}:{}:{moved}", doc.id, TurnKind::Stuck);
        if stands < least || self.has_told(&id) {
            return Ok(());
        }
        let (deploy, past) = self.store.at(place, |locks| Ok((locks.show(doc, true)?, locks.deploys(PAST)?)))?;
        if stands < patience(least, usual_time::a_wave(&deploy, &past)) {
            return Ok(());
        }
        let reason = [Some(format!("no box has moved for {}", duration::display(stands))), who(&deploy)];
        let reason = Some(reason.into_iter().flatten().collect::<Vec<_>>().join(": "));
        let stuck = Happened { id, turn: TurnKind::Stuck, at: None, by: None, reason, step: None };
        let turn = self.turn(place, doc, stuck)?;
        log::warn!("{}: {}", turn.text, short(turn.reason.as_deref().unwrap_or_default(), 1000));
        self.tell(&turn)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn three_usual_waves_are_waited_for_and_the_least_time() {
        let [minute, hour] = [60, 3600].map(Duration::from_secs);
        assert_eq!(patience(5 * minute, None), 5 * minute);
        assert_eq!(patience(5 * minute, Some(minute)), 5 * minute);
        assert_eq!(patience(5 * minute, Some(hour)), 3 * hour);
        assert_eq!(patience(minute, Some(Duration::MAX)), Duration::MAX);
    }

    #[test]
    fn boxes_that_work_are_named_before_those_that_wait() {
        let deploy = |boxes: serde_json::Value| -> Deploy {
            serde_json::from_value(json!({
                "id": "app.staging.1", "role": "app", "environment": "staging", "tag": "v2", "kind": "deploy",
                "state": "rolling", "size": 6, "locks": 2, "remaining": 4, "by": "ci", "started_at": "", "boxes": boxes,
            }))
            .unwrap()
        };
        let row = |name: &str, phase: &str| json!({"box": name, "phase": phase, "since": "", "detail": "because"});
        let rows = json!([row("a", "waiting"), row("b", "starting"), row("c", "done")]);
        assert_eq!(who(&deploy(rows)).unwrap(), "b is starting (because)");
        let rows = json!([row("a", "waiting"), row("b", "expected"), row("c", "pulling"), row("d", "waiting")]);
        assert!(who(&deploy(rows)).unwrap().ends_with("c is pulling (because), and 1 more"));
        assert_eq!(who(&deploy(json!([row("c", "done")]))), None);
    }
}
