//! Promotion without a person: what an environment completed starts in the next one after it has baked.
//!
//! Nothing is scheduled. Every second the service derives from what stands in Redis what is due, so a restart forgets
//! nothing, and a newer complete deploy takes the place of an older one by itself. The promoted deploy's id is made of
//! its source's, and an id begins once: so two services promote once.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::service::{
    Service,
    api_error::Kind,
    ids, now_ms, policy,
    reconcile::SERVICE,
    reconcile::compare::Serving,
    reconcile::gates::{self, Reading},
    reconcile::roll_gates::Judged,
    start::DeployRequest,
    store::{Complete, Mark},
    variables,
};
use crate::{
    api::{AuditEntry, Kind as DeployKind, ReleaseStatus},
    config::{Gate, RolePolicy, When},
    coordination::{Coordinator, rfc3339},
    names::Place,
};

/// What each gate said last, and when, by the deploy that bakes and the gate's number. After a restart they are asked
/// again.
pub type GateResults = BTreeMap<(String, usize), (Instant, bool)>;

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
        let passes = self.passes_roll_gates(source, &judged)?;
        let bake = i64::try_from(policy.bake.as_millis()).unwrap_or(i64::MAX);
        let is_due = now_ms() >= complete.ended.saturating_add(bake);
        if !self.bakes_well(policy, source, complete)? || !passes || !is_due || self.store.frozen(target)?.is_some() {
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

    /// Whether every gate passed when it was asked last; asks those that are due, which takes its time.
    fn bakes_well(self: &Arc<Self>, policy: &RolePolicy, source: &Place, complete: &Complete) -> Result<bool> {
        let mut well = true;
        for (number, gate) in policy.gates.iter().enumerate().filter(|(_, gate)| gate.when == When::Bake) {
            let key = (complete.id.clone(), number);
            let last = self.gate_results().get(&key).copied().filter(|(at, _)| at.elapsed() < gates::every(gate));
            well &= last.is_some_and(|(_, passed)| passed);
            if last.is_none() {
                let (gate, source, complete) = (gate.clone(), source.clone(), complete.clone());
                self.in_a_thread(&format!("bake:{}:{number}", complete.id), move |service| {
                    let outcome = service.read_gate(&gate, &source, &complete);
                    let mut gate_results = service.gate_results();
                    // What has baked is not asked about again.
                    gate_results.retain(|_, (at, _)| at.elapsed() < Duration::from_secs(24 * 3600));
                    gate_results.insert(key, (Instant::now(), matches!(outcome, Ok(true))));
                    outcome.map(drop)
                })?;
            }
        }
        Ok(well)
    }

    /// Asks a gate about what bakes. One that fails marks the release broken; one that cannot be asked proves nothing.
    fn read_gate(&self, gate: &Gate, source: &Place, complete: &Complete) -> Result<bool> {
        let vars = variables(source, &complete.tag, &complete.id, complete.kind);
        let reading =
            match gates::ask(gate, &vars, &Serving::default(), self.config.command_timeout, &|| self.is_stopping()) {
                Reading::Pass(reading) => {
                    log::debug!("{}: {reading}", complete.id);
                    return Ok(true);
                }
                Reading::Unknown(reading) => bail!("waits for a gate that cannot be asked: {reading}"),
                Reading::Fail(reading) => reading,
            };
        let mark = Mark {
            status: ReleaseStatus::Broken,
            reason: format!("while it baked in {}: {reading}", source.environment),
            logs: None,
            at: rfc3339(now_ms()),
            deploy: Some(complete.id.clone()),
        };
        if self.store.set_mark(&source.role, &complete.tag, &mark)? {
            let entry = AuditEntry::new(SERVICE, "broken").place(source).tag(&complete.tag).deploy(&complete.id);
            self.audit(entry.detail(mark.reason));
        }
        Ok(false)
    }

    fn gate_results(&self) -> MutexGuard<'_, GateResults> {
        self.gate_results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
