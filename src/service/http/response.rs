//! One answer.

use std::io::{self, Write};

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

    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.len()
        );
        if let Some(allow) = &self.allow {
            head.extend(["Allow: ", allow, "\r\n"]);
        }
        if self.status == 401 {
            head += "WWW-Authenticate: Bearer\r\n";
        }
        to.write_all((head + "\r\n" + &self.body).as_bytes())
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}
