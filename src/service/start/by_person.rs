//! What a person may start: a deploy, a rollback, a promotion. Here it is decided what that means and whether it is
//! allowed; [`Service::start_deploy`] then begins it.

use crate::service::{
    Service,
    api_error::{ApiError, ApiResult, ErrorKind},
    auth::Caller,
    handlers::{REASON_LIMIT, cut},
    ids, now,
    policy::{self, windows},
    promotions::{Approved, Candidate},
    reconcile::Judged,
    start::{DeployRequest, StartOutcome, WhenRolling},
    store::{CompleteDeploy, Mark},
};
use crate::{
    api::{AuditEntry, Deploy, Kind, NewDeploy, NewMove, Promoted, Release, ReleaseStatus, State},
    coordination::{Coordinator, DeployRecord},
    names::{Place, Role, Tag},
};

impl Service {
    /// `POST /v1/deploys`.
    pub fn start(&self, asked: &NewDeploy, caller: &Caller) -> ApiResult<Deploy> {
        let by = &caller.by();
        let place = Place { environment: asked.environment.clone(), role: asked.role.clone() };
        let tag = match &asked.tag {
            Some(tag) => tag.clone(),
            None => self.default_tag(&place)?,
        };
        let release = caller.shown(self.release(&place.role, &tag)?);
        policy::may_start(&release, asked.tag.is_some(), asked.force)?;
        let closed = self.closed(&place);
        if !asked.force {
            policy::may_thaw(self.store.frozen(&place)?.as_ref())?;
            windows::may_start(&place, closed.as_ref())?;
        }
        let ours: Vec<String> = closed
            .iter()
            .map(|closed| format!("forced {}", windows::outside(closed)))
            .chain(asked.all_at_once.then(|| "all at once, without its steps".to_owned()))
            .collect();
        let request = DeployRequest {
            when_rolling: when_rolling(asked),
            recreate: asked.recreate,
            force: asked.force,
            all_at_once: asked.all_at_once,
            reason: joined(ours, asked.reason.clone().map(short)),
            ..DeployRequest::new(&place, &tag, Kind::Deploy, by)
        };
        if asked.dry_run {
            return self.dry_run(&request);
        }
        let outcome = self.start_deploy(&request)?;
        self.release_if_named(&place, &release, asked.tag.is_some(), by)?;
        started(outcome)
    }

    /// `POST /v1/rollbacks`: back to the tag that was asked for, else to this environment's last complete other one.
    pub fn roll_back(&self, asked: &NewMove, caller: &Caller) -> ApiResult<Deploy> {
        let by = &caller.by();
        let place = Place { environment: asked.environment.clone(), role: asked.role.clone() };
        let left = self.left_behind(&place)?;
        let tag = match &asked.tag {
            Some(tag) => tag.clone(),
            None => self.good_tag(&place, left.as_ref().map(|doc| &doc.tag))?,
        };
        let release = caller.shown(self.release(&place.role, &tag)?);
        policy::may_start(&release, asked.tag.is_some(), false)?;
        let request = DeployRequest {
            source: left.as_ref().map(|doc| doc.id.clone()),
            when_rolling: WhenRolling::Supersede,
            reason: joined(
                left.iter().map(|doc| format!("back from {}", doc.tag)).collect(),
                asked.reason.clone().map(short),
            ),
            ..DeployRequest::new(&place, &tag, Kind::Rollback, by)
        };
        let left = left.map(|doc| doc.tag).filter(|left| *left != tag);
        // Before it begins: who is killed in between has withheld a release that nobody wants.
        let withheld = match &left {
            Some(left) => self.withhold(&place, left, by)?,
            None => false,
        };
        let outcome = self.start_deploy(&request);
        if let (Some(left), true, Err(_)) = (&left, withheld, &outcome) {
            self.store.clear_mark(&place.role, left)?;
        }
        let outcome = outcome?;
        self.release_if_named(&place, &release, asked.tag.is_some(), by)?;
        started(outcome)
    }

