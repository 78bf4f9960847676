//! The one way in which deploys begin: by a person, from the queue, back, and on to the next environment.

use std::time::Duration;

use super::{
    Service, decide, ids, now_ms,
    refusal::{Answer, Kind, Refusal},
};
use crate::{
    api::{AuditEntry, BoxRow, Deploy, Kind as DeployKind, Phase, State},
    config::When,
    locks::{Begun, Doc, Locks, Members, rfc3339},
    names::{BoxName, Place, Tag},
};

/// A deploy that somebody wants.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "they are the flags of the call")]
pub struct Wish {
    /// Where.
    pub place: Place,
    /// Which.
    pub tag: Tag,
    /// Why.
    pub kind: DeployKind,
    /// Who.
    pub by: String,
    /// For people: why it was started.
    pub reason: Option<String>,
    /// The one id that it may have; a new one when absent.
    pub id: Option<String>,
    /// The deploy that it is made of.
    pub source: Option<String>,
    /// Cancel what rolls.
    pub supersede: bool,
    /// Wait for what rolls.
    pub queue: bool,
    /// Every box is to be recreated.
    pub recreate: bool,
    /// Somebody insists.
    pub force: bool,
}

impl Wish {
    /// The plainest one.
    pub fn new(place: &Place, tag: &Tag, kind: DeployKind, by: &str) -> Self {
        Self {
            place: place.clone(),
            tag: tag.clone(),
            kind,
            by: by.to_owned(),
            reason: None,
            id: None,
            source: None,
            supersede: false,
            queue: false,
            recreate: false,
            force: false,
        }
    }
}

/// How a launch went.
#[derive(Debug, Clone, PartialEq)]
pub enum Launched {
    /// It rolls.
    Rolling(Deploy),
    /// It waits for the one that rolls.
    Queued(Deploy),
    /// Its one id has been used.
    Exists,
}

impl Service {
    /// Begins a deploy, or queues it.
    pub fn launch(&self, wish: &Wish) -> Answer<Launched> {
        let place = &wish.place;
        let boxes = self.live_boxes(place)?;
        let doc = self.doc(wish)?;
        self.records.know(place)?;
        if wish.supersede {
            // Its end comes with our begin; who is killed right after must still find it.
            if let Some(old) = self.records.at(place, Locks::current)?.filter(|d| d.state() == State::Rolling) {
                self.records.open(&old.id)?;
            }
        }
        match self.begin(place, &doc, &boxes, wish.supersede)? {
            Begun::Rolling { .. } => Ok(Launched::Rolling(self.begun(place, &doc)?)),
            Begun::Refused { refused, .. } if refused == "exists" => Ok(Launched::Exists),
            Begun::Refused { .. } if wish.queue => Ok(Launched::Queued(self.enqueue(place, &doc)?)),
            Begun::Refused { id, .. } => Err(Refusal::new(
                Kind::Rolling,
                format!(
                    "{} is rolling for {place}: wait for it, --queue behind it, or --supersede it",
                    id.as_deref().unwrap_or("another deploy")
                ),
            )),
        }
    }

    /// Begins the deploy that waits, if nothing rolls.
    pub fn start_queued(&self, place: &Place) -> anyhow::Result<()> {
        let Some(doc) = self.records.at(place, Locks::queued)? else { return Ok(()) };
        let rolls = self.records.at(place, Locks::current)?.is_some_and(|d| d.state() == State::Rolling);
        let frozen = !doc.force && self.records.frozen(place)?.is_some();
        if rolls || frozen {
            return Ok(());
        }
        let release = self.release(&doc.role, &doc.tag);
        if let Err(refusal) = release.and_then(|release| decide::may_start(&release, true, doc.force)) {
            if matches!(refusal.kind, Kind::Unavailable | Kind::Internal) {
                anyhow::bail!(refusal);
            }
            self.records.at(place, |locks| locks.cancel(Some(&doc.id), "service", &refusal.message, false))?;
            self.audit(
                AuditEntry::new("service", "cancel").place(place).tag(&doc.tag).deploy(&doc.id).detail(refusal.message),
            );
            return Ok(());
        }
        let boxes = self.live_boxes(place)?;
        if let Begun::Rolling { .. } = self.begin(place, &doc, &boxes, false)? {
            self.begun(place, &doc)?;
        }
        Ok(())
    }

    fn begin(&self, place: &Place, doc: &Doc, boxes: &[BoxName], supersede: bool) -> anyhow::Result<Begun> {
        // A rollback is for the worst of days: what may be wrong with a gate must not stand in its way.
        let policy = self.config.service.role(&place.role);
        let gated = doc.kind != DeployKind::Rollback && policy.gates.iter().any(|gate| gate.when == When::Start);
        let epoch = self.epoch(place);
        let begun = self.records.at(place, |locks| locks.begin(doc, boxes, supersede, gated, epoch.as_deref()))?;
        if let Begun::Rolling { epoch } = &begun {
            self.remember_epoch(place, epoch);
        }
        Ok(begun)
    }

