//! The story of one deploy on one box: the only place where the order of the steps is written.
//!
//! Until `leave` the box serves what it served, and a setback costs nothing. From there on it is out, it counts, and
//! every way ends either in service or loudly out of it: [`Site::recover`] sees to that.

use anyhow::Result;
use log::info;

use crate::{
    api::Phase,
    site::{Outcome, Setback, Site, order::Order},
};

/// Brings `order`'s release to the box.
pub fn deploy(site: &mut Site<'_>, order: &Order) -> Outcome {
    match roll(site, order) {
        Ok(()) => Outcome::Done(order.tag.clone()),
        Err(setback) => site.recover(order, setback),
    }
}

fn roll(site: &mut Site<'_>, order: &Order) -> Result<(), Setback> {
    site.join(order)?;
    site.resume(order)?;
    if site.runs_already(order)? {
        info!("{} runs already, healthy and in service", order.tag);
        return Ok(site.report(order, Phase::Done, None, true)?);
    }
    site.pull(order)?;

    if order.locked {
        loop {
            site.wait_for_lock(order)?;
            site.confirm(order)?;
            site.render(order)?;
            if site.leave(order)? {
                break;
            }
        }
        site.drain(order)?;
    }

    site.start(order)?;
    site.verify(order)?;
    site.register(order)?;
    site.finish(order)
}
