//! The end of a box's part in a deploy: what it remembers, what it reports, and what it cleans up.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use log::{error, info, warn};

use super::{BoxRole, journal::Good, plan::Plan, step_error::StepError};
use crate::{api::Phase, compose::ImageId, coordination::Finish};

/// How long Redis may be away when a box that holds nothing says how its part ended.
const LAST_WORD: Duration = Duration::from_secs(30);

impl BoxRole<'_> {
    /// The box runs the release, in service: remembers it, and says so in one step.
    ///
    /// From here on it serves, and no file that cannot be written sends it back: what failed stands in the report.
    pub(crate) fn finish(&mut self, plan: &Plan) -> Result<(), StepError> {
        let good = Good {
            tag: plan.tag.clone(),
            deploy: plan.id.clone(),
            kind: plan.kind,
            at: Self::now(),
            rendered: self.rendered()?.clone(),
            images: self.project.images_of(self.rendered()?).unwrap_or_else(|error| {
                warn!("{}: {error:#}", self.place);
                BTreeMap::new()
            }),
            setup: Some(self.setup()),
        };
        if let Err(error) = self.journal.remember(good) {
            error!("{}: {error:#}; the box serves, and its next worker does this again", self.place);
            self.remark = Some(format!("{error:#}"));
        }
        self.report_done(plan)?;
        self.prune();
        Ok(())
    }

    /// The box runs the release and is in service, whatever it could not do besides.
    pub(crate) fn report_done(&mut self, plan: &Plan) -> Result<()> {
        let remark = self.remark.take();
        self.report(plan, Phase::Done, remark, true)
    }

    /// Out by hand is not work that was interrupted: the box stays out, and its lock is free for others.
    pub(crate) fn stay_out(&mut self, plan: &Plan) -> Result<()> {
        let detail = self.journal.update(|state| state.work = None).err().map(|error| format!("{error:#}"));
        if let Some(detail) = &detail {
            error!("{}: {detail}", self.place);
        }
        self.report(plan, Phase::Cancelled, detail, false)
    }

    /// Ends the box's part in Redis, however long Redis takes to come back, and tells the service of the last one.
    pub(crate) fn report(&mut self, plan: &Plan, phase: Phase, detail: Option<String>, in_service: bool) -> Result<()> {
        let held = self.held();
        self.rest();
        let tag = self.journal.state().good.as_ref().map(|good| good.tag.clone());
        let finish = Finish {
            phase: plan.joins.then_some(phase),
            tag: tag.clone(),
            detail,
            in_service,
            running: tag.filter(|_| in_service),
            quiet: false,
        };
        let patience = if held.is_some() { self.config.lock_ttl } else { LAST_WORD };
        let remaining = self.retry_transient(patience, |box_role| {
            let name = box_role.name.clone();
            box_role.locks.finish(&name, &plan.id, held.as_ref(), &finish)
        })?;
        if remaining == Some(0)
            && let Err(error) = self.service.complete(&plan.id, &self.name)
        {
            info!("{error}; the service sees by itself that the deploy is complete");
        }
        Ok(())
    }

    fn prune(&self) {
        let Some(good) = &self.journal.state().good else { return };
        let pruned =
            self.images_to_keep().and_then(|kept| self.project.prune(&good.rendered, self.role.keep_images, &kept));
        if let Err(error) = pruned {
            warn!("{error:#}; old images stay");
        }
    }

    /// The images that any role on this box may go back to. Where that is not known, nothing is removed.
    fn images_to_keep(&self) -> Result<Vec<ImageId>> {
        let mut kept = Vec::new();
        for good in self.journal.good_on_this_box()? {
            kept.extend(self.project.image_present(good.rendered.image())?);
            kept.extend(good.images.into_values());
        }
        Ok(kept)
    }
}
