//! The one way in which deploys begin: by a person, from the queue, back, and on to the next environment.

use std::time::Duration;

mod by_person;

use crate::service::{
    Service,
    api_error::{ApiError, ApiResult, ErrorKind},
    ids, now_ms, policy,
};
use crate::{
    api::{AuditEntry, BoxRow, Deploy, Kind, Phase, State, ZoneRow},
    config::{Lasts, Step, When},
    coordination::{BeginReply, Coordinator, DeployRecord, Members, Refusal, StepRecord, rfc3339, zone_sizes},
    names::{BoxName, Place, Tag, ZoneName, Zones},
    parallel::MaxParallel,
};

/// A deploy that somebody wants.
#[derive(Debug, Clone)]
pub struct DeployRequest {
    /// The place.
    pub place: Place,
    /// The tag of the release.
    pub tag: Tag,
    /// The kind of deploy.
    pub kind: Kind,
    /// The caller, for the audit log.
    pub by: String,
    /// For people: why it was started.
    pub reason: Option<String>,
    /// The one id that it may have; a new one when absent.
    pub id: Option<String>,
    /// The deploy that it is made of.
    pub source: Option<String>,
    /// What happens when another deploy rolls.
    pub when_rolling: WhenRolling,
    /// Every box is to be recreated.
    pub recreate: bool,
    /// A person insists.
    pub force: bool,
    /// Without the role's steps.
    pub all_at_once: bool,
}

impl DeployRequest {
    /// A request without any flag.
    pub fn new(place: &Place, tag: &Tag, kind: Kind, by: &str) -> Self {
        Self {
            place: place.clone(),
            tag: tag.clone(),
            kind,
            by: by.to_owned(),
            reason: None,
            id: None,
            source: None,
            when_rolling: WhenRolling::Refuse,
            recreate: false,
            force: false,
            all_at_once: false,
        }
    }
}

/// What becomes of a start while another deploy rolls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenRolling {
    /// It is refused.
    Refuse,
    /// It waits for that deploy.
    Queue,
    /// That deploy is cancelled.
    Supersede,
}

/// What a start led to.
#[derive(Debug, Clone, PartialEq)]
pub enum StartOutcome {
    /// It rolls.
    Rolling(Deploy),
    /// It waits for the one that rolls.
    Queued(Deploy),
    /// Its one id has been used.
    Exists,
}

fn record(step: &Step) -> StepRecord {
    let lasts = match step.lasts {
        Lasts::Time(time) => Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        Lasts::Manual => None,
    };
    StepRecord { boxes: step.boxes, lasts }
}

/// The zones of a deploy that would begin on the boxes `alive`; none where there are fewer than two.
fn zone_rows(alive: &[BoxName], zones: &Zones, max_parallel: MaxParallel) -> Vec<ZoneRow> {
    let row = |(zone, size): (&ZoneName, u32)| ZoneRow {
        zone: zone.clone(),
        size,
        locks: max_parallel.locks(size),
        lost: false,
    };
    zone_sizes(alive, zones).into_iter().map(row).collect()
}

impl Service {
    /// Begins a deploy, or queues it.
    pub fn start_deploy(&self, request: &DeployRequest) -> ApiResult<StartOutcome> {
        let place = &request.place;
        let members = self.live_members(place)?;
        let doc = self.doc(request)?;
        self.store.know(place)?;
        let supersede = request.when_rolling == WhenRolling::Supersede;
        if supersede {
            // Its end comes with our begin; who is killed right after must still find it.
            if let Some(old) = self.store.at(place, Coordinator::current)?.filter(|d| d.state() == State::Rolling) {
                self.store.open(&old.id)?;
            }
        }
        match self.begin(place, &doc, &members, supersede)? {
            BeginReply::Rolling { .. } => Ok(StartOutcome::Rolling(self.begun(place, &doc)?)),
            BeginReply::Refused { refused: Refusal::Exists, .. } => Ok(StartOutcome::Exists),
            BeginReply::Refused { .. } if request.when_rolling == WhenRolling::Queue => {
                Ok(StartOutcome::Queued(self.enqueue(place, &doc)?))
            }
            BeginReply::Refused { id, .. } => Err(ApiError::new(
                ErrorKind::Rolling,
                format!(
                    "{} is rolling for {place}: wait for it, --queue behind it, or --supersede it",
                    id.as_deref().unwrap_or("another deploy")
                ),
            )),
        }
    }

