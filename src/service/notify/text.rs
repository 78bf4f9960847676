//! The words for people. Pure.

use crate::{
    api::{Deploy, Freeze, Turn, TurnKind},
    names::{Environment, Place, Tag},
};

/// What happened to a deploy, in one line.
pub fn of_deploy(turn: TurnKind, deploy: &Deploy, step: Option<usize>) -> String {
    let Deploy { role, environment, tag, size, locks, .. } = deploy;
    let boxes = |count: u32| if count == 1 { "1 box".to_owned() } else { format!("{count} boxes") };
    let from = deploy.last_good.as_ref().filter(|old| *old != tag);
    let step = step.unwrap_or_default();
    let what = match (turn, from) {
        (TurnKind::Started, Some(from)) => {
            format!("{from} → {tag} begins on {}, {locks} at a time", boxes(*size))
        }
        (TurnKind::Started, None) => format!("{tag} begins on {}, {locks} at a time", boxes(*size)),
        (TurnKind::GoingBack, _) => format!("goes back to {tag}"),
        (TurnKind::Step, _) => format!("{tag}: step {step} has passed"),
        (TurnKind::NeedsApproval, _) => format!("{tag}: step {step} is done and waits for approval"),
        (TurnKind::Broken, _) => format!("{tag} is broken"),
        (TurnKind::Deployed, _) => format!("{tag} is deployed on {}", boxes(*size)),
        (TurnKind::Stuck, _) => format!("{tag} is stuck"),
        (TurnKind::Ended, _) => format!("{tag} ended: {}", deploy.state),
        (TurnKind::Failed | TurnKind::Cancelled | TurnKind::Frozen, _) => format!("{tag} is {turn}"),
    };
    format!("{role} in {environment}: {what}")
}

/// A release waits for people.
pub fn waits_for_approval(to: &Place, tag: &Tag, from: &Environment) -> String {
    format!("{to}: {tag} waits for approval to come from {from}")
}

/// Nothing new starts.
pub fn frozen(freeze: &Freeze) -> String {
    let Freeze { environment, role, until, .. } = freeze;
    let what = role.as_ref().map_or_else(|| environment.to_string(), |role| format!("{role} in {environment}"));
    let until = until.map(|until| format!(" until {until}")).unwrap_or_default();
    format!("{what} is frozen{until}")
}

/// How far a deploy is: `12 of 60 boxes, 2 out`.
pub fn how_far(turn: &Turn) -> Option<String> {
    let (deploy, done) = (turn.deploy.as_ref()?, turn.done?);
    let out = turn.out.filter(|out| *out > 0).map(|out| format!(", {out} out")).unwrap_or_default();
    Some(format!("{done} of {} boxes{out}", deploy.size))
}

/// The beginning of a text, `most` characters at most, in one line and without control characters.
pub fn short(text: &str, most: usize) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.chars().count() <= most {
        return words;
    }
    words.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deploy() -> Deploy {
        serde_json::from_value(json!({
            "id": "app.staging.1", "role": "app", "environment": "staging", "tag": "v2", "kind": "deploy",
            "state": "broken", "size": 6, "locks": 2, "remaining": 4, "by": "ci", "started_at": "", "last_good": "v1",
        }))
        .unwrap()
    }

    #[test]
    fn each_turn_has_its_line() {
        let line = |turn, step| of_deploy(turn, &deploy(), step);
        assert_eq!(line(TurnKind::Started, None), "app in staging: v1 → v2 begins on 6 boxes, 2 at a time");
        assert_eq!(line(TurnKind::Step, Some(1)), "app in staging: v2: step 1 has passed");
        assert_eq!(line(TurnKind::Broken, None), "app in staging: v2 is broken");
        assert_eq!(line(TurnKind::Failed, None), "app in staging: v2 is failed");
        assert_eq!(line(TurnKind::Ended, None), "app in staging: v2 ended: broken");
    }

    #[test]
    fn a_text_is_one_line_and_has_an_end() {
        assert_eq!(short("a\n\u{1b}[31mb\t c", 20), "a [31mb c");
        assert_eq!(short("äöüß", 3), "äö…");
    }
}
