//! The one funnel for outside programs: argument list logged, deadline, whole process group killed, last words kept.
//!
//! Over `std::process`, because what matters here is what happens when a program does not behave: its group is killed
//! with it, and a grandchild that keeps its output open delays nobody. Nothing is closed for the child beyond what is
//! marked so: a file descriptor that was made inheritable (the worker's file lock) stays open as long as any child lives.

mod capture;
mod failure;

use std::{
    env, io,
    io::Write as _,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use log::debug;
use rustix::{
    fs::{Access, access},
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};

use self::capture::Capture;
pub use self::failure::{Failure, command_line, last_lines};

/// Between TERM and KILL.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// How long output may lag behind the end of the program that wrote it.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);
/// The longest pause between two looks at a child; the first ones are shorter, for programs that take milliseconds.
const LOOK: Duration = Duration::from_millis(50);

/// A program to run: what, with what, how long at most. Built by pure functions, so that it is tested by equality.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The program and its arguments; nothing secret, for it is logged and everyone on the machine can read it.
    pub argv: Vec<String>,
    /// Set on top of our own environment. Never logged.
    pub env: Vec<(String, String)>,
    /// Where it runs; our own folder when absent.
    pub dir: Option<PathBuf>,
    /// What it reads; nothing when absent. Never logged.
    pub stdin: Option<String>,
    /// How long it may take.
    pub timeout: Duration,
}

impl Program {
    /// A program with its arguments, and nothing else.
    pub fn new(timeout: Duration, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self { argv, env: Vec::new(), dir: None, stdin: None, timeout }
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets environment variables.
    #[must_use]
    pub fn envs(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.env.extend(variables);
        self
    }

    /// Runs it in a folder.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Gives it something to read.
    #[must_use]
    pub fn stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = Some(text.into());
        self
    }
}

/// What a program said. Bytes that are not UTF-8 are replaced; of more than 1 MiB only head and tail are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Its answer.
    pub stdout: String,
    /// Its remarks.
    pub stderr: String,
}

/// For callers that cannot be interrupted.
#[must_use]
pub fn never() -> bool {
    false
}

/// Runs a program to its end, in a process group of its own.
///
/// At its deadline, or within 100 ms of `interrupted` answering true, the whole group gets TERM, and KILL two seconds
/// later. A program that exits with anything but 0 is a [`Failure`].
pub fn run(program: &Program, interrupted: &dyn Fn() -> bool) -> Result<Output, Failure> {
    let command = command_line(&program.argv);
    debug!("running {command}");
    let started = Instant::now();
    let mut running = Running::spawn(program).map_err(|e| Failure::at_start(program, e))?;
    let end = running.wait(started + program.timeout, interrupted);
    let end = match end {
        Ok(End::Exited) => running.reap(),
        Ok(stopped) => {
            running.kill();
            Ok(stopped)
        }
        Err(e) => {
            running.kill();
            Err(e)
        }
    };
    let output = Output { stdout: running.stdout.text(), stderr: running.stderr.text() };
    let took = started.elapsed();
    match end {
        Ok(End::Reaped(status)) if status.success() => {
            debug!("{command} took {took:.1?}");
            Ok(output)
        }
        Ok(End::Reaped(status)) => {
            debug!("{command} failed after {took:.1?}: {status}");
            Err(Failure::Exit { command, code: status.code(), signal: status.signal(), output })
        }
        Ok(End::Interrupted) => Err(Failure::Interrupted { command, output }),
        Ok(End::Exited | End::Deadline) => Err(Failure::TimedOut { command, after: program.timeout, output }),
        Err(source) => Err(Failure::Io { command, source }),
    }
}

/// Looks a program up the way that starting it would: as a path when it has a slash, else on `PATH`.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let executable = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if program.contains('/') {
        let path = PathBuf::from(program);
        return executable(&path).then_some(path);
    }
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| executable(path))
}

enum End {
    /// The program has ended and is still to be reaped.
    Exited,
    Reaped(ExitStatus),
    Deadline,
    Interrupted,
}

struct Running {
    child: Child,
    group: Pid,
    stdout: Capture,
    stderr: Capture,
}

impl Running {
    fn spawn(program: &Program) -> io::Result<Self> {
        let (name, arguments) =
            program.argv.split_first().ok_or_else(|| io::Error::other("the argument list is empty"))?;
        let mut command = Command::new(name);
        command.args(arguments).envs(program.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &program.dir {
            command.current_dir(dir);
        }
        command.stdin(if program.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn()?;
        let group = Pid::from_child(&child);
        match Self::connect(&mut child, program.stdin.clone()) {
            Ok((stdout, stderr)) => Ok(Self { child, group, stdout, stderr }),
            Err(e) => {
                let _gone = kill_process_group(group, Signal::KILL);
                child.wait()?;
                Err(e)
            }
        }
    }

    fn connect(child: &mut Child, stdin: Option<String>) -> io::Result<(Capture, Capture)> {
        if let (Some(mut pipe), Some(text)) = (child.stdin.take(), stdin) {
            // A program that does not read to the end closes the pipe: its exit code says whether that is bad.
            thread::Builder::new().spawn(move || pipe.write_all(text.as_bytes()))?;
        }
        Ok((Capture::of(child.stdout.take())?, Capture::of(child.stderr.take())?))
    }

    fn wait(&self, deadline: Instant, interrupted: &dyn Fn() -> bool) -> io::Result<End> {
        let mut pause = Duration::from_millis(1);
        loop {
            if self.has_exited()? {
                return Ok(End::Exited);
            }
            if interrupted() {
                return Ok(End::Interrupted);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(End::Deadline);
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(LOOK);
        }
    }

    /// Looks without reaping: until the child is reaped its number, and so its group's, cannot be given to another.
    fn has_exited(&self) -> io::Result<bool> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(self.group), look)?.is_some())
    }

    /// After its exit: its output, as far as it comes without delay (a grandchild may keep it open), and its status.
    fn reap(&mut self) -> io::Result<End> {
        let patience = Instant::now() + OUTPUT_GRACE;
        self.stdout.wait_until(patience);
        self.stderr.wait_until(patience);
        self.child.wait().map(End::Reaped)
    }

    /// TERM to the whole group; KILL when it has not ended after the grace. The group has ended when its first process
    /// has and nobody holds its output any more.
    fn kill(&mut self) {
        // Errors: the group is gone, which is what was wanted.
        let _gone = kill_process_group(self.group, Signal::TERM);
        let grace = Instant::now() + KILL_GRACE;
        while Instant::now() < grace && matches!(self.has_exited(), Ok(false)) {
            thread::sleep(Duration::from_millis(10));
        }
        self.stdout.wait_until(grace);
        self.stderr.wait_until(grace);
        let _gone = kill_process_group(self.group, Signal::KILL);
        // Bounded, for a process in the kernel's hands (a dead network disk) does not even obey KILL.
        let patience = Instant::now() + OUTPUT_GRACE;
        while Instant::now() < patience && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(5));
        }
        self.stdout.wait_until(patience);
        self.stderr.wait_until(patience);
    }
}

#[cfg(test)]
mod tests;
