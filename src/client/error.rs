//! Why a call failed, what it means to a person and to a script, and when asking again helps.

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No answer: nobody listens, the network is down, or a deadline passed.
    #[error(
        "the deployment service {url} does not answer ({cause}): see that it runs, or name another with DEPLOYCTL_SERVICE_URL"
    )]
    Unreachable {
        /// The service.
        url: String,
        /// What the system said.
        cause: String,
    },
    /// The service said no.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The machine word: `broken`, `frozen`, `rolling`, `no_box`, `not_found`, …
        kind: String,
        /// One line for a person.
        message: String,
    },
    /// An answer that no deployment service gives.
    #[error(
        "{url} does not answer as a deployment service ({cause}): see DEPLOYCTL_SERVICE_URL, and that both are of one version"
    )]
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

    /// Whether the service may answer when it is asked again: it, or its Redis, is away for the moment.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            Self::Nonsense { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> Error {
        Error::unreachable("http://127.0.0.1:1", &"refused")
    }

    #[test]
    fn only_an_absence_may_pass() {
        let refused = |status| Error::Refused { status, kind: "x".to_owned(), message: "no".to_owned() };
        assert!(away().is_transient() && refused(503).is_transient() && !refused(409).is_transient());
    }
}
