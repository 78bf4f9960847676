//! Turns: what happened to a deploy that people and programs are told of.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Deploy;
use crate::names::{Environment, Role, Tag};

words! {
    /// What happened.
    TurnKind {
        /// A deploy or a promotion began.
        Started = "started",
        /// The boxes of a step have served for as long as it lasts.
        Step = "step",
        /// A person has to let a release go on: to another environment, or beyond a step.
        NeedsApproval = "needs_approval",
        /// A release turned out to be broken.
        Broken = "broken",
        /// A rollback began.
        GoingBack = "going_back",
        /// A deploy is complete.
        Deployed = "deployed",
        /// A deploy ended: boxes or the infrastructure were at fault.
        Failed = "failed",
        /// A deploy ended: a person or a newer deploy stopped it.
        Cancelled = "cancelled",
        /// No box has moved for unusually long.
        Stuck = "stuck",
        /// Nothing new starts in an environment.
        Frozen = "frozen",
        /// A deploy ended, however.
        Ended = "ended",
    }
}

impl TurnKind {
    /// Whether a target hears of it that does not say what it wants to hear of.
    #[must_use]
    pub fn is_told_by_default(self) -> bool {
        !matches!(self, Self::Step | Self::Ended)
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Each turn has its own, however often it is told: the deploy's id, or the freeze, a colon, and what happened to it.
    pub id: String,
    /// What.
    pub turn: TurnKind,
    /// RFC 3339, UTC.
    pub at: String,
    /// Where.
    pub environment: Environment,
    /// Of what; absent where it is about all roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// Who: the token's name, and the user and host they claim; a box that found the release broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many boxes run the release, in service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<u32>,
    /// How many boxes of that place are out of service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out: Option<u32>,
    /// One line for people.
    pub text: String,
    /// The page about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The deploy as it stood then, without its boxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy: Option<Deploy>,
}

impl Turn {
    /// What it happened to: the id of the deploy, or the freeze. Turns of one are told in order.
    #[must_use]
    pub fn lane(&self) -> &str {
        self.id.split_once(':').map_or(self.id.as_str(), |(lane, _)| lane)
    }
}
