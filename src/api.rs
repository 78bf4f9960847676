//! What travels between the service, its clients and Redis: deploys, boxes, releases, and the words for their states.
//!
//! These are the JSON shapes that scripts and dashboards are written against: add to them, rename nothing.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::{
    calls::{
        Audit, AuditEntry, Completed, Deploys, Freeze, Freezes, NewBlame, NewCancel, NewDeploy, NewFreeze, NewMove,
        NewPause, NewRelease, Releases, Running, RunningBoxes,
    },
    deploy::{BoxRow, CurrentStep, Deploy, Kind, LAST_WORDS, Pause, Phase, STAYS_OUT, State, ZoneRow},
    promotion::{Approval, Promoted, Promotion, PromotionState},
    turn::{Turn, TurnKind},
};
use crate::names::{BoxName, Environment, Role, Tag, ZoneName};

/// Defines an enum of machine words that reads, writes and displays as those words.
macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $type { $($(#[$vdoc])* #[serde(rename = $word)] $variant),+ }

        impl $type {
            /// Every one, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

// After the macro that it uses.
mod calls;
mod deploy;
mod promotion;
mod turn;

/// A role and a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// What.
    pub role: Role,
    /// Which.
    pub tag: Tag,
    /// RFC 3339, UTC.
    pub published_at: String,
    /// Whether it may be deployed.
    pub status: ReleaseStatus,
    /// Why it is broken or withheld.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The environment where that was found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// The evidence of a broken one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<String>,
    /// The commit it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Who wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The page of the CI run that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// When the commit was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_at: Option<String>,
}

impl Release {
    /// The release as it may be told: that it is broken or withheld, and why only where `may_tell` agrees for the
    /// environment in which that was found out.
    #[must_use]
    pub fn told(self, may_tell: impl Fn(&Environment) -> bool) -> Self {
        match &self.environment {
            Some(environment) if !may_tell(environment) => {
                let reason = Some(format!("found in {environment}, where this may not be read"));
                Self { reason, logs: None, ..self }
            }
            _ => self,
        }
    }
}

words! {
    /// Whether a release may be deployed.
    ReleaseStatus {
        /// Yes.
        Available = "available",
        /// It failed through its own fault: only a person who insists.
        Broken = "broken",
        /// Somebody rolled back from it: only by name.
        Withheld = "withheld",
    }
}

/// The answer of `GET /v1/deploys/current`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Current {
    /// The deploy that is rolling, else the last complete one.
    #[serde(flatten)]
    pub deploy: Deploy,
    /// The state of the newest deploy here, which may have ended otherwise since.
    pub latest: State,
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRow {
    /// 1..n.
    pub suffix: u32,
    /// The holder.
    #[serde(rename = "box")]
    pub name: BoxName,
    /// Its zone, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<ZoneName>,
    /// The deploy it was taken for; a hand's when it begins with `hand.`.
    pub deploy: String,
    /// RFC 3339, UTC.
    pub since: String,
    /// RFC 3339, UTC: the last renewal.
    pub renewed: String,
    /// Milliseconds until it expires by itself.
    pub expires_in_ms: u64,
}

/// A box that is out of service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutRow {
    /// Which.
    #[serde(rename = "box")]
    pub name: BoxName,
    /// Its zone, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<ZoneName>,
    /// The deploy that took it out.
    pub deploy: String,
    /// RFC 3339, UTC.
    pub since: String,
    /// RFC 3339, UTC: the last renewal.
    pub renewed: String,
    /// Why, where a person took it out.
    #[serde(default)]
    pub reason: Option<String>,
    /// What for, where it comes back by itself and that is no deploy: `with-lock`, a reboot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
}

/// What stands for the deploy where a box is out for a reboot that it asked for by `FleetLock`.
pub const FLEET_LOCK: &str = "fleet-lock";

/// The answer of `GET /v1/locks`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locks {
    /// By suffix.
    pub locks: Vec<LockRow>,
    /// By box.
    pub out: Vec<OutRow>,
}

/// The answer of `GET /v1/status`: all that `deployctl status` shows, of one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// Newest first. The newest of each place, and those that have not ended, come with their boxes.
    pub deploys: Vec<Deploy>,
    /// What each box runs.
    pub running: Vec<Running>,
    /// Locks and boxes that are out, by place.
    pub places: Vec<PlaceLocks>,
    /// Freezes of these places.
    pub freezes: Vec<Freeze>,
    /// The releases of the newest deploys that ended broken, with the evidence.
    pub broken: Vec<Release>,
    /// What is to go on to a next environment, and what it waits for.
    #[serde(default)]
    pub promotions: Vec<Promotion>,
    /// What a start without a tag would take at these places; empty where the service is too old to say.
    #[serde(default)]
    pub next: Vec<NextRelease>,
    /// Where nothing new starts now, since no window is open.
    #[serde(default)]
    pub closed: Vec<ClosedPlace>,
}

/// In its role's first environment the newest release, in a later one what the one before it completed last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextRelease {
    /// The role.
    pub role: Role,
    /// The environment.
    pub environment: Environment,
    /// Which; absent where there is none yet.
    pub tag: Option<Tag>,
    /// Whether it may be deployed.
    pub status: Option<ReleaseStatus>,
    /// Why it is broken or withheld.
    pub reason: Option<String>,
    /// The environment that it comes from; absent in the first one.
    pub from: Option<Environment>,
}

/// A place outside its windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedPlace {
    /// What.
    pub role: Role,
    /// Where.
    pub environment: Environment,
    /// When the next window opens.
    pub opens: Option<Timestamp>,
}

/// The answer of `GET /v1/token`: whose the caller's token is, and what it may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// Its name; absent while the service has no tokens.
    pub name: Option<String>,
    /// Its scopes, `start:staging`; empty while the service has no tokens.
    pub can: Vec<String>,
}

/// The locks of one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceLocks {
    /// The role.
    pub role: Role,
    /// The environment.
    pub environment: Environment,
    /// Who holds which lock, and who is out.
    #[serde(flatten)]
    pub locks: Locks,
}

/// The body of every error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// One error, for machines and for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// `broken`, `frozen`, `rolling`, `no_box`, `not_found`, …
    pub kind: String,
    /// One line.
    pub message: String,
}
