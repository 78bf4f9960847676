//! What happened to a deploy, by its record. Pure.

use crate::{
    api::{Kind, State, TurnKind},
    coordination::{Cancel, DeployRecord},
};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// The turn's id.
    pub id: String,
    /// What.
    pub turn: TurnKind,
    /// When, in milliseconds since 1970; none where the record does not say it.
    pub at: Option<i64>,
    /// Who.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The step that it is about, 1..
    pub step: Option<usize>,
}

impl Happened {
    fn new(doc: &DeployRecord, turn: TurnKind) -> Self {
        Self { id: format!("{}:{turn}", doc.id), turn, at: None, by: None, reason: None, step: None }
    }

    fn of_step(doc: &DeployRecord, turn: TurnKind, step: usize) -> Self {
        Self { id: format!("{}:{turn}:{step}", doc.id), step: Some(step), ..Self::new(doc, turn) }
    }
}

/// Everything that has happened to a deploy so far, in order.
pub fn happened(doc: &DeployRecord, cancel: Option<&Cancel>) -> Vec<Happened> {
    let state = doc.state();
    if state == State::Queued {
        return Vec::new();
    }
    let begins = if doc.kind == Kind::Rollback { TurnKind::GoingBack } else { TurnKind::Started };
    let mut all = vec![Happened {
        at: doc.started,
        by: Some(doc.by.clone()),
        // Of one that has ended the record says why it did.
        reason: doc.reason.clone().filter(|_| !state.is_ended() || state == State::Deployed),
        ..Happened::new(doc, begins)
    }];
    all.extend((1..doc.step.unwrap_or(1)).map(|step| Happened::of_step(doc, TurnKind::Step, step)));
    if let (Some(pause), Some(step), false) = (&doc.pause, doc.step, state.is_ended())
        && pause.step == Some(true)
    {
        all.push(Happened {
            at: Some(pause.at),
            reason: Some(pause.reason.clone()),
            ..Happened::of_step(doc, TurnKind::NeedsApproval, step)
        });
    }
    let blame = cancel.filter(|cancel| cancel.broken);
    if blame.is_some() || state == State::Broken {
        all.push(Happened {
            by: blame.map(|cancel| cancel.by.clone()),
            reason: blame.map(|cancel| cancel.reason.clone()).or(doc.reason.clone()),
            ..Happened::new(doc, TurnKind::Broken)
        });
    }
    let ends = match state {
        State::Deployed => Some(TurnKind::Deployed),
        State::Failed => Some(TurnKind::Failed),
        State::Cancelled => Some(TurnKind::Cancelled),
        State::Queued | State::Rolling | State::Broken => None,
    };
    let by = cancel.map_or(&doc.by, |cancel| &cancel.by);
    let over = ends.into_iter().chain(state.is_ended().then_some(TurnKind::Ended));
    all.extend(over.map(|turn| Happened {
        at: doc.ended,
        by: Some(by.clone()),
        reason: doc.reason.clone(),
        ..Happened::new(doc, turn)
    }));
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn doc(more: &serde_json::Value) -> DeployRecord {
        let mut doc = json!({
            "id": "app.staging.1", "role": "app", "environment": "staging", "tag": "v2", "kind": "deploy", "by": "ci",
            "max_parallel": "1/3", "state": "rolling", "started": 1,
        });
        doc.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(doc).unwrap()
    }

    fn words(doc: &DeployRecord, cancel: Option<&Cancel>) -> Vec<String> {
        happened(doc, cancel).into_iter().map(|one| one.id.replace("app.staging.1:", "")).collect()
    }

    #[test]
    fn each_turn_of_a_deploy_is_there_once_it_has_come() {
        let cancel = |broken| Cancel {
            by: "box-1".to_owned(),
            reason: "exited".to_owned(),
            broken,
            superseded: false,
            failed: false,
        };
        assert!(words(&doc(&json!({"state": "queued"})), None).is_empty());
        assert_eq!(words(&doc(&json!({})), None), ["started"]);
        assert_eq!(words(&doc(&json!({"kind": "rollback"})), None), ["going_back"]);
        assert_eq!(words(&doc(&json!({"step": 1})), None), ["started"]);
        assert_eq!(words(&doc(&json!({"step": 3})), None), ["started", "step:1", "step:2"]);
        let waits = json!({"step": 1, "pause": {"by": "deployctl", "reason": "r", "at": 1, "step": true}});
        assert_eq!(words(&doc(&waits), None), ["started", "needs_approval:1"]);
        let paused = json!({"step": 1, "pause": {"by": "ann", "reason": "r", "at": 1}});
        assert_eq!(words(&doc(&paused), None), ["started"]);
        assert_eq!(words(&doc(&json!({})), Some(&cancel(true))), ["started", "broken"]);
        assert_eq!(words(&doc(&json!({"state": "broken"})), Some(&cancel(true))), ["started", "broken", "ended"]);
        assert_eq!(words(&doc(&json!({})), Some(&cancel(false))), ["started"]);
        for state in ["deployed", "failed", "cancelled"] {
            assert_eq!(words(&doc(&json!({"state": state})), None), ["started", state, "ended"]);
        }
    }

    #[test]
    fn a_turn_says_who_and_why() {
        let ended = doc(&json!({"state": "failed", "reason": "no lock is left", "ended": 9}));
        let [started, failed, _] = &happened(&ended, None)[..] else { panic!() };
        assert_eq!((started.by.as_deref(), &started.reason, started.at), (Some("ci"), &None, Some(1)));
        assert_eq!((failed.reason.as_deref(), failed.at), (Some("no lock is left"), Some(9)));
    }
}
