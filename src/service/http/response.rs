//! One answer.

use http_body_util::Full;
use hyper::{
    StatusCode,
    body::Bytes,
    header::{self, HeaderValue},
};
use serde::Serialize;

use crate::api::{ErrorBody, ErrorDetail};

/// An answer: a status and a text.
#[derive(Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    content_type: &'static str,
    /// The methods that the path knows, when the status is 405.
    allow: Option<String>,
    /// The text.
    pub body: String,
}

impl Response {
    /// JSON.
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        match serde_json::to_string(value) {
            Ok(body) => Self { status, content_type: "application/json", allow: None, body: body + "\n" },
            Err(error) => Self::error(500, "internal", &format!("cannot write the answer: {error}")),
        }
    }

    /// Text in Prometheus's exposition format.
    #[must_use]
    pub fn metrics(body: String) -> Self {
        Self { status: 200, content_type: "text/plain; version=0.0.4; charset=utf-8", allow: None, body }
    }

    /// An error in the shape that all errors have.
    #[must_use]
    pub fn error(status: u16, kind: &str, message: &str) -> Self {
        let detail = ErrorDetail { kind: kind.to_owned(), message: message.to_owned() };
        Self::json(status, &ErrorBody { error: detail })
    }

    /// The path is there, the method is not.
    #[must_use]
    pub fn method_not_allowed(method: &str, allow: &str) -> Self {
        let message = format!("{method} is not for this path: use {allow}");
        Self { allow: Some(allow.to_owned()), ..Self::error(405, "method_not_allowed", &message) }
    }

    /// For hyper, which adds the length and the date.
    pub(super) fn into_hyper(self) -> hyper::Response<Full<Bytes>> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = hyper::Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(Ok(allow)) = self.allow.map(HeaderValue::try_from) {
            headers.insert(header::ALLOW, allow);
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // What is left of a body that was refused is not read: the connection ends with the answer.
        if matches!(self.status, 408 | 411 | 413) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
