//! What the scripts are told.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    api::Phase,
    names::{BoxName, Tag, ZoneName, Zones},
    parallel::MaxParallel,
};

/// What a box says of work by hand, which has no deploy: how many boxes there are, and how many may be out.
#[derive(Debug, Clone, Serialize)]
pub struct ManualRun {
    /// Live matching boxes.
    pub size: u32,
    /// The box's own `max_parallel`; for work on the machine that of the last deploy, where there was one.
    pub max_parallel: MaxParallel,
    /// The box's zone, where the live matching boxes are in more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<ManualRunZone>,
    /// Why a person takes the box out until they bring it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the box goes out for, to come back by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
}

/// The zone of a box that works without a deploy.
#[derive(Debug, Clone, Serialize)]
pub struct ManualRunZone {
    /// Which.
    pub name: ZoneName,
    /// Its live matching boxes.
    pub size: u32,
}

impl ManualRunZone {
    /// The zone of `name` among the live `boxes`; nothing where these are in fewer than two zones, or it has none.
    #[must_use]
    pub fn of(name: &BoxName, boxes: &[BoxName], zones: &Zones) -> Option<Self> {
        let mine = zones.get(name)?;
        let size = *zone_sizes(boxes, zones).get(mine)?;
        Some(Self { name: mine.clone(), size })
    }
}

/// How many of `boxes` each zone has; nothing where these are in fewer than two.
#[must_use]
pub fn zone_sizes<'a>(boxes: &[BoxName], zones: &'a Zones) -> BTreeMap<&'a ZoneName, u32> {
    let mut sizes = BTreeMap::<&ZoneName, u32>::new();
    for zone in boxes.iter().filter_map(|name| zones.get(name)) {
        *sizes.entry(zone).or_default() += 1;
    }
    if sizes.len() > 1 { sizes } else { BTreeMap::new() }
}

/// A lock that was granted: its suffix, and the token that proves ownership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// 1..n.
    pub suffix: u32,
    /// Random; compared inside Redis.
    pub token: String,
}

/// What a load balancer that can count said, for the floor.
#[derive(Debug, Clone, Serialize)]
pub struct Survey {
    /// Which load balancer.
    pub key: String,
    /// This box's target in it.
    pub me: String,
    /// The targets that get requests.
    pub in_service: Vec<String>,
}

/// A place for a box's reboot.
#[derive(Debug, Clone, Serialize)]
pub struct Reservation<'a> {
    /// Whose.
    #[serde(rename = "box")]
    pub name: &'a BoxName,
    /// What the client calls itself.
    pub id: &'a str,
    /// What for, for people.
    pub purpose: &'a str,
    /// Live matching boxes, where no deploy rolls.
    pub size: u32,
    /// How many of them may be out.
    pub max_parallel: MaxParallel,
    /// The box's zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<ManualRunZone>,
    /// In a new epoch nothing is granted for so many milliseconds.
    pub settle: u64,
    /// The epoch that the caller remembers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<&'a str>,
}

/// How a box's part in a deploy ends.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Finish {
    /// The last phase; absent where only a lock is given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The tag the row shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// Why it ended so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Whether the box is in service.
    pub in_service: bool,
    /// The tag that the box runs now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Tag>,
    /// Wake nobody.
    pub quiet: bool,
}

/// The deadlines by which the service ends a deploy.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Between two renewals.
    pub interval: Duration,
    /// A lock's life.
    pub ttl: Duration,
    /// After this long a silent box is asked again.
    pub silence: Duration,
    /// How long the deploy waits for boxes that do not join, when there is nothing else to do.
    pub join: Duration,
    /// How long the deploy may make no progress.
    pub lock: Duration,
    /// How long the whole deploy may take.
    pub deploy: Duration,
    /// Two looks of the service that are further apart mean that the service was away: no verdict for three intervals.
    pub look_gap: Duration,
}

/// The live members of the fleet, as the service's Serf agent sees them.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Members {
    /// Alive, and matching the place.
    pub alive: Vec<BoxName>,
    /// Failed, whatever their tags were.
    pub failed: Vec<BoxName>,
    /// Left, whatever their tags were.
    pub left: Vec<BoxName>,
    /// The zones of those that live.
    pub zones: Zones,
}

/// What a service says of the gates before the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GateStep {
    /// It asks them.
    Claim,
    /// They passed.
    Pass,
    /// One failed: the deploy ends.
    Fail,
}

/// What a worker says when it renews.
#[derive(Debug, Clone, Serialize)]
pub struct RenewRequest<'a> {
    /// The box.
    #[serde(rename = "box")]
    pub name: &'a BoxName,
    /// The id of the deploy.
    pub deploy: &'a str,
    /// Where it stands; absent while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// What it does within its phase, one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'a str>,
    /// Its lock, if it holds one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix: Option<u32>,
    /// The lock's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<&'a str>,
    /// The lock's life, in milliseconds.
    pub ttl: u64,
    /// Whether the box is out of service.
    pub out: bool,
    /// Why a person keeps it out.
    #[serde(rename = "hand", skip_serializing_if = "Option::is_none")]
    pub kept_out_reason: Option<&'a str>,
    /// What the box is out for, where that is no deploy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<&'a str>,
    /// The epoch it remembers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<&'a str>,
}
