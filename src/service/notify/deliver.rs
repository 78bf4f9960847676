//! Empties the outboxes: one thread a target, which ends when nothing is due.

use std::sync::Arc;

use anyhow::{Result, bail};

use super::{command, github, gitlab, outbox, post::Refused, slack, webhook};
use crate::service::{
    Service, now_ms,
    store::{Notified, Unsent},
};
use crate::{
    api::{Deploy, Turn},
    config::{Delivery, Target},
    names::Place,
    sleep::jittered,
};

/// After so many refusals in a row the rest has to wait: the target does not answer anybody.
const REFUSALS: u32 = 3;

impl Service {
    /// Has everybody told of what is due.
    pub fn empty_outboxes(self: &Arc<Self>) {
        for target in self.config.service.notify.targets() {
            self.log_once(&format!("the outbox of {}", target.name), self.empty_outbox(target));
        }
    }

    fn empty_outbox(self: &Arc<Self>, target: &Target) -> Result<()> {
        if outbox::due(&self.store.outbox(&target.name)?, now_ms()).is_empty() {
            return Ok(());
        }
        let target = target.clone();
        self.in_a_thread(&format!("notify:{}", target.name), move |service| service.deliver(&target))
    }

    /// Tells a target what is due, in order. The caller holds the lease. What is not taken comes again later.
    fn deliver(&self, target: &Target) -> Result<()> {
        let mut refusals = Vec::new();
        let mut in_a_row = 0;
        loop {
            let waiting = self.store.outbox(&target.name)?;
            let due = outbox::due(&waiting, now_ms());
            if due.is_empty() || in_a_row >= REFUSALS {
                break;
            }
            for (number, entry) in due.iter().filter_map(|number| Some((*number, waiting.get(number)?))) {
                if self.is_stopping() || in_a_row >= REFUSALS {
                    break;
                }
                match self.deliver_one(target, number, entry)? {
                    None => in_a_row = 0,
                    Some(why) => {
                        refusals.push(why);
                        in_a_row += 1;
                    }
                }
            }
            if self.is_stopping() {
                return Ok(());
            }
        }
        match refusals.pop() {
            None => Ok(()),
            // Said once while it stays the same.
            Some(why) => bail!("it does not know of everything yet: {why}; tried again for a day"),
        }
    }

    /// One turn. Answers why it was not taken.
    fn deliver_one(&self, target: &Target, number: u64, entry: &Unsent) -> Result<Option<String>> {
        let name = &target.name;
        let drop = |why: &str| {
            log::error!("notify {name}: given up telling of {} after {} tries: {why}", entry.lane, entry.tries);
            self.store.take_out(name, number, Notified::Dropped).map(|()| None)
        };
        if outbox::is_given_up(number, now_ms()) {
            return drop("a day has passed");
        }
        let Some(turn) = self.store.turn(number)? else { return drop("the turn is no longer kept") };
        match self.send(target, number, &turn) {
            Ok(()) => {
                log::debug!("notify {name}: told of {}", turn.id);
                self.store.take_out(name, number, Notified::Sent)?;
                Ok(None)
            }
            Err(Refused::Stopped) => Ok(None),
            Err(Refused::No { why, .. }) if matches!(target.how, Delivery::Command { again: false, .. }) => {
                // What it did before it failed, nobody knows.
                let ended = turn.deploy.as_ref().map(|deploy| format!("{} ended {}", deploy.id, deploy.state));
                log::error!("nobody may know that {}: {why}; see service.notify", ended.unwrap_or(turn.text));
                self.store.take_out(name, number, Notified::Dropped)?;
                Ok(None)
            }
            Err(Refused::No { why, wait }) => {
                self.store.try_later(name, number, &outbox::later(entry, wait, now_ms(), jittered))?;
                Ok(Some(why))
            }
        }
    }

    fn send(&self, target: &Target, number: u64, turn: &Turn) -> Result<(), Refused> {
        match &target.how {
            Delivery::Command { argv, .. } => {
                let deploy = self.with_boxes(turn)?;
                command::send(&self.config, argv, turn, deploy.as_ref(), &|| self.is_stopping())
            }
            Delivery::Slack(slack) => slack::send(slack, turn),
            Delivery::Webhook(webhook) => webhook::send(webhook, number, turn, now_ms() / 1000),
            Delivery::Github(github) => github::send(github, turn, self.commit(turn)?.as_deref()),
            Delivery::Gitlab(gitlab) => gitlab::send(gitlab, turn, self.commit(turn)?.as_deref()),
        }
    }

    /// The deploy of a turn. With its boxes where it has ended: before, they have gone on meanwhile.
    fn with_boxes(&self, turn: &Turn) -> Result<Option<Deploy>> {
        let Some(deploy) = &turn.deploy else { return Ok(None) };
        if !deploy.state.is_ended() {
            return Ok(Some(deploy.clone()));
        }
        let place = Place { environment: deploy.environment.clone(), role: deploy.role.clone() };
        Ok(self.store.at(&place, |locks| locks.deploy(&deploy.id))?.or_else(|| Some(deploy.clone())))
    }

    fn commit(&self, turn: &Turn) -> Result<Option<String>> {
        let Some(deploy) = &turn.deploy else { return Ok(None) };
        Ok(self.store.release(&deploy.role, &deploy.tag)?.and_then(|release| release.commit))
    }
}
