//! The one funnel for outside programs: argument list logged, deadline, whole process group killed, last words kept.
//!
//! [`duct`] starts a program, waits for it and reaps it. What stands here is about programs that do not behave:
//!
//! - The whole process group ends with the program: TERM, then KILL.
//! - Output is kept within bounds. A grandchild that keeps it open delays nobody.
//! - Nothing is closed for the child beyond what is marked so. A file descriptor that was made inheritable (the worker's
//!   file lock) stays open as long as any child lives.

mod capture;
mod failure;

use std::{
    env, io,
    io::{PipeReader, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::ExitStatus,
    thread,
    time::{Duration, Instant},
};

use duct::{Expression, Handle};
use log::debug;
use rustix::{
    fs::{Access, access},
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};

use self::capture::Capture;
pub use self::failure::{Failure, command_line, last_lines};

/// Between TERM and KILL.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// The same for what a person runs: it may be a package manager, which is not to be torn from its work.
const LONG_GRACE: Duration = Duration::from_secs(20);
/// How long output may lag behind the end of the program that wrote it.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);
/// How often a caller is asked whether it was interrupted.
const INTERRUPT_CHECK: Duration = Duration::from_millis(50);

/// A program to run: what, with what, how long at most. Built by pure functions, so that it is tested by equality.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The program and its arguments; nothing secret, for it is logged and everyone on the machine can read it.
    pub argv: Vec<String>,
    /// Set on top of our own environment. Never logged.
    pub env: Vec<(String, String)>,
    /// What it reads; nothing when absent. Never logged.
    pub stdin: Option<String>,
    /// How long it may take.
    pub timeout: Duration,
}

impl Program {
    /// A program with its arguments, and nothing else.
    pub fn new(timeout: Duration, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self { argv, env: Vec::new(), stdin: None, timeout }
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
    run_with(program, Words::Kept, interrupted)
}

/// Like [`run`], for what a person waits for: its words go where ours go, and are not kept; between TERM and KILL are
/// twenty seconds. In a group of its own Ctrl-C reaches it only through us.
pub fn run_attached(program: &Program, interrupted: &dyn Fn() -> bool) -> Result<(), Failure> {
    run_with(program, Words::Shown, interrupted).map(drop)
}

/// What becomes of a program's words.
#[derive(Debug, Clone, Copy)]
enum Words {
    Kept,
    Shown,
}

fn run_with(program: &Program, words: Words, interrupted: &dyn Fn() -> bool) -> Result<Output, Failure> {
    let command = command_line(&program.argv);
    debug!("running {command}");
    let started = Instant::now();
    let running = RunningProgram::start(program, words).map_err(|e| Failure::at_start(program, e))?;
    let end = running.wait(started + program.timeout, interrupted);
    match end {
        Ok(End::Exited(_)) => running.wait_for_output(Instant::now() + OUTPUT_GRACE),
        Ok(End::Deadline | End::Interrupted) | Err(_) => running.end_group(words),
    }
    let output = running.output();
    let took = started.elapsed();
    match end {
        Ok(End::Exited(status)) if status.success() => {
            debug!("{command} took {took:.1?}");
            Ok(output)
        }
        Ok(End::Exited(status)) => {
            debug!("{command} failed after {took:.1?}: {status}");
            Err(Failure::Exit { command, code: status.code(), signal: status.signal(), output })
        }
        Ok(End::Interrupted) => Err(Failure::Interrupted { command, output }),
        Ok(End::Deadline) => Err(Failure::TimedOut { command, after: program.timeout, output }),
        Err(reason) => Err(Failure::Io { command, reason }),
    }
}

enum End {
    /// The program has ended, and was reaped.
    Exited(ExitStatus),
    Deadline,
    Interrupted,
}

struct RunningProgram {
    handle: Handle,
    /// Its process group, which has the number of the program itself.
    group: Pid,
    /// Its two outputs, where they are kept.
    outputs: Option<(Capture, Capture)>,
}

impl RunningProgram {
    fn start(program: &Program, words: Words) -> io::Result<Self> {
        let expression = expression(program)?;
        let (expression, outputs) = match words {
            Words::Shown => (expression, None),
            Words::Kept => {
                let (stdout, out) = Capture::start()?;
                let (stderr, err) = Capture::start()?;
                (expression.stdout_file(out).stderr_file(err), Some((stdout, stderr)))
            }
        };
        let handle = expression.start()?;
        // It holds our copies of the pipes: it has to go before the outputs can end.
        drop(expression);
        let pid = handle.pids().first().and_then(|pid| i32::try_from(*pid).ok()).and_then(Pid::from_raw);
        let group = pid.ok_or_else(|| io::Error::other("the program has no process number"))?;
        Ok(Self { handle, group, outputs })
    }

