//! What is kept of a container that failed, for the person who mends the release.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    inspect::{Container, ContainerState},
    mask::Mask,
};

/// The most that is kept of the logs, of the health check's output, and of the engine's error: 16 KiB in all, with room
/// for the rest.
const LOGS: usize = 12 * 1024;
const PROBES: usize = 2 * 1024;
const ERROR: usize = 1024;

/// A container that failed. Values of the compose file's `environment` sections are masked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Its name.
    pub container: String,
    /// What it did: `exited`, `running`, …
    pub state: String,
    /// How it ended; none while it runs.
    pub exit_code: Option<i64>,
    /// Whether the kernel killed it for want of memory.
    pub oom_killed: bool,
    /// How often it was restarted.
    pub restarts: u64,
    /// Why it could not be started; empty when it could.
    pub error: String,
    /// What its health check printed, oldest first; empty without one.
    pub health: String,
    /// Its last 100 lines at most.
    pub logs: String,
}

impl Evidence {
    pub(super) fn of(container: &Container, logs: &str, mask: &Mask) -> Self {
        let runs = matches!(container.state, ContainerState::Running | ContainerState::Paused);
        let probes: Vec<String> = container
            .probes
            .iter()
            .map(|probe| format!("exit code {}: {}", probe.exit_code, probe.output.trim_end()))
            .collect();
        Self {
            container: container.name.clone(),
            state: format!("{:?}", container.state).to_lowercase(),
            exit_code: (!runs).then_some(container.exit_code),
            oom_killed: container.oom_killed,
            restarts: container.restarts,
            error: end_of(mask.apply(&container.error).trim_end(), ERROR),
            health: end_of(&mask.apply(&probes.join("\n")), PROBES),
            logs: end_of(mask.apply(logs).trim_end(), LOGS),
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.container, self.state)?;
        if let Some(code) = self.exit_code {
            write!(f, ", exit code {code}")?;
        }
        if self.oom_killed {
            f.write_str(", out of memory")?;
        }
        if self.restarts > 0 {
            write!(f, ", restarted {} times", self.restarts)?;
        }
        for (heading, text) in [("error", &self.error), ("health check", &self.health), ("last lines", &self.logs)] {
            if !text.is_empty() {
                write!(f, "\n{heading}:\n{text}")?;
            }
        }
        Ok(())
    }
}

/// The end of a text that is too long, from the beginning of a line where there is one.
fn end_of(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = &text[text.ceil_char_boundary(text.len() - most)..];
    let whole = end.split_once('\n').map_or(end, |(_, rest)| rest);
    format!("…\n{whole}")
}

#[cfg(test)]
mod tests {
    use super::{super::inspect::example, *};

    #[test]
    fn evidence_is_masked_and_bounded() {
        let secret = "hunter2-very-secret".to_owned();
        let mask = Mask::new([&secret]);
        let probe = super::super::inspect::Probe { exit_code: 1, output: format!("no: {secret}\n").repeat(500) };
        let container = Container {
            exit_code: 3,
            error: secret.clone(),
            probes: vec![probe],
            ..example("app", ContainerState::Exited)
        };
        let evidence = Evidence::of(&container, &format!("password {secret}\n").repeat(5000), &mask);
        let shown = evidence.to_string();
        assert!(!shown.contains(&secret[..6]), "{shown}");
        assert!(shown.starts_with("app_app_1: exited, exit code 3\nerror:\n***\nhealth check:\n"), "{shown}");
        assert!(shown.ends_with("password ***"), "{shown}");
        assert!(shown.len() <= 16 * 1024, "{}", shown.len());
        assert!(serde_json::to_string(&evidence).unwrap().len() <= 18 * 1024);
    }
}
