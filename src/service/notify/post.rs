//! HTTP for the targets. No secret reaches an error: neither the address of a Slack channel nor a token, also where an
//! answer repeats it.

use std::time::Duration;

use super::text::short;
use crate::secret::Secret;

/// How long a target may take.
const TARGET_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes.
const ANSWER_LIMIT: u64 = 4 * 1024 * 1024;
/// The longest part of an answer that an error shows.
const SHOWN: usize = 200;

/// Why a notification was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The service stops: nothing is known of it.
    Stopped,
    /// It is to be tried again.
    No {
        /// Why not.
        why: String,
        /// For how long the target wants to be left alone.
        wait: Option<Duration>,
    },
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Self::No { why: format!("{error:#}"), wait: None }
    }
}

/// One request.
pub struct Call<'a> {
    /// `GET`, `POST` or `PUT`.
    pub method: &'static str,
    /// The whole address.
    pub url: &'a str,
    /// Headers beside the content type.
    pub headers: &'a [(&'static str, &'a str)],
    /// JSON.
    pub body: Option<&'a str>,
    /// What no error may show.
    pub secret: &'a Secret,
}

impl Call<'_> {
    /// The answer's text, if the target said that all is well.
    pub fn make(&self) -> Result<String, Refused> {
        let host = self.url.split('/').nth(2).unwrap_or_default();
        let no = |why: String, wait| Refused::No { why: self.masked(&format!("{host} {why}")), wait };
        let mut answer = self.send().map_err(|error| no(format!("cannot be asked: {error}"), None))?;
        let status = answer.status();
        let header = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let text = answer.body_mut().with_config().limit(ANSWER_LIMIT).read_to_string();
        if !status.is_success() {
            let said = text.unwrap_or_default();
            return Err(no(
                format!("answered {}: {}", status.as_u16(), short(&said, SHOWN)),
                header.map(Duration::from_secs),
            ));
        }
        text.map_err(|error| no(format!("answered half: {error}"), None))
    }

    fn send(&self) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // Who is sent elsewhere must not take a secret along.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(TARGET_TIMEOUT))
            .user_agent("deployctl")
            .build()
            .into();
        let mut request = ureq::http::Request::builder().method(self.method).uri(self.url);
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        match self.body {
            Some(body) => agent.run(request.header("content-type", "application/json").body(body.to_owned())?),
            None => agent.run(request.body(())?),
        }
    }

    fn masked(&self, text: &str) -> String {
        let secret = self.secret.expose();
        let path = secret.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| path);
        let parts = [Some(secret), path].into_iter().flatten().filter(|part| part.len() > 3);
        parts.fold(text.to_owned(), |text, part| text.replace(part, "***"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_repeats_a_secret_is_masked() {
        let secret = Secret::new("https://hooks.slack.example/services/T0/B0/xyz");
        let call = Call { method: "POST", url: secret.expose(), headers: &[], body: None, secret: &secret };
        assert_eq!(call.masked("no /services/T0/B0/xyz here"), "no /*** here");
        assert_eq!(call.masked("bad uri https://hooks.slack.example/services/T0/B0/xyz"), "bad uri ***");
    }
}
