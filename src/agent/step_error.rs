//! Why a box's part in a deploy did not go through, and what comes of it.

use std::fmt;

use anyhow::Error;

use crate::{
    compose::{HealthFailure, UpFailure},
    coordination::Cancel,
    exit::Exit,
    names::Tag,
};

/// Why a step did not succeed.
#[derive(Debug)]
pub enum StepError {
    /// The new container is at fault: one line.
    Release(String),
    /// The registry does not know the tag: proof by itself.
    UnknownTag(String),
    /// The box or the infrastructure is at fault.
    Box(Error),
    /// The deploy was stopped.
    Cancelled(Cancel),
    /// Another deploy took its place: a box that is out goes on with that one.
    Superseded,
    /// The deploy is over without this box.
    Ended,
    /// No lock within `lock_timeout`: what it waited for.
    NoLock(String),
    /// A box that is out has waited long enough under its lock, for this.
    NotYet(String),
    /// Another deploy rolls, and this work by hand is none of its.
    Rolling,
    /// The worker was told to stop.
    Shutdown,
    /// The whole machine goes down while the box is out.
    PowerOff,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Release(reason) | Self::UnknownTag(reason) => f.write_str(reason),
            Self::Box(error) => write!(f, "{error:#}"),
            Self::Cancelled(cancel) => f.write_str(&describe(cancel)),
            Self::Superseded => f.write_str("a newer deploy took its place"),
            Self::Ended => f.write_str("the deploy is over"),
            Self::NoLock(what) => write!(f, "no lock within lock_timeout; it waited for {what}"),
            Self::NotYet(what) => write!(f, "waited under its lock for {what}"),
            Self::Rolling => f.write_str("another deploy is rolling"),
            Self::Shutdown => f.write_str("the worker was told to stop"),
            Self::PowerOff => f.write_str("the machine goes down"),
        }
    }
}

impl From<UpFailure> for StepError {
    fn from(failure: UpFailure) -> Self {
        match failure {
            UpFailure::Release(reason) => Self::Release(reason),
            UpFailure::Box(error) => Self::Box(error),
        }
    }
}

impl From<HealthFailure> for StepError {
    fn from(failure: HealthFailure) -> Self {
        match failure {
            HealthFailure::Unhealthy(reason) => Self::Release(reason),
            HealthFailure::Engine(error) => Self::Box(error),
        }
    }
}

impl From<Error> for StepError {
    fn from(error: Error) -> Self {
        Self::Box(error)
    }
}

/// How a box's part in a deploy went.
#[derive(Debug)]
pub enum Outcome {
    /// It runs the release, in service.
    Done(Tag),
    /// Its part was over already.
    Nothing(String),
    /// The box or the infrastructure failed.
    Failed(Error),
    /// Stopped: by whom and why.
    Cancelled(String),
    /// The release is broken: why.
    Broken(String),
    /// No lock in time.
    NoLock(String),
    /// Another deploy rolls.
    Rolling,
    /// Ask the service again: something newer is current.
    Again,
}

impl Outcome {
    /// The command's end: its exit code, or an error that carries it.
    pub fn into_exit(self) -> Result<Exit, Error> {
        let (exit, text) = match self {
            Self::Done(_) | Self::Nothing(_) | Self::Again => return Ok(Exit::Done),
            Self::Failed(error) => return Err(error),
            Self::Cancelled(why) => (Exit::Cancelled, why),
            Self::Broken(why) => (Exit::Broken, why),
            Self::NoLock(what) => (Exit::NoLock, format!("no lock within lock_timeout; it waited for {what}")),
            Self::Rolling => (
                Exit::Blocked,
                "a deploy is rolling: join it with `deployctl run` without a tag, or try again after it".to_owned(),
            ),
        };
        Err(exit.because(anyhow::anyhow!(text)))
    }
}

/// A cancel, for people.
#[must_use]
pub fn describe(cancel: &Cancel) -> String {
    let what = if cancel.broken { "the release is broken" } else { "the deploy was cancelled" };
    format!("{what}: {} (by {})", cancel.reason, cancel.by)
}
