//! What is to go on to the next environment, and what it waits for.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Deploy;
use crate::names::{Environment, Role, Tag};

words! {
    /// What a promotion waits for, in the order in which it is asked.
    PromotionState {
        /// The complete deploy has not stood for long enough.
        Bakes = "bakes",
        /// A gate that does not pass, or has not been asked yet.
        Gate = "gate",
        /// A person, or several.
        WaitsForApproval = "waits_for_approval",
        /// The end of a freeze.
        Frozen = "frozen",
        /// The next window.
        OutsideWindow = "outside_window",
        /// The end of the deploy that rolls in the next environment.
        Rolling = "rolling",
        /// Nothing: it starts at the next look.
        Due = "due",
    }
}

/// A complete deploy that is to go on to the next environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// What.
    pub role: Role,
    /// Which.
    pub tag: Tag,
    /// Where it is complete.
    pub from: Environment,
    /// Where it is to go.
    pub environment: Environment,
    /// The id of the complete deploy.
    pub source: String,
    /// RFC 3339, UTC: since when it is complete.
    pub since: String,
    /// What it waits for.
    pub state: PromotionState,
    /// What a person should know of that: what the gate says, why it is frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Until when it waits at least, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Who has approved it so far. They are void as soon as another release is complete.
    #[serde(default)]
    pub approvals: Vec<Approval>,
    /// How many it needs; 0 where it goes on by itself.
    pub approvals_needed: u32,
}

/// What one token said for a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The token's name, and the user and host they claim.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// RFC 3339, UTC.
    pub at: String,
}

/// The answer of `POST /v1/promotions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Promoted {
    /// It began.
    Deploy(Box<Deploy>),
    /// It was approved, and waits for something else.
    Waits(Box<Promotion>),
}