    /// `POST /v1/promotions`: starts in the next environment what `asked.environment` completed last.
    /// Whoever does not insist approves: the last approval that is needed begins the deploy.
    pub fn promote(&self, asked: &NewMove, caller: &Caller) -> ApiResult<Promoted> {
        let source = Place { environment: asked.environment.clone(), role: asked.role.clone() };
        let policy = self.config.service.role(&source.role);
        let by = caller.by();
        let target = policy.next(&source.environment).ok_or_else(|| {
            let message = format!("nothing follows {source}: see service.roles.{}.environments", source.role);
            ApiError::new(ErrorKind::NotFound, message)
        })?;
        let target = Place { environment: target.clone(), role: source.role.clone() };
        let history = self.store.complete(&source)?;
        let complete = match &asked.tag {
            Some(tag) => history.iter().find(|complete| complete.tag == *tag),
            None => policy::to_promote(&history, None).or(history.first()),
        };
        let Some(complete) = complete else {
            let what = asked.tag.as_ref().map_or_else(|| "nothing".to_owned(), |tag| format!("{}:{tag}", source.role));
            return Err(ApiError::new(
                ErrorKind::NotFound,
                format!("{what} was completely deployed in {}", source.environment),
            ));
        };
        let release = caller.shown(self.release(&source.role, &complete.tag)?);
        policy::may_start(&release, asked.tag.is_some(), asked.force)?;
        if !asked.force {
            policy::may_thaw(self.store.frozen(&target)?.as_ref())?;
            self.has_proved_itself(&source, complete, history.first())?;
        }
        let reason = asked.reason.clone().map(short);
        let closed = self.closed(&target);
        let ours = if asked.force {
            closed.iter().map(|closed| format!("forced {}", windows::outside(closed))).collect()
        } else {
            let waits = self.candidate(&policy, &source, &target)?.filter(|waits| waits.complete.id == complete.id);
            if waits.is_none() {
                // Nothing would start it when the window opens.
                windows::may_start(&target, closed.as_ref())?;
            }
            let waits = waits.unwrap_or_else(|| Candidate { complete: complete.clone(), by_itself: false });
            match self.approve(&target, &waits, (caller.name(), &by), reason.clone(), closed.is_some())? {
                Approved::ByAll(others) => {
                    others.into_iter().map(|other| format!("approved by {other}, too")).collect()
                }
                Approved::Waits => {
                    let promotion = self.promotion(&policy, &source, &target, &waits)?;
                    return Ok(Promoted::Waits(Box::new(promotion)));
                }
            }
        };
        let request = DeployRequest {
            id: Some(ids::promoted(&complete.id, &target)),
            source: Some(complete.id.clone()),
            force: asked.force,
            reason: joined(ours, reason),
            ..DeployRequest::new(&target, &complete.tag, Kind::Promotion, &by)
        };
        let outcome = match self.start_deploy(&request)? {
            // A person may promote again what did not get through.
            StartOutcome::Exists => self.start_deploy(&DeployRequest { id: None, ..request })?,
            outcome => outcome,
        };
        let is_newest = policy::to_promote(&history, None).is_some_and(|newest| newest.id == complete.id);
        if is_newest {
            self.has_gone_on(&target, &complete.id)?;
        }
        started(outcome).map(|deploy| Promoted::Deploy(Box::new(deploy)))
    }

    /// Refuses to promote what the gates of `source` object to. What they read is of the release that runs there, the
    /// `newest` one: of another one they can say nothing.
    fn has_proved_itself(
        &self,
        source: &Place,
        complete: &CompleteDeploy,
        newest: Option<&CompleteDeploy>,
    ) -> ApiResult<()> {
        if let Some(newest) = newest.filter(|newest| newest.tag != complete.tag && self.has_gates(source)) {
            let Place { environment, role } = source;
            let text = format!(
                "{environment} runs {role}:{}, so that its gates say nothing of {}: start that there, or --force",
                newest.tag, complete.tag
            );
            return Err(ApiError::new(ErrorKind::Gate, text));
        }
        let judged = Judged { id: complete.id.clone(), tag: complete.tag.clone(), kind: complete.kind };
        self.gates_let_pass(source, &judged)
    }

    fn default_tag(&self, place: &Place) -> ApiResult<Tag> {
        let Place { environment, role } = place;
        let policy = self.config.service.role(role);
        if let Some(previous) = policy.previous(environment) {
            let previous = Place { environment: previous.clone(), role: role.clone() };
            let complete = self.store.at(&previous, Coordinator::complete)?;
            return complete.map(|doc| doc.tag).ok_or_else(|| {
                ApiError::new(ErrorKind::NotFound, format!("{previous} has no complete deploy yet: name a tag with -t"))
            });
        }
        let releases = self.store.releases(role, 1000)?;
        policy::newest(&releases).cloned().ok_or_else(|| {
            ApiError::new(
                ErrorKind::NotFound,
                format!("no release of {role} can be deployed: publish one, or name a tag with -t"),
            )
        })
    }

