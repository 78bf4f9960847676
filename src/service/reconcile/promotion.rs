//! Promotion without a person: what an environment completed starts in the next one after it has baked.
//!
//! Nothing is scheduled. Every second the service derives from what stands in Redis what is due, so a restart forgets
//! nothing, and a newer complete deploy takes the place of an older one by itself. The promoted deploy's id is made of
//! its source's, and an id begins once: so two services promote once.

use std::sync::Arc;

use anyhow::Result;

use crate::service::{
    Service, api_error::Kind, ids, now_ms, policy, reconcile::SERVICE, reconcile::repeated_gates::Judged,
    start::DeployRequest, store::Complete,
};
use crate::{
    api::{AuditEntry, Kind as DeployKind},
    config::{RolePolicy, When},
    coordination::Coordinator,
    names::Place,
};

impl Service {
    /// Looks at everything that may go on to another environment. What is wrong with one step keeps no other one up.
    pub fn auto_promote(self: &Arc<Self>) {
        for (role, policy) in self.config.service.roles.iter().filter(|(_, policy)| policy.auto_promote) {
            for step in policy.environments.windows(2) {
                let [source, target] =
                    [&step[0], &step[1]].map(|at| Place { environment: at.clone(), role: role.clone() });
                self.log_once(&format!("promotion of {target}"), self.promote_step(policy, &source, &target));
            }
        }
    }

    fn promote_step(self: &Arc<Self>, policy: &RolePolicy, source: &Place, target: &Place) -> Result<()> {
        let history = self.store.complete(source)?;
        let promoted = self.store.promoted(target)?;
        // A newer one may have ended just now.
        let newest = self.store.at(source, Coordinator::complete)?.map(|doc| doc.id);
        if newest.as_ref() != history.first().map(|complete| &complete.id) {
            return Ok(());
        }
        let Some(complete) = policy::to_promote(&history, promoted.as_deref()) else { return Ok(()) };
        if let Some(mark) = self.store.mark(&source.role, &complete.tag)? {
            let why = format!("not promoted: the release is {} ({})", mark.status, mark.reason);
            return self.settle(source, target, complete, &why);
        }
        let judged = Judged { id: complete.id.clone(), tag: complete.tag.clone(), kind: complete.kind };
        let baked = self.ask_gates(source, &judged, When::Bake)?;
        let bake = i64::try_from(policy.bake.as_millis()).unwrap_or(i64::MAX);
        let is_due = now_ms() >= complete.ended.saturating_add(bake);
        if !(baked.pass && baked.fresh && is_due) || self.store.frozen(target)?.is_some() {
            return Ok(());
        }
        // The watch asks these until now. What waited for longer, in a freeze, is asked once more.
        let rolled = self.ask_gates(source, &judged, When::Roll)?;
        if !(rolled.pass && rolled.fresh) {
            return Ok(());
        }
        let request = DeployRequest {
            id: Some(ids::promoted(&complete.id, target)),
            source: Some(complete.id.clone()),
            ..DeployRequest::new(target, &complete.tag, DeployKind::Promotion, SERVICE)
        };
        match self.start_deploy(&request) {
            Ok(_) => self.store.set_promoted(target, &complete.id),
            // It waits.
            Err(refusal) if refusal.kind == Kind::Rolling => Ok(()),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Nothing more comes of a complete deploy.
    fn settle(&self, source: &Place, target: &Place, complete: &Complete, why: &str) -> Result<()> {
        self.store.set_promoted(target, &complete.id)?;
        self.audit(
            AuditEntry::new(SERVICE, "promote").place(source).tag(&complete.tag).deploy(&complete.id).detail(why),
        );
        Ok(())
    }
}
