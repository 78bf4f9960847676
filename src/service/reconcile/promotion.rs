//! Promotion: what an environment completed starts in the next one after it has baked, by itself, or once it is approved.
//!
//! Nothing is scheduled. Every second the service derives from what stands in Redis what is due, so a restart forgets
//! nothing, and a newer complete deploy takes the place of an older one by itself. The promoted deploy's id is made of
//! its source's, and an id begins once: so two services promote once.

use std::sync::Arc;

use anyhow::Result;

use crate::service::{
    Service, api_error::ErrorKind, ids, promotions::Candidate, reconcile::SERVICE, start::DeployRequest,
    store::CompleteDeploy,
};
use crate::{
    api::{AuditEntry, Kind, Promotion, PromotionState, ReleaseStatus},
    config::{RolePolicy, When},
    names::Place,
};

impl Service {
    /// Looks at everything that may go on to another environment. What is wrong with one step keeps no other one up.
    pub fn auto_promote(self: &Arc<Self>) {
        for (role, policy) in &self.config.service.roles {
            for (from, to) in policy.ways_on() {
                let [source, target] = [from, to].map(|at| Place { environment: at.clone(), role: role.clone() });
                self.log_once(&format!("promotion of {target}"), self.promote_step(policy, &source, &target));
            }
        }
    }

    fn promote_step(self: &Arc<Self>, policy: &RolePolicy, source: &Place, target: &Place) -> Result<()> {
        let Some(candidate) = self.candidate(policy, source, target)? else { return Ok(()) };
        if let Some(release) = self.store.release(&source.role, &candidate.complete.tag)?
            && release.status != ReleaseStatus::Available
        {
            let release = release.told(|other| *other == source.environment);
            let why =
                format!("not promoted: the release is {} ({})", release.status, release.reason.unwrap_or_default());
            return if candidate.by_itself { self.settle(source, target, &candidate.complete, &why) } else { Ok(()) };
        }
        // They are asked for as long as it waits, whatever it waits for.
        let baked = self.ask_gates(source, &candidate.judged(), When::Bake)?;
        let promotion = self.promotion(policy, source, target, &candidate)?;
        if promotion.state == PromotionState::WaitsForApproval {
            self.tell_waits_for_approval(&promotion)?;
        }
        if promotion.state != PromotionState::Due || !(baked.pass && baked.fresh) {
            return Ok(());
        }
        // The watch asks these while it bakes. What waited for longer, in a freeze, is asked once more.
        let rolled = self.ask_gates(source, &candidate.judged(), When::Roll)?;
        if !(rolled.pass && rolled.fresh) {
            return Ok(());
        }
        self.go_on(target, &candidate, promotion)
    }

    fn go_on(&self, target: &Place, candidate: &Candidate, promotion: Promotion) -> Result<()> {
        let Candidate { complete, by_itself } = candidate;
        let last = promotion.approvals.into_iter().max_by(|a, b| a.at.cmp(&b.at)).filter(|_| !by_itself);
        let by = last.as_ref().map_or(SERVICE, |approval| &approval.by);
        let request = DeployRequest {
            id: Some(ids::promoted(&complete.id, target)),
            source: Some(complete.id.clone()),
            reason: last.as_ref().and_then(|approval| approval.reason.clone()),
            ..DeployRequest::new(target, &complete.tag, Kind::Promotion, by)
        };
        match self.start_deploy(&request) {
            Ok(_) => self.has_gone_on(target, &complete.id),
            // It waits.
            Err(refusal) if refusal.kind == ErrorKind::Rolling => Ok(()),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Writes down that a complete deploy is not promoted any more, and why.
    fn settle(&self, source: &Place, target: &Place, complete: &CompleteDeploy, why: &str) -> Result<()> {
        self.store.set_promoted(target, &complete.id)?;
        self.audit(
            AuditEntry::new(SERVICE, "promote").place(source).tag(&complete.tag).deploy(&complete.id).detail(why),
        );
        Ok(())
    }
}
