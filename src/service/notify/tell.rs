//! Looks for turns, and writes them down.
//!
//! What is looked for stands in Redis until it was written down: a deploy stays open, a freeze stays, a promotion waits. The
//! memory of what was written down only spares Redis the question.

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};

use super::{
    happened::{Happened, happened},
    text,
};
use crate::service::{Service, now};
use crate::{
    api::{Deploy, Freeze, Promotion, Turn, TurnKind},
    coordination::{DeployRecord, rfc3339},
    names::Place,
};

/// So many ids are remembered; then the memory begins anew.
const REMEMBERED: usize = 10_000;
/// A freeze that is older is no news, for a service that has just learnt to tell.
const NEWS: SignedDuration = SignedDuration::from_hours(24);

impl Service {
    /// Tells what has happened to a deploy whose end is open.
    pub fn tell_turns(&self, place: &Place, doc: &DeployRecord) -> Result<()> {
        let cancel = self.store.at(place, |locks| locks.cancel_of(&doc.id))?;
        for one in happened(doc, cancel.as_ref()) {
            if !self.has_told(&one.id) {
                self.tell(&self.turn(place, doc, one)?)?;
            }
        }
        Ok(())
    }

    /// Tells that the release of a deploy that has ended was found to be broken.
    pub fn tell_broken(&self, place: &Place, id: &str, by: &str, reason: &str) -> Result<()> {
        let Some(doc) = self.store.at(place, |locks| locks.doc(id))? else { return Ok(()) };
        let broken = Happened {
            id: format!("{id}:{}", TurnKind::Broken),
            turn: TurnKind::Broken,
            at: None,
            by: Some(by.to_owned()),
            reason: Some(reason.to_owned()),
            step: None,
        };
        if self.has_told(&broken.id) { Ok(()) } else { self.tell(&self.turn(place, &doc, broken)?) }
    }

    /// Tells that a promotion waits for people.
    pub fn tell_waits_for_approval(&self, promotion: &Promotion) -> Result<()> {
        let Promotion { role, environment, from, tag, source, .. } = promotion;
        let turn = TurnKind::NeedsApproval;
        let id = format!("{source}:{turn}:{environment}");
        if self.has_told(&id) {
            return Ok(());
        }
        let place = Place { environment: environment.clone(), role: role.clone() };
        self.tell(&Turn {
            id,
            turn,
            at: now(),
            environment: environment.clone(),
            role: Some(role.clone()),
            tag: Some(tag.clone()),
            by: None,
            reason: Some(format!("`deployctl promote -r {role} --from {from}` approves it")),
            done: None,
            out: None,
            text: text::waits_for_approval(&place, tag, from),
            url: self.page("/"),
            deploy: None,
        })
    }

    /// Tells of the freezes that are news.
    pub fn tell_freezes(&self) -> Result<()> {
        let since = Timestamp::now() - NEWS;
        let is_news = |freeze: &Freeze| freeze.at.parse::<Timestamp>().is_ok_and(|at| at > since);
        self.store.freezes()?.iter().filter(|freeze| is_news(freeze)).try_for_each(|freeze| self.tell_frozen(freeze))
    }

    /// Tells of one.
    pub fn tell_frozen(&self, freeze: &Freeze) -> Result<()> {
        let Freeze { environment, role, reason, by, at, .. } = freeze;
        let scope = role.as_ref().map_or_else(|| environment.to_string(), |role| format!("{environment}.{role}"));
        let turn = TurnKind::Frozen;
        let id = format!("freeze.{scope}:{turn}:{at}");
        if self.has_told(&id) {
            return Ok(());
        }
        self.tell(&Turn {
            id,
            turn,
            at: at.clone(),
            environment: environment.clone(),
            role: role.clone(),
            tag: None,
            by: Some(by.clone()),
            reason: reason.clone(),
            done: None,
            out: None,
            text: text::frozen(freeze),
            url: self.page("/"),
            deploy: None,
        })
    }

    /// A turn of a deploy, with how far the deploy is.
    pub(super) fn turn(&self, place: &Place, doc: &DeployRecord, one: Happened) -> Result<Turn> {
        let (deploy, done, out) =
            self.store.at(place, |locks| Ok((locks.show(doc, false)?, locks.done(&doc.id)?, locks.count_out()?)))?;
        let Happened { id, turn, at, by, reason, step } = one;
        Ok(Turn {
            id,
            turn,
            at: at.map_or_else(now, rfc3339),
            environment: place.environment.clone(),
            role: Some(place.role.clone()),
            tag: Some(doc.tag.clone()),
            by,
            reason,
            done: Some(done),
            out: Some(out),
            text: text::of_deploy(turn, &deploy, step),
            url: self.page(&format!("/deploys/{}", doc.id)),
            deploy: Some(self.with_links(deploy)),
        })
    }

    /// Links are a help: a release that cannot be read must not keep anybody from being told.
    fn with_links(&self, deploy: Deploy) -> Deploy {
        self.linked(deploy.clone()).unwrap_or_else(|error| {
            log::warn!("{} is told without a link: {error:#}", deploy.id);
            deploy
        })
    }

    /// The address of a page, where people can reach it.
    fn page(&self, path: &str) -> Option<String> {
        self.config.service.public_url.as_ref().map(|url| format!("{}{path}", url.origin()))
    }

    pub(super) fn has_told(&self, id: &str) -> bool {
        self.told.ids().contains(id)
    }

    /// Writes a turn down for everybody who wants to hear of it.
    pub(super) fn tell(&self, turn: &Turn) -> Result<()> {
        let targets = self.config.service.notify.targets().filter(|target| target.wants(turn));
        let names: Vec<&str> = targets.map(|target| target.name.as_str()).collect();
        for full in self.store.record_turn(turn, &names)? {
            log::error!("notify {full}: so much waits that the oldest entry was dropped: see that the target answers");
        }
        let mut ids = self.told.ids();
        if ids.len() >= REMEMBERED {
            ids.clear();
        }
        ids.insert(turn.id.clone());
        Ok(())
    }
}
