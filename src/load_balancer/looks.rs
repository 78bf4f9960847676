//! One look at a load balancer for all boxes behind it.
//!
//! A Describe call answers for a whole target group as cheaply as for one target, and AWS limits their number. So the
//! boxes of a place share what one of them saw. A box uses only a look that began after the act whose effect it waits for.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use log::debug;

use super::{LoadBalancer, TargetState, Waiting, aws::Aws, pace};

/// Who stands behind a load balancer, and how it sees them.
pub type Targets = Vec<(String, TargetState)>;

/// Where boxes share their looks. Its clock is one for all of them.
pub trait SharedLooks: Sync {
    /// Milliseconds.
    fn now(&self) -> Result<u64>;
    /// What the load balancer `key` says of `target`, or of all, by a look that began after `since`.
    fn ask(&self, key: &str, since: u64, target: Option<&str>) -> Result<Asked>;
    /// Shares what was seen. None: the look failed, and another box may try.
    fn tell(&self, key: &str, turn: &LookTurn, seen: Option<&Targets>) -> Result<()>;
}

/// What comes of asking for a look.
#[derive(Debug)]
pub enum Asked {
    /// What was seen.
    Seen(Targets),
    /// It is this box's turn to look, and to tell.
    Look(LookTurn),
    /// Ask again after this time.
    Wait(Duration),
}

/// The right to look.
#[derive(Debug)]
pub struct LookTurn {
    /// When the look begins: milliseconds by the clock of [`SharedLooks::now`].
    pub begun: u64,
    /// Proves whose turn it is.
    pub token: String,
}

/// How `aws` sees everyone, or `target` alone, by a look that began after `since`. None at the deadline.
pub(super) fn shared(
    aws: &Aws,
    (looks, since): (&dyn SharedLooks, u64),
    target: Option<&str>,
    deadline: Instant,
    waiting: &Waiting<'_>,
) -> Result<Option<Targets>> {
    loop {
        match looks.ask(&aws.key, since, target)? {
            Asked::Seen(seen) => return Ok(Some(seen)),
            Asked::Look(turn) => {
                let seen = aws.everyone(deadline, waiting.interrupted);
                let told = looks.tell(&aws.key, &turn, seen.as_ref().ok());
                let seen = seen?;
                told.unwrap_or_else(|e| debug!("{}: this look is not shared: {e:#}", aws.name));
                return Ok(Some(seen));
            }
            Asked::Wait(time) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(None);
                }
                pace::sleep(time.min(left), waiting.interrupted)?;
            }
        }
    }
}

/// How `aws` sees everyone, by a look that begins after now.
pub(super) fn everyone(aws: &Aws, deadline: Instant, waiting: &Waiting<'_>) -> Result<Targets> {
    match through(aws, Duration::ZERO, None, deadline, waiting) {
        Some(seen) => seen?.with_context(|| format!("{}: no look at it in time", aws.name)),
        None => aws.everyone(deadline, waiting.interrupted),
    }
}

/// How `aws` sees this box, by a look that is no older than `age`.
pub(super) fn mine(aws: &Aws, age: Duration, deadline: Instant, waiting: &Waiting<'_>) -> Result<TargetState> {
    match through(aws, age, Some(&aws.me), deadline, waiting) {
        Some(seen) => Ok(aws.find_me(seen?.with_context(|| format!("{}: no look at it in time", aws.name))?)),
        None => aws.state(deadline, waiting.interrupted),
    }
}

/// Asks those with whom this box shares its looks for one that is no older than `age`. None where there are none, or
/// where they cannot be reached: then the box looks by itself.
fn through(
    aws: &Aws,
    age: Duration,
    target: Option<&str>,
    deadline: Instant,
    waiting: &Waiting<'_>,
) -> Option<Result<Option<Targets>>> {
    let looks = waiting.looks?;
    let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let seen = looks.now().and_then(|now| shared(aws, (looks, now.saturating_sub(age)), target, deadline, waiting));
    match seen {
        Err(e) if !(waiting.interrupted)() => {
            debug!("{}: looking alone: {e:#}", aws.name);
            None
        }
        seen => Some(seen),
    }
}

/// How a load balancer sees this box, again and again until it does what is waited for.
pub(super) struct Watch<'a> {
    balancer: &'a LoadBalancer,
    waiting: &'a Waiting<'a>,
    deadline: Instant,
    pauses: pace::Pauses,
}

impl<'a> Watch<'a> {
    /// Watches until `deadline`. `floor`: the shortest pause between two looks of this box's own.
    pub(super) fn new(
        balancer: &'a LoadBalancer,
        floor: Duration,
        deadline: Instant,
        waiting: &'a Waiting<'a>,
    ) -> Self {
        Self { balancer, waiting, deadline, pauses: pace::Pauses::new(floor) }
    }

    /// The next look, one that begins after now. None when the deadline has passed.
    pub(super) fn next(&mut self) -> Result<Option<TargetState>> {
        if let LoadBalancer::Aws(aws) = self.balancer
            && let Some(seen) = through(aws, Duration::ZERO, Some(&aws.me), self.deadline, self.waiting)
        {
            return Ok(seen?.map(|seen| aws.find_me(seen)));
        }
        if !self.pauses.sleep(self.deadline, self.waiting.interrupted)? {
            return Ok(None);
        }
        self.balancer.state(self.deadline, self.waiting.interrupted).map(Some)
    }
}
