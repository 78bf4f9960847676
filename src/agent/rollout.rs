//! The story of one deploy on one box: the only place where the order of the steps is written.
//!
//! Until `leave` the box serves what it served, and a failed step costs nothing. From there on it is out, it counts, and
//! every way ends either in service or loudly out of it: [`BoxRole::recover`] sees to that.

use anyhow::Result;
use log::info;

use crate::agent::{
    BoxRole, Outcome, StepError,
    plan::Plan,
    with_lock::{self, Errand, Part},
};

/// Brings `plan`'s release to the box.
pub fn deploy(box_role: &mut BoxRole<'_>, plan: &Plan) -> Outcome {
    match roll(box_role, plan) {
        Ok(()) => Outcome::Done(plan.tag.clone()),
        Err(error) => box_role.recover(plan, error),
    }
}

fn roll(box_role: &mut BoxRole<'_>, plan: &Plan) -> Result<(), StepError> {
    box_role.join(plan)?;
    box_role.resume(plan)?;
    if box_role.runs_already(plan)? {
        info!("{} runs already, healthy and in service", plan.tag);
        return Ok(box_role.report_done(plan)?);
    }
    box_role.check_way_back()?;
    box_role.pull(plan)?;

    if plan.locked {
        loop {
            box_role.wait_for_lock(plan)?;
            if !box_role.confirm(plan)? {
                continue;
            }
            box_role.render(plan)?;
            box_role.fetch_again(plan)?;
            if box_role.leave(plan)? {
                break;
            }
        }
        box_role.drain(plan)?;
    }

    box_role.start(plan)?;
    box_role.verify(plan)?;
    box_role.register(plan)?;
    box_role.finish(plan)
}

/// Takes the box out of its load balancers in all roles of `parts`, under locks as for a deploy, and sees to `errand`:
/// `deployctl with-lock`. Whatever comes of it, the parts that are out come back: [`BoxRole::come_back`]; but not where
/// the machine goes down.
pub fn with_lock(parts: &mut [Part<'_>], errand: &Errand) -> Result<(), StepError> {
    for Part { box_role, plan, .. } in parts.iter_mut() {
        box_role.join(plan)?;
    }
    loop {
        with_lock::take_locks(parts)?;
        if with_lock::leave(parts)? {
            break;
        }
    }
    for Part { box_role, plan, .. } in parts.iter_mut() {
        box_role.drain(plan)?;
    }
    errand.run(parts)?;
    errand.reboot(parts)
}

/// Takes the box out of its load balancers, under a lock as for a deploy, and leaves it out: `deployctl out`.
pub fn take_out(box_role: &mut BoxRole<'_>, plan: &Plan) -> Result<(), StepError> {
    box_role.join(plan)?;
    loop {
        box_role.wait_for_lock(plan)?;
        if box_role.leave(plan)? {
            break;
        }
    }
    box_role.drain(plan)?;
    Ok(box_role.stay_out(plan)?)
}
