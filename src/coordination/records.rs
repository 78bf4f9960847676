//! Deploys as Redis keeps them, and how they read outside.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    api::{BoxRow, CurrentStep, Deploy, Kind, Pause, Phase, State, ZoneRow},
    names::{BoxName, Environment, Role, Tag, ZoneName, Zones},
    parallel::MaxParallel,
};

/// The newest schema that this program understands; a box too old for a deploy's schema stops before it goes out.
pub const SCHEMA: u32 = 1;

/// A deploy as the scripts write it. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of api::Deploy, which documents them")]
pub struct DeployRecord {
    #[serde(default)]
    pub schema: u32,
    pub id: String,
    pub role: Role,
    pub environment: Environment,
    pub tag: Tag,
    pub kind: Kind,
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub max_parallel: MaxParallel,
    #[serde(default)]
    pub recreate: bool,
    #[serde(default)]
    pub force: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good: Option<Tag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<i64>,
    /// The gates before the start have not passed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gated: Option<bool>,
    /// The service process that asks those gates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate_owner: Option<String>,
    /// The steps of the role's policy when the deploy began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepRecord>,
    /// The step at which the deploy stands, from 1. Beyond the last one every box may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    /// Since when the boxes of the step are done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_since: Option<i64>,
    /// Set while the deploy is paused: no box takes a lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<PauseRecord>,
    /// For how long it was paused before, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_for: Option<i64>,
}

/// A step as the scripts keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// How many boxes, of the size.
    pub boxes: MaxParallel,
    /// For how many milliseconds they serve; absent where a person lets it go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasts: Option<u64>,
}

/// A pause as the scripts write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of api::Pause, which documents them")]
pub struct PauseRecord {
    pub by: String,
    pub reason: String,
    pub at: i64,
    /// A step that a person must approve has made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<bool>,
}

impl DeployRecord {
    /// Where it stands; a document that no script has seen yet counts as queued.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.unwrap_or(State::Queued)
    }
}

/// One box as the scripts write it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Row {
    pub phase: Phase,
    tag: Option<Tag>,
    detail: Option<String>,
    since: i64,
}

/// A time for people and scripts: RFC 3339, UTC, whole milliseconds.
#[must_use]
pub fn rfc3339(milliseconds: i64) -> String {
    // Always three digits, so that texts stand in the order of time.
    format!("{:.3}", Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Joins a document and its table into what the API shows.
pub(super) fn deploy(doc: &DeployRecord, rows: HashMap<String, Row>, zones: &Zones, remaining: Option<u32>) -> Deploy {
    let count = |counts: fn(Phase) -> bool| {
        u32::try_from(rows.values().filter(|row| counts(row.phase)).count()).unwrap_or(u32::MAX)
    };
    let size = count(|phase| phase != Phase::Gone);
    let remaining = remaining.unwrap_or_else(|| count(Phase::is_unfinished));
    let mut boxes: Vec<BoxRow> = rows
        .into_iter()
        .filter_map(|(name, row)| {
            let name: BoxName = name.parse().ok()?;
            let zone = zones.get(&name).cloned();
            Some(BoxRow { name, phase: row.phase, zone, tag: row.tag, since: rfc3339(row.since), detail: row.detail })
        })
        .collect();
    boxes.sort_by(|a, b| a.name.cmp(&b.name));
    Deploy { boxes, ..summary(doc, size, remaining) }
}

/// What the API shows of a document, without its boxes.
pub(super) fn summary(doc: &DeployRecord, size: u32, remaining: u32) -> Deploy {
    Deploy {
        id: doc.id.clone(),
        role: doc.role.clone(),
        environment: doc.environment.clone(),
        tag: doc.tag.clone(),
        kind: doc.kind,
        state: doc.state(),
        size,
        locks: doc.max_parallel.locks(size),
        remaining,
        by: doc.by.clone(),
        reason: doc.reason.clone(),
        started_at: rfc3339(doc.started.unwrap_or(0)),
        ended_at: doc.ended.map(rfc3339),
        max_parallel: doc.max_parallel,
        recreate: doc.recreate,
        force: doc.force,
        last_good: doc.last_good.clone(),
        source: doc.source.clone(),
        step: doc.step.filter(|_| !doc.state().is_ended()).and_then(|number| {
            let step = doc.steps.get(number.checked_sub(1)?)?;
            Some(CurrentStep {
                number,
                of: doc.steps.len(),
                boxes: step.boxes.locks(size),
                lasts_ms: step.lasts,
                since: doc.step_since.map(rfc3339),
            })
        }),
        pause: doc.pause.as_ref().filter(|_| !doc.state().is_ended()).map(|pause| Pause {
            by: pause.by.clone(),
            reason: pause.reason.clone(),
            at: rfc3339(pause.at),
        }),
        gate: None,
        compare: None,
        zones: Vec::new(),
        boxes: Vec::new(),
    }
}

/// The zones of a deploy, from what the scripts count of them, `ZONE size` and `ZONE gone`; empty where there are fewer
/// than two.
pub(super) fn zones(doc: &DeployRecord, counts: &HashMap<String, i64>, lost: &[String]) -> Vec<ZoneRow> {
    let names: BTreeSet<&str> =
        counts.keys().filter_map(|field| field.rsplit_once(' ')).map(|(zone, _)| zone).collect();
    let rows = names.into_iter().filter_map(|name| {
        let count =
            |part: &str| u32::try_from(counts.get(&format!("{name} {part}")).copied().unwrap_or(0)).unwrap_or(0);
        let (size, gone) = (count("size"), count("gone"));
        let zone: ZoneName = name.parse().ok().filter(|_| size + gone > 0)?;
        Some(ZoneRow { zone, size, locks: doc.max_parallel.locks(size), lost: lost.iter().any(|lost| lost == name) })
    });
    let rows: Vec<ZoneRow> = rows.collect();
    if rows.len() > 1 { rows } else { Vec::new() }
}
