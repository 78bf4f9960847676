//! The connection to Redis: opened when first needed, opened again when it broke.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use redis::{Connection, ConnectionLike, FromRedisValue, RedisResult};

use crate::secret::{Secret, without_credentials};

/// Why Redis did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct RedisError {
    /// Whether it may well work a little later: no connection, a restart, a slow script.
    pub transient: bool,
    text: String,
}

impl RedisError {
    /// Whether `error` comes from Redis and may pass.
    #[must_use]
    pub fn is_transient(error: &anyhow::Error) -> bool {
        error.downcast_ref::<Self>().is_some_and(|error| error.transient)
    }
}

/// How long a connection may take, and an answer to a command that does not block.
const REDIS_TIMEOUT: Duration = Duration::from_secs(5);

/// An open connection: to a real server, or to the one in memory on which the tests simulate a fleet.
pub trait Wire: ConnectionLike + Send {
    /// How long the answers from here on may take.
    fn wait_at_most(&self, time: Duration) -> RedisResult<()>;
}

impl Wire for Connection {
    fn wait_at_most(&self, time: Duration) -> RedisResult<()> {
        self.set_read_timeout(Some(time))
    }
}

/// Opens a connection.
type Open = dyn Fn() -> RedisResult<Box<dyn Wire>> + Send + Sync;

/// One Redis, and the prefix under which this fleet's keys stand.
#[derive(Clone)]
pub struct RedisServer {
    open: Arc<Open>,
    prefix: String,
    shown: String,
}

impl RedisServer {
    /// The server at `url`. Refuses a URL that is none; nothing is sent yet.
    pub fn at(url: &Secret, prefix: &str) -> Result<Self> {
        let shown = without_credentials(url.expose());
        let client = redis::Client::open(url.expose())
            .map_err(|e| anyhow!("redis_url {shown:?}: {}; write redis://HOST:PORT/DB", e.category()))?;
        let open = move || -> RedisResult<Box<dyn Wire>> {
            let connection = client.get_connection_with_timeout(REDIS_TIMEOUT)?;
            connection.set_read_timeout(Some(REDIS_TIMEOUT))?;
            connection.set_write_timeout(Some(REDIS_TIMEOUT))?;
            Ok(Box::new(connection))
        };
        Ok(Self::through(open, prefix, &shown))
    }

    /// The server to which `open` opens connections; `shown` says to people where it is.
    pub fn through(
        open: impl Fn() -> RedisResult<Box<dyn Wire>> + Send + Sync + 'static,
        prefix: &str,
        shown: &str,
    ) -> Self {
        Self { open: Arc::new(open), prefix: prefix.to_owned(), shown: shown.to_owned() }
    }

    /// The prefix of all keys.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A connection, to be opened when it is first needed.
    #[must_use]
    pub fn connection(&self) -> RedisConnection {
        RedisConnection { server: self.clone(), connection: None }
    }
}

/// A connection to one Redis.
pub struct RedisConnection {
    server: RedisServer,
    connection: Option<Box<dyn Wire>>,
}

impl RedisConnection {
    /// Prepares a connection; nothing is sent yet. Refuses a URL that is none.
    pub fn new(url: &Secret, prefix: &str) -> Result<Self> {
        Ok(RedisServer::at(url, prefix)?.connection())
    }

    /// The prefix of all keys.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.server.prefix()
    }

    /// Where this Redis is, for people: without the password.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.server.shown
    }

    /// Sends one command (`["HGET", key, field]`) and reads its answer.
    pub fn command<T: FromRedisValue>(&mut self, words: &[&str]) -> Result<T> {
        let mut command = redis::cmd(words.first().copied().unwrap_or("PING"));
        for word in words.iter().skip(1) {
            command.arg(*word);
        }
        self.with(|connection| command.query(connection))
    }

    /// Sends a command that blocks for at most `wait` on the server.
    pub fn blocking<T: FromRedisValue>(&mut self, command: &redis::Cmd, wait: Duration) -> Result<T> {
        self.with_wire(|connection| {
            connection.wait_at_most(wait + REDIS_TIMEOUT)?;
            let answer = command.query(connection);
            connection.wait_at_most(REDIS_TIMEOUT)?;
            answer
        })
    }

    /// Does `work` on an open connection. A connection that broke while it was idle is opened once more; the second
    /// failure is the caller's to wait out.
    pub fn with<T>(&mut self, mut work: impl FnMut(&mut dyn ConnectionLike) -> RedisResult<T>) -> Result<T> {
        self.with_wire(|wire| work(wire))
    }

    fn with_wire<T>(&mut self, mut work: impl FnMut(&mut dyn Wire) -> RedisResult<T>) -> Result<T> {
        let reused = self.connection.is_some();
        match self.attempt(&mut work) {
            Err(error) if reused && error.is_io_error() && !error.is_timeout() => self.attempt(&mut work),
            other => other,
        }
        .map_err(|e| self.explain(&e).into())
    }

    fn explain(&self, error: &redis::RedisError) -> RedisError {
        let transient = error.is_io_error() || cannot_serve_now(error);
        let text = describe(error);
        if transient {
            RedisError {
                transient,
                text: format!("Redis at {} does not answer ({text}): start it, or mend redis_url", self.server.shown),
            }
        } else {
            RedisError { transient, text: format!("Redis at {} refused: {text}", self.server.shown) }
        }
    }

    fn attempt<T>(&mut self, work: &mut impl FnMut(&mut dyn Wire) -> RedisResult<T>) -> RedisResult<T> {
        let mut connection = match self.connection.take() {
            Some(connection) if connection.is_open() => connection,
            _ => (self.server.open)()?,
        };
        let answer = work(&mut *connection);
        // After a time-out the answer may still come: it would be taken for the next command's. A server that cannot serve
        // now may be the old master after a failover: the next connection finds the new one.
        if !answer.as_ref().is_err_and(|error| error.is_io_error() || cannot_serve_now(error)) {
            self.connection = Some(connection);
        }
        answer
    }
}

/// Whether the server says that it cannot serve for the moment: it loads, is a replica, lost its master or its disk, or
/// is out of memory ([error codes](https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors)).
/// `EXECABORT` is what a transaction gets on a replica.
fn cannot_serve_now(error: &redis::RedisError) -> bool {
    const CODES: [&str; 12] = [
        "BUSY",
        "CLUSTERDOWN",
        "EXECABORT",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "NOREPLICAS",
        "NOTREADY",
        "OOM",
        "READONLY",
        "TRYAGAIN",
        "UNBLOCKED",
    ];
    error.code().is_some_and(|code| CODES.contains(&code))
}

/// The error without the URL: some of its texts carry it.
fn describe(error: &redis::RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), detail) => format!("{code} {}", detail.unwrap_or_default()),
        (None, Some(detail)) => format!("{}: {detail}", error.category()),
        (None, None) => error.to_string(),
    }
}
