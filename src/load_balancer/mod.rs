//! What sends requests to a role on this box, and how to leave it and return.
//!
//! A role may stand behind several load balancers: the box is in service when all of them send it requests. AWS's two
//! kinds ([`elbv2`], [`elb`]) differ only in their argument lists and in how their answers read; [`command`] stands for
//! any other kind. [`aws`] rides out throttling, [`looks`] lets boxes share what one of them saw, [`pace`] says how often a
//! box looks that has nobody to share with.

mod aws;
mod command;
mod elb;
mod elbv2;
mod looks;
mod pace;

use std::{
    panic,
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};
use log::debug;
use serde::{Deserialize, Serialize};

pub use self::looks::{Asked, LookTurn, SharedLooks, Targets};
use self::{aws::Aws, command::Commands, looks::Watch};
use crate::config::{self, duration};

/// How long AWS may throttle a call that has no deadline of its own.
const THROTTLED_FOR: Duration = Duration::from_secs(120);
/// How old a look may be that tells whether this box is registered at all: nobody else registers it.
const LATELY: Duration = Duration::from_secs(10);

/// All load balancers of one role on this box.
#[derive(Debug)]
pub struct LoadBalancers(Vec<LoadBalancer>);

#[derive(Debug)]
enum LoadBalancer {
    Aws(Aws),
    Command(Commands),
}

/// Something that the configuration leaves to be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auto {
    /// The EC2 instance id of this box.
    InstanceId,
    /// The address of this box.
    LocalIpv4,
    /// The AWS region, where no ARN tells.
    Region,
}

/// What resolving needs to know beside the configuration.
pub struct Setting<'a> {
    /// Finds out what is not written.
    pub auto: &'a dyn Fn(Auto) -> Result<String>,
    /// `DEPLOY_*`, for the programs of `command`.
    pub variables: &'a [(String, String)],
    /// How long a program of `command` may take.
    pub command_timeout: Duration,
}

/// How a box waits for its load balancers, and asks them.
#[derive(Clone, Copy)]
pub struct Waiting<'a> {
    /// How many boxes may be waiting at the same time: they share AWS's limit of calls.
    pub locks: u32,
    /// Ends the wait.
    pub interrupted: &'a (dyn Fn() -> bool + Sync),
    /// Told what is waited for, in words.
    pub progress: &'a (dyn Fn(&str) + Sync),
    /// Where boxes share what one of them saw; without it this box looks by itself.
    pub looks: Option<&'a dyn SharedLooks>,
}

impl<'a> Waiting<'a> {
    /// For a question: it is short, and nobody is told of it.
    #[must_use]
    pub fn quietly(interrupted: &'a (dyn Fn() -> bool + Sync), looks: Option<&'a dyn SharedLooks>) -> Self {
        Self { locks: 1, interrupted, progress: &|_| {}, looks }
    }
}

/// What a load balancer that can count says of everyone behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingTargets {
    /// The load balancer: a target group's ARN, or a classic one's name.
    pub key: String,
    /// This box, as this load balancer names it: `id:port`, or an instance id.
    pub me: String,
    /// Who gets requests now, by the same names.
    pub in_service: Vec<String>,
}

/// How a load balancer sees one box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    /// It gets requests.
    InService,
    /// It is not registered, and nothing of it is left to drain.
    Out,
    /// Registered without getting requests, or draining: the load balancer's own words.
    Between(String),
}

impl LoadBalancers {
    /// Makes the configuration whole, once: ids, ports and regions that are not written are found out.
    ///
    /// Refused: what is no target group's ARN, no instance id or address, no load balancer's name; a target group whose
    /// targets are neither instances nor addresses.
    pub fn resolve(
        entries: &[config::LoadBalancer],
        setting: &Setting<'_>,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Self> {
        let resolve = |entry: &config::LoadBalancer| match entry {
            config::LoadBalancer::Elbv2(entry) => {
                let ask =
                    |name: &str, program: &_| aws::call(name, program, Instant::now() + THROTTLED_FOR, interrupted);
                elbv2::resolve(entry, setting.auto, &ask).map(LoadBalancer::Aws)
            }
            config::LoadBalancer::Elb(entry) => elb::resolve(entry, setting.auto).map(LoadBalancer::Aws),
            config::LoadBalancer::Command(entry) => Commands::new(entry, setting).map(LoadBalancer::Command),
        };
        entries.iter().map(resolve).collect::<Result<_>>().map(Self)
    }

    /// Whether there is none: such a box is in service whenever its container works.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What those that can count say, by a look that begins now; a `command` cannot.
    pub fn survey(&self, waiting: &Waiting<'_>) -> Result<Vec<ServingTargets>> {
        let surveys = self.each(|balancer| match balancer {
            LoadBalancer::Aws(aws) => {
                looks::everyone(aws, Instant::now() + THROTTLED_FOR, waiting).map(|seen| Some(aws.count(seen)))
            }
            LoadBalancer::Command(_) => Ok(None),
        })?;
        Ok(surveys.into_iter().flatten().collect())
    }

