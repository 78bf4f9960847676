//! One request: read within limits, split into what routes and handlers ask for.

use std::{net::IpAddr, time::Duration};

use http_body_util::{BodyExt as _, Limited};
use hyper::{Method, body::Incoming, http::request::Parts};
use tokio::time::timeout;

use super::Response;

/// The longest request line and headers, in bytes.
pub const HEAD_LIMIT: usize = 16 * 1024;
/// The longest body, in bytes: evidence of a broken release is the largest, and its sender cuts it well below this.
const BODY_LIMIT: usize = 256 * 1024;

/// A request whose body is there. Handlers may be given one that no client has sent.
#[derive(Debug, Default)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// The decoded segments of the path.
    pub path: Vec<String>,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    /// As it came.
    pub body: Vec<u8>,
    /// The other end of the connection; a proxy in front stands for its clients.
    pub peer: Option<IpAddr>,
}

impl Request {
    /// A call that no client has sent: its path, its query and its body.
    #[must_use]
    pub fn call(method: &str, path: &[&str], query: &[(&str, &str)], body: &[u8]) -> Self {
        Self {
            method: method.to_owned(),
            path: path.iter().map(|&part| part.to_owned()).collect(),
            query: query.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            body: body.to_vec(),
            ..Self::default()
        }
    }

    pub(super) fn sent_by(self, peer: IpAddr) -> Self {
        Self { peer: Some(peer), ..self }
    }

    /// The first header of that name (in lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The header of that name (in lower case), if there is one and no other: of two, one may be a client's and one a
    /// proxy's.
    #[must_use]
    pub fn only_header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n == name);
        let (_, value) = found.next()?;
        found.next().is_none().then_some(value)
    }

    /// The cookie of that name.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let cookies = self.headers.iter().filter(|(n, _)| n == "cookie").flat_map(|(_, value)| value.split(';'));
        cookies.filter_map(|cookie| cookie.trim().split_once('=')).find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// The fields of a form that a page has sent (`application/x-www-form-urlencoded`).
    #[must_use]
    pub fn form(&self) -> Option<Form> {
        let kind = self.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
        let is_form = kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded");
        let text = is_form.then(|| std::str::from_utf8(&self.body).ok())??;
        pairs(text).map(Form)
    }

    /// The decoded parameter of that name in the query, unless it is empty.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, value)| n == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }
}

/// The fields of a form.
#[derive(Debug)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// The first field of that name, without spaces around it; empty where there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value.trim())
    }
}

/// Reads what hyper has of a request, and its body within `patience`. A refusal is the answer to send.
pub async fn read(incoming: hyper::Request<Incoming>, patience: Duration) -> Result<Request, Response> {
    let (head, body) = incoming.into_parts();
    let mut request = parse(&head)?;
    let length = body_length(&request)?;
    if length > 0 {
        let collected = timeout(patience, Limited::new(body, BODY_LIMIT).collect()).await;
        let Ok(arrived) = collected else {
            return Err(refuse(408, "bad_request", "the request took too long to arrive"));
        };
        let body = arrived.map_err(|error| refuse(400, "bad_request", &format!("the body did not arrive: {error}")))?;
        request.body = body.to_bytes().to_vec();
    }
    Ok(request)
}

fn refuse(status: u16, kind: &str, message: &str) -> Response {
    Response::error(status, kind, message)
}

fn parse(head: &Parts) -> Result<Request, Response> {
    let bad_escape = || refuse(400, "bad_request", "the request's path has an escape that is not %XX of UTF-8");
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    Ok(Request {
        // hyper sends the answer to HEAD without its body.
        method: if head.method == Method::HEAD { Method::GET.to_string() } else { head.method.to_string() },
        path: head
            .uri
            .path()
            .trim_matches('/')
            .split('/')
            .map(|s| decode(s, false))
            .collect::<Option<_>>()
            .ok_or_else(bad_escape)?,
        query: pairs(head.uri.query().unwrap_or_default()).ok_or_else(bad_escape)?,
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect(),
        body: Vec::new(),
        peer: None,
    })
}