    /// What follows a beginning at once.
    fn begun(&self, place: &Place, doc: &Doc) -> anyhow::Result<Deploy> {
        self.records.open(&doc.id)?;
        let action = match doc.kind {
            DeployKind::Rollback => "rollback",
            DeployKind::Promotion => "promote",
            _ => "start",
        };
        let entry = AuditEntry::new(&doc.by, action).place(place).tag(&doc.tag).deploy(&doc.id);
        self.audit(entry.detail(doc.reason.as_deref().unwrap_or_default()));
        // What cannot be told to the boxes now is told by the watch.
        self.look_soon(place);
        let deploy = self.records.at(place, |locks| locks.deploy(&doc.id))?;
        deploy.ok_or_else(|| anyhow::anyhow!("Redis lost the deploy {} right after it began", doc.id))
    }

    fn enqueue(&self, place: &Place, doc: &Doc) -> anyhow::Result<Deploy> {
        let replaced = self.records.at(place, |locks| locks.queue(doc))?;
        let detail = replaced.map(|id| format!("in place of {id}")).unwrap_or_default();
        self.audit(AuditEntry::new(&doc.by, "queue").place(place).tag(&doc.tag).deploy(&doc.id).detail(detail));
        // It may have waited for one that has ended meanwhile.
        self.ring();
        let deploy = self.records.at(place, |locks| locks.deploy(&doc.id))?;
        deploy.ok_or_else(|| anyhow::anyhow!("Redis lost the deploy {} right after it was queued", doc.id))
    }

    fn doc(&self, wish: &Wish) -> anyhow::Result<Doc> {
        let id = match &wish.id {
            Some(id) => id.clone(),
            None => {
                ids::new(&wish.place, now_ms(), getrandom::u32().map_err(|e| anyhow::anyhow!("no randomness: {e}"))?)
            }
        };
        Ok(Doc {
            schema: 0,
            id,
            role: wish.place.role.clone(),
            environment: wish.place.environment.clone(),
            tag: wish.tag.clone(),
            kind: wish.kind,
            by: wish.by.clone(),
            reason: wish.reason.clone(),
            max_parallel: self.config.service.role(&wish.place.role).max_parallel,
            recreate: wish.recreate,
            force: wish.force,
            source: wish.source.clone(),
            state: None,
            last_good: None,
            started: None,
            ended: None,
            gated: None,
            gate_owner: None,
        })
    }

    /// The deploy as it would be, without starting it.
    pub fn rehearse(&self, wish: &Wish) -> Answer<Deploy> {
        let boxes = self.live_boxes(&wish.place)?;
        let current = self.records.at(&wish.place, Locks::current)?;
        let rolling = current.as_ref().filter(|doc| doc.state() == State::Rolling);
        if let (Some(doc), false, false) = (rolling, wish.supersede, wish.queue) {
            return Err(Refusal::new(
                Kind::Rolling,
                format!("{} is rolling for {}: add --queue or --supersede", doc.id, wish.place),
            ));
        }
        let waits = rolling.is_some() && !wish.supersede;
        let doc = Doc {
            state: Some(if waits { State::Queued } else { State::Rolling }),
            started: Some(now_ms()),
            last_good: current.and_then(|doc| doc.last_good),
            ..self.doc(wish)?
        };
        let size = u32::try_from(boxes.len()).unwrap_or(u32::MAX);
        let row = |name| BoxRow { name, phase: Phase::Expected, tag: None, since: rfc3339(now_ms()), detail: None };
        let mut deploy = self.records.at(&wish.place, |locks| locks.show(&doc, false))?;
        (deploy.size, deploy.remaining, deploy.locks) = (size, size, doc.max_parallel.locks(size));
        deploy.boxes = boxes.into_iter().map(row).collect();
        Ok(deploy)
    }

    fn live_boxes(&self, place: &Place) -> Answer<Vec<BoxName>> {
        let Members { alive, .. } = self.members(place, Duration::ZERO)?;
        if alive.is_empty() {
            let Place { environment, role } = place;
            return Err(Refusal::new(
                Kind::NoBox,
                format!("no live box has the Serf tags images={role} and environment={environment}: see serf members"),
            ));
        }
        Ok(alive)
    }

    /// The members that matter to `place`; an agent that does not answer is `unavailable`.
    pub fn members(&self, place: &Place, max_age: Duration) -> Answer<Members> {
        let members = self.fleet.members(place, max_age, &|| self.is_stopping());
        members.map_err(|error| Refusal::new(Kind::Unavailable, format!("cannot tell which boxes live: {error:#}")))
    }
}
