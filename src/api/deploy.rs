//! A deploy and its boxes, and the words for where they stand.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    names::{BoxName, Environment, Role, Tag, ZoneName},
    parallel::MaxParallel,
};

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
    pub step: Option<CurrentStep>,
    /// Somebody has paused it: nobody takes a lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// A gate holds it, and why: nobody takes a lock until the gate passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    /// Where the change from `last_good` to `tag` can be read: `service.roles.*.repository` and both commits are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<String>,
    /// Its zones, by name; empty where there are fewer than two, and no rule for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<ZoneRow>,
    /// The boxes, by name; empty in lists.
    #[serde(default)]
    pub boxes: Vec<BoxRow>,
}

/// One zone of a deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneRow {
    /// Which.
    pub zone: ZoneName,
    /// Its boxes that take part, less those that are gone.
    pub size: u32,
    /// How many of them may be out at once.
    pub locks: u32,
    /// None of its boxes lives: what it uses up is free for nobody else.
    #[serde(default)]
    pub lost: bool,
}

/// The step that a deploy stands at: no box beyond it gets the release before it has passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentStep {
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

/// In a box's detail, what stands between what a container did and what it said last.
pub const LAST_WORDS: &str = ", its last words: ";

/// In a box's detail, what stands between the cause and why the box could not come back into service.
pub const STAYS_OUT: &str = "; stays out of service: ";

/// One box in a deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxRow {
    /// Which.
    #[serde(rename = "box")]
    pub name: BoxName,
    /// Where it stands.
    pub phase: Phase,
    /// Its zone, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<ZoneName>,
    /// The tag that it runs, as far as known.
    #[serde(default)]
    pub tag: Option<Tag>,
    /// RFC 3339, UTC: since when it stands in this phase.
    pub since: String,
    /// What it waits for, or why it ended so.
    #[serde(default)]
    pub detail: Option<String>,
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
