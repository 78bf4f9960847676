//! What a browser does: keeps cookies, says where a form comes from, and follows nothing by itself.

use std::{collections::BTreeMap, time::Duration};

use crate::service::setup::Service;

/// A browser with one page open.
pub struct Browser {
    agent: ureq::Agent,
    /// Where the service is.
    base: String,
    /// What it sends as `Host` and in `Origin`.
    pub host: String,
    pub scheme: &'static str,
    pub cookies: BTreeMap<String, String>,
    /// Headers that are sent besides.
    pub headers: Vec<(&'static str, String)>,
}

/// An answer.
#[derive(Debug)]
pub struct Page {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub text: String,
}

impl Page {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    /// The value of a field in the first form that has it.
    #[track_caller]
    pub fn field(&self, name: &str) -> String {
        let marker = format!("name=\"{name}\" value=\"");
        let rest = self.text.split_once(&marker).unwrap_or_else(|| panic!("no field {name} in {}", self.text)).1;
        rest.split('"').next().unwrap().to_owned()
    }

    #[track_caller]
    pub fn shows(&self, text: &str) {
        assert!(self.text.contains(text), "no {text:?} in {}", self.text);
    }

    #[track_caller]
    pub fn hides(&self, text: &str) {
        assert!(!self.text.contains(text), "{text:?} in {}", self.text);
    }
}

impl Browser {
    pub fn new(service: &Service) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_secs(10)))
            .build();
        let host = format!("127.0.0.1:{}", service.port);
        let base = format!("http://{host}");
        Self { agent: config.into(), base, host, scheme: "http", cookies: BTreeMap::new(), headers: Vec::new() }
    }

    /// With a session by this token.
    #[track_caller]
    pub fn signed_in(service: &Service, token: &str) -> Self {
        let mut browser = Self::new(service);
        let answer = browser.submit("/login", &[("token", token)]);
        assert_eq!(answer.status, 303, "{answer:?}");
        browser
    }

    pub fn get(&mut self, path: &str) -> Page {
        let mut request = self.agent.get(format!("{}{path}", self.base)).header("Host", &self.host);
        for (name, value) in self.sent() {
            request = request.header(name, value);
        }
        let answer = request.call().unwrap();
        self.keep(answer)
    }

    /// Sends a form of a page of this service.
    pub fn submit(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let origin = format!("{}://{}", self.scheme, self.host);
        self.submit_from(Some(&origin), path, fields)
    }

    /// Sends a form that says where it comes from.
    pub fn submit_from(&mut self, origin: Option<&str>, path: &str, fields: &[(&str, &str)]) -> Page {
        let mut request = self.agent.post(format!("{}{path}", self.base)).header("Host", &self.host);
        for (name, value) in self.sent() {
            request = request.header(name, value);
        }
        if let Some(origin) = origin {
            request = request.header("Origin", origin);
        }
        let answer = request.send_form(fields.iter().copied()).unwrap();
        self.keep(answer)
    }

    fn sent(&self) -> Vec<(&'static str, String)> {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut headers = self.headers.clone();
        if !cookies.is_empty() {
            headers.push(("Cookie", cookies.join("; ")));
        }
        headers
    }

    fn keep(&mut self, mut answer: ureq::http::Response<ureq::Body>) -> Page {
        let text = |value: &ureq::http::HeaderValue| value.to_str().unwrap().to_owned();
        let headers: Vec<_> = answer.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        for (_, cookie) in headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            if cookie.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        Page { status: answer.status().as_u16(), headers, text: answer.body_mut().read_to_string().unwrap() }
    }
}
