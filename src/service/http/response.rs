//! One answer.

use std::convert::Infallible;

use http_body_util::{Either, Full, channel::Channel};
use hyper::{
    StatusCode,
    body::Bytes,
    header::{self, HeaderName, HeaderValue},
};
use serde::Serialize;

use super::{changes::Watcher, stream::Stream};
use crate::api::{ErrorBody, ErrorDetail};

/// What goes over the wire: a text that is there, or one that grows.
pub(super) type Body = Either<Full<Bytes>, Channel<Bytes, Infallible>>;

/// An answer: a status and a text.
#[derive(Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    headers: Vec<(HeaderName, String)>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Text(String),
    Events(Watcher),
    Stream(Stream),
}

impl Response {
    /// A text of this content type.
    #[must_use]
    pub fn text(status: u16, content_type: &str, text: impl Into<String>) -> Self {
        let headers = vec![(header::CONTENT_TYPE, content_type.to_owned())];
        Self { status, headers, content: Content::Text(text.into()) }
    }

    /// JSON.
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        match serde_json::to_string(value) {
            Ok(body) => Self::text(status, "application/json", body + "\n"),
            Err(error) => Self::error(500, "internal", &format!("cannot write the answer: {error}")),
        }
    }

    /// Text in Prometheus's exposition format.
    #[must_use]
    pub fn metrics(body: String) -> Self {
        Self::text(200, "text/plain; version=0.0.4; charset=utf-8", body)
    }

    /// Server-sent events, for as long as `watcher` watches.
    #[must_use]
    pub fn events(watcher: Watcher) -> Self {
        Self { content: Content::Events(watcher), ..Self::event_stream() }
    }

    /// Server-sent events, for as long as `stream` tells something.
    #[must_use]
    pub fn stream(stream: Stream) -> Self {
        Self { content: Content::Stream(stream), ..Self::event_stream() }
    }

    fn event_stream() -> Self {
        // nginx keeps an answer back until it has gathered some of it, unless it is told not to.
        Self::text(200, "text/event-stream", "").header("x-accel-buffering", "no")
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
        Self::error(405, "method_not_allowed", &message).header("allow", allow)
    }

    /// With one more header, its name in lower case. A value that no header can have is left out.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((HeaderName::from_static(name), value.into()));
        self
    }

    /// The text; of a stream, none.
    #[must_use]
    pub fn body(&self) -> &str {
        match &self.content {
            Content::Text(text) => text,
            Content::Events(_) | Content::Stream(_) => "",
        }
    }

    /// For hyper, which adds the length and the date.
    pub(super) fn into_hyper(self) -> hyper::Response<Body> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = match self.content {
            Content::Text(text) => Either::Left(Full::new(Bytes::from(text))),
            Content::Events(watcher) => Either::Right(watcher.stream()),
            Content::Stream(stream) => Either::Right(stream.begin()),
        };
        let mut response = hyper::Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
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
