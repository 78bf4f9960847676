//! Where the Docker engine is, found as the `docker` program finds it, and a connection to it.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::process::{self, Program, never};

/// Where an engine is unless something else is configured.
const DEFAULT: &str = "unix:///var/run/docker.sock";
/// How long `docker context` may take.
const QUESTION: Duration = Duration::from_secs(20);

/// The address of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A socket on this machine.
    Unix(PathBuf),
    /// `HOST:PORT`, without TLS.
    Tcp(String),
}

impl Endpoint {
    /// The engine that `docker` speaks to: `DOCKER_HOST`, else that of the context in use. An error for one that is
    /// reached through SSH or TLS.
    pub(super) fn find(environment: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let set = |name| environment(name).filter(|value| !value.is_empty());
        if set("DOCKER_TLS_VERIFY").is_some() {
            bail!("DOCKER_TLS_VERIFY is set, but deployctl speaks to an engine by unix:// or plain tcp:// only");
        }
        if let Some(host) = set("DOCKER_HOST") {
            return Self::parse(&host);
        }
        let folder = set("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| set("HOME").map(|home| Path::new(&home).join(".docker")))
            .unwrap_or_default();
        match set("DOCKER_CONTEXT").or_else(|| context_in_use(&folder.join("config.json"))).as_deref() {
            None | Some("" | "default") => Self::parse(DEFAULT),
            Some(_) => {
                let ask = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"];
                let host = process::run(&Program::new(QUESTION, ask), &never)
                    .context("cannot tell where the Docker engine is")?;
                Self::parse(host.stdout.trim())
            }
        }
    }

    /// Reads an address as in `DOCKER_HOST`.
    pub(super) fn parse(host: &str) -> Result<Self> {
        if let Some(path) = host.strip_prefix("unix://") {
            return Ok(Self::Unix(path.into()));
        }
        match host.strip_prefix("tcp://") {
            Some(address) => Ok(Self::Tcp(address.trim_end_matches('/').to_owned())),
            None => bail!(
                "deployctl cannot speak to a Docker engine at {host:?}: set DOCKER_HOST to one at unix:// or tcp://"
            ),
        }
    }

    /// Connects. The engine must accept within `timeout`; each read and write may take as long.
    pub(super) fn connect(&self, timeout: Duration) -> io::Result<EngineStream> {
        let connection = match self {
            Self::Unix(path) => EngineStream::Unix(UnixStream::connect(path)?),
            Self::Tcp(address) => EngineStream::Tcp(TcpStream::connect(address)?),
        };
        connection.set_timeouts(timeout, timeout)?;
        Ok(connection)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// The context that `docker context use` has written down. A file that cannot be read names none, as for `docker`.
fn context_in_use(file: &Path) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct DockerConfig {
        current_context: Option<String>,
    }
    serde_json::from_str::<DockerConfig>(&fs::read_to_string(file).ok()?).ok()?.current_context
}

/// A connection to an engine. Reading and writing need no `&mut`, as for the sockets themselves.
#[derive(Debug)]
pub(super) enum EngineStream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl EngineStream {
    /// Bounds each read and each write.
    pub(super) fn set_timeouts(&self, read: Duration, write: Duration) -> io::Result<()> {
        // A socket takes zero for an error.
        let (read, write) = (Some(read.max(SHORTEST_TIMEOUT)), Some(write.max(SHORTEST_TIMEOUT)));
        match self {
            Self::Unix(stream) => stream.set_read_timeout(read).and_then(|()| stream.set_write_timeout(write)),
            Self::Tcp(stream) => stream.set_read_timeout(read).and_then(|()| stream.set_write_timeout(write)),
        }
    }

    pub(super) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_nonblocking(nonblocking),
            Self::Tcp(stream) => stream.set_nonblocking(nonblocking),
        }
    }
}

const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);

impl Read for &EngineStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            EngineStream::Unix(stream) => (&mut &*stream).read(buffer),
            EngineStream::Tcp(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &EngineStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            EngineStream::Unix(stream) => (&mut &*stream).write(bytes),
            EngineStream::Tcp(stream) => (&mut &*stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            EngineStream::Unix(stream) => (&mut &*stream).flush(),
            EngineStream::Tcp(stream) => (&mut &*stream).flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(variables: &[(&str, &str)]) -> Result<Endpoint> {
        Endpoint::find(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn an_engine_is_where_docker_finds_it() {
        let usual = Endpoint::Unix("/var/run/docker.sock".into());
        assert_eq!(find(&[]).unwrap(), usual);
        assert_eq!(find(&[("DOCKER_HOST", ""), ("DOCKER_CONTEXT", "default")]).unwrap(), usual);
        assert_eq!(find(&[("DOCKER_HOST", "unix:///run/d.sock")]).unwrap(), Endpoint::Unix("/run/d.sock".into()));
        assert_eq!(find(&[("DOCKER_HOST", "tcp://10.0.0.1:2375/")]).unwrap(), Endpoint::Tcp("10.0.0.1:2375".into()));
        assert!(find(&[("DOCKER_HOST", "ssh://box")]).unwrap_err().to_string().contains("DOCKER_HOST"));
        assert!(find(&[("DOCKER_TLS_VERIFY", "1")]).unwrap_err().to_string().contains("DOCKER_TLS_VERIFY"));
    }
}
