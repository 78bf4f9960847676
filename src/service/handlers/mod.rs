//! What each call of the API does: checks the scope, reads the body, acts, answers. One file for each thing.

pub mod audit;
pub mod deploys;
pub mod events;
pub mod fleet_lock;
pub mod freezes;
pub mod locks;
pub mod pauses;
pub mod releases;
pub mod status;
pub mod token;

use std::str::FromStr;

use serde::de::DeserializeOwned;

use super::{
    api_error::{ApiError, ApiResult, ErrorKind},
    http::Request,
};

/// The most that a list answers with.
const LIST_LIMIT: usize = 1000;
/// The longest reason that is kept, in bytes.
pub const REASON_LIMIT: usize = 1024;

/// The body, which may be left out where every field may. Unknown fields are passed over, so that newer clients can
/// talk to older services.
fn body<T: DeserializeOwned>(request: &Request) -> ApiResult<T> {
    let bytes = if request.body.is_empty() { b"{}" } else { request.body.as_slice() };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let of = if path == "." { String::new() } else { format!("{path}: ") };
        ApiError::new(ErrorKind::BadRequest, format!("the body is not what this call takes: {of}{}", error.inner()))
    })?;
    reader.end().map_err(|e| ApiError::new(ErrorKind::BadRequest, format!("the body is not one JSON object: {e}")))?;
    Ok(read)
}

/// A part of the path, by its position.
fn segment<T: FromStr<Err: std::fmt::Display>>(request: &Request, at: usize) -> ApiResult<T> {
    let text = request.path.get(at).map_or("", String::as_str);
    text.parse().map_err(|error: T::Err| ApiError::new(ErrorKind::BadRequest, error.to_string()))
}

/// A parameter of the query, if it is there.
fn param<T: FromStr<Err: std::fmt::Display>>(request: &Request, name: &str) -> ApiResult<Option<T>> {
    let parsed = request.param(name).map(str::parse).transpose();
    parsed.map_err(|error: T::Err| ApiError::new(ErrorKind::BadRequest, format!("{name}: {error}")))
}

/// A parameter that must be there.
fn required<T: FromStr<Err: std::fmt::Display>>(request: &Request, name: &str) -> ApiResult<T> {
    param(request, name)?
        .ok_or_else(|| ApiError::new(ErrorKind::BadRequest, format!("the parameter {name} is missing: add ?{name}=…")))
}

/// How many entries the caller wants.
fn limit(request: &Request, default: usize) -> ApiResult<usize> {
    Ok(param(request, "limit")?.unwrap_or(default).min(LIST_LIMIT))
}

/// A text as it is kept: without what acts on a terminal, and at most `most` bytes of it.
pub fn cut(text: String, most: usize) -> String {
    let text = if text.chars().all(is_text) { text } else { text.chars().filter(|c| is_text(*c)).collect() };
    if text.len() <= most {
        return text;
    }
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// Containers print tabs and colours, and people paste what has returns: those lines stay readable.
fn is_text(c: char) -> bool {
    matches!(c, '\n' | '\t') || !c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Role;

    #[test]
    fn a_bad_body_is_named_by_its_field() {
        #[derive(Debug, serde::Deserialize)]
        #[allow(dead_code)]
        struct Body {
            role: Role,
        }
        let error = |text: &str| {
            let mut request = Request::default();
            request.body = text.as_bytes().to_vec();
            body::<Body>(&request).unwrap_err().message
        };
        assert!(
            error(r#"{"role": "../x"}"#).contains("role: \"../x\" is not a role"),
            "{}",
            error(r#"{"role": "../x"}"#)
        );
        assert!(error("").contains("missing field `role`"), "{}", error(""));
        assert!(error("{\"role\": \"app\"} x").contains("not one JSON object"));
        assert!(error("\u{0}").contains("the body is not what this call takes"));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("äöü".to_owned(), 3), "ä…");
        assert_eq!(cut("abc".to_owned(), 3), "abc");
        assert_eq!(cut("a\u{1b}[1m\r\n\tb\u{0}".to_owned(), 100), "a[1m\n\tb");
    }
}
