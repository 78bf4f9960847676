//! Deploys and their boxes as a person reads them. Pure: the time comes in as a value.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{Cell, Paint, Style, causes, drop_empty_column, news, one_line};
use crate::{
    api::{BoxRow, Deploy, LockRow, Phase, State, ZoneRow},
    config::duration,
};

/// What is to happen, in one line: `v41 → v42, 60 boxes, 20 at a time`.
#[must_use]
pub fn headline(deploy: &Deploy) -> String {
    let tags = tags(deploy);
    format!("{tags}, {}, {} at a time", count(deploy.size), deploy.locks)
}

/// `v41 → v42`.
fn tags(deploy: &Deploy) -> String {
    match &deploy.last_good {
        Some(last) if *last == deploy.tag => format!("{last} again"),
        Some(last) => format!("{last} → {}", deploy.tag),
        None => format!("{}, the first here", deploy.tag),
    }
}

/// `1 box`, `2 boxes`.
fn count(boxes: u32) -> String {
    if boxes == 1 { "1 box".to_owned() } else { format!("{boxes} boxes") }
}

/// How long ago an RFC 3339 time was, for people; the text itself when it is none.
#[must_use]
pub fn age(now: Timestamp, at: &str) -> String {
    let Ok(at) = at.parse::<Timestamp>() else { return at.to_owned() };
    let age = between(at, now);
    if age < Duration::from_secs(60) { format!("{}s", age.as_secs()) } else { duration::display(age) }
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(to.as_millisecond() - from.as_millisecond()).unwrap_or(0))
}

/// How a phase looks.
fn paint_of(phase: Phase) -> Paint {
    match phase {
        Phase::Done => Paint::Green,
        Phase::Failed | Phase::Lost => Paint::Red,
        Phase::RolledBack | Phase::Cancelled | Phase::Gone => Paint::Yellow,
        Phase::Expected | Phase::Waiting => Paint::Dim,
        _ => Paint::Blue,
    }
}

/// The boxes of a deploy by phase: `2 draining, 3 waiting, 1 done`.
#[must_use]
pub fn counts<'a>(rows: impl IntoIterator<Item = &'a BoxRow>) -> String {
    let mut phases = BTreeMap::<Phase, u32>::new();
    for row in rows {
        *phases.entry(row.phase).or_default() += 1;
    }
    let words: Vec<String> = phases.iter().map(|(phase, boxes)| format!("{boxes} {phase}")).collect();
    words.join(", ")
}

/// The boxes of a deploy as a table of at most `most` rows; where there are more, those that matter most.
#[must_use]
pub fn boxes(style: Style, deploy: &Deploy, locks: &[LockRow], now: Timestamp, most: usize) -> Vec<String> {
    let mut rows: Vec<&BoxRow> = deploy.boxes.iter().collect();
    let hidden = if rows.len() > most {
        rows.sort_by_key(|row| Reverse(interest(row.phase)));
        rows.split_off(most.saturating_sub(1))
    } else {
        Vec::new()
    };
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    let mut table = vec![Cell::headings(&["BOX", "ZONE", "PHASE", "LOCK", "TAG", "FOR", ""])];
    table.extend(rows.iter().map(|row| {
        let lock = locks.iter().find(|lock| lock.name == row.name);
        vec![
            Cell::plain(&row.name),
            Cell::plain(row.zone.as_ref().map_or("", |zone| zone.as_str())),
            Cell::new(paint_of(row.phase), &row.phase),
            Cell::plain(&lock.map_or_else(String::new, |lock| lock.suffix.to_string())),
            Cell::plain(row.tag.as_ref().map_or("", |tag| tag.as_str())),
            Cell::new(Paint::Dim, &age(now, &row.since)),
            Cell::plain(&news(deploy, row).unwrap_or_default()),
        ]
    }));
    drop_empty_column(&mut table, 1);
    let mut lines = style.table(&table);
    if !hidden.is_empty() {
        lines.push(style.paint(Paint::Dim, &format!("and {} more: {}", hidden.len(), counts(hidden))));
    }
    lines
}

/// The zones of a deploy where there are rules for them: `zones: eu-1a 4 boxes, 1 at a time; eu-1b lost`.
#[must_use]
pub fn zones(deploy: &Deploy) -> Option<String> {
    let zone = |row: &ZoneRow| {
        if row.lost {
            return format!("{} lost, and what it uses up is free for nobody else", row.zone);
        }
        format!("{} {}, {} at a time", row.zone, count(row.size), row.locks)
    };
    let zones: Vec<String> = deploy.zones.iter().map(zone).collect();
    (!zones.is_empty()).then(|| format!("zones: {}", zones.join("; ")))
}

