//! Runs a program to its end, within a deadline.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Far beyond anything that a test waits for in one command.
const DEADLINE: Duration = Duration::from_secs(300);

/// What a program said, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// None when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
    command: String,
}

impl Output {
    /// Fails the test, showing all that was said, unless the exit code is this.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code of {self}");
        self
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        self.expect(0)
    }

    /// Fails the test unless stderr is one line that contains all of these.
    #[track_caller]
    pub fn one_line(self, parts: &[&str]) -> Self {
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "lines on stderr of {self}");
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in stderr of {self}");
        }
        self
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|err| panic!("{err} in stdout of {self}"))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} (exit {:?} after {:?})\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.code, self.took, self.stdout, self.stderr
        )
    }
}

pub fn run(command: &mut Command) -> Output {
    run_with_input(command, b"")
}

pub fn run_with_input(command: &mut Command, input: &[u8]) -> Output {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|err| panic!("cannot start {line}: {err}"));
    // A program that does not read its input closes the pipe; that is its right.
    let _ = child.stdin.take().unwrap().write_all(input);
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{line}: still running after {DEADLINE:?}\n{}", stderr.join().unwrap());
        }
        thread::sleep(Duration::from_millis(5));
    };
    Output {
        code: status.code(),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
        took: started.elapsed(),
        command: line,
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
