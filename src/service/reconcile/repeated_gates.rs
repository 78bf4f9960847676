//! Gates that are asked again and again: `roll` from the first done box on to the end of the deploy and while it bakes,
//! `bake` while what is to be promoted bakes.
//!
//! A gate that fails as often in a row as `failures` says blames the release; one that is asked before a promotion, at
//! once. While it rolls, one that failed less often, or cannot be asked, holds the deploy: boxes that are out come back,
//! no further box begins. A rollback is not judged: it is the remedy, and what is wrong may have nothing to do with it.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::service::{
    Service, now_ms,
    reconcile::{
        SERVICE,
        gates::{self, Reading},
    },
    store::Mark,
    variables,
};
use crate::{
    api::{AuditEntry, Kind, ReleaseStatus, State},
    config::{Gate, NoData, When},
    coordination::{CancelReply, Coordinator, DeployRecord, rfc3339},
    names::{BoxName, Place, Tag},
};

/// How long a hold lasts that nobody renews; the service renews it at each look.
const HOLD: Duration = Duration::from_secs(10);
/// In whose name the service holds a deploy.
const HOLDER: &str = "deployctl-gate";
/// Readings of deploys that are this old are forgotten.
const READINGS_LIFE: Duration = Duration::from_secs(24 * 3600);

/// What each gate said of each deploy, by the deploy and the gate's number. After a restart they are asked again.
pub type GateResults = BTreeMap<(String, usize), Heard>;

/// What a gate has said so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    at: Instant,
    failures: u32,
    unknown_since: Option<Instant>,
    standing: Standing,
}

/// What follows from it.
#[derive(Debug, Clone, PartialEq)]
enum Standing {
    Passes,
    /// The deploy is held; why.
    Doubtful(String),
    /// The release is broken; why.
    Failed(String),
}

impl Heard {
    /// How long ago it was asked.
    pub(super) fn age(&self) -> Duration {
        self.at.elapsed()
    }

    /// Why it does not let the release pass, if it does not.
    pub(super) fn objection(&self) -> Option<&str> {
        match &self.standing {
            Standing::Passes => None,
            Standing::Doubtful(why) | Standing::Failed(why) => Some(why),
        }
    }

    /// What a gate has said when `reading` follows `before`.
    fn after(before: Option<&Self>, reading: Reading, gate: &Gate, now: Instant) -> Self {
        let heard = |failures, unknown_since, standing| Self { at: now, failures, unknown_since, standing };
        // What has been deployed completely has time: one failure is enough, and what is not known is waited for.
        let bakes = gate.when == When::Bake;
        match reading {
            Reading::Pass(_) => heard(0, None, Standing::Passes),
            Reading::Fail(text) => {
                let failures = before.map_or(0, |before| before.failures).saturating_add(1);
                let standing = if bakes || failures >= gate.failures.get() {
                    Standing::Failed(text)
                } else {
                    Standing::Doubtful(format!("a gate failed {failures} of {} times: {text}", gate.failures))
                };
                heard(failures, None, standing)
            }
            Reading::Unknown(text) => {
                // An unanswered question says nothing of the failures before it.
                let failures = before.map_or(0, |before| before.failures);
                let since = before.and_then(|before| before.unknown_since).unwrap_or(now);
                let standing = if bakes || now.duration_since(since) < gate.unknown_for {
                    Standing::Doubtful(format!("a gate cannot be asked: {text}"))
                } else if gate.unknown == NoData::Pass {
                    Standing::Passes
                } else {
                    Standing::Failed(format!("a gate could not be asked for unknown_for: {text}"))
                };
                heard(failures, Some(since), standing)
            }
        }
    }
}

/// The deploy that is judged.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Its id.
    pub id: String,
    /// The release.
    pub tag: Tag,
    /// Why it was started.
    pub kind: Kind,
}

/// What gates said last, all together.
#[derive(Debug, Clone, Copy)]
pub struct GatesVerdict {
    /// Every one passed.
    pub pass: bool,
    /// Every one was asked so lately that it is not due again.
    pub fresh: bool,
}

