//! What can be read of a place without deciding anything.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;

use super::{
    Coordinator,
    records::{self, DeployRecord, Row, rfc3339},
    replies::{Cancel, OutEntry, StoredLock},
    scripts::MOST_LOCKS,
};
use crate::{
    api::{Deploy, FLEET_LOCK, LockRow, Locks as LocksAnswer, OutRow, Phase},
    names::{BoxName, Zones},
};

/// What the scripts count of a deploy: rows, those of them that are gone, `remaining`, and the zones with those that are lost.
type Counted = (u32, Option<u32>, Option<u32>, HashMap<String, i64>, Vec<String>);

impl Coordinator {
    fn json<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        let text: Option<String> = self.store.command(&["GET", key])?;
        text.map(|text| serde_json::from_str(&text).with_context(|| format!("{key} holds {text}"))).transpose()
    }

    /// The newest deploy that began here.
    pub fn current(&mut self) -> Result<Option<DeployRecord>> {
        self.json(&self.keys.current())
    }

    /// The last complete deploy.
    pub fn complete(&mut self) -> Result<Option<DeployRecord>> {
        self.json(&self.keys.complete())
    }

    /// The deploy that waits for the one that rolls.
    pub fn queued(&mut self) -> Result<Option<DeployRecord>> {
        self.json(&self.keys.queued())
    }

    /// The document of the deploy `id`.
    pub fn doc(&mut self, id: &str) -> Result<Option<DeployRecord>> {
        self.json(&self.keys.of_deploy(id, "record"))
    }

    /// The cancel of the deploy `id`, if there is one.
    pub fn cancel_of(&mut self, id: &str) -> Result<Option<Cancel>> {
        self.json(&self.keys.of_deploy(id, "cancel"))
    }

    /// The deploy `id`, with its boxes.
    pub fn deploy(&mut self, id: &str) -> Result<Option<Deploy>> {
        self.doc(id)?.map(|doc| self.show(&doc, true)).transpose()
    }

    /// Where `name` stands in the deploy `id`, and how many boxes are done in it.
    pub fn standing(&mut self, id: &str, name: &BoxName) -> Result<(Option<Phase>, u32)> {
        let boxes = self.keys.of_deploy(id, "boxes");
        let text: Option<String> = self.store.command(&["HGET", &boxes, name.as_str()])?;
        let row: Option<Row> = text.map(|text| serde_json::from_str(&text)).transpose().context("the box's row")?;
        Ok((row.map(|row| row.phase), self.done(id)?))
    }

    /// How many boxes are done in the deploy `id`.
    pub fn done(&mut self, id: &str) -> Result<u32> {
        let tally = self.keys.of_deploy(id, "tally");
        let done: Option<u32> = self.store.command(&["HGET", &tally, Phase::Done.as_str()])?;
        Ok(done.unwrap_or(0))
    }

    /// When a box of the deploy `id` moved last, in milliseconds since 1970, and how long ago that is, by Redis's clock.
    pub fn stands(&mut self, id: &str) -> Result<Option<(i64, Duration)>> {
        let tally = self.keys.of_deploy(id, "tally");
        let (moved, (seconds, micros)): (Option<i64>, (i64, i64)) =
            self.store.with(|connection| redis::pipe().hget(&tally, "progress").cmd("TIME").query(connection))?;
        let ago = |moved: i64| u64::try_from(seconds * 1000 + micros / 1000 - moved).unwrap_or_default();
        Ok(moved.map(|moved| (moved, Duration::from_millis(ago(moved)))))
    }

    /// How many boxes are out of service.
    pub fn count_out(&mut self) -> Result<u32> {
        self.store.command(&["HLEN", &self.keys.out()])
    }

    /// Whether `name` holds the deploy `id` now, by Redis's clock.
    pub fn is_held_by(&mut self, name: &BoxName, id: &str) -> Result<bool> {
        let hold = self.keys.of_deploy(id, "hold");
        let (until, (seconds, micros)): (Option<i64>, (i64, i64)) =
            self.store.with(|connection| redis::pipe().hget(&hold, name.as_str()).cmd("TIME").query(connection))?;
        Ok(until.is_some_and(|until| seconds * 1000 + micros / 1000 < until))
    }

    /// What `doc` looks like from outside. Without its boxes it costs the same however many there are.
    pub fn show(&mut self, doc: &DeployRecord, with_boxes: bool) -> Result<Deploy> {
        let [boxes, tally, remaining] = ["boxes", "tally", "remaining"].map(|part| self.keys.of_deploy(&doc.id, part));
        let [zones, lost] = ["zones", "lost"].map(|part| self.keys.of_deploy(&doc.id, part));
        let (rows, gone, remaining, zones, lost): Counted = self.store.with(|connection| {
            let mut pipe = redis::pipe();
            pipe.hlen(&boxes).hget(&tally, "gone").get(&remaining).hgetall(&zones).smembers(&lost);
            pipe.query(connection)
        })?;
        let zones = records::zones(doc, &zones, &lost);
        if let (false, Some(remaining)) = (with_boxes, remaining) {
            return Ok(Deploy { zones, ..records::summary(doc, rows.saturating_sub(gone.unwrap_or(0)), remaining) });
        }
        let rows: HashMap<String, String> = self.store.command(&["HGETALL", &boxes])?;
        let rows: HashMap<String, Row> = rows
            .into_iter()
            .map(|(name, text)| serde_json::from_str(&text).map(|row| (name, row)))
            .collect::<Result<_, _>>()
            .context(boxes)?;
        let deploy = Deploy { zones, ..records::deploy(doc, rows, &self.zones()?, remaining) };
        Ok(if with_boxes { deploy } else { Deploy { boxes: Vec::new(), ..deploy } })
    }

    /// The newest `limit` deploys, newest first, without their boxes.
    pub fn deploys(&mut self, limit: u32) -> Result<Vec<Deploy>> {
        let key = self.keys.deploys();
        let last = limit.saturating_sub(1).to_string();
        let ids: Vec<String> = self.store.command(&["ZREVRANGE", &key, "0", &last])?;
        let mut found = Vec::new();
        for id in ids {
            // A record that expired leaves its id behind.
            if let Some(doc) = self.doc(&id)? {
                found.push(self.show(&doc, false)?);
            }
        }
        Ok(found)
    }

    /// The zone of each box of the place that has one, as the last deploy found it.
    pub fn zones(&mut self) -> Result<Zones> {
        let zones: HashMap<String, String> = self.store.command(&["HGETALL", &self.keys.zones()])?;
        // What is no name is somebody else's doing, and no zone.
        Ok(zones.into_iter().filter_map(|(name, zone)| Some((name.parse().ok()?, zone.parse().ok()?))).collect())
    }

    /// Which tag each box runs.
    pub fn running(&mut self) -> Result<HashMap<String, String>> {
        self.store.command(&["HGETALL", &self.keys.running()])
    }

    /// Whether `name` stands in `out`.
    pub fn is_out(&mut self, name: &BoxName) -> Result<bool> {
        self.store.command(&["HEXISTS", &self.keys.out(), name.as_str()])
    }

    /// The boxes that have a place for a reboot.
    fn reboots(&mut self) -> Result<Vec<(BoxName, OutEntry)>> {
        let texts: HashMap<String, String> = self.store.command(&["HGETALL", &self.keys.reboots()])?;
        Ok(texts.into_iter().filter_map(|(name, text)| Some((name.parse().ok()?, OutEntry::read(&text)))).collect())
    }

    /// Whether any box has a place for a reboot.
    pub fn has_reboots(&mut self) -> Result<bool> {
        self.store.command(&["EXISTS", &self.keys.reboots()])
    }

    /// Who holds which lock, and which boxes are out.
    pub fn locks(&mut self) -> Result<LocksAnswer> {
        let granted: Option<u32> = self.store.command(&["HGET", &self.keys.walk(), "top"])?;
        let current = self.current()?.map(|doc| self.show(&doc, false)).transpose()?;
        let top = granted.unwrap_or(0).max(current.map_or(1, |deploy| deploy.locks)).min(MOST_LOCKS);
        let keys: Vec<String> = (1..=top).map(|suffix| self.keys.lock(suffix)).collect();
        let words: Vec<&str> = ["MGET"].into_iter().chain(keys.iter().map(String::as_str)).collect();
        let texts: Vec<Option<String>> = self.store.command(&words)?;
        let (mut answer, zones) = (LocksAnswer::default(), self.zones()?);
        for (suffix, (key, text)) in (1..).zip(keys.iter().zip(texts)) {
            let Some(text) = text else { continue };
            let lock = StoredLock::read(&text);
            let left: i64 = self.store.command(&["PTTL", key])?;
            let name = lock.holder().map_or_else(|| "unknown".parse().map_err(|e| anyhow!("{key}: {e}")), Ok)?;
            answer.locks.push(LockRow {
                suffix,
                zone: zones.get(&name).cloned(),
                name,
                deploy: lock.deploy,
                since: rfc3339(lock.since),
                renewed: rfc3339(lock.renewed),
                expires_in_ms: u64::try_from(left).unwrap_or(0),
            });
        }
        let outs: HashMap<String, String> = self.store.command(&["HGETALL", &self.keys.out()])?;
        for (name, text) in outs {
            // One entry that somebody else wrote must not hide the others.
            let (Ok(name), entry) = (name.parse::<BoxName>(), OutEntry::read(&text)) else {
                log::warn!("{} has an entry that is no box's: {}", self.keys.out(), crate::names::quoted(&name));
                continue;
            };
            answer.out.push(OutRow {
                zone: zones.get(&name).cloned(),
                name,
                deploy: entry.deploy,
                since: rfc3339(entry.since),
                renewed: rfc3339(entry.renewed),
                reason: entry.kept_out_reason,
                purpose: entry.purpose,
            });
        }
        for (name, entry) in self.reboots()? {
            match answer.out.iter_mut().find(|out| out.name == name) {
                Some(out) => out.purpose = out.purpose.take().or(entry.purpose),
                None => answer.out.push(OutRow {
                    zone: zones.get(&name).cloned(),
                    name,
                    deploy: FLEET_LOCK.to_owned(),
                    since: rfc3339(entry.since),
                    renewed: rfc3339(entry.renewed),
                    reason: None,
                    purpose: entry.purpose,
                }),
            }
        }
        answer.out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(answer)
    }
}