    /// Begins the deploy that waits, if nothing rolls.
    pub fn start_queued(&self, place: &Place) -> anyhow::Result<()> {
        let Some(doc) = self.store.at(place, Coordinator::queued)? else { return Ok(()) };
        let rolls = self.store.at(place, Coordinator::current)?.is_some_and(|d| d.state() == State::Rolling);
        let kept = !doc.force && (self.store.frozen(place)?.is_some() || self.closed(place).is_some());
        if rolls || kept {
            return Ok(());
        }
        // Whoever reads this place reads the refusal.
        let release =
            self.release(&doc.role, &doc.tag).map(|release| release.told(|other| *other == place.environment));
        if let Err(refusal) = release.and_then(|release| policy::may_start(&release, true, doc.force)) {
            if matches!(refusal.kind, ErrorKind::Unavailable | ErrorKind::Internal) {
                anyhow::bail!(refusal);
            }
            self.store.at(place, |locks| locks.cancel(Some(&doc.id), "service", &refusal.message, false))?;
            self.audit(
                AuditEntry::new("service", "cancel").place(place).tag(&doc.tag).deploy(&doc.id).detail(refusal.message),
            );
            return Ok(());
        }
        let members = self.live_members(place)?;
        if let BeginReply::Rolling { .. } = self.begin(place, &doc, &members, false)? {
            self.begun(place, &doc)?;
        }
        Ok(())
    }

    fn begin(
        &self,
        place: &Place,
        doc: &DeployRecord,
        Members { alive, zones, .. }: &Members,
        supersede: bool,
    ) -> anyhow::Result<BeginReply> {
        // A rollback is for the worst of days: what may be wrong with a gate must not stand in its way.
        let policy = self.config.service.role(&place.role);
        let gated = doc.kind != Kind::Rollback && policy.gates.iter().any(|gate| gate.when == When::Start);
        let epoch = self.epoch(place);
        let begun = self.store.at(place, |locks| locks.begin(doc, alive, zones, supersede, gated, epoch.as_deref()))?;
        if let BeginReply::Rolling { epoch, replaced } = &begun {
            self.remember_epoch(place, epoch);
            if let Some(id) = replaced {
                let entry = AuditEntry::new(&doc.by, "cancel").place(place).deploy(id);
                self.audit(entry.detail(format!("taken out of the queue: {} began after it was queued", doc.tag)));
            }
        }
        Ok(begun)
    }

    /// What follows a beginning at once.
    fn begun(&self, place: &Place, doc: &DeployRecord) -> anyhow::Result<Deploy> {
        self.store.open(&doc.id)?;
        let action = match doc.kind {
            Kind::Rollback => "rollback",
            Kind::Promotion => "promote",
            _ => "start",
        };
        let entry = AuditEntry::new(&doc.by, action).place(place).tag(&doc.tag).deploy(&doc.id);
        self.audit(entry.detail(doc.reason.as_deref().unwrap_or_default()));
        // What cannot be told to the boxes now is told by the watch.
        self.reconcile_place_now(place);
        let deploy = self.store.at(place, |locks| locks.deploy(&doc.id))?;
        deploy.ok_or_else(|| anyhow::anyhow!("Redis lost the deploy {} right after it began", doc.id))
    }

