//! The Lua scripts: every decision about a deploy is made in one of them, in one place, from one state, by Redis's clock.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::records::SCHEMA;
use crate::api::Phase;

/// How long the keys of a deploy that has ended are kept.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// More suffixes than any fleet has boxes are somebody's mistake; walking them would block Redis.
pub const MOST_LOCKS: u32 = 100_000;
/// So few locks are counted each time; only above it is what the scripts keep believed.
const FEW: u32 = 32;
/// How long what the scripts keep is believed before it is counted again.
const RECOUNT: Duration = Duration::from_secs(2);

/// One script; its file says what it promises and which arguments it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Script {
    /// Starts a deploy.
    Begin,
    /// Takes a box's place in a deploy.
    Join,
    /// Asks for a lock.
    Acquire,
    /// Announces that the box leaves the load balancers.
    Leave,
    /// Keeps a lock alive and says where the box stands.
    Renew,
    /// Ends a box's part in a deploy.
    Finish,
    /// Stops a deploy.
    Cancel,
    /// Stops grants while a box finds out whether the release is broken.
    Hold,
    /// Asks whether `End` can find anything.
    Glance,
    /// Passes verdicts and ends a deploy.
    End,
    /// Frees a box's lock by force.
    Unlock,
    /// Asks for a place for a reboot.
    Reserve,
    /// Gives it back.
    Release,
    /// Takes it back from the dead.
    Reboots,
    /// Puts a deploy behind the one that rolls.
    Queue,
    /// Says how the gates before the start went.
    Gates,
    /// Asks how a load balancer sees its targets.
    Look,
    /// Tells how it does.
    Looked,
    /// Lets nobody begin in the deploy that rolls, or lets it go on.
    Pause,
}

impl Script {
    /// The script's own text, without what all of them share.
    #[must_use]
    const fn own(self) -> &'static str {
        match self {
            Self::Begin => include_str!("lua/begin.lua"),
            Self::Join => include_str!("lua/join.lua"),
            Self::Acquire => include_str!("lua/acquire.lua"),
            Self::Leave => include_str!("lua/leave.lua"),
            Self::Renew => include_str!("lua/renew.lua"),
            Self::Finish => include_str!("lua/finish.lua"),
            Self::Cancel => include_str!("lua/cancel.lua"),
            Self::Hold => include_str!("lua/hold.lua"),
            Self::Glance => include_str!("lua/glance.lua"),
            Self::End => include_str!("lua/end.lua"),
            Self::Unlock => include_str!("lua/unlock.lua"),
            Self::Reserve => include_str!("lua/reserve.lua"),
            Self::Release => include_str!("lua/release.lua"),
            Self::Reboots => include_str!("lua/reboots.lua"),
            Self::Queue => include_str!("lua/queue.lua"),
            Self::Gates => include_str!("lua/gates.lua"),
            Self::Look => include_str!("lua/look.lua"),
            Self::Looked => include_str!("lua/looked.lua"),
            Self::Pause => include_str!("lua/pause.lua"),
        }
    }

    /// The script as the client sends it. Its text and its hash are made once.
    pub(super) fn compiled(self) -> &'static redis::Script {
        static COMPILED: Mutex<BTreeMap<Script, &'static redis::Script>> = Mutex::new(BTreeMap::new());
        let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
        compiled.entry(self).or_insert_with(|| Box::leak(Box::new(redis::Script::new(&self.source()))))
    }

    /// The whole text, as Redis runs it: one key (the place), one argument (a JSON object), a JSON reply.
    #[must_use]
    pub fn source(self) -> String {
        let shared = [include_str!("lua/common.lua"), include_str!("lua/counts.lua"), include_str!("lua/zones.lua")];
        format!("{}{}\n{}", prelude(), shared.join("\n"), self.own())
    }
}

/// What the scripts know of the types: written from them, so that neither can say something else.
fn prelude() -> String {
    let set = |holds: fn(Phase) -> bool| {
        let words: Vec<String> =
            Phase::ALL.iter().filter(|phase| holds(**phase)).map(|phase| format!("{phase} = true")).collect();
        format!("{{ {} }}", words.join(", "))
    };
    format!(
        "local SCHEMA = {SCHEMA}\nlocal KEPT = {}\nlocal MOST_LOCKS = {MOST_LOCKS}\n\
         local FEW = {FEW}\nlocal RECOUNT = {}\nlocal UNFINISHED = {}\nlocal WORKING = {}\n",
        KEPT.as_millis(),
        RECOUNT.as_millis(),
        set(Phase::is_unfinished),
        set(Phase::is_working),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prelude_says_what_the_types_say() {
        let text = prelude();
        assert!(
            text.contains("local WORKING = { draining = true, starting = true, verifying = true, registering = true }")
        );
        assert!(text.contains("local KEPT = 2592000000\n") && text.starts_with("local SCHEMA = 1\n"), "{text}");
    }
}