/// What keeps a deploy from going on: a person, a gate, or its step.
#[must_use]
pub fn halt(deploy: &Deploy, now: Timestamp) -> Option<String> {
    match (&deploy.pause, &deploy.gate) {
        (Some(pause), _) => {
            Some(format!("paused for {} by {}: {}", age(now, &pause.at), pause.by, one_line(&pause.reason)))
        }
        (None, Some(gate)) => Some(format!("held: {}", one_line(gate))),
        (None, None) => step(deploy, now),
    }
}

/// `step 1 of 3: box-4 serves v42 for 2m 10s of 5m`.
fn step(deploy: &Deploy, now: Timestamp) -> Option<String> {
    let step = deploy.step.as_ref()?;
    let done: Vec<&str> =
        deploy.boxes.iter().filter(|row| row.phase == Phase::Done).map(|row| row.name.as_str()).collect();
    let who = match done[..] {
        [one] => one.to_owned(),
        _ => count(step.boxes),
    };
    let text = match (&step.since, step.lasts_ms) {
        (Some(since), Some(lasts)) => {
            let verb = if done.len() == 1 || step.boxes == 1 { "serves" } else { "serve" };
            let whole = duration::display(Duration::from_millis(lasts)).replace(" 0s", "").replace(" 0m", "");
            format!("{who} {verb} {} for {} of {whole}", deploy.tag, age(now, since))
        }
        _ => format!("{} first", count(step.boxes)),
    };
    Some(format!("step {} of {}: {text}", step.number, step.of))
}

/// How much a person wants to see a box in this phase.
fn interest(phase: Phase) -> u8 {
    match phase {
        Phase::Failed | Phase::Lost => 4,
        phase if phase.is_working() => 3,
        Phase::RolledBack | Phase::Gone | Phase::Cancelled => 2,
        Phase::Pulling => 1,
        _ => 0,
    }
}

/// Where a deploy stands, or how it ended, in one line; below it what halts it and why it ended so, each in a line.
#[must_use]
pub fn outcome(style: Style, deploy: &Deploy, now: Timestamp) -> Vec<String> {
    let mut lines = vec![style.fit(&headline_of(style, deploy, now))];
    let mut below = |paint, text: &str| lines.push(style.paint(paint, &style.fit(&format!("  {text}"))));
    if deploy.state == State::Rolling
        && let Some(halt) = halt(deploy, now)
    {
        let stands = deploy.pause.is_some() || deploy.gate.is_some();
        below(if stands { Paint::Yellow } else { Paint::Blue }, &halt);
    }
    let lost = deploy.state == State::Rolling && deploy.zones.iter().any(|zone| zone.lost);
    if let Some(zones) = zones(deploy).filter(|_| lost) {
        below(Paint::Yellow, &zones);
    }
    for cause in causes(deploy) {
        below(if cause.starts_with("cause") { Paint::Yellow } else { Paint::Plain }, &cause);
    }
    lines
}

