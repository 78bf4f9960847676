//! Whether the Docker engine stopped or was restarted while a box worked.
//!
//! An engine that stops ends its containers with it, and they look as if they had crashed (`exited 137`): a box that saw
//! that may blame no release. Seen afterwards there is no trace of it, so somebody has to watch. A connection to the
//! engine does: the engine holds it open for its events, and it ends with the engine. It is no child process, for one
//! would outlive a worker that is killed, and hold its file lock.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};

use super::commands;
use crate::process::{self, never};

/// How long the engine may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The events that are asked for: the fewest.
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22daemon%22%5D%7D";

/// Watches the engine from its making on.
#[derive(Debug)]
pub struct EngineWatch {
    endpoint: Endpoint,
    connection: Connection,
}

impl EngineWatch {
    /// Begins to watch the engine that `docker` speaks to. An error also for one that is reached through TLS or SSH,
    /// which cannot be watched: then nobody may be blamed.
    pub fn start() -> Result<Self> {
        let host = process::run(&commands::endpoint(), &never).context("cannot tell where the Docker engine is")?;
        Self::at(host.stdout.trim())
    }

    /// Begins to watch the engine at `host`, as in `DOCKER_HOST`.
    pub fn at(host: &str) -> Result<Self> {
        let endpoint = Endpoint::parse(host)?;
        let connection = endpoint.get(EVENTS).with_context(|| format!("cannot watch the Docker engine at {host}"))?;
        connection.set_nonblocking().context("cannot watch the Docker engine")?;
        Ok(Self { endpoint, connection })
    }

    /// Whether the engine stopped, is stopping, or was restarted since. To be asked last, right before blaming: an engine
    /// ends its containers some seconds before itself.
    #[must_use]
    pub fn was_interrupted(&self) -> bool {
        self.connection.has_ended() || self.endpoint.get("/_ping").is_err()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Endpoint {
    Unix(PathBuf),
    Tcp(String),
}

impl Endpoint {
    fn parse(host: &str) -> Result<Self> {
        if let Some(path) = host.strip_prefix("unix://") {
            return Ok(Self::Unix(path.into()));
        }
        match host.strip_prefix("tcp://") {
            Some(address) => Ok(Self::Tcp(address.trim_end_matches('/').to_owned())),
            None => bail!("a Docker engine at {host:?} cannot be watched: only unix:// and tcp:// can"),
        }
    }

    fn connect(&self) -> io::Result<Connection> {
        match self {
            Self::Unix(path) => UnixStream::connect(path).map(Connection::Unix),
            Self::Tcp(address) => TcpStream::connect(address).map(Connection::Tcp),
        }
    }

    /// Asks, and gives the connection back once the engine has said 200.
    fn get(&self, path: &str) -> Result<Connection> {
        let connection = self.connect()?;
        connection.set_timeouts()?;
        connection.write_all(format!("GET {path} HTTP/1.1\r\nHost: docker\r\n\r\n").as_bytes())?;
        let mut status = [0; 12];
        connection.read_exact(&mut status)?;
        match status.strip_prefix(b"HTTP/1.1 ") {
            Some(b"200") => Ok(connection),
            _ => Err(anyhow!("it answered {:?}", String::from_utf8_lossy(&status))),
        }
    }
}

#[derive(Debug)]
enum Connection {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Connection {
    fn set_timeouts(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(ANSWER))?;
                stream.set_write_timeout(Some(ANSWER))
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(ANSWER))?;
                stream.set_write_timeout(Some(ANSWER))
            }
        }
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_nonblocking(true),
            Self::Tcp(stream) => stream.set_nonblocking(true),
        }
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(stream) => (&*stream).write_all(bytes),
            Self::Tcp(stream) => (&*stream).write_all(bytes),
        }
    }

    fn read_exact(&self, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Unix(stream) => (&*stream).read_exact(buffer),
            Self::Tcp(stream) => (&*stream).read_exact(buffer),
        }
    }

    /// Reads what has come, until there is nothing more or the end.
    fn has_ended(&self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            let read = match self {
                Self::Unix(stream) => (&*stream).read(&mut buffer),
                Self::Tcp(stream) => (&*stream).read(&mut buffer),
            };
            match read {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return e.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_local_or_plain() {
        let unix = Endpoint::parse("unix:///var/run/docker.sock").unwrap();
        assert_eq!(unix, Endpoint::Unix(PathBuf::from("/var/run/docker.sock")));
        assert_eq!(Endpoint::parse("tcp://10.0.0.1:2375").unwrap(), Endpoint::Tcp("10.0.0.1:2375".to_owned()));
        assert!(Endpoint::parse("ssh://box").unwrap_err().to_string().contains("cannot be watched"));
    }

    #[test]
    fn an_engine_that_is_not_there_cannot_be_watched() {
        let error = EngineWatch::at("unix:///nowhere/docker.sock").unwrap_err();
        assert!(error.to_string().contains("unix:///nowhere/docker.sock"), "{error}");
    }
}
