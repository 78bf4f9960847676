//! Docker engines: the machine's, and private ones that a test may restart.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use super::{command::run, free_port, process::Process, scope::Scope, tools, wait::wait_until};

/// What the names of private engines' bridges begin with.
const BRIDGE: &str = "deployctl";

/// An engine to talk to. A private one is stopped when it is dropped.
#[derive(Debug)]
pub struct Engine {
    /// `DOCKER_HOST`; none for the machine's own.
    host: Option<String>,
    private: Option<Private>,
}

#[derive(Debug)]
struct Private {
    daemon: Option<Process>,
    dir: PathBuf,
    bridge: String,
}

impl Engine {
    /// The machine's engine, which `make test` starts where none runs. Nobody restarts it.
    pub fn shared() -> Self {
        Self { host: None, private: None }
    }

    /// An engine for one test alone. It has a bridge of its own and leaves the firewall alone: one that is told to use
    /// none removes `docker0`, and so the other engine's.
    pub fn private(scope: &Scope) -> Self {
        let dir = scope.subdir("docker");
        let host = format!("unix://{}/docker.sock", dir.display());
        // A port is this test's alone, and so are a name and a network made of it.
        let port = free_port();
        let bridge = format!("{BRIDGE}{port}");
        let address = format!("10.{}.{}.1/24", 100 + port / 256, port % 256);
        fs::write(dir.join("bridge"), &bridge).unwrap();
        for args in [
            &["link", "add", &bridge, "type", "bridge"][..],
            &["address", "add", &address, "dev", &bridge],
            &["link", "set", &bridge, "up"],
        ] {
            run(Command::new(tools::program("ip")).args(args)).ok();
        }
        let mut engine = Self { host: Some(host), private: Some(Private { daemon: None, dir, bridge }) };
        engine.resume(scope);
        engine
    }

    /// `DOCKER_HOST` for what talks to this engine; none for the machine's own.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    pub fn is_private(&self) -> bool {
        self.private.is_some()
    }

    pub fn is_up(&self) -> bool {
        self.command(&["info"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// A `docker` command on this engine.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(tools::program("docker"));
        command.args(args).env("PATH", tools::path());
        match &self.host {
            Some(host) => command.env("DOCKER_HOST", host),
            None => command.env_remove("DOCKER_HOST"),
        };
        command
    }

    /// Runs a `docker` command and gives what it printed.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> String {
        run(&mut self.command(args)).ok().stdout.trim().to_owned()
    }

    /// Stops a private engine in order: its containers end with it.
    pub fn stop(&mut self) {
        let private = self.private.as_mut().expect("a private engine");
        private.daemon.take().expect("the engine runs").terminate();
    }

    /// Kills a private engine.
    pub fn kill(&mut self) {
        self.private.as_mut().expect("a private engine").daemon = None;
    }

    /// Starts a private engine, again after [`Engine::stop`] or [`Engine::kill`].
    pub fn resume(&mut self, scope: &Scope) {
        let private = self.private.as_mut().expect("a private engine");
        // A killed engine leaves pid files that keep the next one from starting.
        for stale in ["docker.pid", "run/containerd/containerd.pid"] {
            let _ = fs::remove_file(private.dir.join(stale));
        }
        let mut command = scope.command("dockerd");
        for (flag, name) in [("--data-root", "data"), ("--exec-root", "run"), ("--pidfile", "docker.pid")] {
            command.arg(flag).arg(private.dir.join(name));
        }
        command.args(["--bridge", &private.bridge, "--iptables=false", "--host", self.host.as_deref().unwrap()]);
        let mut daemon = scope.start("dockerd", &mut command);
        let socket = private.dir.join("docker.sock");
        daemon.wait_ready(Duration::from_secs(60), || UnixStream::connect(&socket).is_ok());
        private.daemon = Some(daemon);
        wait_until(Duration::from_secs(30), "the engine answers", || self.is_up());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(mut private) = self.private.take() else { return };
        if let Some(daemon) = &mut private.daemon {
            // Orderly, since a container outlives an engine that is killed.
            let ids = run(&mut self.command(&["ps", "-aq"])).stdout;
            let ids: Vec<&str> = ids.split_whitespace().collect();
            if !ids.is_empty() {
                run(&mut self.command(&[&["rm", "-f"], ids.as_slice()].concat()));
            }
            daemon.terminate();
        }
        remove_private(&private.dir);
    }
}

/// Removes what a private engine leaves on the machine, besides its folder: mounts in it, and its bridge.
pub fn remove_private(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|point| Path::new(point).starts_with(dir));
    // The last mounted first: it may lie within another.
    for point in points.collect::<Vec<_>>().into_iter().rev() {
        let _ = Command::new("umount").arg("--lazy").arg(point).status();
    }
    if let Ok(bridge) = fs::read_to_string(dir.join("bridge")) {
        let _ = Command::new(tools::program("ip")).args(["link", "delete", &bridge]).stderr(Stdio::null()).status();
    }
}

/// Removes every container, network and image of a scope from the machine's engine: all whose name holds the scope's.
pub fn remove_all_of(scope: &str) {
    if tools::find("docker").is_none() {
        return;
    }
    let engine = Engine::shared();
    let name = format!("name={scope}");
    let label = format!("label=scope={scope}");
    for (list, remove) in [
        (vec!["ps", "-aq", "--filter", &name], vec!["rm", "-f", "-v"]),
        (vec!["network", "ls", "-q", "--filter", &name], vec!["network", "rm"]),
        (vec!["images", "-q", "--filter", &label], vec!["rmi", "-f"]),
    ] {
        let listed = engine.command(&list).stderr(Stdio::null()).output();
        let ids = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let mut ids: Vec<&str> = ids.split_whitespace().collect();
        ids.sort_unstable();
        ids.dedup();
        if !ids.is_empty() {
            let _ = engine.command(&[remove, ids].concat()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}
