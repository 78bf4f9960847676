//! Finds the programs that tests need.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where `scripts/install-tools.sh` puts what is not a Debian package.
pub fn tools_dir() -> PathBuf {
    env::var_os("DEPLOYCTL_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools"), PathBuf::from)
}

/// `DOCKER_CONFIG` for everything that a test starts: version 2 of compose is a plugin in it, where the machine has none.
pub fn docker_config() -> PathBuf {
    tools_dir().join("docker")
}

/// `PATH` for everything that a test starts. Our own tools come first: what a machine has as `aws` may be anything.
pub fn path() -> String {
    let given = env::var("PATH").unwrap_or_default();
    format!("{}:{given}:/usr/sbin:/sbin", tools_dir().join("venv/bin").display())
}

/// The program's full path, if it is there.
pub fn find(name: &str) -> Option<PathBuf> {
    // Python's come from the tools folder and from nowhere else.
    if matches!(name, "aws" | "moto_server") {
        return Some(tools_dir().join("venv/bin").join(name)).filter(|file| file.exists());
    }
    path().split(':').map(|dir| Path::new(dir).join(name)).find(|file| file.is_file())
}

/// The program's full path. A test that may lack it says so first, with `require!`.
pub fn program(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| panic!("{name} is not installed: `make install-tools` installs it"))
}

/// The first of these programs that is missing, where tests may be skipped; fails the test where they may not.
/// `docker` means an engine that answers, too; `docker compose` is version 2 of compose.
pub fn missing(names: &[&str]) -> Option<String> {
    let missing = names.iter().find(|name| !works(name))?;
    assert!(
        env::var("DEPLOYCTL_REQUIRE_ALL").is_err(),
        "{missing} is missing and DEPLOYCTL_REQUIRE_ALL is set: `make test` installs it, and starts a Docker engine"
    );
    Some((*missing).to_owned())
}

fn works(name: &str) -> bool {
    match name {
        "docker" => find(name).is_some() && super::Engine::shared().is_up(),
        // A plugin, which docker looks for in several folders.
        "docker compose" => find("docker").is_some_and(|docker| {
            let mut version = Command::new(docker);
            version.args(["compose", "version"]).env("DOCKER_CONFIG", docker_config());
            version.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        }),
        _ => find(name).is_some(),
    }
}
