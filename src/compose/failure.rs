//! Whose fault it is when containers cannot be started, told from what compose and the engine say.
//!
//! When in doubt it is the box's: a release that is taken for a good one fails again elsewhere, one that is wrongly taken
//! for broken is never deployed.

use super::mask::Mask;
use crate::process::Failure;

/// Why `up` failed.
#[derive(Debug, thiserror::Error)]
pub enum UpFailure {
    /// The release's container cannot be created or started: one line, masked.
    #[error("{0}")]
    Release(String),
    /// Something else is in the way.
    #[error("{0:#}")]
    Box(anyhow::Error),
}

impl UpFailure {
    pub(super) fn of(failure: Failure, mask: &Mask) -> Self {
        match &failure {
            Failure::Exit { .. } => match release_at_fault(failure.stderr()) {
                Some(reason) => Self::Release(mask.apply(&reason)),
                None => Self::Box(anyhow::anyhow!(mask.apply(&failure.to_string()))),
            },
            _ => Self::Box(failure.into()),
        }
    }
}

/// The line that proves that the release is at fault, if there is one and none that speaks for another cause.
fn release_at_fault(stderr: &str) -> Option<String> {
    if stderr.lines().any(is_of_the_box) {
        return None;
    }
    stderr.lines().find(|line| is_of_the_release(line)).map(|line| bare(line).to_owned())
}

fn is_of_the_box(line: &str) -> bool {
    [
        "no space left on device",
        "cannot allocate memory",
        "Cannot connect to the Docker daemon",
        "error mounting",
        "port is already allocated",
        "address already in use",
        "Read timed out",
        "context deadline exceeded",
        "cgroup",
    ]
    .iter()
    .any(|words| line.contains(words))
}

fn is_of_the_release(line: &str) -> bool {
    let has = |words: &str| line.contains(words);
    // The image has nothing to run.
    has("No command specified")
        || has("no command specified")
        // What it has cannot be run: missing, no permission, another architecture, a folder that is not there.
        || has("unable to start container process: exec: \"")
        || has("executable file not found in $PATH")
        || has("exec format error")
        || has("chdir to cwd")
        || has("unable to find user")
        || has("unable to find group")
        // A service that it depends on did not come up: compose 1, compose 2.
        || (has("ERROR: for ") && has("Container \"") && (has(" is unhealthy") || has(" exited with code ")))
        || (has("dependency failed to start: container ") && (has(" is unhealthy") || has(" exited (")))
        || has("didn't complete successfully: exit ")
}

/// The line without what compose puts before it.
fn bare(line: &str) -> &str {
    let line = line.trim().trim_start_matches("Error response from daemon: ");
    match line.strip_prefix("ERROR: for ").and_then(|rest| rest.split_once("  ")) {
        Some((_, words)) => words,
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIM: &str = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start \
                        container process: ";

    #[test]
    fn the_release_is_at_fault() {
        let version_1 = |words: &str| {
            format!(
                "Creating app_app_1 ... error\n\nERROR: for app  Cannot start service app: {words}\nEncountered errors while bringing up the project."
            )
        };
        let version_2 = |words: &str| format!(" Container app-app-1  Starting\nError response from daemon: {words}");
        for words in [
            "No command specified".to_owned(),
            format!("{SHIM}exec: \"/nope\": stat /nope: no such file or directory: unknown"),
            format!("{SHIM}exec: \"nope\": executable file not found in $PATH: unknown"),
            format!("{SHIM}exec: \"/x\": permission denied: unknown"),
            format!("{SHIM}exec: \"/x\": exec format error: unknown"),
            format!("{SHIM}chdir to cwd (\"/app\") set in config.json failed: no such file or directory: unknown"),
            "unable to find user nobodyhere: no matching entries in passwd file".to_owned(),
        ] {
            assert_eq!(release_at_fault(&version_1(&words)), Some(format!("Cannot start service app: {words}")));
            assert_eq!(release_at_fault(&version_2(&words)), Some(words));
        }
    }

    #[test]
    fn so_it_is_when_what_it_depends_on_does_not_come_up() {
        for line in [
            "ERROR: for app  Container \"dd3849dc15b1\" is unhealthy.",
            "ERROR: for app  Container \"c3c422a5e50c\" exited with code 3.",
            "dependency failed to start: container app-side-1 is unhealthy",
            "dependency failed to start: container app-side-1 exited (1)",
            "service \"migrate\" didn't complete successfully: exit 3",
        ] {
            assert!(release_at_fault(line).is_some(), "{line}");
        }
    }

    #[test]
    fn the_box_is_at_fault_when_in_doubt() {
        for line in [
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
            "docker.errors.DockerException: Error while fetching server API version: ('Connection aborted.', FileNotFoundError(2, 'No such file or directory'))",
            "ERROR: for app  Cannot start service app: driver failed programming external connectivity on endpoint app_app_1 (f91a): Bind for 0.0.0.0:80 failed: port is already allocated",
            "ERROR: for app  Cannot start service app: driver failed programming external connectivity on endpoint app_app_1 (f91a): Error starting userland proxy: listen tcp4 0.0.0.0:80: bind: address already in use",
            "Error response from daemon: Conflict. The container name \"/app\" is already in use by container \"f04c\".",
            "Error response from daemon: network frontend not found",
            "Error response from daemon: Get \"http://localhost:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
            "Error response from daemon: manifest for registry/app:v1 not found: manifest unknown: manifest unknown",
            "Error response from daemon: failed to mkdir /var/lib/docker/overlay2/x: no space left on device",
            "",
        ] {
            assert_eq!(release_at_fault(line), None, "{line}");
        }
        let mount = format!(
            "{SHIM}error during container init: error mounting \"/etc/x\" to rootfs at \"/bin\": not a directory: unknown"
        );
        assert_eq!(release_at_fault(&mount), None);
        let memory = format!("{SHIM}exec: \"/x\": cannot allocate memory: unknown");
        assert_eq!(release_at_fault(&memory), None);
    }
}
