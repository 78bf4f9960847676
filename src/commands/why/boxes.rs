//! Boxes: what each is at, what it waits for, and what brings it further.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{
    facts::{Facts, Reason, boxes, names},
    place,
};
use crate::{
    api::{BoxRow, Deploy, FLEET_LOCK, LockRow, OutRow, Phase},
    names::BoxName,
    screen::{news, one_line},
};

/// A worker renews its lock every ten seconds; one that was not heard of for this long may be dead.
const SILENT: Duration = Duration::from_secs(60);
/// So many boxes in one phase are told one by one.
const SINGLY: usize = 3;

/// Why one box is no further.
pub fn one(facts: &Facts, name: &BoxName) -> Vec<Reason> {
    let runs = facts.running.iter().find(|(other, _)| *other == name).map(|(_, tag)| *tag);
    let deploy = facts.newest();
    let row = deploy.and_then(|deploy| deploy.boxes.iter().find(|row| row.name == *name));
    let (Some(deploy), Some(row)) = (deploy, row) else {
        let runs = runs.map_or_else(|| "has not said what it runs".to_owned(), |tag| format!("runs {tag}"));
        let text = format!("{name} takes no part in the last deploy, and {runs}");
        let next = format!("on it: `deployctl doctor`; all that take part: {}", facts.command("status", ""));
        return out_by_hand(facts, name).into_iter().chain([Reason::new("no_part", text).next(next)]).collect();
    };
    let mut reasons: Vec<Reason> = out_by_hand(facts, name).into_iter().collect();
    if facts.rolling().is_some() && !row.phase.is_working() && row.phase.is_unfinished() {
        reasons.extend(place::halts(facts, deploy));
    }
    reasons.extend(of_rows(facts, deploy, row.phase, &[row]));
    let stays_out = facts.out(name).is_some_and(|out| out.reason.is_none()) && !row.phase.is_working();
    reasons.extend(stays_out.then(|| left_out(facts, name)).flatten());
    if row.phase == Phase::Waiting {
        let holders = facts.locks.locks.iter().filter(|lock| lock.name != *name);
        reasons.extend(holders.map(|lock| Reason::new("holder", holds(facts, lock))));
    }
    match (facts.rolling(), runs) {
        (None, Some(runs)) if *runs != deploy.tag => {
            let text = format!("{name} runs {runs}, and nothing rolls");
            reasons.push(Reason::new("other_tag", text));
            reasons.extend(place::nothing_rolls(facts));
        }
        _ => {}
    }
    reasons
}

/// Why the boxes of a deploy that rolls are no further: those that work first, for the others wait for them.
pub fn all(facts: &Facts, deploy: &Deploy) -> Vec<Reason> {
    let mut by_phase = BTreeMap::<Phase, Vec<&BoxRow>>::new();
    for row in &deploy.boxes {
        by_phase.entry(row.phase).or_default().push(row);
    }
    let mut phases: Vec<Phase> = by_phase.keys().copied().filter(|phase| *phase != Phase::Done).collect();
    phases.sort_by_key(|phase| (!phase.is_working(), phase.is_unfinished(), *phase));
    phases.into_iter().flat_map(|phase| of_rows(facts, deploy, phase, &by_phase[&phase])).collect()
}

/// Boxes that are out of service and not at work in the deploy that rolls.
pub fn outs(facts: &Facts) -> Vec<Reason> {
    let at_work = |name: &BoxName| {
        let rows = facts.rolling().into_iter().flat_map(|deploy| &deploy.boxes);
        rows.filter(|row| row.phase.is_working()).any(|row| row.name == *name)
    };
    let idle = facts.locks.out.iter().filter(|out| !at_work(&out.name));
    idle.filter_map(|out| out_by_hand(facts, &out.name).or_else(|| left_out(facts, &out.name))).collect()
}

