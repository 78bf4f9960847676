//! What is to go on to the next environment, and what it waits for: one answer for the watch, which starts what is due, for
//! people, who see it in `status`, and for those who approve.

use anyhow::Result;

use super::{Service, now, now_ms, policy, reconcile::Judged, store::CompleteDeploy};
use crate::{
    api::{Approval, AuditEntry, Promotion, PromotionState, State},
    config::{RolePolicy, When},
    coordination::{Coordinator, rfc3339},
    names::Place,
};

/// A complete deploy that may go on.
pub struct Candidate {
    /// The deploy.
    pub complete: CompleteDeploy,
    /// No person is asked.
    pub by_itself: bool,
}

impl Candidate {
    /// What gates are asked about.
    pub fn judged(&self) -> Judged {
        let CompleteDeploy { id, tag, kind, .. } = self.complete.clone();
        Judged { id, tag, kind }
    }
}

impl Service {
    /// What of `source` may go on to `target`; a mark on its release is for the caller to see.
    pub fn candidate(&self, policy: &RolePolicy, source: &Place, target: &Place) -> Result<Option<Candidate>> {
        let history = self.store.complete(source)?;
        // A newer one may have ended just now.
        let newest = self.store.at(source, Coordinator::complete)?.map(|doc| doc.id);
        if newest.as_ref() != history.first().map(|complete| &complete.id) {
            return Ok(None);
        }
        let promoted = self.store.promoted(target)?;
        let Some(complete) = policy::to_promote(&history, promoted.as_deref()).cloned() else { return Ok(None) };
        let by_itself = policy.auto_promote && complete.promote;
        // What a person has started there needs no approval any more.
        if !by_itself && self.has_arrived(target, &complete)? {
            return Ok(None);
        }
        Ok(Some(Candidate { complete, by_itself }))
    }

    fn has_arrived(&self, target: &Place, complete: &CompleteDeploy) -> Result<bool> {
        let current = self.store.at(target, Coordinator::current)?;
        let is_there = current
            .is_some_and(|doc| doc.tag == complete.tag && matches!(doc.state(), State::Rolling | State::Deployed));
        let was_there =
            || Ok(self.store.complete(target)?.iter().any(|c| c.tag == complete.tag && c.ended > complete.ended));
        if is_there { Ok(true) } else { was_there() }
    }

    /// What a candidate waits for, by what the watch has heard of the gates.
    pub fn promotion(
        &self,
        policy: &RolePolicy,
        source: &Place,
        target: &Place,
        candidate: &Candidate,
    ) -> Result<Promotion> {
        let Candidate { complete, by_itself } = candidate;
        let bake = i64::try_from(policy.bake.as_millis()).unwrap_or(i64::MAX);
        let baked = complete.ended.saturating_add(bake);
        let objection = self.gate_objection(source, &candidate.judged(), When::Bake);
        let approvals: Vec<Approval> = self.store.approvals(&complete.id)?.into_values().collect();
        let approvals_needed = if *by_itself { 0 } else { policy.approvals.get() };
        let (freeze, closed) = (self.store.frozen(target)?, self.closed(target));
        let rolling = self.store.at(target, Coordinator::current)?.filter(|doc| doc.state() == State::Rolling);
        let state = policy::waits_for(&policy::Waits {
            bakes: now_ms() < baked,
            gate: objection.is_some(),
            approvals: approvals.len(),
            approvals_needed,
            frozen: freeze.is_some(),
            closed: closed.is_some(),
            rolls: rolling.is_some(),
        });
        let (reason, until) = match state {
            PromotionState::Bakes => (None, jiff::Timestamp::from_millisecond(baked).ok()),
            PromotionState::Gate => (objection, None),
            PromotionState::Frozen => freeze.map_or((None, None), |freeze| (freeze.reason, freeze.until)),
            PromotionState::OutsideWindow => {
                (None, closed.and_then(|closed| closed.opens).map(|opens| opens.timestamp()))
            }
            PromotionState::Rolling => (rolling.map(|doc| format!("{} rolls there", doc.tag)), None),
            PromotionState::WaitsForApproval | PromotionState::Due => (None, None),
        };
        Ok(Promotion {
            role: source.role.clone(),
            tag: complete.tag.clone(),
            from: source.environment.clone(),
            environment: target.environment.clone(),
            source: complete.id.clone(),
            since: rfc3339(complete.ended),
            state,
            reason,
            until,
            approvals,
            approvals_needed,
        })
    }

    /// All that is to go on and waits, by role and in the order of promotion.
    pub fn promotions(&self) -> Result<Vec<Promotion>> {
        let mut found = Vec::new();
        for (role, policy) in &self.config.service.roles {
            for (from, to) in policy.ways_on() {
                let [source, target] = [from, to].map(|at| Place { environment: at.clone(), role: role.clone() });
                let Some(candidate) = self.candidate(policy, &source, &target)? else { continue };
                if self.store.mark(role, &candidate.complete.tag)?.is_none() {
                    found.push(self.promotion(policy, &source, &target, &candidate)?);
                }
            }
        }
        Ok(found)
    }

    /// Approves a candidate for `token`. The last approval that is needed is written down only where the deploy `waits` all
    /// the same: then the watch begins it. Else it may begin now, and is not approved if it cannot.
    pub fn approve(
        &self,
        target: &Place,
        candidate: &Candidate,
        (token, by): (&str, &str),
        reason: Option<String>,
        waits: bool,
    ) -> Result<Approved> {
        let complete = &candidate.complete;
        let needed = self.config.service.role(&target.role).approvals.get();
        let mut others = self.store.approvals(&complete.id)?;
        let is_new = others.remove(token).is_none();
        let count = u32::try_from(others.len()).unwrap_or(u32::MAX) + 1;
        if count >= needed && !waits {
            return Ok(Approved::ByAll(others.into_values().map(|approval| approval.by).collect()));
        }
        let approval = Approval { by: by.to_owned(), reason, at: now() };
        if is_new && !candidate.by_itself && self.store.approve(&complete.id, token, &approval)? {
            let entry = AuditEntry::new(by, "approve").place(target).tag(&complete.tag).deploy(&complete.id);
            let detail: Vec<String> =
                [Some(format!("{count} of {needed}")), approval.reason].into_iter().flatten().collect();
            self.audit(entry.detail(detail.join(": ")));
        }
        Ok(Approved::Waits)
    }

    /// A complete deploy has gone on: nothing of it waits any more.
    pub fn has_gone_on(&self, target: &Place, source: &str) -> Result<()> {
        self.store.set_promoted(target, source)?;
        self.store.forget_approvals(source)
    }
}

/// What an approval led to.
pub enum Approved {
    /// It was the last one that was needed; who else approves.
    ByAll(Vec<String>),
    /// It waits: for others, or for a window.
    Waits,
}
