//! Whether the Docker engine stopped or was restarted while a box worked, and when something happened to its containers.
//!
//! An engine that stops ends its containers with it, and they look as if they had crashed (`exited 137`): a box that saw
//! that may blame no release. Seen afterwards there is no trace of it, so somebody has to watch. A connection to the
//! engine does: the engine holds it open for its events, and it ends with the engine. It is no child process, for one
//! would outlive a worker that is killed, and hold its file lock.

use std::{
    io::{self, Read as _, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

use super::endpoint::{Endpoint, EngineStream};
use crate::sleep::sleep;

/// How long the engine may take to answer.
const EVENTS_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon an event is noticed.
const NOTICE: Duration = Duration::from_millis(50);

/// Watches the engine from its making on.
#[derive(Debug)]
pub struct EngineWatch {
    endpoint: Endpoint,
    connection: EngineStream,
}

impl EngineWatch {
    /// Begins to watch the engine at `host`, as in `DOCKER_HOST`, and the containers of a compose project.
    pub fn at(host: &str, project: &str) -> Result<Self> {
        Self::start(Endpoint::parse(host)?, &super::label(project))
    }

    /// Begins to watch the engine, and the containers that have this label.
    pub(super) fn start(endpoint: Endpoint, label: &str) -> Result<Self> {
        let filters = serde_json::json!({
            "type": ["container"],
            "label": [label],
            "event": ["create", "start", "die", "oom", "health_status", "destroy"],
        });
        let query =
            form_urlencoded::Serializer::new(String::new()).append_pair("filters", &filters.to_string()).finish();
        let connection = get(&endpoint, &format!("/events?{query}"))
            .with_context(|| format!("cannot watch the Docker engine at {endpoint}"))?;
        connection.set_nonblocking(true).context("cannot watch the Docker engine")?;
        Ok(Self { endpoint, connection })
    }

    /// Whether the engine stopped, is stopping, or was restarted since. To be asked last, right before blaming: an engine
    /// ends its containers some seconds before itself.
    #[must_use]
    pub fn was_interrupted(&self) -> bool {
        self.take_events().is_err() || get(&self.endpoint, "/_ping").is_err()
    }

    /// Waits until something has happened to a container, for `most` at most, and for all of it when the engine has ended.
    /// False as soon as `interrupted` answers true.
    #[must_use]
    pub(in crate::compose) fn wait_for_event(&self, most: Duration, interrupted: &dyn Fn() -> bool) -> bool {
        let started = Instant::now();
        loop {
            if self.take_events().unwrap_or(false) {
                return !interrupted();
            }
            let left = most.saturating_sub(started.elapsed());
            if left.is_zero() || !sleep(left.min(NOTICE), interrupted) {
                return !interrupted();
            }
        }
    }

    /// Reads what has come, and says whether anything has. An error when the connection has ended.
    fn take_events(&self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        let mut any = false;
        loop {
            match (&self.connection).read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => any = true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                Err(e) => return Err(e),
            }
        }
    }
}

/// Asks, and gives the connection back once the engine has said 200.
fn get(endpoint: &Endpoint, path: &str) -> Result<EngineStream> {
    let connection = endpoint.connect(EVENTS_TIMEOUT)?;
    (&connection).write_all(format!("GET {path} HTTP/1.1\r\nHost: docker\r\n\r\n").as_bytes())?;
    let mut status = [0; 12];
    (&connection).read_exact(&mut status)?;
    match status.strip_prefix(b"HTTP/1.1 ") {
        Some(b"200") => Ok(connection),
        _ => Err(anyhow!("it answered {:?}", String::from_utf8_lossy(&status))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_is_not_there_cannot_be_watched() {
        let error = EngineWatch::start(Endpoint::Unix("/nowhere/docker.sock".into()), "a=b").unwrap_err();
        assert!(error.to_string().contains("unix:///nowhere/docker.sock"), "{error}");
    }
}