fn headline_of(style: Style, deploy: &Deploy, now: Timestamp) -> String {
    let place = format!("{} in {}", deploy.role, deploy.environment);
    let tag = &deploy.tag;
    let took = deploy.ended_at.as_deref().map_or_else(String::new, |ended| {
        match (deploy.started_at.parse::<Timestamp>(), ended.parse::<Timestamp>()) {
            (Ok(started), Ok(ended)) => format!(" after {}", duration::display(between(started, ended))),
            _ => String::new(),
        }
    });
    match deploy.state {
        State::Queued => format!("{place}: {tag} is queued"),
        State::Rolling => {
            let done = deploy.size.saturating_sub(deploy.remaining);
            let state = style.paint(Paint::Blue, "rolling");
            let (tags, age, size, locks) =
                (tags(deploy), age(now, &deploy.started_at), count(deploy.size), deploy.locks);
            format!("{place}: {tags}, {state} for {age}: {done} of {size} finished, {locks} at a time")
        }
        State::Deployed => {
            let state = style.paint(Paint::Green, "deployed");
            format!("{place}: {tag} is {state} on {}{took}", count(deploy.size))
        }
        State::Broken => format!("{place}: {tag} is {}{took}", style.paint(Paint::Red, "broken")),
        State::Cancelled => {
            format!("{place}: the deploy of {tag} was {}{took}", style.paint(Paint::Yellow, "cancelled"))
        }
        State::Failed => format!("{place}: the deploy of {tag} {}{took}", style.paint(Paint::Red, "failed")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deploy(mut patch: serde_json::Value) -> Deploy {
        let mut value = json!({
            "id": "app.staging.1", "role": "app", "environment": "staging", "tag": "v42", "kind": "deploy",
            "state": "rolling", "size": 60, "locks": 20, "remaining": 60, "by": "ci", "last_good": "v41",
            "started_at": "2026-01-01T00:00:00Z",
        });
        value.as_object_mut().unwrap().append(patch.as_object_mut().unwrap());
        serde_json::from_value(value).unwrap()
    }

    fn row(name: &str, phase: &str) -> serde_json::Value {
        json!({"box": name, "phase": phase, "since": "2026-01-01T00:00:00Z"})
    }

    fn now() -> Timestamp {
        "2026-01-01T00:01:05Z".parse().unwrap()
    }

    #[test]
    fn the_headline_says_from_what_to_what_and_how_fast() {
        assert_eq!(headline(&deploy(json!({}))), "v41 → v42, 60 boxes, 20 at a time");
        assert_eq!(
            headline(&deploy(json!({"last_good": null, "size": 1, "locks": 1}))),
            "v42, the first here, 1 box, 1 at a time"
        );
        assert_eq!(headline(&deploy(json!({"last_good": "v42"}))), "v42 again, 60 boxes, 20 at a time");
    }

    #[test]
    fn a_few_boxes_are_shown_by_name() {
        let deploy = deploy(json!({"boxes": [row("b", "waiting"), row("a", "draining")]}));
        let lines = boxes(Style::plain(), &deploy, &[], now(), 10);
        assert_eq!(
            lines,
            ["BOX  PHASE     LOCK  TAG  FOR", "a    draining             1m 5s", "b    waiting              1m 5s"]
        );
    }

    #[test]
    fn zones_are_shown_where_there_are_some() {
        let mut a = row("a", "waiting");
        a["zone"] = json!("eu-1a");
        let zones =
            json!([{"zone": "eu-1a", "size": 1, "locks": 1}, {"zone": "eu-1b", "size": 0, "locks": 1, "lost": true}]);
        let deploy = deploy(json!({"boxes": [a, row("b", "waiting")], "zones": zones}));
        let lines = boxes(Style::plain(), &deploy, &[], now(), 10);
        assert_eq!(lines[..2], ["BOX  ZONE   PHASE    LOCK  TAG  FOR", "a    eu-1a  waiting             1m 5s"]);
        let lost = "zones: eu-1a 1 box, 1 at a time; eu-1b lost, and what it uses up is free for nobody else";
        assert_eq!(super::zones(&deploy).as_deref(), Some(lost));
        assert_eq!(outcome(Style::plain(), &deploy, now())[1], format!("  {lost}"));
    }

    #[test]
    fn of_many_boxes_those_that_matter_are_shown() {
        let deploy =
            deploy(json!({"boxes": [row("a", "waiting"), row("b", "done"), row("c", "failed"), row("d", "starting")]}));
        let lines = boxes(Style::plain(), &deploy, &[], now(), 3);
        assert!(lines[1].starts_with("c    failed") && lines[2].starts_with("d    starting"), "{lines:?}");
        assert_eq!(lines[3], "and 2 more: 1 waiting, 1 done");
    }

    #[test]
    fn an_outcome_names_place_tag_and_reason() {
        let shown = |patch| outcome(Style::plain(), &deploy(patch), now());
        assert_eq!(
            shown(json!({"remaining": 12})),
            ["app in staging: v41 → v42, rolling for 1m 5s: 48 of 60 boxes finished, 20 at a time"]
        );
        assert_eq!(
            shown(json!({"remaining": 59, "boxes": [row("box-4", "done")], "step": {
                "number": 1, "of": 3, "boxes": 1, "lasts_ms": 300_000, "since": "2026-01-01T00:00:30Z",
            }})),
            [
                "app in staging: v41 → v42, rolling for 1m 5s: 1 of 60 boxes finished, 20 at a time",
                "  step 1 of 3: box-4 serves v42 for 35s of 5m"
            ]
        );
        assert_eq!(
            shown(json!({"state": "broken", "reason": "exit code 1", "ended_at": "2026-01-01T00:02:03Z"})),
            ["app in staging: v42 is broken after 2m 3s", "  cause: exit code 1"]
        );
        assert_eq!(shown(json!({"state": "deployed", "size": 2})), ["app in staging: v42 is deployed on 2 boxes"]);
    }

    #[test]
    fn a_long_cause_is_cut_on_a_terminal_and_whole_in_a_log() {
        let broken = deploy(json!({"state": "broken", "reason": "no ".repeat(100)}));
        let lines = outcome(Style::plain().with_columns(80), &broken, now());
        assert!(lines[1].ends_with('…') && lines[1].chars().count() == 80, "{lines:?}");
        assert!(outcome(Style::plain(), &broken, now())[1].len() > 300);
    }
}
