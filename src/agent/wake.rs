//! Waking the worker, so that the Serf agent is free at once: the mark, then systemd or a detached child.
//!
//! The mark `<state_dir>/wake/<role>` says that an event came. It is there before the worker is started, and the worker
//! takes it away before it asks the service: whichever of the two is interrupted, the event is not lost.

use std::{
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use log::warn;

use crate::{
    config::Config,
    names::Role,
    process::{self, Program},
};

/// The mark of `role`.
#[must_use]
pub fn mark(state_dir: &Path, role: &Role) -> PathBuf {
    state_dir.join("wake").join(role.as_str())
}

/// Where detached workers and the handler log when there is no systemd.
#[must_use]
pub fn log_dir(config: &Config) -> PathBuf {
    config.log_dir.clone().unwrap_or_else(|| config.state_dir.join("log"))
}

/// Leaves the mark of `role`: there, or not, also after a power cut.
pub fn leave_mark(state_dir: &Path, role: &Role) -> Result<()> {
    let mark = mark(state_dir, role);
    let folder = mark.parent().unwrap_or(state_dir);
    let write = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        File::create(&mark)?.sync_all()?;
        File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}; see state_dir", mark.display()))
}

/// Takes the mark of `role` away; whether it was there.
pub fn take_mark(state_dir: &Path, role: &Role) -> Result<bool> {
    let mark = mark(state_dir, role);
    match fs::remove_file(&mark) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| format!("cannot remove {}; see state_dir", mark.display())),
    }
}

/// Whether systemd is to run the worker: it runs this machine
/// ([sd_booted(3)](https://www.freedesktop.org/software/systemd/man/latest/sd_booted.html)), and nobody wrote a `log_dir`,
/// which is for detached workers: so several boxes can share a machine.
#[must_use]
pub fn by_systemd(config: &Config) -> bool {
    config.log_dir.is_none() && Path::new("/run/systemd/system").is_dir()
}

/// Starts the worker of `role` and does not wait for it. `config_path`: what `--config` said.
pub fn start_worker(config: &Config, config_path: Option<&Path>, role: &Role) -> Result<()> {
    if by_systemd(config) {
        match process::run(&start_unit(role), &process::never) {
            Ok(_) => return Ok(()),
            Err(failure) => warn!("{failure}; starting a detached worker, which ends with the Serf agent's unit"),
        }
    }
    let log = log_file(&log_dir(config), role.as_str())?;
    detach(&worker_arguments(config_path, role), log).map(drop).context("cannot start the worker")
}

/// `--no-block`: the agent waits for its handler, and the worker may wait for hours.
fn start_unit(role: &Role) -> Program {
    let unit = format!("deployctl@{role}.service");
    Program::new(Duration::from_secs(10), ["systemctl", "start", "--no-block", "--no-ask-password", &unit])
}

/// Our own arguments for the detached worker.
fn worker_arguments(config_path: Option<&Path>, role: &Role) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        vec!["worker".into(), "--new-session".into(), "--role".into(), role.as_str().into()];
    if let Some(path) = config_path {
        arguments.extend(["--config".into(), path.into()]);
    }
    arguments
}

/// Nothing of the child is the agent's: it would wait for an open stdout, and its end would break it. By `std::process`
/// and not by [`process::run`]: the worker outlives us, and nobody waits for it.
fn detach(arguments: &[OsString], log: File) -> io::Result<Child> {
    Command::new(env::current_exe()?).args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()
}

/// Leaves the Serf agent's session, as the first act of the detached worker.
pub fn new_session() -> Result<()> {
    rustix::process::setsid().map(drop).context("cannot leave the session of the Serf agent")
}

/// Opens `<folder>/<name>.log` to add to it.
pub fn log_file(folder: &Path, name: &str) -> Result<File> {
    let path = folder.join(format!("{name}.log"));
    fs::create_dir_all(folder)
        .and_then(|()| OpenOptions::new().create(true).append(true).open(&path))
        .with_context(|| format!("cannot write {}; see log_dir", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> Role {
        "app".parse().unwrap()
    }

    #[test]
    fn a_mark_is_left_once_and_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        leave_mark(folder, &app()).unwrap();
        leave_mark(folder, &app()).unwrap();
        assert!(folder.join("wake/app").exists());
        assert!(take_mark(folder, &app()).unwrap());
        assert!(!take_mark(folder, &app()).unwrap());
    }

    #[test]
    fn systemd_is_asked_without_waiting() {
        assert_eq!(
            start_unit(&app()).argv,
            ["systemctl", "start", "--no-block", "--no-ask-password", "deployctl@app.service"]
        );
    }

    #[test]
    fn the_worker_reads_the_same_configuration() {
        let arguments = worker_arguments(Some(Path::new("/etc/x.json")), &app());
        assert_eq!(arguments, ["worker", "--new-session", "--role", "app", "--config", "/etc/x.json"]);
    }
}