fn of_rows(facts: &Facts, deploy: &Deploy, phase: Phase, rows: &[&BoxRow]) -> Vec<Reason> {
    let role = &facts.place.role;
    match phase {
        Phase::Expected => {
            let text = format!("{} ({})", boxes(rows, "has not joined", "have not joined"), names(rows));
            let next = format!(
                "the event is sent again every 30 s; there: `deployctl doctor`, then `journalctl -u serf -u deployctl@{role}`"
            );
            let said = said(deploy, rows);
            vec![
                Reason::new(
                    "expected",
                    if rows.len() == 1 { format!("{} has not joined{said}", rows[0].name) } else { text },
                )
                .next(next),
            ]
        }
        Phase::Waiting => waiting(rows),
        Phase::Pulling => vec![Reason::new(
            "pulling",
            match rows {
                [row] => format!("{} pulls the image for {}", row.name, facts.age(&row.since)),
                _ => format!("{} boxes pull the image ({})", rows.len(), names(rows)),
            },
        )],
        phase if phase.is_working() => rows.iter().map(|row| working(facts, deploy, row)).collect(),
        Phase::Failed => singly(rows, |row| {
            let text = format!("{} failed and uses up one lock{}", row.name, said(deploy, &[row]));
            Reason::new("failed", text).next(format!("mend it, then there: `deployctl run -r {role}`"))
        }),
        Phase::Lost => singly(rows, |row| {
            let text = format!("{} is lost{}", row.name, said(deploy, &[row]));
            let next = format!("there: `deployctl sync`; if it is beyond help: {}", facts.unlock(&row.name));
            Reason::new("lost", text).next(next)
        }),
        Phase::Gone => singly(rows, |row| Reason::new("gone", format!("{} is gone{}", row.name, said(deploy, &[row])))),
        Phase::RolledBack => singly(rows, |row| {
            Reason::new("rolled_back", format!("{} went back to the tag before{}", row.name, said(deploy, &[row])))
        }),
        Phase::Cancelled => {
            vec![Reason::new(
                "cancelled",
                format!("{}{}", boxes(rows, "was stopped", "were stopped"), said(deploy, rows)),
            )]
        }
        _ => {
            singly(rows, |row| Reason::new("done", format!("{} is done: it runs {}, in service", row.name, deploy.tag)))
        }
    }
}

/// A reason for each box; of many for the first ones, and a count.
fn singly(rows: &[&BoxRow], reason: impl Fn(&BoxRow) -> Reason) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = rows.iter().take(SINGLY).map(|row| reason(row)).collect();
    if let (Some(last), more @ 1..) = (reasons.last(), rows.len().saturating_sub(SINGLY)) {
        reasons.push(Reason::new(last.kind, format!("and so are {more} more")));
    }
    reasons
}

/// What one box says that the deploy has not said.
fn said(deploy: &Deploy, rows: &[&BoxRow]) -> String {
    match rows {
        [row] => news(deploy, row).map(|news| format!(": {news}")).unwrap_or_default(),
        _ => String::new(),
    }
}

/// Boxes that wait, by what they wait for.
fn waiting(rows: &[&BoxRow]) -> Vec<Reason> {
    let mut by_detail = BTreeMap::<String, Vec<&BoxRow>>::new();
    for row in rows {
        let detail = one_line(row.detail.as_deref().unwrap_or_default());
        by_detail.entry(detail.trim_start_matches("waits: ").to_owned()).or_default().push(row);
    }
    let reason = |(detail, rows): (String, Vec<&BoxRow>)| {
        let what = if detail.is_empty() { "for a lock".to_owned() } else { format!("for this: {detail}") };
        let reason = Reason::new("waiting", format!("{} {what}", boxes(&rows, "waits", "wait")));
        match wait_ends(&detail) {
            Some(next) => reason.next(next),
            None => reason,
        }
    };
    by_detail.into_iter().map(reason).collect()
}

