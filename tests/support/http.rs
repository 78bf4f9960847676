//! A plain HTTP client for looking at what runs.

use std::time::Duration;

use serde_json::Value;

/// Talks to one base address.
#[derive(Debug, Clone)]
pub struct Http {
    base: String,
    token: Option<String>,
    agent: ureq::Agent,
}

/// Status and body.
pub type Answer = (u16, String);

impl Http {
    pub fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .build();
        Self { base: base.to_owned(), token: None, agent: config.into() }
    }

    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(format!("Bearer {token}"));
        self
    }

    /// An error is one of the connection, in words.
    pub fn try_get(&self, path: &str) -> Result<Answer, String> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", token);
        }
        let mut answer = request.call().map_err(|err| err.to_string())?;
        let body = answer.body_mut().read_to_string().map_err(|err| err.to_string())?;
        Ok((answer.status().as_u16(), body))
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, Value) {
        self.json("GET", path, self.try_get(path))
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let mut request = self.agent.post(format!("{}{path}", self.base)).header("Content-Type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("Authorization", token);
        }
        let answer = request.send(body.to_string()).map_err(|err| err.to_string()).and_then(|mut answer| {
            let body = answer.body_mut().read_to_string().map_err(|err| err.to_string())?;
            Ok((answer.status().as_u16(), body))
        });
        self.json("POST", path, answer)
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> (u16, Value) {
        let mut request = self.agent.delete(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", token);
        }
        let answer = request.call().map_err(|err| err.to_string()).and_then(|mut answer| {
            let body = answer.body_mut().read_to_string().map_err(|err| err.to_string())?;
            Ok((answer.status().as_u16(), body))
        });
        self.json("DELETE", path, answer)
    }

    #[track_caller]
    fn json(&self, method: &str, path: &str, answer: Result<Answer, String>) -> (u16, Value) {
        let (status, body) = answer.unwrap_or_else(|err| panic!("{method} {}{path}: {err}", self.base));
        let json = if body.trim().is_empty() { Ok(Value::Null) } else { serde_json::from_str(&body) };
        (status, json.unwrap_or_else(|err| panic!("{method} {path}: {err} in {body:?}")))
    }
}
