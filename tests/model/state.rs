//! Three boxes, their workers, the service and Redis: what can be the case, and what can happen next.

use serde_json::Value as Json;

use crate::model::engine::BASE;
use crate::model::memory::Memory;

pub const NAMES: [&str; 3] = ["a", "b", "c"];
/// Where there are zones.
pub const ZONES: [&str; 3] = ["x", "y", "y"];

/// How often what is out of the protocol's hands may happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budget {
    /// A worker is killed.
    pub kills: u8,
    /// A worker does not get to renew for a while.
    pub stalls: u8,
    /// A machine ends for good.
    pub deaths: u8,
    /// An agent does not answer for a while; its worker goes on.
    pub suspects: u8,
    /// A box fails and is back in service.
    pub failures: u8,
    /// A box fails and stays out.
    pub strandings: u8,
    /// A box suspects the release.
    pub blames: u8,
    /// A person cancels.
    pub cancels: u8,
    /// A second deploy.
    pub deploys: u8,
    /// A person pauses a deploy, and lets it go on.
    pub pauses: u8,
    /// A person lets a box try again.
    pub repairs: u8,
    /// Redis restarts with its data.
    pub restarts: u8,
    /// Redis loses everything.
    pub flushes: u8,
}

/// What is explored.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub max_parallel: &'static str,
    /// Boxes that may be out at once.
    pub locks: usize,
    pub budget: Budget,
    /// Whether `deploy_timeout` and `lock_timeout` are short enough to pass.
    pub timeouts: bool,
    /// Whether one box goes first.
    pub steps: bool,
    /// Whether the boxes are in zones: `a` in one, `b` and `c` in another.
    pub zones: bool,
    /// To be noticed, that many states at most.
    pub states: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Alive,
    /// Its agent is `failed` in Serf.
    Suspect,
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Waiting,
    /// Has a lock, and serves.
    Holding,
    Out,
    /// Out, and finds out whether the release is broken.
    Blaming,
}

#[derive(Debug, Clone)]
pub struct Worker {
    /// 1 or 2; 0 is work by hand.
    pub deploy: usize,
    pub stage: Stage,
    pub suffix: Json,
    pub token: String,
    pub epoch: Json,
}

#[derive(Debug, Clone)]
pub struct Machine {
    pub life: Life,
    /// In truth, whatever Redis believes.
    pub out: bool,
    /// Out, and by the rules no longer counted: an agent and its worker were silent together, or for a whole TTL.
    pub excused: bool,
    /// When the worker spoke last.
    pub spoke: i64,
    pub tokens: u32,
    pub worker: Option<Worker>,
}

#[derive(Debug, Clone)]
pub struct State {
    pub memory: Memory,
    pub machines: [Machine; 3],
    pub left: Budget,
    /// How many deploys have begun.
    pub begun: usize,
    /// How they ended.
    pub ended: [Option<String>; 2],
    /// When Redis restarted.
    pub restarted: Option<i64>,
    /// What the service remembers.
    pub epoch: Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    RolledBack,
    Failed,
    Stranded,
}

/// What may happen; the number is a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Start(usize),
    Acquire(usize),
    Leave(usize),
    Finish(usize, Outcome),
    Hold(usize),
    Blame(usize),
    /// A box that is out turns to the newer deploy.
    Turn(usize),
    Look,
    Tick,
    // What nobody may rely on.
    Stall(usize),
    Kill(usize),
    Die(usize),
    Suspect(usize),
    Trust(usize),
    Repair(usize),
    Cancel,
    Pause,
    Resume,
    Begin,
    Restart,
    Flush,
}

impl Action {
    /// The box that acts.
    pub fn by(self) -> Option<usize> {
        match self {
            Self::Start(at) | Self::Acquire(at) | Self::Leave(at) | Self::Finish(at, _) | Self::Turn(at) => Some(at),
            _ => None,
        }
    }

    /// Everything, for every box.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::Look, Self::Tick, Self::Cancel, Self::Begin, Self::Restart, Self::Flush];
        all.extend([Self::Pause, Self::Resume]);
        for at in 0..NAMES.len() {
            all.extend([Self::Start(at), Self::Acquire(at), Self::Leave(at), Self::Hold(at), Self::Blame(at)]);
            all.extend([Self::Turn(at), Self::Stall(at), Self::Kill(at), Self::Die(at), Self::Suspect(at)]);
            all.extend([Self::Trust(at), Self::Repair(at)]);
            let outcomes = [Outcome::Done, Outcome::RolledBack, Outcome::Failed, Outcome::Stranded];
            all.extend(outcomes.map(|outcome| Self::Finish(at, outcome)));
        }
        all
    }

    /// Happens by itself, sooner or later, when it may for long enough. That a worker starts does not: a deploy has to
    /// end without.
    pub fn is_fair(self) -> bool {
        matches!(
            self,
            Self::Acquire(_)
                | Self::Leave(_)
                | Self::Finish(_, Outcome::Done | Outcome::RolledBack)
                | Self::Blame(_)
                | Self::Turn(_)
                | Self::Trust(_)
                | Self::Resume
                | Self::Look
                | Self::Tick
        )
    }
}

impl State {
    pub fn row(&self, deploy: usize, name: &str) -> Option<Json> {
        let text = self.memory.field(&format!("{BASE}deploy:d{deploy}:boxes"), name)?;
        Some(serde_json::from_str(text).unwrap())
    }

    pub fn phase(&self, deploy: usize, name: &str) -> String {
        self.row(deploy, name).map_or_else(String::new, |row| row["phase"].as_str().unwrap().to_owned())
    }

    pub fn read(&self, key: &str) -> Json {
        self.memory.get(&format!("{BASE}{key}")).map_or(Json::Null, |text| serde_json::from_str(text).unwrap())
    }

    pub fn out_entry(&self, name: &str) -> Option<Json> {
        self.memory.field(&format!("{BASE}out"), name).map(|text| serde_json::from_str(text).unwrap())
    }

    /// The number of the deploy that rolls.
    pub fn rolling(&self) -> Option<usize> {
        let current = self.read("current");
        let id = current["id"].as_str()?;
        (current["state"] == "rolling").then(|| id[1..].parse().unwrap())
    }

    pub fn cancel(&self, deploy: usize) -> Json {
        self.read(&format!("deploy:d{deploy}:cancel"))
    }
}
