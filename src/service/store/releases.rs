//! Releases: never lost, never expired, in the order in which they were published; and the marks on them.
//!
//! What was published (`releases:ROLE`, tag → record), its order (`releases:ROLE:order`) and what was found out since
//! (`marks:ROLE`, tag → mark) are apart, so that each changes with one command.

use std::collections::HashMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{ServiceStore, read, write};
use crate::{
    api::{Release, ReleaseStatus},
    names::{Environment, Role, Tag},
};

/// Why a release is not simply available.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// `broken` or `withheld`.
    pub status: ReleaseStatus,
    /// For a person.
    pub reason: String,
    /// The evidence of a broken one.
    #[serde(default)]
    pub logs: Option<String>,
    /// RFC 3339, UTC.
    pub at: String,
    /// The deploy in which it was found out, or left.
    #[serde(default)]
    pub deploy: Option<String>,
    /// Where that was. None in what was written before this was kept.
    #[serde(default)]
    pub environment: Option<Environment>,
}

impl Mark {
    /// Whether it was made in `environment`, as far as is known.
    #[must_use]
    pub fn is_of(&self, environment: &Environment) -> bool {
        self.environment.as_ref().is_none_or(|known| known == environment)
    }

    fn yields_to(&self, newer: &Self) -> bool {
        newer.status == ReleaseStatus::Broken
            && (self.status != ReleaseStatus::Broken
                || newer.logs.is_some() && (self.logs.is_none() || self.deploy != newer.deploy))
    }
}

impl ServiceStore {
    /// Makes a release known. Returns it as it is known, and whether it is new: the first word on a tag stays.
    pub fn publish(&self, release: &Release, at_ms: i64) -> Result<(Release, bool)> {
        let (records, order) = (self.key(&format!("releases:{}", release.role)), self.order(&release.role));
        let record = write(release)?;
        let tag = release.tag.as_str();
        // The order first: what a reader finds there without a record it passes over.
        let (new,): (bool,) = self.with(|store| {
            store.with(|c| {
                redis::pipe()
                    .atomic()
                    .zadd_options(&order, tag, at_ms, &redis::SortedSetAddOptions::add_only())
                    .ignore()
                    .hset_nx(&records, tag, &record)
                    .query(c)
            })
        })?;
        let known = self.release(&release.role, &release.tag)?;
        Ok((known.unwrap_or_else(|| release.clone()), new))
    }

    /// One release with its mark.
    pub fn release(&self, role: &Role, tag: &Tag) -> Result<Option<Release>> {
        let key = self.key(&format!("releases:{role}"));
        let Some(text): Option<String> = self.with(|store| store.command(&["HGET", &key, tag.as_str()]))? else {
            return Ok(None);
        };
        let mark = self.mark(role, tag)?;
        Ok(Some(marked(read(&key, &text)?, mark)))
    }

    /// The releases of `role`, newest first, `limit` at most.
    pub fn releases(&self, role: &Role, limit: usize) -> Result<Vec<Release>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let (records, order, marks) = (self.key(&format!("releases:{role}")), self.order(role), self.marks(role));
        let last = (limit - 1).to_string();
        let tags: Vec<String> = self.with(|store| store.command(&["ZREVRANGE", &order, "0", &last]))?;
        if tags.is_empty() {
            return Ok(Vec::new());
        }
        let (texts, mut marks): (Vec<Option<String>>, HashMap<String, String>) =
            self.with(|store| store.with(|c| redis::pipe().hmget(&records, &tags).hgetall(&marks).query(c)))?;
        texts
            .into_iter()
            .flatten()
            .map(|text| {
                let release: Release = read(&records, &text)?;
                let mark = marks.remove(release.tag.as_str()).map(|m| read("marks", &m)).transpose()?;
                Ok(marked(release, mark))
            })
            .collect()
    }

    /// How many releases of `role` there are.
    pub fn count_releases(&self, role: &Role) -> Result<u64> {
        let order = self.order(role);
        self.with(|store| store.command(&["ZCARD", &order]))
    }

    /// Why a release is not simply available.
    pub fn mark(&self, role: &Role, tag: &Tag) -> Result<Option<Mark>> {
        let key = self.marks(role);
        let text: Option<String> = self.with(|store| store.command(&["HGET", &key, tag.as_str()]))?;
        text.map(|text| read(&key, &text)).transpose()
    }

    /// Marks a release; whether that changed anything. The first word of a deploy on a broken one stays, but for evidence
    /// that it lacked; another deploy's evidence replaces it. One that is withheld can become broken.
    pub fn set_mark(&self, role: &Role, tag: &Tag, mark: &Mark) -> Result<bool> {
        let known = self.mark(role, tag)?;
        if known.is_some_and(|known| !known.yields_to(mark)) {
            return Ok(false);
        }
        let (key, text) = (self.marks(role), write(mark)?);
        self.with(|store| store.command::<()>(&["HSET", &key, tag.as_str(), &text]))?;
        Ok(true)
    }

    /// Makes a release available again. Returns whether it was not.
    pub fn clear_mark(&self, role: &Role, tag: &Tag) -> Result<bool> {
        let key = self.marks(role);
        self.with(|store| store.command(&["HDEL", &key, tag.as_str()]))
    }

    fn order(&self, role: &Role) -> String {
        self.key(&format!("releases:{role}:order"))
    }

    fn marks(&self, role: &Role) -> String {
        self.key(&format!("marks:{role}"))
    }
}

fn marked(release: Release, mark: Option<Mark>) -> Release {
    let Some(mark) = mark else { return release };
    Release {
        status: mark.status,
        reason: Some(mark.reason),
        environment: mark.environment,
        logs: mark.logs,
        ..release
    }
}
