//! The Lua scripts: every decision about a deploy is made in one of them, in one place, from one state, by Redis's clock.

/// One script; its file says what it promises and which arguments it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Passes verdicts and ends a deploy.
    End,
    /// Frees a box's lock by force.
    Unlock,
    /// Puts a deploy behind the one that rolls.
    Queue,
    /// Says how the gates before the start went.
    Gates,
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
            Self::End => include_str!("lua/end.lua"),
            Self::Unlock => include_str!("lua/unlock.lua"),
            Self::Queue => include_str!("lua/queue.lua"),
            Self::Gates => include_str!("lua/gates.lua"),
        }
    }

    /// The whole text, as Redis runs it: one key (the place), one argument (a JSON object), a JSON reply.
    #[must_use]
    pub fn source(self) -> String {
        format!("{}\n{}", include_str!("lua/common.lua"), self.own())
    }
}
