//! A real Redis.

use std::{collections::BTreeMap, time::Duration};

use rustix::process::Signal;

use super::{free_port, process::Process, scope::Scope, wait::wait_until};

/// A Redis server that writes everything down before it answers, as the documentation asks for.
#[derive(Debug)]
pub struct Redis {
    scope: Scope,
    port: u16,
    server: Option<Process>,
}

impl Redis {
    pub fn start(scope: &Scope) -> Self {
        let mut redis = Self { scope: scope.clone(), port: free_port(), server: None };
        redis.resume();
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A connection of its own. Panics when the server is down.
    #[track_caller]
    pub fn connection(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).unwrap();
        let connection = client.get_connection_with_timeout(Duration::from_secs(5)).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        connection
    }

    /// One command; its answer as text, a missing value as "".
    #[track_caller]
    pub fn command(&self, words: &[&str]) -> String {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(word);
        }
        let answer: Option<String> = command.query(&mut self.connection()).unwrap();
        answer.unwrap_or_default()
    }

    /// The keys that match a pattern, sorted.
    #[track_caller]
    pub fn keys(&self, pattern: &str) -> Vec<String> {
        let mut keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query(&mut self.connection()).unwrap();
        keys.sort();
        keys
    }

    /// A whole hash; empty when it is not there.
    #[track_caller]
    pub fn hash(&self, key: &str) -> BTreeMap<String, String> {
        redis::cmd("HGETALL").arg(key).query(&mut self.connection()).unwrap()
    }

    /// How many commands the server has processed so far, by all clients. What a script does inside counts too.
    #[track_caller]
    pub fn commands_processed(&self) -> u64 {
        let info: String = redis::cmd("INFO").arg("stats").query(&mut self.connection()).unwrap();
        let count = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap();
        count.trim().parse().unwrap()
    }

    /// Forgets everything, as a Redis without persistence does when it restarts.
    pub fn flush(&self) {
        let _: () = redis::cmd("FLUSHALL").query(&mut self.connection()).unwrap();
    }

    /// SIGTERM; what was written stays.
    pub fn stop(&mut self) {
        self.server.take().expect("Redis runs").terminate();
    }

    /// Sends a signal: STOP lets it hang, CONT go on.
    pub fn signal(&self, signal: Signal) {
        self.server.as_ref().expect("Redis runs").signal(signal);
    }

    /// SIGKILL; what was written stays.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Up again after [`Redis::stop`] or [`Redis::kill`], on the same port and with the same data.
    pub fn resume(&mut self) {
        assert!(self.server.is_none(), "Redis runs already");
        let dir = self.scope.subdir("redis");
        let mut command = self.scope.command("redis-server");
        command.current_dir(&dir).args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"]);
        let mut server = self.scope.start("redis", &mut command);
        let client = redis::Client::open(self.url()).unwrap();
        server.wait_ready(Duration::from_secs(15), || {
            let ping = client
                .get_connection_with_timeout(Duration::from_millis(200))
                .and_then(|mut connection| redis::cmd("PING").query::<String>(&mut connection));
            ping.is_ok()
        });
        self.server = Some(server);
    }

    /// Waits until a key holds this value; "" means that it is not there.
    #[track_caller]
    pub fn wait_value(&self, within: Duration, key: &str, value: &str) {
        wait_until(within, &format!("{key} becomes {value:?}"), || self.command(&["GET", key]) == value);
    }
}
