//! Starts deploys: by a person, from the queue, back, and on to the next environment. What is started is written in
//! [`Wish`]; [`Service::launch`] is the one way to begin.

use std::time::Duration;

use super::{
    Service, decide, ids, now_ms,
    records::Mark,
    refusal::{Answer, Kind, Refusal},
};
use crate::{
    api::{AuditEntry, BoxRow, Deploy, Kind as DeployKind, NewDeploy, NewMove, Phase, Release, ReleaseStatus, State},
    config::When,
    locks::{Begun, Doc, Locks, Members, rfc3339},
    names::{BoxName, Place, Role, Tag},
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
    /// `POST /v1/deploys`.
    pub fn start(&self, asked: &NewDeploy, by: &str) -> Answer<Deploy> {
        let place = Place { environment: asked.environment.clone(), role: asked.role.clone() };
        let tag = match &asked.tag {
            Some(tag) => tag.clone(),
            None => self.default_tag(&place)?,
        };
        let release = self.release(&place.role, &tag)?;
        decide::may_start(&release, asked.tag.is_some(), asked.force)?;
        if !asked.force {
            decide::may_thaw(self.records.frozen(&place)?.as_ref())?;
        }
        let wish = Wish {
            supersede: asked.supersede,
            queue: asked.queue,
            recreate: asked.recreate,
            force: asked.force,
            ..Wish::new(&place, &tag, DeployKind::Deploy, by)
        };
        if asked.dry_run {
            return self.rehearse(&wish);
        }
        let launched = self.launch(&wish)?;
        if release.status == ReleaseStatus::Withheld && asked.tag.is_some() {
            self.records.clear_mark(&place.role, &tag)?;
            self.audit(
                AuditEntry::new(by, "release").place(&place).tag(&tag).detail("named again: no longer withheld"),
            );
        }
        started(launched)
    }

    /// `POST /v1/rollbacks`: back to the tag that was asked for, else to this environment's last complete other one.
    pub fn roll_back(&self, asked: &NewMove, by: &str) -> Answer<Deploy> {
        let place = Place { environment: asked.environment.clone(), role: asked.role.clone() };
        let left = self.left_behind(&place)?;
        let tag = match &asked.tag {
            Some(tag) => {
                decide::may_start(&self.release(&place.role, tag)?, true, false)?;
                tag.clone()
            }
            None => self.good_tag(&place, left.as_ref().map(|doc| &doc.tag))?,
        };
        let wish = Wish {
            source: left.as_ref().map(|doc| doc.id.clone()),
            supersede: true,
            reason: left.as_ref().map(|doc| format!("back from {}", doc.tag)),
            ..Wish::new(&place, &tag, DeployKind::Rollback, by)
        };
        let left = left.map(|doc| doc.tag).filter(|left| *left != tag);
        // Before it begins: who is killed in between has withheld a release that nobody wants.
        let withheld = match &left {
            Some(left) => self.withhold(&place, left, by)?,
            None => false,
        };
        let launched = self.launch(&wish);
        if let (Some(left), true, Err(_)) = (&left, withheld, &launched) {
            self.records.clear_mark(&place.role, left)?;
        }
        started(launched?)
    }

    /// `POST /v1/promotions`: starts in the next environment what `asked.environment` completed last.
    pub fn promote(&self, asked: &NewMove, by: &str) -> Answer<Deploy> {
        let source = Place { environment: asked.environment.clone(), role: asked.role.clone() };
        let policy = self.config.service.role(&source.role);
        let target = policy.next(&source.environment).ok_or_else(|| {
            let message = format!("nothing follows {source}: see service.roles.{}.environments", source.role);
            Refusal::new(Kind::NotFound, message)
        })?;
        let target = Place { environment: target.clone(), role: source.role.clone() };
        let history = self.records.complete(&source)?;
        let complete = match &asked.tag {
            Some(tag) => history.iter().find(|complete| complete.tag == *tag),
            None => history.first(),
        };
        let Some(complete) = complete else {
            let what = asked.tag.as_ref().map_or_else(|| "nothing".to_owned(), |tag| format!("{}:{tag}", source.role));
            return Err(Refusal::new(
                Kind::NotFound,
                format!("{what} was completely deployed in {}", source.environment),
            ));
        };
        decide::may_start(&self.release(&source.role, &complete.tag)?, asked.tag.is_some(), false)?;
        decide::may_thaw(self.records.frozen(&target)?.as_ref())?;
        let wish = Wish {
            id: Some(ids::promoted(&complete.id, &target)),
            source: Some(complete.id.clone()),
            ..Wish::new(&target, &complete.tag, DeployKind::Promotion, by)
        };
        // A person may promote again what did not get through.
        match self.launch(&wish)? {
            Launched::Exists => started(self.launch(&Wish { id: None, ..wish })?),
            launched => started(launched),
        }
    }

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
    fn rehearse(&self, wish: &Wish) -> Answer<Deploy> {
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

    fn default_tag(&self, place: &Place) -> Answer<Tag> {
        let Place { environment, role } = place;
        let policy = self.config.service.role(role);
        if let Some(previous) = policy.previous(environment) {
            let previous = Place { environment: previous.clone(), role: role.clone() };
            let complete = self.records.at(&previous, Locks::complete)?;
            return complete.map(|doc| doc.tag).ok_or_else(|| {
                Refusal::new(Kind::NotFound, format!("{previous} has no complete deploy yet: name a tag with -t"))
            });
        }
        let releases = self.records.releases(role, 1000)?;
        decide::newest(&releases).cloned().ok_or_else(|| {
            Refusal::new(
                Kind::NotFound,
                format!("no release of {role} can be deployed: publish one, or name a tag with -t"),
            )
        })
    }

    fn release(&self, role: &Role, tag: &Tag) -> Answer<Release> {
        self.records.release(role, tag)?.ok_or_else(|| {
            Refusal::new(
                Kind::NotFound,
                format!("{role}:{tag} is no known release: deployctl publish -r {role} -t {tag} makes it one"),
            )
        })
    }

    /// The tag that a rollback without a tag goes to.
    pub fn good_tag(&self, place: &Place, leaves: Option<&Tag>) -> Answer<Tag> {
        let history = self.records.complete(place)?;
        let mut marked = Vec::new();
        for complete in &history {
            if self.records.mark(&place.role, &complete.tag)?.is_some() {
                marked.push(complete.tag.clone());
            }
        }
        let back = decide::way_back(&history, leaves, |tag| marked.contains(tag));
        back.map(|complete| complete.tag.clone()).ok_or_else(|| {
            let leaves = leaves.map(|tag| format!(" other than {tag}")).unwrap_or_default();
            Refusal::new(
                Kind::NoGoodRelease,
                format!(
                    "no release{leaves} was ever completely deployed for {place} and is still good: name one with -t"
                ),
            )
        })
    }

    /// The deploy that a rollback leaves: the newest one; and when that is a rollback that did not get through, the
    /// one that it was to leave.
    fn left_behind(&self, place: &Place) -> anyhow::Result<Option<Doc>> {
        let Some(newest) = self.records.at(place, Locks::current)? else { return Ok(None) };
        let unfinished_rollback = newest.kind == DeployKind::Rollback && newest.state() != State::Deployed;
        match newest.source.as_ref().filter(|_| unfinished_rollback) {
            Some(source) => Ok(self.records.at(place, |locks| locks.doc(source))?.or(Some(newest))),
            None => Ok(Some(newest)),
        }
    }

    fn withhold(&self, place: &Place, tag: &Tag, by: &str) -> anyhow::Result<bool> {
        let mark = Mark {
            status: ReleaseStatus::Withheld,
            reason: format!("{by} rolled back from it in {}", place.environment),
            logs: None,
            at: rfc3339(now_ms()),
            deploy: None,
        };
        self.records.set_mark(&place.role, tag, &mark)
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

fn started(launched: Launched) -> Answer<Deploy> {
    match launched {
        Launched::Rolling(deploy) | Launched::Queued(deploy) => Ok(deploy),
        Launched::Exists => Err(Refusal::new(Kind::Rolling, "this deploy has begun before: see deployctl status")),
    }
}
