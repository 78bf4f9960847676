//! What a box sees before anything is decided: itself, its load balancers, its place in Redis, and the boxes beside it.

use std::time::Duration;

use anyhow::Result;
use log::{info, warn};

use super::{BoxRole, journal::Good, plan::Observation};
use crate::{
    api::{Current, Kind, Phase, State},
    coordination::RenewRequest,
    load_balancer::Waiting,
    names::{BoxName, Zones},
    retry::retrying,
};

/// How long a Docker engine may take to come back before the box counts as failed.
const ENGINE: Duration = Duration::from_secs(60);

impl BoxRole<'_> {
    /// Looks at the box: its journal, its container, its load balancers, and its place in Redis. Waits a while for a
    /// Docker engine that restarts.
    pub(crate) fn observe(&mut self, current: Option<&Current>) -> Result<Observation> {
        let interrupted = self.interruption();
        let rolling = current.map(|current| &current.deploy).filter(|deploy| deploy.state == State::Rolling);
        let (out, complete, (row, done)) = self.retry_transient(self.config.command_timeout, |box_role| {
            let name = box_role.name.clone();
            let standing = rolling.map(|deploy| box_role.locks.standing(&deploy.id, &name)).transpose()?;
            Ok((box_role.locks.is_out(&name)?, box_role.locks.complete()?, standing.unwrap_or_default()))
        })?;
        let patience = self.config.command_timeout.min(ENGINE);
        let joins = rolling.is_some();
        let (has_container, serves, unseen) =
            retrying(patience, &interrupted, |_| true, || self.look_outside(joins, &interrupted))?;
        let state = self.journal.state().clone();
        Ok(Observation {
            name: self.name.clone(),
            out: out || state.work.is_some(),
            kept_out: state.kept_out,
            is_new: state.good.is_none() && !has_container && unseen && !out,
            serves,
            good: state.good.map(|good| (good.tag, (good.kind == Kind::Manual).then_some(good.at))),
            row,
            proven: done > u32::from(row == Some(Phase::Done)),
            complete_at: complete.and_then(|doc| doc.ended),
        })
    }

    /// Whether there is a container; whether it is the last good one, healthy and in service; and whether no load balancer
    /// knows this box. A box that joins a deploy is not asked for more than it takes to see that it is no new one.
    fn look_outside(&self, joins: bool, interrupted: &(dyn Fn() -> bool + Sync)) -> Result<(bool, bool, bool)> {
        let good = self.journal.state().good.as_ref();
        let has_container = self.project.container()?.is_some();
        if joins && (has_container || good.is_some()) {
            return Ok((has_container, false, false));
        }
        let tag = good.map_or_else(|| "none".parse(), |good| Ok(good.tag.clone()))?;
        let vars = self.vars("look", &tag, Kind::Sync);
        let balancers = self.resolve_balancers(&vars, interrupted)?;
        let in_service = balancers.in_service(&Waiting::quietly(interrupted, Some(&self.looks)))?;
        let healthy = match good {
            Some(good) if has_container => self.is_good_now(good)?,
            _ => false,
        };
        Ok((has_container, healthy && in_service, !in_service || self.role.load_balancers.is_empty()))
    }

    fn is_good_now(&self, good: &Good) -> Result<bool> {
        let setup = self.setup_of(good);
        let project = self.project.as_run_by(&setup.run_by);
        Ok(project.runs(&good.rendered)? && project.is_healthy_now(&good.rendered, &setup.health)?)
    }

    /// Live boxes of this place and their zones, by this box's own agent; itself always among them.
    pub(crate) fn live_boxes(&mut self) -> Result<(Vec<BoxName>, Zones)> {
        let interrupted = self.interruption();
        let ask = || self.serf.members(&interrupted);
        let members = retrying(self.config.command_timeout, &interrupted, |_| true, ask)?;
        let (mut boxes, mut zones) = (Vec::new(), Zones::new());
        for member in members.iter().filter(|member| member.is_live_in(&self.place)) {
            let name: BoxName = match member.name.parse() {
                Ok(name) => name,
                Err(error) => {
                    warn!("a member of the fleet is left out: {error}");
                    continue;
                }
            };
            match member.zone(&self.config.zone_tag) {
                Ok(zone) => zones.extend(zone.map(|zone| (name.clone(), zone))),
                Err(error) => warn!("{name} counts as a box without a zone: {error}"),
            }
            boxes.push(name);
        }
        if !boxes.contains(&self.name) {
            boxes.push(self.name.clone());
        }
        Ok((boxes, zones))
    }

    /// A box whose journal says that it is out says so to Redis before anything else. It may have been called gone while
    /// it was down, and its place given away: from here on it counts again, and gets a lock first.
    pub(crate) fn assert_out(&mut self) -> Result<()> {
        let Some(work) = self.journal.state().work.clone() else { return Ok(()) };
        let name = self.name.clone();
        if let Some(purpose) = &work.purpose {
            info!("{}: out of service from before, for this: {purpose}", self.place);
        }
        let still_out = RenewRequest {
            name: &name,
            deploy: &work.deploy,
            phase: None,
            detail: None,
            suffix: None,
            token: None,
            ttl: u64::try_from(self.config.lock_ttl.as_millis()).unwrap_or(u64::MAX),
            out: true,
            kept_out_reason: None,
            purpose: work.purpose.as_deref(),
            epoch: None,
        };
        self.retry_transient(self.config.command_timeout, |box_role| box_role.locks.renew(&still_out)).map(drop)
    }
}
