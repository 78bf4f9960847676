//! What travels between the service, its clients and Redis: deploys, boxes, releases, and the words for their states.
//!
//! These are the JSON shapes that scripts and dashboards are written against: add to them, rename nothing.

mod calls;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::calls::{
    Audit, AuditEntry, Completed, Deploys, Freeze, Freezes, NewBlame, NewCancel, NewDeploy, NewFreeze, NewMove,
    NewPause, NewRelease, Releases, Running, RunningBoxes,
};
use crate::{
    names::{BoxName, Environment, Role, Tag},
    parallel::MaxParallel,
};

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

words! {
    /// Where a box stands in a deploy.
    Phase {
        /// The service saw the box; its worker has not joined yet.
        Expected = "expected",
        /// Joined; waits for a lock.
        Waiting = "waiting",
        /// Fetches the image.
        Pulling = "pulling",
        /// Leaves the load balancers.
        Draining = "draining",
        /// Starts the new container and waits until it is healthy.
        Starting = "starting",
        /// Runs the role's `verify` program.
        Verifying = "verifying",
        /// Returns to the load balancers.
        Registering = "registering",
        /// Runs the release, in service.
        Done = "done",
        /// Could not, through its own or the infrastructure's fault.
        Failed = "failed",
        /// Back on the tag it had before.
        RolledBack = "rolled_back",
        /// Stopped before it began.
        Cancelled = "cancelled",
        /// Left the fleet or died.
        Gone = "gone",
        /// Alive, but its lock expired without a result.
        Lost = "lost",
    }
}

impl Phase {
    /// Whether the box still counts in `remaining`.
    #[must_use]
    pub fn is_unfinished(self) -> bool {
        self < Self::Done
    }

    /// Whether the box works under a lock.
    #[must_use]
    pub fn is_working(self) -> bool {
        (Self::Draining..Self::Done).contains(&self)
    }
}

words! {
    /// Where a deploy stands.
    State {
        /// Waits for the one that rolls.
        Queued = "queued",
        /// Goes on.
        Rolling = "rolling",
        /// Complete.
        Deployed = "deployed",
        /// The release was at fault.
        Broken = "broken",
        /// Stopped by a person or a newer deploy.
        Cancelled = "cancelled",
        /// Boxes or the infrastructure were at fault.
        Failed = "failed",
    }
}

impl State {
    /// Whether nothing more happens to the deploy.
    #[must_use]
    pub fn is_ended(self) -> bool {
        self > Self::Rolling
    }
}

words! {
    /// Why a container was started: `DEPLOY_KIND`.
    Kind {
        /// Somebody started it.
        Deploy = "deploy",
        /// The environment before completed it.
        Promotion = "promotion",
        /// Back to a tag that worked.
        Rollback = "rollback",
        /// A box caught up by itself.
        Sync = "sync",
        /// Somebody ran it on one box.
        Manual = "manual",
    }
}

/// One roll-out of one release to every box of one environment and role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deploy {
    /// `ROLE.ENVIRONMENT.SERIAL`: says its place, is safe in a path, and a promotion keeps its source's serial.
    pub id: String,
    /// What.
    pub role: Role,
    /// Where.
    pub environment: Environment,
    /// Which.
    pub tag: Tag,
    /// Why.
    pub kind: Kind,
    /// Where it stands.
    pub state: State,
    /// Boxes that take part, less those that are gone.
    pub size: u32,
    /// How many may be out at once, for this size.
    pub locks: u32,
    /// Boxes still to finish.
    pub remaining: u32,
    /// Who started it: the token's name, and the user and host they claim.
    pub by: String,
    /// What a person should know of its state, for example why it ended.
    #[serde(default)]
    pub reason: Option<String>,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// RFC 3339, UTC; absent while it goes on.
    #[serde(default)]
    pub ended_at: Option<String>,
    /// How many may be out at once, as configured when it began.
    #[serde(default)]
    pub max_parallel: MaxParallel,
    /// Every box is to be recreated, even one that runs the release.
    #[serde(default)]
    pub recreate: bool,
    /// Somebody insisted on a broken release or a frozen environment.
    #[serde(default)]
    pub force: bool,
    /// The last tag that was completely deployed here before this deploy.
    #[serde(default)]
    pub last_good: Option<Tag>,
    /// The deploy that this one was promoted from or rolls back.
    #[serde(default)]
    pub source: Option<String>,
    /// Only so many boxes yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// Somebody has paused it: nobody takes a lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// A gate holds it, and why: nobody takes a lock until the gate passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    /// Where the change from `last_good` to `tag` can be read: `service.roles.*.repository` and both commits are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<String>,
    /// The boxes, by name; empty in lists.
    #[serde(default)]
    pub boxes: Vec<BoxRow>,
}

/// The step that a deploy stands at: no box beyond it gets the release before it has passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// 1..
    pub number: usize,
    /// How many there are.
    pub of: usize,
    /// How many boxes get the release in it, the earlier ones included.
    pub boxes: u32,
    /// For how many milliseconds they serve before it passes; absent where a person lets it go on.
    #[serde(default)]
    pub lasts_ms: Option<u64>,
    /// RFC 3339, UTC: since when all of them are done.
    #[serde(default)]
    pub since: Option<String>,
}

/// Who paused a deploy, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// RFC 3339, UTC: since when.
    pub at: String,
}

/// One box in a deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxRow {
    /// Which.
    #[serde(rename = "box")]
    pub name: BoxName,
    /// Where it stands.
    pub phase: Phase,
    /// The tag that it runs, as far as known.
    #[serde(default)]
    pub tag: Option<Tag>,
    /// RFC 3339, UTC: since when it stands in this phase.
    pub since: String,
    /// What it waits for, or why it ended so.
    #[serde(default)]
    pub detail: Option<String>,
}

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
    /// The deploy that took it out.
    pub deploy: String,
    /// RFC 3339, UTC.
    pub since: String,
    /// RFC 3339, UTC: the last renewal.
    pub renewed: String,
    /// Why, where a person took it out.
    #[serde(default)]
    pub reason: Option<String>,
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_split_into_unfinished_and_finished() {
        use Phase::{
            Cancelled, Done, Draining, Expected, Failed, Gone, Lost, Pulling, Registering, RolledBack, Waiting,
        };
        assert!([Expected, Waiting, Pulling, Draining, Registering].iter().all(|p| p.is_unfinished()));
        assert!(![Done, Failed, RolledBack, Cancelled, Gone, Lost].iter().any(|p| p.is_unfinished()));
        assert!(Draining.is_working() && !Waiting.is_working() && !Done.is_working());
    }

    #[test]
    fn words_are_the_same_in_json_and_for_people() {
        assert_eq!(serde_json::to_string(&Phase::RolledBack).unwrap(), "\"rolled_back\"");
        assert_eq!(Phase::RolledBack.to_string(), "rolled_back");
    }
}
