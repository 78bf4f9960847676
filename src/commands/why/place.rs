//! A whole place: what halts the deploy that rolls, or why nothing rolls.

use super::{
    boxes,
    facts::{Facts, Reason},
};
use crate::{
    api::{ClosedPlace, Deploy, Freeze, NextRelease, Promotion, PromotionState, ReleaseStatus, State},
    screen::{causes, halt, one_line, promotion_waits, time},
};

/// Why the place is no further.
pub fn whole(facts: &Facts) -> Vec<Reason> {
    let mut reasons = match facts.rolling() {
        Some(deploy) => {
            let mut reasons = halts(facts, deploy);
            reasons.extend(boxes::all(facts, deploy));
            reasons
        }
        None => nothing_rolls(facts),
    };
    reasons.extend(boxes::outs(facts));
    reasons.extend(queued(facts));
    reasons
}

/// What halts a deploy as a whole: a person, a gate, a step, a release that breaks.
pub fn halts(facts: &Facts, deploy: &Deploy) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if let Some(text) = halt(deploy, facts.now) {
        reasons.push(match (&deploy.pause, &deploy.gate, &deploy.step) {
            (Some(_), ..) => Reason::new("paused", text).next(facts.command("resume", "")),
            (None, Some(_), _) => Reason::new("gate", text).next(format!(
                "nothing: the gate is asked again and again; or {}",
                facts.command("cancel", "--reason TEXT")
            )),
            (None, None, Some(step)) if step.since.is_some() && step.lasts_ms.is_none() => {
                Reason::new("step", text).next(facts.command("resume", ""))
            }
            _ => Reason::new("step", text),
        });
    }
    let breaks = causes(deploy).into_iter().filter(|cause| cause.starts_with("cause: "));
    reasons.extend(breaks.map(|cause| {
        Reason::new("stopped", format!("no box begins any more; {cause}")).next("nothing: it ends when nobody works")
    }));
    reasons
}

/// Why nothing rolls: how the last deploy ended, and what keeps the next release away.
pub fn nothing_rolls(facts: &Facts) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = facts.freeze.map(|freeze| frozen(facts, freeze)).into_iter().collect();
    reasons.extend(facts.closed.map(|closed| outside_window(facts, closed)));
    let newest = facts.newest();
    reasons.extend(newest.map(|deploy| ended(facts, deploy)));
    reasons.extend(newest.and_then(|deploy| other_tags(facts, deploy)));
    reasons.extend(match facts.promotion {
        Some(promotion) => Some(promoted(facts, promotion)),
        None => facts.upcoming.and_then(|next| upcoming(facts, next, newest)),
    });
    reasons
}

fn frozen(facts: &Facts, freeze: &Freeze) -> Reason {
    let Freeze { environment, role, reason, by, at, until } = freeze;
    let what = role.as_ref().map_or_else(|| environment.to_string(), |role| format!("{role} in {environment}"));
    let until = until.map(|until| format!(" until {}", time(until))).unwrap_or_default();
    let reason = one_line(reason.as_deref().unwrap_or("no reason given"));
    let role = role.as_ref().map(|role| format!(" -r {role}")).unwrap_or_default();
    Reason::new("frozen", format!("{what} is frozen for {} now{until}, by {by}: {reason}", facts.age(at)))
        .next(format!("`deployctl unfreeze -e {environment}{role}`, or {}", facts.command("start", "--force")))
}

fn outside_window(facts: &Facts, closed: &ClosedPlace) -> Reason {
    let opens = closed.opens.map_or_else(
        || "no window opens any more".to_owned(),
        |opens| format!("the next window opens at {}", time(opens)),
    );
    Reason::new("outside_window", format!("nothing new starts in {} now: {opens}", facts.place))
        .next(format!("wait, or {}", facts.command("start", "--force")))
}

