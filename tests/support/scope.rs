//! What belongs to one test: its folder, its processes, its containers.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    docker,
    process::Process,
    tools::{docker_config, path, program},
};

/// Marks every process of a scope, so that workers that detached themselves can be found.
const MARK: &str = "DEPLOYCTL_TEST_SCOPE";

/// A test's own folder and name, shared by its parts. When the last of them is dropped, it ends every process that was started within it and is left (detached
/// workers, too), removes its containers, and then the folder.
#[derive(Debug, Clone)]
pub struct Scope {
    own: Arc<Own>,
}

#[derive(Debug)]
struct Own {
    name: String,
    dir: PathBuf,
}

impl Scope {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base = env::temp_dir().join("deployctl-test");
        fs::create_dir_all(&base).unwrap();
        sweep(&base);
        let name = format!("t{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = base.join(&name);
        fs::create_dir(&dir).unwrap();
        Self { own: Arc::new(Own { name, dir }) }
    }

    /// Unique among everything that runs now; fit for names of containers and compose projects.
    pub fn name(&self) -> &str {
        &self.own.name
    }

    pub fn dir(&self) -> &Path {
        &self.own.dir
    }

    /// A folder within, made now.
    pub fn subdir(&self, name: &str) -> PathBuf {
        let dir = self.own.dir.join(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Writes a file within and gives its path.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let file = self.own.dir.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    }

    /// Writes an executable shell script within and gives its path.
    pub fn script(&self, name: &str, body: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let file = self.file(name, &format!("#!/bin/sh\n{body}\n"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    /// A command in this scope, with our tools on its path and nothing of the caller's own AWS or deployctl settings.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(if name.starts_with('/') { PathBuf::from(name) } else { program(name) });
        for (key, _) in env::vars() {
            if ["AWS_", "DEPLOY", "COMPOSE_"].iter().any(|prefix| key.starts_with(prefix)) {
                command.env_remove(key);
            }
        }
        command.current_dir(self.dir()).env("PATH", path()).env("DOCKER_CONFIG", docker_config()).env(MARK, self.dir());
        command
    }

    /// Starts a server in this scope; its output goes to `NAME.log`.
    pub fn start(&self, name: &str, command: &mut Command) -> Process {
        Process::start(name, command, &self.own.dir.join(format!("{name}.log")))
    }

    /// The processes that were started in this scope, and theirs, as far as they live: pid and command line. The
    /// direct children that are [`Process`]es are among them.
    pub fn processes(&self) -> Vec<Running> {
        processes(self.dir())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        clean_up(&self.dir);
    }
}

/// Cleans up after tests that were killed and could not do it themselves.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let pid = name.strip_prefix('t').and_then(|rest| rest.split_once('x')).map(|(pid, _)| pid);
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            clean_up(&entry.path());
        }
    }
}

fn clean_up(dir: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    // Until there is none left: one that is being killed may just have started another.
    loop {
        let left = processes(dir);
        if left.is_empty() || Instant::now() > deadline {
            break;
        }
        for running in left {
            running.signal(Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    docker::remove_private(&dir.join("docker"));
    docker::remove_all_of(dir.file_name().and_then(|name| name.to_str()).unwrap());
    let _ = fs::remove_dir_all(dir);
}

/// A process of a scope.
#[derive(Debug, Clone)]
pub struct Running {
    pub pid: u32,
    /// Its command line.
    pub line: String,
    environment: Vec<u8>,
}

impl Running {
    /// Whether it was started with this variable, `NAME=value`.
    pub fn has(&self, variable: &str) -> bool {
        self.environment.split(|byte| *byte == 0).any(|own| own == variable.as_bytes())
    }

    pub fn signal(&self, signal: Signal) {
        // One that has gone meanwhile is fine.
        let _ = i32::try_from(self.pid).ok().and_then(Pid::from_raw).map(|pid| kill_process(pid, signal));
    }
}

fn processes(dir: &Path) -> Vec<Running> {
    let mark = format!("{MARK}={}", dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        // A zombie's environment is empty, so that those do not count.
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned();
        let running = Running { pid, line, environment };
        if running.has(&mark) {
            found.push(running);
        }
    }
    found
}
