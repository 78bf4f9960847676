//! A deploy, as the service's API tells it.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use super::{DEPLOYCTL, Http, Output, PATIENCE, Scope, node::log_of, run, wait_for};
use crate::support::wait::last_lines;

/// One deploy of a fleet. It borrows nothing, so that a test can stop parts of the fleet meanwhile.
#[derive(Debug)]
pub struct Deploy {
    pub(super) scope: Scope,
    pub(super) service_url: String,
    pub(super) id: String,
}

impl Deploy {
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `GET /v1/deploys/ID`
    #[track_caller]
    pub fn json(&self) -> Value {
        let (status, deploy) = Http::new(&self.service_url).get(&format!("/v1/deploys/{}", self.id));
        assert_eq!(status, 200, "{deploy}");
        deploy
    }

    /// Each box's phase.
    #[track_caller]
    pub fn phases(&self) -> BTreeMap<String, String> {
        let deploy = self.json();
        let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        deploy["boxes"].as_array().into_iter().flatten().map(|row| (text(row, "box"), text(row, "phase"))).collect()
    }

    /// Waits until the deploy is complete, and checks that it counted down to nothing.
    #[track_caller]
    pub fn wait_deployed(&self) -> Value {
        let deploy = self.wait_state("deployed");
        assert_eq!(deploy["remaining"], 0, "{deploy}");
        deploy
    }

    /// Waits until the deploy is in this state. Gives up at once when it has ended in another.
    #[track_caller]
    pub fn wait_state(&self, state: &str) -> Value {
        let deploy = wait_for(PATIENCE, &format!("deploy {} is {state}", self.id), || {
            let deploy = self.try_json()?;
            let seen = deploy["state"].as_str().unwrap_or_default();
            if seen == state || !matches!(seen, "queued" | "rolling") {
                Ok(deploy)
            } else {
                Err(self.describe(&deploy))
            }
        });
        assert_eq!(deploy["state"], state, "{}", self.describe(&deploy));
        deploy
    }

    /// Waits until a box is in this phase.
    #[track_caller]
    pub fn wait_phase(&self, node: &str, phase: &str) {
        self.wait_phases(&format!("{node} is {phase}"), |phases| phases.get(node).is_some_and(|seen| seen == phase));
    }

    /// Waits until some box is in this phase, and gives its name.
    #[track_caller]
    pub fn wait_any(&self, phase: &str) -> String {
        let in_it = |phases: &BTreeMap<String, String>| phases.values().any(|seen| seen == phase);
        let phases = self.wait_phases(&format!("a box is {phase}"), in_it);
        phases.into_iter().find_map(|(node, seen)| (seen == phase).then_some(node)).unwrap()
    }

    /// Waits until the phases are as a test wants them, and gives them.
    #[track_caller]
    pub fn wait_phases(
        &self,
        what: &str,
        mut holds: impl FnMut(&BTreeMap<String, String>) -> bool,
    ) -> BTreeMap<String, String> {
        wait_for(PATIENCE, what, || {
            let phases = self.phases();
            if holds(&phases) { Ok(phases) } else { Err(self.describe(&self.json())) }
        })
    }

    /// `deployctl cancel` with these further arguments.
    pub fn cancel(&self, arguments: &[&str]) -> Output {
        let deploy = self.json();
        let (role, environment) = (deploy["role"].as_str().unwrap(), deploy["environment"].as_str().unwrap());
        let mut command = self.scope.command(DEPLOYCTL);
        command.args(["cancel", "-r", role, "-e", environment]).args(arguments);
        run(command.env("DEPLOYCTL_SERVICE_URL", &self.service_url))
    }

    /// The service may be down for a while.
    fn try_json(&self) -> Result<Value, String> {
        let (status, body) = Http::new(&self.service_url).try_get(&format!("/v1/deploys/{}", self.id))?;
        if status == 200 { serde_json::from_str(&body).map_err(|err| err.to_string()) } else { Err(body) }
    }

    /// The deploy and the last words of every worker: what one wants to know when it does not end as it should.
    fn describe(&self, deploy: &Value) -> String {
        let mut text = format!("{deploy:#}");
        for entry in fs::read_dir(self.scope.dir()).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("box-") {
                let log = log_of(&entry.path());
                text.extend(["\n--- ", &entry.file_name().to_string_lossy(), "\n", &last_lines(&log, 12)]);
            }
        }
        text
    }
}
