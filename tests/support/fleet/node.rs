//! A box of a fleet.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use serde_json::Value;

use super::{Behaviour, DEPLOYCTL, Engine, Http, Output, Scope, SerfAgent, run, wait_for};
use crate::support::{scope::Running, switchboard, wait::last_lines};

/// One machine, in all but name.
#[derive(Debug)]
pub struct Box {
    pub agent: SerfAgent,
    pub(super) scope: Scope,
    pub(super) dir: PathBuf,
    pub(super) environment: Vec<(String, String)>,
    /// Where each role's container answers.
    pub(super) sites: BTreeMap<String, String>,
    pub(super) address: String,
}

impl Box {
    /// `box-1`
    pub fn name(&self) -> &str {
        self.agent.name()
    }

    /// `127.0.0.11`, which is its target's id, too.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.sites.keys().map(String::as_str)
    }

    /// Where this box keeps its configuration, its compose files and its state.
    pub fn dir(&self) -> &PathBuf {
        &self.dir
    }

    /// Runs `deployctl` on this box.
    pub fn deployctl(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments))
    }

    /// Puts a script in place of the program `name`, for commands that are started from now on.
    pub fn replace_program(&mut self, name: &str, body: &str) {
        let script = self.scope.script(&format!("{}/programs/{name}", self.name()), body);
        let path = format!("{}:{}", script.parent().unwrap().display(), crate::support::path());
        self.environment.push(("PATH".to_owned(), path));
    }

    /// [`Box::deployctl`], not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.scope.command(DEPLOYCTL);
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Changes this box's configuration.
    pub fn configure(&self, change: impl FnOnce(&mut Value)) {
        let file = self.dir.join("config.json");
        let mut config = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        change(&mut config);
        fs::write(&file, format!("{config:#}")).unwrap();
    }

    pub fn compose_file(&self, role: &str) -> PathBuf {
        self.dir.join(format!("compose/{role}.yml"))
    }

    /// Changes a compose file: every `from` becomes `to`.
    #[track_caller]
    pub fn edit_compose(&self, role: &str, from: &str, to: &str) {
        let file = self.compose_file(role);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "no {from:?} in {text}");
        fs::write(file, text.replace(from, to)).unwrap();
    }

    /// Makes every container that starts here from now on behave so, whatever its image: the box is at fault.
    pub fn curse(&self, behaviour: Behaviour) {
        fs::write(self.dir.join("host/behaviour"), behaviour.word()).unwrap();
    }

    /// Ends [`Box::curse`].
    pub fn bless(&self) {
        fs::remove_file(self.dir.join("host/behaviour")).unwrap();
    }

    /// The tag that this role's container tells over HTTP.
    pub fn serves(&self, role: &str) -> Option<String> {
        match Http::new(&self.sites[role]).try_get("/") {
            Ok((200, page)) => Some(page.trim().to_owned()),
            _ => None,
        }
    }

    #[track_caller]
    pub fn wait_serves(&self, role: &str, tag: &str) {
        wait_for(super::PATIENCE, &format!("{} serves {role} {tag}", self.name()), || match self.serves(role) {
            Some(seen) if seen == tag => Ok(()),
            seen => Err(format!("{seen:?}\n{}", self.last_log_lines(20))),
        });
    }

    /// Whether the switchboard sends requests here.
    pub fn in_service(&self) -> bool {
        switchboard::in_service(&self.dir)
    }

    /// From now on, a step of the switchboard (`register`, `deregister`, `verify`) waits on this box.
    pub fn stop_at(&self, step: &str) {
        switchboard::stop_at(&self.dir, step);
    }

    /// The step goes on.
    pub fn go_on(&self, step: &str) {
        switchboard::go_on(&self.dir, step);
    }

    /// The id of this role's container, running or not.
    pub fn container(&self, engine: &Engine, role: &str) -> Option<String> {
        self.container_of(engine, role, role)
    }

    /// The id of the container of one service in this role's project, running or not.
    pub fn container_of(&self, engine: &Engine, role: &str, service: &str) -> Option<String> {
        let project = format!("label=com.docker.compose.project={}", self.project(role));
        let service = format!("label=com.docker.compose.service={service}");
        let ids = engine.docker(&["ps", "-aq", "--no-trunc", "--filter", &project, "--filter", &service]);
        ids.lines().next().map(str::to_owned)
    }

    /// The compose project of a role on this box.
    pub fn project(&self, role: &str) -> String {
        project(&self.scope, self.name(), role)
    }

    /// The workers of this box: what `handle` woke, and what a person runs here.
    pub fn workers(&self) -> Vec<Running> {
        let own = format!("DEPLOYCTL_CONFIG={}", self.dir.join("config.json").display());
        let mut workers = self.scope.processes();
        // Those that it started (docker-compose, aws) have the same environment.
        workers.retain(|running| running.line.starts_with(DEPLOYCTL) && running.has(&own));
        workers
    }

    /// Everything that was started for this box and lives, but for its agent: workers, and what they started.
    pub fn children(&self) -> Vec<Running> {
        let own = format!("DEPLOYCTL_CONFIG={}", self.dir.join("config.json").display());
        let mut processes = self.scope.processes();
        processes.retain(|running| running.has(&own) && !running.line.contains("serf agent"));
        processes
    }

    /// Agent, workers, and all that they started are gone at once, and so is the container.
    pub(super) fn dies(&mut self, engine: &Engine) {
        self.agent.kill();
        for running in self.children() {
            running.signal(Signal::KILL);
        }
        for role in self.roles() {
            if let Some(id) = self.container(engine, role) {
                engine.docker(&["kill", &id]);
            }
        }
    }

    /// Sends a signal to every worker of this box; fails when there is none.
    #[track_caller]
    pub fn signal_workers(&self, signal: Signal) {
        let workers = self.workers();
        assert!(!workers.is_empty(), "no worker on {}:\n{}", self.name(), self.last_log_lines(20));
        for worker in workers {
            worker.signal(signal);
        }
    }

    /// `kill -9` for every worker of this box, and waits until they are gone.
    #[track_caller]
    pub fn kill_workers(&self) {
        self.signal_workers(Signal::KILL);
        self.wait_idle();
    }

    /// Waits until no worker runs here.
    #[track_caller]
    pub fn wait_idle(&self) {
        wait_for(super::PATIENCE, &format!("no worker runs on {}", self.name()), || {
            let workers = self.workers();
            if workers.is_empty() { Ok(()) } else { Err(format!("{workers:?}")) }
        });
    }

    /// What deployctl logged here.
    pub fn log(&self) -> String {
        log_of(&self.dir)
    }

    pub fn last_log_lines(&self, count: usize) -> String {
        last_lines(&self.log(), count)
    }
}

impl Drop for Box {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- deployctl on {} logged:\n{}", self.name(), self.last_log_lines(40));
        }
    }
}

/// What deployctl logged on the box whose folder this is.
pub fn log_of(dir: &Path) -> String {
    let mut files: Vec<_> = fs::read_dir(dir.join("log")).into_iter().flatten().flatten().collect();
    files.sort_by_key(fs::DirEntry::path);
    files.iter().map(|file| fs::read_to_string(file.path()).unwrap_or_default()).collect()
}

/// Unique on the engine, which all boxes of all fleets share.
pub fn project(scope: &Scope, node: &str, role: &str) -> String {
    format!("{}-{node}-{role}", scope.name())
}
