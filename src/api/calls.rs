//! The bodies of requests, and the answers that are lists.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Deploy, Release};
use crate::names::{BoxName, Environment, Role, Tag};

/// The body of `POST /v1/releases`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewRelease {
    /// What.
    pub role: Role,
    /// Which.
    pub tag: Tag,
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
    /// The role is new, though another one is named nearly like it.
    #[serde(default)]
    pub new_role: bool,
}

/// The answer of `GET /v1/releases`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Releases {
    /// Newest first.
    pub releases: Vec<Release>,
}

/// The body of `POST /v1/deploys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the call")]
pub struct NewDeploy {
    /// What.
    pub role: Role,
    /// Where.
    pub environment: Environment,
    /// Which; the service chooses when absent.
    #[serde(default)]
    pub tag: Option<Tag>,
    /// Cancel what is rolling there.
    #[serde(default)]
    pub supersede: bool,
    /// Wait for what is rolling there.
    #[serde(default)]
    pub queue: bool,
    /// Recreate boxes that run the tag already.
    #[serde(default)]
    pub recreate: bool,
    /// Insist on a broken release or a frozen environment.
    #[serde(default)]
    pub force: bool,
    /// Skip the steps of the role.
    #[serde(default)]
    pub all_at_once: bool,
    /// Answer what would happen, start nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Why, for the audit log and for everybody who watches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The body of `POST /v1/rollbacks` (`environment`: where to go back) and `POST /v1/promotions` (`environment`: the
/// source, whose tag goes on to the next one).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMove {
    /// What.
    pub role: Role,
    /// Where.
    pub environment: Environment,
    /// Which; the service chooses when absent.
    #[serde(default)]
    pub tag: Option<Tag>,
    /// Of a promotion: insist, whatever gates, freezes and marks say.
    #[serde(default)]
    pub force: bool,
    /// Why, for the audit log and for everybody who watches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The answer of `GET /v1/deploys`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deploys {
    /// Newest first, without their boxes.
    pub deploys: Vec<Deploy>,
}

/// The body of `POST /v1/deploys/ID/broken`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBlame {
    /// The box that has the proof.
    #[serde(rename = "box")]
    pub name: BoxName,
    /// One line.
    pub reason: String,
    /// The container's last words.
    #[serde(default)]
    pub logs: String,
}

/// The body of `POST /v1/deploys/ID/complete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    /// The box that finished last.
    #[serde(rename = "box")]
    pub name: BoxName,
}

/// The body of `POST /v1/deploys/ID/cancel`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewCancel {
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whether the release is at fault.
    #[serde(default)]
    pub broken: bool,
}

/// The body of `POST /v1/deploys/ID/pause` and `POST /v1/deploys/ID/resume`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPause {
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The body of `POST` and `DELETE /v1/freezes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewFreeze {
    /// Where.
    pub environment: Environment,
    /// What; every role when absent.
    #[serde(default)]
    pub role: Option<Role>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// When it ends by itself, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// An environment, or one role in it, where nothing new starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Where.
    pub environment: Environment,
    /// What; every role when absent.
    #[serde(default)]
    pub role: Option<Role>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Who.
    pub by: String,
    /// RFC 3339, UTC.
    pub at: String,
    /// When it ends by itself, RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// The answer of `GET /v1/freezes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freezes {
    /// By environment and role.
    pub freezes: Vec<Freeze>,
}

/// What one box runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// What.
    pub role: Role,
    /// Where.
    pub environment: Environment,
    /// On which box.
    #[serde(rename = "box")]
    pub name: BoxName,
    /// Which.
    pub tag: Tag,
}

/// The answer of `GET /v1/running?role=&environment=`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningBoxes {
    /// By role, environment and box.
    pub running: Vec<Running>,
}

/// Something that a person or the service did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// RFC 3339, UTC.
    pub at: String,
    /// Who: the token's name, and the user and host they claim.
    pub by: String,
    /// `publish`, `start`, `cancel`, `promote`, …
    pub action: String,
    /// What it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// Which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// The deploy's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy: Option<String>,
    /// Why, or what came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The answer of `GET /v1/audit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Newest first.
    pub entries: Vec<AuditEntry>,
}