    /// Whether all of them send requests to this box. With none it is.
    pub fn in_service(&self, waiting: &Waiting<'_>) -> Result<bool> {
        let states = self.each(|balancer| match balancer {
            LoadBalancer::Aws(aws) => looks::mine(aws, Duration::ZERO, Instant::now() + THROTTLED_FOR, waiting),
            LoadBalancer::Command(commands) => commands.state(waiting.interrupted),
        })?;
        Ok(states.iter().all(|state| *state == TargetState::InService))
    }

    /// Takes the box out of all of them at once, and drains it: until it is no longer registered, or `drain` has passed.
    ///
    /// After an error or an interruption it may be out of some of them: [`register`](Self::register) mends that.
    pub fn deregister(&self, waiting: &Waiting<'_>) -> Result<()> {
        let floor = self.pace(waiting);
        self.each(|balancer| balancer.deregister(floor, waiting)).map(drop)
    }

    /// The longest that [`deregister`](Self::deregister) takes.
    #[must_use]
    pub fn deregister_timeout(&self) -> Duration {
        let longest = |balancer: &LoadBalancer| match balancer {
            LoadBalancer::Aws(aws) => 2 * THROTTLED_FOR + aws.drain,
            LoadBalancer::Command(commands) => commands.timeout(),
        };
        self.0.iter().map(longest).max().unwrap_or_default()
    }

    /// Puts the box into all of them at once, and waits until each sends it requests.
    ///
    /// Refused: a box that is not in service by `deadline`; the error has the load balancer's last word on it.
    pub fn register(&self, deadline: Instant, waiting: &Waiting<'_>) -> Result<()> {
        let floor = self.pace(waiting);
        self.each(|balancer| balancer.register(deadline, floor, waiting)).map(drop)
    }

    fn pace(&self, waiting: &Waiting<'_>) -> Duration {
        pace::floor(waiting.locks, self.0.len())
    }

    /// Does the same for each, at once. A failure stops no other: what can be registered shall be.
    fn each<T: Send>(&self, act: impl Fn(&LoadBalancer) -> Result<T> + Sync) -> Result<Vec<T>> {
        let act = &act;
        let results: Vec<Result<T>> = thread::scope(|scope| {
            let threads: Vec<_> = self
                .0
                .iter()
                .map(|balancer| thread::Builder::new().spawn_scoped(scope, move || act(balancer)))
                .collect();
            threads.into_iter().map(|thread| join(thread?)).collect()
        });
        let mut values = Vec::new();
        let mut errors = Vec::new();
        for result in results {
            match result {
                Ok(value) => values.push(value),
                Err(e) => errors.push(format!("{e:#}")),
            }
        }
        if errors.is_empty() { Ok(values) } else { Err(anyhow!(errors.join("; "))) }
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
}

impl LoadBalancer {
    fn name(&self) -> &str {
        match self {
            Self::Aws(aws) => &aws.name,
            Self::Command(commands) => &commands.name,
        }
    }

    fn state(&self, deadline: Instant, interrupted: &dyn Fn() -> bool) -> Result<TargetState> {
        match self {
            Self::Aws(aws) => aws.state(deadline, interrupted),
            Self::Command(commands) => commands.state(interrupted),
        }
    }

    fn deregister(&self, floor: Duration, waiting: &Waiting<'_>) -> Result<()> {
        let aws = match self {
            Self::Aws(aws) => aws,
            // It drains by itself. Asked even when it is not in service: it may be registered all the same.
            Self::Command(commands) => return commands.deregister(waiting.interrupted),
        };
        if looks::mine(aws, LATELY, Instant::now() + THROTTLED_FOR, waiting)? == TargetState::Out {
            debug!("{}: {} is not registered", aws.name, aws.me);
            return Ok(());
        }
        aws.call(&aws.deregister, Instant::now() + THROTTLED_FOR, waiting.interrupted)?;
        let mut watch = Watch::new(self, floor, Instant::now() + aws.drain, waiting);
        loop {
            match watch.next() {
                Ok(None | Some(TargetState::Out)) => return Ok(()),
                Ok(Some(state)) => (waiting.progress)(&format!("{}: {state}", aws.name)),
                Err(e) if (waiting.interrupted)() => return Err(e),
                // It has been taken out already: what is left is to wait, and for that nobody is needed.
                Err(e) => debug!("{e:#}"),
            }
        }
    }

    fn register(&self, deadline: Instant, floor: Duration, waiting: &Waiting<'_>) -> Result<()> {
        let started = Instant::now();
        match self {
            Self::Aws(aws) => aws.call(&aws.register, deadline, waiting.interrupted).map(drop)?,
            Self::Command(commands) => commands.register(deadline, waiting.interrupted)?,
        }
        let mut last = TargetState::Between("not yet asked".to_owned());
        let mut watch = Watch::new(self, floor, deadline, waiting);
        while let Some(state) = watch.next()? {
            last = state;
            if last == TargetState::InService {
                return Ok(());
            }
            (waiting.progress)(&format!("{}: {last}", self.name()));
        }
        bail!(
            "{}: not in service {} after registering: {last}; look at its health check and at the container's log",
            self.name(),
            duration::display(started.elapsed())
        )
    }
}

impl std::fmt::Display for TargetState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InService => f.write_str("in service"),
            Self::Out => f.write_str("not registered"),
            Self::Between(words) => f.write_str(words),
        }
    }
}
