//! What a person may start: a deploy, a rollback, a promotion. Here it is decided what that means and whether it is
//! allowed; [`Service::launch`] then begins it.

use super::{
    Service, decide, ids,
    launch::{Launched, Wish},
    now,
    records::Mark,
    refusal::{Answer, Kind, Refusal},
};
use crate::{
    api::{AuditEntry, Deploy, Kind as DeployKind, NewDeploy, NewMove, Release, ReleaseStatus, State},
    locks::{Doc, Locks},
    names::{Place, Role, Tag},
};

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
        self.release_if_named(&release, asked.tag.is_some(), by)?;
        started(launched)
    }

    /// `POST /v1/rollbacks`: back to the tag that was asked for, else to this environment's last complete other one.
    pub fn roll_back(&self, asked: &NewMove, by: &str) -> Answer<Deploy> {
        let place = Place { environment: asked.environment.clone(), role: asked.role.clone() };
        let left = self.left_behind(&place)?;
        let tag = match &asked.tag {
            Some(tag) => tag.clone(),
            None => self.good_tag(&place, left.as_ref().map(|doc| &doc.tag))?,
        };
        let release = self.release(&place.role, &tag)?;
        decide::may_start(&release, asked.tag.is_some(), false)?;
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
        let launched = launched?;
        self.release_if_named(&release, asked.tag.is_some(), by)?;
        started(launched)
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

    pub fn release(&self, role: &Role, tag: &Tag) -> Answer<Release> {
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

    /// A release that was withheld is so no longer once somebody has named it.
    fn release_if_named(&self, release: &Release, named: bool, by: &str) -> anyhow::Result<()> {
        if named && release.status == ReleaseStatus::Withheld && self.records.clear_mark(&release.role, &release.tag)? {
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
        };
        self.records.set_mark(&place.role, tag, &mark)
    }
}

fn started(launched: Launched) -> Answer<Deploy> {
    match launched {
        Launched::Rolling(deploy) | Launched::Queued(deploy) => Ok(deploy),
        Launched::Exists => Err(Refusal::new(Kind::Rolling, "this deploy has begun before: see deployctl status")),
    }
}