impl Service {
    /// Asks the gates about what rolls at a place, or about what was deployed there last while it bakes.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub fn judge_by_gates(self: &Arc<Self>, place: &Place) -> Result<()> {
        if self.gates_of(place, When::Roll).next().is_none() {
            return Ok(());
        }
        match self.store.at(place, Coordinator::current)? {
            Some(doc) if doc.state() == State::Rolling => self.judge_rolling(place, &doc),
            newest => self.judge_baking(place, newest.as_ref()),
        }
    }

    /// From the first done box on. While a gate does not pass, the deploy is held.
    fn judge_rolling(self: &Arc<Self>, place: &Place, doc: &DeployRecord) -> Result<()> {
        if self.store.at(place, |locks| locks.done(&doc.id))? == 0 {
            return Ok(());
        }
        let judged = Judged { id: doc.id.clone(), tag: doc.tag.clone(), kind: doc.kind };
        if !self.ask_gates(place, &judged, When::Roll)?.pass {
            self.watch_state().held.insert(doc.id.clone());
            return self.store.at(place, |locks| locks.hold(&holder()?, &doc.id, HOLD));
        }
        if self.watch_state().held.contains(&doc.id) {
            self.store.at(place, |locks| locks.hold(&holder()?, &doc.id, Duration::ZERO))?;
            self.watch_state().held.remove(&doc.id);
        }
        Ok(())
    }

    /// While nothing has begun since: what is wrong after a newer release was here may be that one's doing.
    fn judge_baking(self: &Arc<Self>, place: &Place, newest: Option<&DeployRecord>) -> Result<()> {
        let bake = self.config.service.role(&place.role).bake;
        let Some(complete) = self.store.complete(place)?.into_iter().next() else { return Ok(()) };
        if newest.is_some_and(|newest| newest.id != complete.id) {
            return Ok(());
        }
        let bakes_until = complete.ended.saturating_add(i64::try_from(bake.as_millis()).unwrap_or(i64::MAX));
        if now_ms() > bakes_until {
            return Ok(());
        }
        // Nothing more comes of a release that is marked, but for the way back where that did not begin.
        if let Some(mark) = self.store.mark(&place.role, &complete.tag)?
            && (mark.deploy.as_ref() != Some(&complete.id) || !self.config.service.role(&place.role).auto_rollback)
        {
            return Ok(());
        }
        let judged = Judged { id: complete.id, tag: complete.tag, kind: complete.kind };
        self.ask_gates(place, &judged, When::Roll).map(drop)
    }

    /// What the gates of one kind said last. Has those asked that are due, in threads of their own.
    ///
    /// # Errors
    /// When no thread can be started, or Redis does not answer.
    pub fn ask_gates(self: &Arc<Self>, place: &Place, judged: &Judged, when: When) -> Result<GatesVerdict> {
        let mut said = GatesVerdict { pass: true, fresh: true };
        if judged.kind == Kind::Rollback {
            return Ok(said);
        }
        for (number, gate) in self.gates_of(place, when) {
            let key = (judged.id.clone(), number);
            let heard = self.gate_results().get(&key).cloned();
            said.pass &= heard.as_ref().is_some_and(|heard| heard.standing == Standing::Passes);
            if heard.is_some_and(|heard| heard.at.elapsed() < gates::every(&gate)) {
                continue;
            }
            said.fresh = false;
            let (place, judged) = (place.clone(), judged.clone());
            self.in_a_thread(&lease(&key), move |service| service.ask_again(&gate, key, &place, &judged))?;
        }
        Ok(said)
    }

    /// Why a gate of one kind does not let a release pass, by what it said last. One that has not been asked yet does not.
    pub fn gate_objection(&self, place: &Place, judged: &Judged, when: When) -> Option<String> {
        let results = self.gate_results();
        self.gates_of(place, when).find_map(|(number, _)| match results.get(&(judged.id.clone(), number)) {
            None => Some("a gate has not answered yet".to_owned()),
            Some(heard) => heard.objection().map(str::to_owned),
        })
    }

    /// Why a gate holds the deploy `id`, if one does.
    pub fn gate_doubt(&self, id: &str) -> Option<String> {
        self.gate_results().iter().find_map(|((of, _), heard)| match &heard.standing {
            Standing::Doubtful(why) if of == id => Some(why.clone()),
            _ => None,
        })
    }

    /// Whether a gate keeps the deploy that rolls from going on: one before its start that has not answered yet, or one
    /// while it rolls that does not pass. By what stands in Redis, so that every service says the same.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub fn is_held_by_gate(&self, place: &Place, doc: &DeployRecord) -> Result<bool> {
        Ok(doc.gated.is_some() || self.store.at(place, |locks| locks.is_held_by(&holder()?, &doc.id))?)
    }

    /// The gates of one kind, with their numbers.
    pub(super) fn gates_of(&self, place: &Place, when: When) -> impl Iterator<Item = (usize, Gate)> {
        let gates = self.config.service.role(&place.role).gates;
        gates.into_iter().enumerate().filter(move |(_, gate)| gate.when == when)
    }

    fn ask_again(&self, gate: &Gate, key: (String, usize), place: &Place, judged: &Judged) -> Result<()> {
        let reading = self.read_gate(gate, place, judged, self.config.command_timeout)?;
        if self.is_stopping() {
            return Ok(());
        }
        let standing = {
            let mut all = self.gate_results();
            all.retain(|_, heard| heard.at.elapsed() < READINGS_LIFE);
            let heard = Heard::after(all.get(&key), reading, gate, Instant::now());
            all.insert(key, heard.clone());
            heard.standing
        };
        match standing {
            Standing::Passes => Ok(()),
            // Said once while it stays the same.
            Standing::Doubtful(why) => bail!("{} waits: {why}", judged.id),
            Standing::Failed(why) if gate.when == When::Bake => {
                self.mark_by_gate(place, judged, &format!("while it baked in {}: {why}", place.environment))
            }
            Standing::Failed(why) => {
                self.blame(place, judged, &format!("a gate failed in {}: {why}", place.environment))
            }
        }
    }

    /// What a gate says now. Nothing follows from it by itself.
    pub(super) fn read_gate(&self, gate: &Gate, place: &Place, judged: &Judged, timeout: Duration) -> Result<Reading> {
        let vars = variables(place, &judged.tag, &judged.id, judged.kind);
        let deploy = self.store.at(place, |locks| locks.deploy(&judged.id))?;
        Ok(gates::ask(gate, &vars, deploy.as_ref(), timeout, &|| self.is_stopping()))
    }

    fn mark_by_gate(&self, place: &Place, judged: &Judged, reason: &str) -> Result<()> {
        // Before the mark: where a release is marked, nobody looks again.
        self.tell_broken(place, &judged.id, SERVICE, reason)?;
        let mark = Mark {
            status: ReleaseStatus::Broken,
            reason: reason.to_owned(),
            logs: None,
            at: rfc3339(now_ms()),
            deploy: Some(judged.id.clone()),
            environment: Some(place.environment.clone()),
        };
        if self.store.set_mark(&place.role, &judged.tag, &mark)? {
            let entry = AuditEntry::new(SERVICE, "broken").place(place).tag(&judged.tag).deploy(&judged.id);
            self.audit(entry.detail(reason));
        }
        Ok(())
    }

    /// Marks the release broken, and stops or takes back the deploy. May be done again.
    fn blame(&self, place: &Place, judged: &Judged, reason: &str) -> Result<()> {
        self.mark_by_gate(place, judged, reason)?;
        let stopped = self.store.at(place, |locks| locks.cancel(Some(&judged.id), SERVICE, reason, true))?;
        if matches!(stopped, CancelReply::Stopped { .. }) {
            return Ok(());
        }
        // It has ended: nobody else takes the done boxes back.
        let current = self.store.at(place, Coordinator::current)?;
        match current.filter(|doc| doc.id == judged.id) {
            Some(doc) => self.auto_rollback(place, &doc),
            None => Ok(()),
        }
    }

    pub(super) fn gate_results(&self) -> MutexGuard<'_, GateResults> {
        self.gate_results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lease of whoever asks a gate.
