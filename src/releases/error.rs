//! Why a call failed, what it means to a person and to a script, and when asking again helps.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{
    exit::Exit,
    pause::{jittered, pause},
};

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// No answer: nobody listens, the network is down, or a deadline passed.
    Unreachable {
        /// The service.
        url: String,
        /// What the system said.
        cause: String,
    },
    /// The service said no.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The machine word: `broken`, `frozen`, `rolling`, `no_box`, `not_found`, …
        kind: String,
        /// One line for a person.
        message: String,
    },
    /// An answer that no deployment service gives.
    Nonsense {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        cause: String,
    },
}

impl Error {
    pub(super) fn unreachable(url: &str, cause: &dyn ToString) -> Self {
        Self::Unreachable { url: url.to_owned(), cause: cause.to_string() }
    }

    /// The machine word, where the service said no.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        match self {
            Self::Refused { kind, .. } => Some(kind),
            _ => None,
        }
    }

    /// What it means as an exit code, where nothing more is known.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.kind() {
            Some("frozen" | "rolling") => Exit::Blocked,
            Some("bad_request" | "too_large") => Exit::Usage,
            _ => Exit::Failed,
        }
    }

    /// Whether the service may answer when it is asked again: it, or its Redis, is away for the moment.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            Self::Nonsense { .. } => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { url, cause } => write!(
                f,
                "the deployment service {url} does not answer ({cause}): see that it runs, or name another with DEPLOYCTL_SERVICE_URL"
            ),
            Self::Refused { message, .. } => f.write_str(message),
            Self::Nonsense { url, cause } => write!(
                f,
                "{url} does not answer as a deployment service ({cause}): see DEPLOYCTL_SERVICE_URL, and that both are of one version"
            ),
        }
    }
}

impl std::error::Error for Error {}

/// Asks again, with backoff and jitter, while the error may pass, for at most `patience`, and not once `interrupted`
/// answers true. Only for calls that may arrive twice.
pub fn retrying<T>(
    patience: Duration,
    interrupted: &dyn Fn() -> bool,
    mut call: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let deadline = Instant::now() + patience;
    let mut wait = Duration::from_millis(200);
    loop {
        let error = match call() {
            Err(error) if error.may_pass() => error,
            answer => return answer,
        };
        if Instant::now() + wait > deadline || !pause(jittered(wait), interrupted) {
            return Err(error);
        }
        log::warn!("{error}; asking again");
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> Error {
        Error::unreachable("http://127.0.0.1:1", &"refused")
    }

    fn refused(status: u16, kind: &str) -> Error {
        Error::Refused { status, kind: kind.to_owned(), message: "no".to_owned() }
    }

    #[test]
    fn what_may_pass_is_asked_again_and_nothing_else() {
        let ask = |answers: &mut Vec<Result<u8, Error>>| {
            retrying(Duration::from_secs(5), &|| false, || answers.pop().unwrap_or(Ok(0)))
        };
        assert_eq!(ask(&mut vec![Ok(7), Err(refused(503, "unavailable")), Err(away())]), Ok(7));
        assert_eq!(ask(&mut vec![Ok(7), Err(refused(409, "broken"))]), Err(refused(409, "broken")));
        assert_eq!(retrying(Duration::ZERO, &|| false, || Err::<(), _>(away())), Err(away()));
        assert_eq!(retrying(Duration::MAX / 4, &|| true, || Err::<(), _>(away())), Err(away()));
    }

    #[test]
    fn a_script_learns_from_the_code() {
        let codes =
            ["rolling", "frozen", "bad_request", "not_found", "no_box"].map(|kind| refused(409, kind).exit().code());
        assert_eq!(codes, [6, 6, 2, 1, 1]);
        assert_eq!(away().exit().code(), 1);
    }
}