    pub fn release(&self, role: &Role, tag: &Tag) -> ApiResult<Release> {
        self.store.release(role, tag)?.ok_or_else(|| {
            ApiError::new(
                ErrorKind::NotFound,
                format!("{role}:{tag} is no known release: deployctl publish -r {role} -t {tag} makes it one"),
            )
        })
    }

    /// The tag that a rollback without a tag goes to.
    pub fn good_tag(&self, place: &Place, leaves: Option<&Tag>) -> ApiResult<Tag> {
        let history = self.store.complete(place)?;
        let mut marked = Vec::new();
        for complete in &history {
            if self.store.mark(&place.role, &complete.tag)?.is_some() {
                marked.push(complete.tag.clone());
            }
        }
        let back = policy::way_back(&history, leaves, |tag| marked.contains(tag));
        back.map(|complete| complete.tag.clone()).ok_or_else(|| {
            let leaves = leaves.map(|tag| format!(" other than {tag}")).unwrap_or_default();
            ApiError::new(
                ErrorKind::NoGoodRelease,
                format!(
                    "no release{leaves} was ever completely deployed for {place} and is still good: name one with -t"
                ),
            )
        })
    }

    /// The deploy that a rollback leaves: the newest one; and when that is a rollback that did not get through, the
    /// one that it was to leave.
    fn left_behind(&self, place: &Place) -> anyhow::Result<Option<DeployRecord>> {
        let Some(newest) = self.store.at(place, Coordinator::current)? else { return Ok(None) };
        let unfinished_rollback = newest.kind == Kind::Rollback && newest.state() != State::Deployed;
        match newest.source.as_ref().filter(|_| unfinished_rollback) {
            Some(source) => Ok(self.store.at(place, |locks| locks.doc(source))?.or(Some(newest))),
            None => Ok(Some(newest)),
        }
    }

    /// A release that was withheld is so no longer once somebody has named it where it was rolled back from.
    fn release_if_named(&self, place: &Place, release: &Release, named: bool, by: &str) -> anyhow::Result<()> {
        let theirs = release.environment.as_ref().is_none_or(|environment| *environment == place.environment);
        let clears = named && theirs && release.status == ReleaseStatus::Withheld;
        if clears && self.store.clear_mark(&release.role, &release.tag)? {
            let entry = AuditEntry { role: Some(release.role.clone()), ..AuditEntry::new(by, "release") };
            self.audit(entry.tag(&release.tag).detail("named again: no longer withheld"));
        }
        Ok(())
    }

    fn withhold(&self, place: &Place, tag: &Tag, by: &str) -> anyhow::Result<bool> {
        let mark = Mark {
            status: ReleaseStatus::Withheld,
            reason: format!("{by} rolled back from it in {}", place.environment),
            logs: None,
            at: now(),
            deploy: None,
            environment: Some(place.environment.clone()),
        };
        self.store.set_mark(&place.role, tag, &mark)
    }
}

/// Whoever asks for both does not wait.
fn when_rolling(asked: &NewDeploy) -> WhenRolling {
    if asked.supersede {
        WhenRolling::Supersede
    } else if asked.queue {
        WhenRolling::Queue
    } else {
        WhenRolling::Refuse
    }
}

/// What deployctl has to say of a start, and what the person said.
fn joined(ours: Vec<String>, said: Option<String>) -> Option<String> {
    let parts: Vec<String> = ours.into_iter().chain(said.filter(|text| !text.trim().is_empty())).collect();
    Some(parts.join(": ")).filter(|text| !text.is_empty())
}

/// A reason as it is kept: in bounds.
fn short(reason: String) -> String {
    cut(reason, REASON_LIMIT)
}

fn started(outcome: StartOutcome) -> ApiResult<Deploy> {
    match outcome {
        StartOutcome::Rolling(deploy) | StartOutcome::Queued(deploy) => Ok(deploy),
        StartOutcome::Exists => {
            Err(ApiError::new(ErrorKind::Rolling, "this deploy has begun before: see deployctl status"))
        }
    }
}
