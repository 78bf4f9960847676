//! Boxes that have a place for a reboot have no worker that could speak for them: the service asks Serf, whether a deploy
//! rolls there or not.

use std::time::Duration;

use anyhow::Result;

use super::{LOOK_GAP, finalize::SERVICE};
use crate::{api::AuditEntry, coordination::Coordinator, names::Place, service::Service};

impl Service {
    /// Takes places for a reboot back from boxes that are gone, also where today's groups do not name the role any more.
    pub(super) fn judge_reboots(&self, members_age: Duration) -> Result<()> {
        if self.config.service.fleet_lock.is_some() {
            for place in self.store.places()? {
                self.log_once(&format!("reboots at {place}"), self.judge_reboots_at(&place, members_age));
            }
        }
        Ok(())
    }

    fn judge_reboots_at(&self, place: &Place, members_age: Duration) -> Result<()> {
        if !self.store.at(place, Coordinator::has_reboots)? {
            return Ok(());
        }
        let members = self.members(place, members_age)?;
        let ttl = self.config.lock_ttl;
        let gone = self.store.at(place, |locks| locks.judge_reboots(&members, ttl, LOOK_GAP))?;
        for name in gone {
            let detail = format!("{name} did not come back from its reboot: it is gone, and its place is free");
            self.audit(AuditEntry::new(SERVICE, "reboot_gone").place(place).detail(detail));
        }
        Ok(())
    }
}