fn ended(facts: &Facts, deploy: &Deploy) -> Reason {
    let tag = &deploy.tag;
    let ago = deploy.ended_at.as_deref().map(|at| format!(" {} ago", facts.age(at))).unwrap_or_default();
    let cause = causes(deploy).into_iter().find_map(|cause| cause.strip_prefix("cause: ").map(str::to_owned));
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    let start = |more: &str| facts.command("start", &format!("-t {tag}{more}"));
    match deploy.state {
        State::Broken => Reason::new("broken", format!("{tag} broke{ago}{cause}")).next(format!(
            "publish a fix and start it; {}, if the cause lay elsewhere; boxes that are on it: {}",
            start(" --force"),
            facts.command("rollback", "")
        )),
        State::Cancelled => Reason::new("cancelled", format!("the deploy of {tag} was cancelled{ago}{cause}"))
            .next(format!("go on with it: {}; back: {}", start(""), facts.command("rollback", ""))),
        State::Failed => Reason::new("failed", format!("the deploy of {tag} failed{ago}{cause}"))
            .next(format!("mend these boxes, then {}", start(""))),
        _ => Reason::new("deployed", format!("{tag} was deployed completely{ago}; nothing rolls")),
    }
}

/// Boxes that run another tag than the one that was deployed completely.
fn other_tags(facts: &Facts, deploy: &Deploy) -> Option<Reason> {
    let others: Vec<String> = facts
        .running
        .iter()
        .filter(|(_, tag)| **tag != deploy.tag)
        .map(|(name, tag)| format!("{name} runs {tag}"))
        .collect();
    let is_odd = deploy.state == State::Deployed && !others.is_empty();
    is_odd.then(|| Reason::new("other_tag", others.join(", ")).next("there: `deployctl sync`"))
}

/// What is to come from the environment before, and waits.
fn promoted(facts: &Facts, promotion: &Promotion) -> Reason {
    let Promotion { role, tag, from, .. } = promotion;
    let since = facts.age(&promotion.since);
    let text = format!("{tag}, complete in {from} for {since}, is to come here: it {}", promotion_waits(promotion));
    let approve = format!("`deployctl promote -r {role} --from {from}`");
    let reason = Reason::new("promotion", text);
    match promotion.state {
        PromotionState::WaitsForApproval => reason.next(approve),
        PromotionState::Due => reason,
        _ => reason.next("nothing: it comes when that is over"),
    }
}

fn upcoming(facts: &Facts, next: &NextRelease, newest: Option<&Deploy>) -> Option<Reason> {
    let role = &facts.place.role;
    let Some(tag) = &next.tag else {
        return Some(match &next.from {
            Some(from) => Reason::new("not_deployed", format!("nothing was completely deployed in {from} yet"))
                .next(format!("`deployctl start -r {role} -e {from}`")),
            None => Reason::new("not_published", format!("no release of {role} is published"))
                .next(format!("`deployctl publish -r {role} -t TAG`")),
        });
    };
    // How the last deploy of it ended has been said.
    if newest.is_some_and(|deploy| deploy.tag == *tag) {
        return None;
    }
    let why = one_line(next.reason.as_deref().unwrap_or("nobody said why"));
    let start = |more: &str| facts.command("start", &format!("-t {tag}{more}"));
    Some(match (next.status, &next.from) {
        (Some(ReleaseStatus::Broken), _) => Reason::new("release_broken", format!("{tag} is broken: {why}"))
            .next(format!("publish a fix; or {}, if you know better", start(" --force"))),
        (Some(ReleaseStatus::Withheld), _) => {
            Reason::new("release_withheld", format!("{tag} is withheld: {why}")).next(start(""))
        }
        (_, None) => {
            Reason::new("not_started", format!("{tag} is published, and nobody has started it here")).next(start(""))
        }
        (_, Some(from)) => {
            Reason::new("not_promoted", format!("{tag} is complete in {from}, and nothing brings it here by itself"))
                .next(format!("`deployctl promote -r {role} --from {from}`"))
        }
    })
}

fn queued(facts: &Facts) -> Option<Reason> {
    let queued = facts.queued()?;
    let text = match facts.rolling() {
        Some(rolling) => format!("{} is queued until the deploy of {} has ended", queued.tag, rolling.tag),
        None if facts.freeze.is_some() => format!("{} is queued until nothing is frozen", queued.tag),
        None if facts.closed.is_some() => format!("{} is queued until a window opens", queued.tag),
        None => format!("{} is queued and starts within seconds", queued.tag),
    };
    Some(Reason::new("queued", text))
}
