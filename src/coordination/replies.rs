//! What the scripts answer.

use serde::Deserialize;

use crate::{
    api::{Phase, State},
    names::BoxName,
};

/// Why a script did not do what it was asked. A word that is not among these is an error, not another's meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// This deploy has begun before.
    Exists,
    /// Another deploy rolls.
    Rolling,
    /// The deploy does not roll, or not any more.
    Ended,
    /// The deploy was stopped.
    Cancelled,
    /// The lock is not the caller's.
    NotOwner,
    /// Another box finds out whether the release is broken.
    Held,
    /// The load balancers cannot spare the box.
    Floor,
    /// As many of its zone are out as may be, or another zone is lost.
    Zone,
    /// Another service asks the gates.
    Claimed,
    /// There is nothing to free.
    Nothing,
    /// Its holder renews it.
    Renewed,
    /// Somebody has paused the deploy already.
    Paused,
    /// Nobody has paused the deploy.
    NotPaused,
}

/// Why a deploy was stopped.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Cancel {
    /// The person or the box that stopped it.
    pub by: String,
    /// One line for people.
    #[serde(default)]
    pub reason: String,
    /// The release is at fault: unfinished boxes go back.
    #[serde(default)]
    pub broken: bool,
    /// A newer deploy took its place: boxes that are out go on with that one.
    #[serde(default)]
    pub superseded: bool,
    /// A deadline passed.
    #[serde(default)]
    pub failed: bool,
}

/// How `begin` went.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum BeginReply {
    /// This deploy has begun before.
    Refused {
        /// `exists` or `rolling`.
        refused: Refusal,
        /// The deploy that rolls.
        id: Option<String>,
    },
    /// It rolls.
    Rolling {
        /// The epoch of Redis, for the next request.
        epoch: String,
        /// The older deploy that this one took out of the queue.
        #[serde(default)]
        replaced: Option<String>,
    },
}

/// What the service found when it looked at a deploy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EndReply {
    /// It ended in this very call.
    pub ended: bool,
    /// Where the deploy stands.
    pub state: State,
    /// Why it ended so.
    pub reason: Option<String>,
    /// Boxes that should be asked again by an event.
    #[serde(default)]
    pub silent: u32,
}

/// Whether the service has to look at the boxes of a deploy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct GlanceReply {
    /// A verdict, a deadline or the end may be due.
    pub look: bool,
    /// Boxes that should be asked again by an event.
    #[serde(default)]
    pub silent: u32,
}

/// How a step of the gates went.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GateReply {
    /// `ended` or `claimed`.
    pub refused: Option<Refusal>,
    /// Who claimed them.
    pub owner: Option<String>,
}

/// How `cancel` went.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum CancelReply {
    /// Nothing rolls.
    Refused {
        /// `ended`.
        refused: Refusal,
        /// Where the current deploy stands.
        state: Option<State>,
    },
    /// Stopped.
    Stopped {
        /// Which.
        id: String,
    },
}

/// How `pause` went.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PauseReply {
    /// `ended`, `paused` or `not_paused`.
    pub refused: Option<Refusal>,
    /// For how many milliseconds it was paused, where it goes on.
    pub lasted: Option<u64>,
}

/// How `reserve` went.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ReserveReply {
    /// The box has a place.
    pub reserved: bool,
    /// It had one before.
    #[serde(default)]
    pub again: bool,
    /// Else: what it would have to wait for, for people.
    pub wait: Option<String>,
    /// To be remembered.
    pub epoch: String,
}

/// How `unlock` went.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct UnlockReply {
    /// `nothing` (no lock, not out) or `renewed` (its worker lives).
    pub refused: Option<Refusal>,
    /// Milliseconds since the last renewal.
    pub ago: Option<u64>,
}

/// How `join` went.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum JoinReply {
    /// The deploy does not roll.
    Refused {
        /// `ended`.
        refused: Refusal,
        /// The current deploy.
        current: Option<String>,
    },
    /// The box stands in the deploy's table.
    Seated {
        /// Whether it takes part; else its row stays as it was.
        joined: bool,
        /// Where the row stood before.
        phase: Phase,
        /// Whether the box stands in `out`.
        out: bool,
        /// How many boxes take part.
        size: u32,
        /// How many may be out.
        locks: u32,
        /// The epoch of Redis, for the next request.
        epoch: String,
    },
}

/// How `acquire` went.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum AcquireReply {
    /// The box got a lock.
    Granted {
        /// The lock's suffix.
        granted: u32,
        /// How many boxes take part.
        size: u32,
        /// How many may be out.
        locks: u32,
        /// The box was out already.
        out: bool,
        /// A cancel that the box must heed although it got its lock.
        cancel: Option<Cancel>,
        /// What a box that was out already must wait for under its lock: the gates, or another box's proof.
        #[serde(default)]
        not_yet: Option<String>,
        /// The deploy does not roll: a box that was out already uses the lock to go back.
        #[serde(default)]
        over: bool,
        /// The epoch of Redis, for the next request.
        epoch: String,
    },
    /// The box has to wait.
    Wait {
        /// What the box waits for, one line for people.
        wait: String,
        /// The deploy is paused, or the boxes of its step are taken: the box's `lock_timeout` does not run meanwhile.
        #[serde(default)]
        stands: bool,
        /// `zone`, where a rule for zones makes it wait.
        #[serde(default)]
        refused: Option<Refusal>,
        /// The epoch of Redis, for the next request.
        epoch: String,
    },
    /// The box gets no lock from this deploy any more.
    Stop {
        /// `ended`, `cancelled`, or `rolling` (work by hand while a deploy rolls).
        stop: Refusal,
        /// The current deploy.
        current: Option<String>,
        /// Why.
        cancel: Option<Cancel>,
    },
}

/// How `leave` went.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum LeaveReply {
    /// The box must not leave.
    Refused {
        /// `not_owner`, `cancelled`, `ended`, `held`, `floor` or `zone`.
        refused: Refusal,
        /// Why it was cancelled.
        cancel: Option<Cancel>,
        /// For `floor`: the others that get requests and are not announced.
        others: Option<u32>,
        /// For `floor`: how many must.
        floor: Option<u32>,
        /// For `floor`: where.
        key: Option<String>,
        /// For `zone`: for what it waits, for people.
        wait: Option<String>,
    },
    /// The box is out from here on.
    Left {
        /// Always true.
        left: bool,
    },
}

/// What a worker hears when it renews.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RenewReply {
    /// The deploy was stopped.
    pub cancel: Option<Cancel>,
    /// The deploy does not roll any more.
    pub ended: bool,
    /// Who holds the lock now, if it is another.
    pub lost_to: Option<BoxName>,
    /// The epoch of Redis, for the next request.
    pub epoch: String,
}

/// A lock as it stands in Redis. One that somebody else set counts too, whatever it says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StoredLock {
    #[serde(rename = "box")]
    name: String,
    pub deploy: String,
    pub since: i64,
    pub renewed: i64,
}

impl StoredLock {
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|_| Self { name: text.to_owned(), ..Self::default() })
    }

    /// The holder, if it is a box's name.
    pub fn holder(&self) -> Option<BoxName> {
        self.name.parse().ok()
    }
}

/// An entry of `out` as it stands in Redis. One that cannot be read is listed all the same.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OutEntry {
    pub deploy: String,
    pub since: i64,
    pub renewed: i64,
    #[serde(rename = "hand")]
    pub kept_out_reason: Option<String>,
    pub purpose: Option<String>,
}

impl OutEntry {
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }
}