    fn output(&self) -> Output {
        let text = |(stdout, stderr): &(Capture, Capture)| Output { stdout: stdout.text(), stderr: stderr.text() };
        self.outputs.as_ref().map(text).unwrap_or_default()
    }

    /// Waits for the end. Only [`End::Exited`] says that the program was reaped: nothing but the program itself keeps the
    /// handle waiting, since duct reads none of its output and writes none of its input.
    fn wait(&self, deadline: Instant, interrupted: &dyn Fn() -> bool) -> io::Result<End> {
        while !interrupted() {
            let now = Instant::now();
            if let Some(ended) = self.handle.wait_deadline(deadline.min(now + INTERRUPT_CHECK))? {
                return Ok(End::Exited(ended.status));
            }
            if now >= deadline {
                return Ok(End::Deadline);
            }
        }
        Ok(End::Interrupted)
    }

    /// The output as far as it comes until `deadline`: a grandchild may keep it open for longer.
    fn wait_for_output(&self, deadline: Instant) {
        for output in self.outputs.iter().flat_map(|(stdout, stderr)| [stdout, stderr]) {
            output.wait_until(deadline);
        }
    }

    /// TERM to the whole group; KILL when it has not ended after the grace. The group has ended when its first process
    /// has and nobody holds its output any more.
    ///
    /// The number of the group is safe to use here. The first process has not been reaped, and until it is, as a zombie
    /// too, no other process or group can get its number. So this looks without reaping, and asks the handle, which
    /// reaps, only after the last signal.
    fn end_group(&self, words: Words) {
        let Ok(mut exited) = self.has_exited() else {
            // It is no child of ours any more: the number may be another's.
            return;
        };
        // Errors: the group is gone, which is what was wanted.
        let _gone = kill_process_group(self.group, Signal::TERM);
        let grace = Instant::now()
            + match words {
                Words::Kept => KILL_GRACE,
                Words::Shown => LONG_GRACE,
            };
        while !exited && Instant::now() < grace {
            thread::sleep(Duration::from_millis(10));
            exited = self.has_exited().unwrap_or(true);
        }
        self.wait_for_output(grace);
        let _gone = kill_process_group(self.group, Signal::KILL);
        // Bounded, for a process in the kernel's hands (a dead network disk) does not even obey KILL. duct reaps such a
        // one when it starts the next program.
        let patience = Instant::now() + OUTPUT_GRACE;
        let _reaped = self.handle.wait_deadline(patience);
        self.wait_for_output(patience);
    }

    /// Looks without reaping. Fails when there is no such child.
    fn has_exited(&self) -> io::Result<bool> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(self.group), look)?.is_some())
    }
}

/// The program as duct's, but for its output.
fn expression(program: &Program) -> io::Result<Expression> {
    let (name, arguments) = program.argv.split_first().ok_or_else(|| io::Error::other("the argument list is empty"))?;
    // By its path, since duct gives the program a whole environment of its own. For a name it is then the child that looks
    // through its PATH, after a fork, which costs 7 ms for every 100 MiB of ours. A path is spawned without one.
    let file = find(name).unwrap_or_else(|| PathBuf::from(name));
    let mut expression = duct::cmd(file.as_os_str(), arguments);
    for (name, value) in &program.env {
        expression = expression.env(name, value);
    }
    expression = match &program.stdin {
        Some(text) => expression.stdin_file(feed(text.clone())?),
        None => expression.stdin_null(),
    };
    let name = name.clone();
    Ok(expression.unchecked().before_spawn(move |command| {
        command.arg0(&name).process_group(0);
        Ok(())
    }))
}

/// A pipe from which `text` can be read. Not duct's `stdin_bytes`: its handle waits until all was read, which a grandchild
/// that inherited the pipe may never do.
fn feed(text: String) -> io::Result<PipeReader> {
    let (reader, mut writer) = io::pipe()?;
    // A program that does not read to the end closes the pipe: its exit code says whether that is bad.
    thread::Builder::new().spawn(move || writer.write_all(text.as_bytes()))?;
    Ok(reader)
}

/// Whether there is such a program, by its name on `PATH` or by its path.
#[must_use]
pub fn is_there(name: &str) -> bool {
    if name.contains('/') { is_executable(Path::new(name)) } else { find(name).is_some() }
}

/// The file of a program on `PATH`; none for a name that is a path already.
fn find(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return None;
    }
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests;
