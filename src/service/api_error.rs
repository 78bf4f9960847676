//! Errors of the API: a machine word and a status for programs, a line for people.

use super::http::Response;
use crate::coordination::RedisError;

/// A machine word of an error; clients decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request itself is wrong.
    BadRequest,
    /// No token, or one that is not known.
    Unauthorized,
    /// The token may not do this.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The release is broken.
    Broken,
    /// The release is completely deployed there, so that it cannot be blamed.
    Deployed,
    /// The box that blames a release has no unfinished part in the deploy.
    NotWorking,
    /// The tag is known, and was built from another commit.
    OtherCommit,
    /// The release was rolled back from.
    Withheld,
    /// The environment is frozen.
    Frozen,
    /// No window of the environment is open.
    OutsideWindow,
    /// A gate does not let it pass.
    Gate,
    /// No live box runs the role there.
    NoBox,
    /// A deploy is rolling.
    Rolling,
    /// There is nothing to go back to.
    NoGoodRelease,
    /// The deploy has ended.
    Ended,
    /// The deploy is paused already.
    Paused,
    /// The deploy is not paused.
    NotPaused,
    /// The lock's holder renews it.
    Renewed,
    /// The token has done this too often.
    TooMany,
    /// Redis or the Serf agent does not answer.
    Unavailable,
    /// A fault of ours.
    Internal,
}

impl ErrorKind {
    pub fn word(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Broken => "broken",
            Self::Deployed => "deployed",
            Self::NotWorking => "not_working",
            Self::OtherCommit => "other_commit",
            Self::Withheld => "withheld",
            Self::Frozen => "frozen",
            Self::OutsideWindow => "outside_window",
            Self::Gate => "gate",
            Self::NoBox => "no_box",
            Self::Rolling => "rolling",
            Self::NoGoodRelease => "no_good_release",
            Self::Ended => "ended",
            Self::Paused => "paused",
            Self::NotPaused => "not_paused",
            Self::Renewed => "renewed",
            Self::TooMany => "too_many",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Broken
            | Self::Deployed
            | Self::NotWorking
            | Self::OtherCommit
            | Self::Withheld
            | Self::Frozen
            | Self::OutsideWindow
            | Self::Gate
            | Self::NoBox
            | Self::Rolling
            | Self::NoGoodRelease
            | Self::Ended
            | Self::Paused
            | Self::NotPaused
            | Self::Renewed => 409,
            Self::TooMany => 429,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }
}

/// A call that is refused, or that failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// For machines.
    pub kind: ErrorKind,
    /// One line for a person: names the thing and the next act.
    pub message: String,
}

impl ApiError {
    /// Refuses with this line.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// What handlers and decisions return.
pub type ApiResult<T> = Result<T, ApiError>;

impl From<anyhow::Error> for ApiError {
    fn from(error: anyhow::Error) -> Self {
        let kind = if RedisError::is_transient(&error) { ErrorKind::Unavailable } else { ErrorKind::Internal };
        Self::new(kind, format!("{error:#}"))
    }
}

impl From<ApiError> for Response {
    fn from(refusal: ApiError) -> Self {
        if matches!(refusal.kind, ErrorKind::Unavailable | ErrorKind::Internal) {
            log::error!("{}", refusal.message);
        }
        Self::error(refusal.kind.status(), refusal.kind.word(), &refusal.message)
    }
}