    fn enqueue(&self, place: &Place, doc: &DeployRecord) -> anyhow::Result<Deploy> {
        let replaced = self.store.at(place, |locks| locks.queue(doc))?;
        let replaced = replaced.map(|id| format!("in place of {id}"));
        let detail = doc.reason.iter().cloned().chain(replaced).collect::<Vec<_>>().join("; ");
        self.audit(AuditEntry::new(&doc.by, "queue").place(place).tag(&doc.tag).deploy(&doc.id).detail(detail));
        // It may have waited for one that has ended meanwhile.
        self.notify();
        let deploy = self.store.at(place, |locks| locks.deploy(&doc.id))?;
        deploy.ok_or_else(|| anyhow::anyhow!("Redis lost the deploy {} right after it was queued", doc.id))
    }

    fn doc(&self, request: &DeployRequest) -> anyhow::Result<DeployRecord> {
        let id = match &request.id {
            Some(id) => id.clone(),
            None => {
                ids::new(&request.place, now_ms(), getrandom::u32().map_err(|e| anyhow::anyhow!("no randomness: {e}"))?)
            }
        };
        Ok(DeployRecord {
            schema: 0,
            id,
            role: request.place.role.clone(),
            environment: request.place.environment.clone(),
            tag: request.tag.clone(),
            kind: request.kind,
            by: request.by.clone(),
            reason: request.reason.clone(),
            max_parallel: self.config.service.role(&request.place.role).max_parallel,
            recreate: request.recreate,
            force: request.force,
            source: request.source.clone(),
            state: None,
            last_good: None,
            started: None,
            ended: None,
            gated: None,
            gate_owner: None,
            // A way back is for the worst of days.
            steps: if request.all_at_once || request.kind == Kind::Rollback {
                Vec::new()
            } else {
                self.config.service.role(&request.place.role).steps().map(record).collect()
            },
            step: None,
            step_since: None,
            pause: None,
            paused_for: None,
        })
    }

    /// The deploy as it would be, without starting it.
    pub fn dry_run(&self, request: &DeployRequest) -> ApiResult<Deploy> {
        let Members { alive, zones, .. } = self.live_members(&request.place)?;
        let current = self.store.at(&request.place, Coordinator::current)?;
        let rolling = current.as_ref().filter(|doc| doc.state() == State::Rolling);
        if let (Some(doc), WhenRolling::Refuse) = (rolling, request.when_rolling) {
            return Err(ApiError::new(
                ErrorKind::Rolling,
                format!("{} is rolling for {}: add --queue or --supersede", doc.id, request.place),
            ));
        }
        let waits = rolling.is_some() && request.when_rolling == WhenRolling::Queue;
        let doc = DeployRecord {
            state: Some(if waits { State::Queued } else { State::Rolling }),
            started: Some(now_ms()),
            last_good: current.and_then(|doc| doc.last_good),
            ..self.doc(request)?
        };
        let size = u32::try_from(alive.len()).unwrap_or(u32::MAX);
        let row = |name| {
            let (zone, since) = (zones.get(&name).cloned(), rfc3339(now_ms()));
            BoxRow { name, phase: Phase::Expected, zone, tag: None, since, detail: None }
        };
        let mut deploy = self.store.at(&request.place, |locks| locks.show(&doc, false))?;
        (deploy.size, deploy.remaining, deploy.locks) = (size, size, doc.max_parallel.locks(size));
        deploy.zones = zone_rows(&alive, &zones, doc.max_parallel);
        deploy.boxes = alive.into_iter().map(row).collect();
        Ok(deploy)
    }

    /// The members of `place`, of which one lives at least.
    fn live_members(&self, place: &Place) -> ApiResult<Members> {
        let members = self.members(place, Duration::ZERO)?;
        if members.alive.is_empty() {
            let Place { environment, role } = place;
            return Err(ApiError::new(
                ErrorKind::NoBox,
                format!("no live box has the Serf tags images={role} and environment={environment}: see serf members"),
            ));
        }
        Ok(members)
    }

    /// The members that matter to `place`; an agent that does not answer is `unavailable`.
    pub fn members(&self, place: &Place, max_age: Duration) -> ApiResult<Members> {
        let members = self.fleet.members(place, max_age, &|| self.is_stopping());
        members
            .map_err(|error| ApiError::new(ErrorKind::Unavailable, format!("cannot tell which boxes live: {error:#}")))
    }
}
