//! One request: read within limits, split into what routes and handlers ask for.

use std::io::{self, Read, Write};

use super::{Response, stream::Deadlined};

/// The longest request line and headers, in bytes.
const HEAD_LIMIT: usize = 16 * 1024;
/// The longest body, in bytes: evidence of a broken release is the largest, and its sender cuts it well below this.
const BODY_LIMIT: usize = 256 * 1024;
const HEADERS: usize = 64;

/// A request whose body is there.
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
}

impl Request {
    /// The first header of that name (in lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The decoded parameter of that name in the query, unless it is empty.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, value)| n == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }
}

/// Why there is no request.
pub enum ReadError {
    /// It is answered with this.
    Refused(Response),
    /// The other side is gone, or too slow.
    Lost(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        // A socket's time-out is `WouldBlock` on Linux.
        if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) {
            return refuse(408, "bad_request", "the request took too long to arrive");
        }
        Self::Lost(error)
    }
}

fn refuse(status: u16, kind: &str, message: &str) -> ReadError {
    ReadError::Refused(Response::error(status, kind, message))
}

/// Reads one request from a connection.
pub fn read(stream: &mut Deadlined<'_>) -> Result<Request, ReadError> {
    let mut bytes = Vec::with_capacity(1024);
    let mut looked_at = 0;
    let head = loop {
        // The end of the head may straddle what has been looked at before.
        let from = usize::saturating_sub(looked_at, 3);
        if let Some(at) = bytes[from..].windows(4).position(|four| four == b"\r\n\r\n") {
            break from + at + 4;
        }
        looked_at = bytes.len();
        if looked_at > HEAD_LIMIT {
            return Err(refuse(431, "too_large", "the request's head is over 16 KiB"));
        }
        read_some(stream, &mut bytes)?;
    };
    if head > HEAD_LIMIT {
        return Err(refuse(431, "too_large", "the request's head is over 16 KiB"));
    }
    let mut request = parse(&bytes[..head])?;
    let length = body_length(&request)?;
    if request.header("expect").is_some_and(|e| e.eq_ignore_ascii_case("100-continue")) {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    request.body = bytes.split_off(head);
    while request.body.len() < length {
        read_some(stream, &mut request.body)?;
    }
    request.body.truncate(length);
    Ok(request)
}

fn read_some(stream: &mut Deadlined<'_>, bytes: &mut Vec<u8>) -> Result<(), ReadError> {
    let mut buffer = [0; 8192];
    match stream.read(&mut buffer)? {
        0 => Err(ReadError::Lost(io::ErrorKind::UnexpectedEof.into())),
        count => {
            bytes.extend_from_slice(&buffer[..count]);
            Ok(())
        }
    }
}

fn parse(head: &[u8]) -> Result<Request, ReadError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let complete = parsed.parse(head).map_err(|e| refuse(400, "bad_request", &format!("not an HTTP request: {e}")))?;
    let (Some(method), Some(target), true) = (parsed.method, parsed.path, complete.is_complete()) else {
        return Err(refuse(400, "bad_request", "not an HTTP request"));
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let bad_escape = || refuse(400, "bad_request", "the request's path has an escape that is not %XX of UTF-8");
    Ok(Request {
        method: method.to_owned(),
        path: path
            .trim_matches('/')
            .split('/')
            .map(|s| decode(s, false))
            .collect::<Option<_>>()
            .ok_or_else(bad_escape)?,
        query: pairs(query).ok_or_else(bad_escape)?,
        headers: parsed
            .headers
            .iter()
            .map(|h| (h.name.to_ascii_lowercase(), String::from_utf8_lossy(h.value).into_owned()))
            .collect(),
        body: Vec::new(),
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
fn body_length(request: &Request) -> Result<usize, ReadError> {
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

    fn parsed(head: &str) -> Result<Request, u16> {
        let request = parse(head.as_bytes()).map_err(status)?;
        body_length(&request).map_err(status)?;
        Ok(request)
    }

    fn status(error: ReadError) -> u16 {
        match error {
            ReadError::Refused(response) => response.status,
            ReadError::Lost(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_request_is_split_and_decoded() {
        let request =
            parsed("GET /v1/locks/box-1?reason=it%20is+dead&force=&role=app HTTP/1.1\r\nX-A: b\r\n\r\n").unwrap();
        assert_eq!((request.method.as_str(), request.path.join(" ")), ("GET", "v1 locks box-1".to_owned()));
        assert_eq!((request.param("reason"), request.param("force")), (Some("it is dead"), None));
        assert_eq!((request.header("x-a"), request.param("role")), (Some("b"), Some("app")));
    }

    #[test]
    fn what_is_not_a_request_is_refused() {
        for (head, expected) in [
            ("hello\r\n\r\n", 400),
            ("GET /%zz HTTP/1.1\r\n\r\n", 400),
            ("GET /%ff HTTP/1.1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 262145\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413),
        ] {
            assert_eq!(parsed(head).unwrap_err(), expected, "{head}");
        }
    }
}