pub(super) fn lease((id, number): &(String, usize)) -> String {
    format!("gate:{id}:{number}")
}

fn holder() -> Result<BoxName> {
    Ok(HOLDER.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(text: &str) -> Gate {
        serde_json::from_str(text).unwrap()
    }

    fn fails() -> Reading {
        Reading::Fail("5 errors".to_owned())
    }

    fn unknown() -> Reading {
        Reading::Unknown("no answer".to_owned())
    }

    #[test]
    fn one_spike_is_no_verdict() {
        let gate = gate(r#"{"when": "roll", "command": ["true"], "failures": 2}"#);
        let now = Instant::now();
        let once = Heard::after(None, fails(), &gate, now);
        assert!(matches!(&once.standing, Standing::Doubtful(why) if why.contains("1 of 2")), "{once:?}");
        let passed = Heard::after(Some(&once), Reading::Pass(String::new()), &gate, now);
        let again = Heard::after(Some(&passed), fails(), &gate, now);
        assert!(matches!(again.standing, Standing::Doubtful(_)));
        let twice = Heard::after(Some(&again), fails(), &gate, now);
        assert_eq!(twice.standing, Standing::Failed("5 errors".to_owned()));
        // A question without an answer between two failures does not acquit.
        let between = Heard::after(Some(&again), unknown(), &gate, now);
        assert!(matches!(Heard::after(Some(&between), fails(), &gate, now).standing, Standing::Failed(_)));
    }

    #[test]
    fn what_cannot_be_asked_for_long_is_what_the_configuration_says() {
        let now = Instant::now();
        let later = now + Duration::from_secs(11);
        for (text, passes) in [("fail", false), ("pass", true)] {
            let gate =
                gate(&format!(r#"{{"when": "roll", "command": ["true"], "unknown_for": "10s", "unknown": "{text}"}}"#));
            let first = Heard::after(None, unknown(), &gate, now);
            assert!(matches!(first.standing, Standing::Doubtful(_)));
            let last = Heard::after(Some(&first), unknown(), &gate, later);
            assert_eq!(last.standing == Standing::Passes, passes);
            assert_eq!(matches!(last.standing, Standing::Failed(_)), !passes);
        }
    }
}
