//! A server that a test started.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::wait::{last_lines, wait_until};

/// A child process with its output in a file. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command`, with its output appended to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Self {
        let out: File = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap_or_else(|err| panic!("cannot start {name} ({}): {err}", command.get_program().display()));
        Self { name: name.to_owned(), log: log.to_path_buf(), child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, and does not wait.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        // One that has gone already is fine.
        let _ = kill_process(pid, signal);
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
        self.wait(Duration::from_secs(20));
    }

    /// Waits for the end by itself.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) {
        let name = self.name.clone();
        wait_until(within, &format!("{name} ends"), || !self.is_running());
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The exit code of one that has ended by itself.
    pub fn code(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten().and_then(|status| status.code())
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until `ready`; fails with the last it wrote when it ends first or takes too long.
    #[track_caller]
    pub fn wait_ready(&mut self, within: Duration, mut ready: impl FnMut() -> bool) {
        let deadline = std::time::Instant::now() + within;
        while !ready() {
            let state = if !self.is_running() {
                "ended"
            } else if std::time::Instant::now() > deadline {
                "is not ready"
            } else {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            panic!("{} {state}; its last words:\n{}", self.name, last_lines(&self.log(), 15));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            // Every look at a Serf agent leaves such a line.
            let log: String = self
                .log()
                .lines()
                .filter(|line| !line.contains("agent.ipc: Accepted"))
                .fold(String::new(), |log, line| log + line + "\n");
            eprintln!("--- {} wrote:\n{}", self.name, last_lines(&log, 25));
        }
    }
}