fn pairs(query: &str) -> Option<Vec<(String, String)>> {
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        Some((decode(name, true)?, decode(value, true)?))
    };
    query.split('&').filter(|text| !text.is_empty()).map(pair).collect()
}

/// Undoes percent-encoding, and in a query also `+` for a space.
fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let value = digit(rest.next())? * 16 + digit(rest.next())?;
                u8::try_from(value).ok()?
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// How long the body is. Two lengths, or a length and chunks, are how requests get smuggled past proxies.
fn body_length(request: &Request) -> Result<usize, Response> {
    if request.header("transfer-encoding").is_some() {
        return Err(refuse(411, "bad_request", "send the body with Content-Length, not in chunks"));
    }
    let mut lengths = request.headers.iter().filter(|(name, _)| name == "content-length").map(|(_, value)| value);
    let Some(text) = lengths.next() else { return Ok(0) };
    if lengths.next().is_some() || text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refuse(400, "bad_request", "Content-Length must be one number"));
    }
    match text.parse() {
        Ok(length) if length <= BODY_LIMIT => Ok(length),
        _ => Err(refuse(413, "too_large", "the request's body is over 256 KiB")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<Request, u16> {
        let mut builder = hyper::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let (head, ()) = builder.body(()).unwrap().into_parts();
        let request = parse(&head).map_err(|refusal| refusal.status)?;
        body_length(&request).map_err(|refusal| refusal.status)?;
        Ok(request)
    }

    #[test]
    fn a_request_is_split_and_decoded() {
        let request = parsed("GET", "/v1/locks/box-1?reason=it%20is+dead&force=&role=app", &[("X-A", "b")]).unwrap();
        assert_eq!((request.method.as_str(), request.path.join(" ")), ("GET", "v1 locks box-1".to_owned()));
        assert_eq!((request.param("reason"), request.param("force")), (Some("it is dead"), None));
        assert_eq!((request.header("x-a"), request.param("role")), (Some("b"), Some("app")));
    }

    #[test]
    fn cookies_and_forms_are_split_and_decoded() {
        let sent =
            [("Cookie", "a=1; session=x=y"), ("Content-Type", "application/x-www-form-urlencoded;charset=UTF-8")];
        let mut request = parsed("POST", "/", &sent).unwrap();
        request.body = b"reason=it+is%0Adead+&box=b%26c".to_vec();
        assert_eq!((request.cookie("session"), request.cookie("b")), (Some("x=y"), None));
        let form = request.form().unwrap();
        assert_eq!((form.get("reason"), form.get("box"), form.get("none")), ("it is\ndead", "b&c", ""));
        request.body = b"reason=%ff".to_vec();
        assert!(request.form().is_none());
        assert!(parsed("POST", "/", &[("Content-Type", "text/plain")]).unwrap().form().is_none());
        let twice = parsed("GET", "/", &[("X-User", "eve"), ("X-User", "ann"), ("X-Other", "a")]).unwrap();
        assert_eq!((twice.only_header("x-user"), twice.only_header("x-other")), (None, Some("a")));
    }

    #[test]
    fn what_is_not_a_request_is_refused() {
        for (method, uri, headers, expected) in [
            ("GET", "/%zz", vec![], 400),
            ("GET", "/%ff", vec![], 400),
            ("POST", "/", vec![("Transfer-Encoding", "chunked")], 411),
            ("POST", "/", vec![("Content-Length", "1"), ("Content-Length", "2")], 400),
            ("POST", "/", vec![("Content-Length", "-1")], 400),
            ("POST", "/", vec![("Content-Length", "262145")], 413),
            ("POST", "/", vec![("Content-Length", "99999999999999999999999")], 413),
        ] {
            assert_eq!(parsed(method, uri, &headers).unwrap_err(), expected, "{method} {uri} {headers:?}");
        }
    }
}