/// What ends a wait, by the words of `acquire.lua` and of the worker.
fn wait_ends(detail: &str) -> Option<&'static str> {
    let has = |words: &str| detail.contains(words);
    if has(" lock: ") || has(" locks: ") || has(" of zone ") && has(" may be: ") {
        Some("it goes on when one of these boxes is back in service")
    } else if has(" is lost, and what it uses up") {
        Some("mend that zone; without it: cancel, and start again on the boxes that live")
    } else if has(" goes first") {
        Some("nothing: it goes on when that box is through")
    } else if has("finds out whether the release is broken") {
        Some("nothing: it is known when that box is back on its previous tag")
    } else if has("other boxes in service and needs") {
        Some("mend the boxes that their load balancer does not see as in service")
    } else if has("Redis restarted") {
        Some("nothing: it goes on within half a minute")
    } else {
        None
    }
}

fn working(facts: &Facts, deploy: &Deploy, row: &BoxRow) -> Reason {
    let lock = facts.locks.locks.iter().find(|lock| lock.name == row.name);
    let holds = lock.map(|lock| format!(", and holds lock {} for {}", lock.suffix, facts.age(&lock.since)));
    let text = format!(
        "{} is {} for {}{}{}",
        row.name,
        row.phase,
        facts.age(&row.since),
        holds.unwrap_or_default(),
        said(deploy, &[row])
    );
    match lock.filter(|lock| is_silent(facts.now, &lock.renewed)) {
        Some(lock) => Reason::new("silent", format!("{text}; its worker is silent for {}", facts.age(&lock.renewed)))
            .next(format!("there: `deployctl sync`; if it is beyond help: {}", facts.unlock(&row.name))),
        None => Reason::new("working", text)
            .next(format!("nothing, or there: `journalctl -f -u deployctl@{}`", facts.place.role)),
    }
}

fn holds(facts: &Facts, lock: &LockRow) -> String {
    let phase = facts.newest().and_then(|deploy| deploy.boxes.iter().find(|row| row.name == lock.name));
    let phase = phase.map(|row| format!(", {} for {}", row.phase, facts.age(&row.since))).unwrap_or_default();
    format!("{} holds lock {} for {}{phase}", lock.name, lock.suffix, facts.age(&lock.since))
}

fn is_silent(now: Timestamp, renewed: &str) -> bool {
    let silent = SignedDuration::try_from(SILENT).unwrap_or(SignedDuration::MAX);
    renewed.parse::<Timestamp>().is_ok_and(|renewed| now.duration_since(renewed) > silent)
}

fn out_by_hand(facts: &Facts, name: &BoxName) -> Option<Reason> {
    let out = facts.out(name)?;
    let reason = out.reason.as_deref()?;
    let text = format!("{name} is kept out by hand for {}: {}", facts.age(&out.since), one_line(reason));
    let next = format!("there: `deployctl in -r {}`; if it is no more: {}", facts.place.role, facts.unlock(name));
    Some(Reason::new("kept_out", text).next(next))
}

fn left_out(facts: &Facts, name: &BoxName) -> Option<Reason> {
    let out = facts.out(name)?;
    if let Some(purpose) = &out.purpose {
        return Some(out_for(facts, out, purpose));
    }
    let text = format!(
        "{name} is out of service for {}, since the deploy {}; it was heard of {} ago",
        facts.age(&out.since),
        out.deploy,
        facts.age(&out.renewed)
    );
    let next = format!("there: `deployctl sync`; if it is beyond help: {}", facts.unlock(name));
    Some(Reason::new("out", text).next(next))
}

/// It comes back by itself, from what is no deploy.
fn out_for(facts: &Facts, out: &OutRow, purpose: &str) -> Reason {
    let text = format!("{} is out of service for {}, for this: {}", out.name, facts.age(&out.since), one_line(purpose));
    let unlock = facts.unlock(&out.name);
    if out.deploy == FLEET_LOCK {
        return Reason::new("out_for", text)
            .next(format!("it gives its place back when it has booted; if it is beyond help: {unlock}"));
    }
    if is_silent(facts.now, &out.renewed) {
        let text = format!("{text}; it was heard of {} ago", facts.age(&out.renewed));
        return Reason::new("out_for", text).next(format!("there: `deployctl sync`; if it is beyond help: {unlock}"));
    }
    Reason::new("out_for", text).next("nothing: it comes back when that is done")
}
