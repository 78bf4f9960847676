//! How a command ends: the documented exit codes, and errors that carry one.

use std::{error::Error as StdError, fmt};

use crate::client;

/// The exit codes that scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nothing to do.
    Done,
    /// This box or the infrastructure failed.
    Failed,
    /// Bad usage, configuration or payload; nothing was changed.
    Usage,
    /// The deploy was cancelled.
    Cancelled,
    /// The release is broken.
    Broken,
    /// No lock in time.
    NoLock,
    /// Frozen, outside its window, or another deploy is rolling.
    Blocked,
    /// Somebody pressed Ctrl-C while watching.
    Interrupted,
}

impl Exit {
    /// The number that the shell sees.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Cancelled => 3,
            Self::Broken => 4,
            Self::NoLock => 5,
            Self::Blocked => 6,
            Self::Interrupted => 130,
        }
    }

    /// Makes `error` end the command with this code; its text stays as it is.
    #[must_use]
    pub fn because(self, error: impl Into<anyhow::Error>) -> anyhow::Error {
        anyhow::Error::new(Coded { exit: self, error: error.into() })
    }

    /// The code that `error` ends the command with: what [`Exit::because`] said, what the service's answer means, else
    /// a failure.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        if let Some(coded) = error.downcast_ref::<Coded>() {
            coded.exit
        } else if let Some(error) = error.downcast_ref::<client::Error>() {
            match error.kind() {
                Some("frozen" | "rolling" | "outside_window") => Self::Blocked,
                Some("bad_request" | "too_large") => Self::Usage,
                _ => Self::Failed,
            }
        } else {
            Self::Failed
        }
    }
}

/// An error with its exit code. Displays as the error itself, so that the chain reads as if it were not there.
#[derive(Debug)]
struct Coded {
    exit: Exit,
    error: anyhow::Error,
}

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl StdError for Coded {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.chain().nth(1)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn a_code_survives_further_context() {
        let error = Exit::Usage.because(anyhow!("inner").context("outer"));
        let error = Err::<(), _>(error).context("reading the payload").unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Usage);
        assert_eq!(format!("{error:#}"), "reading the payload: outer: inner");
    }

    #[test]
    fn a_script_learns_from_what_the_service_said() {
        let codes = ["rolling", "frozen", "outside_window", "bad_request", "not_found", "no_box"].map(|kind| {
            let refused = client::Error::Refused { status: 409, kind: kind.to_owned(), message: "no".to_owned() };
            Exit::of(&refused.into()).code()
        });
        assert_eq!(codes, [6, 6, 6, 2, 1, 1]);
    }

    #[test]
    fn an_error_without_a_code_is_a_failure() {
        assert_eq!(Exit::of(&anyhow!("x")), Exit::Failed);
    }
}
