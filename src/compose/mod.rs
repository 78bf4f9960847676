//! One role's compose project on this box: rendered, started, watched, and what is left of it removed.
//!
//! What is started is always a [`Rendered`] configuration, never the file itself: the new one, whose text has been
//! checked, and the previous one, kept by the caller, go the same way, and the file may change meanwhile.

mod choice;
mod commands;
mod engine;
mod evidence;
mod failure;
mod health;
mod images;
mod inputs;
mod inspect;
mod judge;
mod mask;
mod mounts;
mod rendered;
mod vars;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use log::warn;
use serde::{Deserialize, Serialize};

use self::engine::Engine;
pub use self::{
    engine::EngineWatch,
    evidence::Evidence,
    failure::UpFailure,
    health::HealthFailure,
    images::PullFailure,
    inputs::Inputs,
    inspect::{Container, ContainerState, HealthState, ImageId, Probe},
    judge::Restarts,
    rendered::Rendered,
    vars::DeployVars,
};
use crate::{config::Config, names::Role, process};

/// A tag that no release has, to see whether the tag decides what is rendered.
const OTHER_TAG: &str = "deployctl.other.tag";

/// What a project is run by. It is kept with a release that worked: the configuration may name others by the time a box
/// goes back to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunBy {
    /// The compose program and its first arguments.
    program: Vec<String>,
    project: String,
    /// The service whose containers are watched.
    service: String,
}

/// One role's compose project on this box.
#[derive(Debug)]
pub struct Project {
    program: Vec<String>,
    name: String,
    service: String,
    file: PathBuf,
    timeout: Duration,
    engine: Engine,
}

impl Project {
    /// The project of `role`, and the compose program: the configured one, or the one that is installed, which is then
    /// kept. Two roles may not share a project: starting one would remove the other's containers.
    pub fn new(config: &Config, role: &Role) -> Result<Self> {
        let own = config.role(role)?;
        let project = own.project.clone().unwrap_or_else(|| role.to_string());
        if !is_project(&project) {
            bail!(
                "roles.{role}.project: {project:?} is not a compose project: use a-z, 0-9, _ and -, first a letter or digit"
            );
        }
        let other = config
            .roles
            .iter()
            .find(|(name, other)| *name != role && other.project.as_deref().unwrap_or(name.as_str()) == project);
        if let Some((other, _)) = other {
            bail!("roles.{role}.project and roles.{other}.project are both {project}: each role needs its own");
        }
        Ok(Self {
            program: choice::program(config)?,
            name: project,
            service: own.compose_service.clone().unwrap_or_else(|| role.to_string()),
            file: own.compose_file.clone().unwrap_or_else(|| config.compose_dir.join(format!("{role}.yml"))),
            timeout: config.command_timeout,
            engine: Engine::default(),
        })
    }

    /// What to keep with a release that works.
    #[must_use]
    pub fn run_by(&self) -> RunBy {
        RunBy { program: self.program.clone(), project: self.name.clone(), service: self.service.clone() }
    }

    /// The project with the program and the watched service that a release was run by. The project's name stays today's:
    /// [`Project::check_way_back`] has seen to it that nothing of another one is left.
    #[must_use]
    pub fn as_run_by(&self, kept: &RunBy) -> Self {
        Self {
            program: kept.program.clone(),
            name: self.name.clone(),
            service: kept.service.clone(),
            file: self.file.clone(),
            timeout: self.timeout,
            engine: Engine::default(),
        }
    }

    /// [`Project::as_run_by`], to start it again: by today's program where the old one does not work any more.
    #[must_use]
    pub fn way_back(&self, kept: &RunBy) -> Self {
        let mut project = self.as_run_by(kept);
        if !self.is_there(kept) {
            project.program.clone_from(&self.program);
        }
        project
    }

    /// Refuses what this box could not undo, before it leaves: `old` runs here, by `kept`, and `new` is to come.
    pub fn check_way_back(&self, kept: &RunBy, old: &Rendered, new: &Rendered) -> Result<()> {
        self.check_project(kept)?;
        let RunBy { program, .. } = kept;
        // Version 2 starts what version 1 rendered, and not the other way round.
        if old.is_by_version_2() && !new.is_by_version_2() && !self.is_there(kept) {
            let program = program.join(" ");
            bail!(
                "this box could not go back to {}: {program} rendered it, and does not work here any more. Install it \
                 again until another release has worked here",
                old.vars().tag
            );
        }
        Ok(())
    }

    /// Refuses a project while containers of the one that `kept` names still run: they hold its ports.
    pub fn check_project(&self, kept: &RunBy) -> Result<()> {
        let project = &kept.project;
        let left = |container: &Container| container.state == ContainerState::Running;
        if *project != self.name && self.containers_of(project)?.iter().any(left) {
            bail!(
                "containers of the compose project {project} still run here, and this role's project is {} now: name \
                 it {project} again, or take the box out by hand and run `{} --project-name {project} down`",
                self.name,
                self.program.join(" ")
            );
        }
        Ok(())
    }

    /// Refuses a release while a file that `old`, which serves here, is started with is gone: version 2 of compose makes an
    /// empty folder of it.
    pub fn check_mounts(old: &Rendered) -> Result<()> {
        let Some(path) = old.lost() else { return Ok(()) };
        let (path, tag) = (path.display(), &old.vars().tag);
        bail!(
            "this box could not go back to {tag}: it mounts {path}, which is gone. Put it back until another release has worked here"
        )
    }

    /// Whether the compose program of `kept` can be run. Today's own is not asked.
    fn is_there(&self, kept: &RunBy) -> bool {
        kept.program == self.program || choice::works(&kept.program)
    }

    /// Renders the compose file for one deploy. An error says in one line what to mend in which file.
    pub fn render(&self, vars: &DeployVars, interrupted: &dyn Fn() -> bool) -> Result<Rendered> {
        vars.check()?;
        let file = self.file.display();
        if !self.file.is_file() {
            bail!("there is no compose file {file}: write it, or name another with compose_file");
        }
        let rendered = || -> Result<Rendered> {
            let rendered = self.render_once(vars, interrupted)?;
            if !rendered.is_named_after_tag() {
                let other = DeployVars { tag: OTHER_TAG.parse()?, ..vars.clone() };
                rendered.check_differs_from(&self.render_once(&other, interrupted)?)?;
            }
            Ok(rendered)
        };
        rendered().with_context(|| format!("mend the compose file {file}"))
    }

    fn render_once(&self, vars: &DeployVars, interrupted: &dyn Fn() -> bool) -> Result<Rendered> {
        let program = self.compose().config(vars.pairs_with(rendered::ID, rendered::KIND));
        let output = process::run(&program, interrupted)?;
        for warning in unset_variables(&output.stderr) {
            warn!("{}: compose warns: {warning}", self.file.display());
        }
        let profiles = std::env::var("COMPOSE_PROFILES").unwrap_or_default();
        let profiles: Vec<String> = profiles.split(',').map(|name| name.trim().to_owned()).collect();
        Ok(Rendered::parse(vars.clone(), output.stdout, &self.service, &profiles)?.seen())
    }

    /// What rendering reads now. While it stays the same, so does what is rendered. None where only rendering can tell.
    #[must_use]
    pub fn inputs(&self) -> Option<Inputs> {
        Inputs::of(&self.file)
    }

    /// Starts what was rendered, now or long ago, and removes the project's services that are not in it. `recreate`
    /// makes every container anew. Nothing is fetched, whatever `pull_policy` says: the box is out of service, and the
    /// registry may be away. Gives back how often each container had been restarted before, for
    /// [`Project::wait_healthy`]: that the containers work is not said yet.
    pub fn up(
        &self,
        rendered: &Rendered,
        recreate: bool,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Restarts, UpFailure> {
        let containers = self.containers().map_err(UpFailure::Box)?;
        for container in orphans(&containers, rendered) {
            warn!("{}, of the service {}, goes: it is not in what is started", container.name, container.service);
        }
        let before = Restarts::of(&containers);
        // Neither version starts one that somebody paused.
        let recreate = recreate || containers.iter().any(|container| container.state == ContainerState::Paused);
        let mut program = self.compose().up(&rendered.text(), rendered.vars(), recreate);
        program.timeout += time_to_stop(&containers);
        // Version 1 has no such flag, and fetches nothing that is here.
        if rendered.is_by_version_2() {
            program.argv.extend(["--pull", "never"].map(Into::into));
        }
        match process::run(&program, interrupted) {
            Ok(_) => Ok(before),
            Err(failure) => Err(UpFailure::of(failure, &rendered.mask())),
        }
    }

    /// How long the containers that run here may take to stop, beside what starting others takes.
    pub fn time_to_stop(&self) -> Result<Duration> {
        Ok(time_to_stop(&self.containers()?))
    }

    /// The watched container, if there is one.
    pub fn container(&self) -> Result<Option<Container>> {
        Ok(self.containers()?.into_iter().find(|container| container.service == self.service))
    }

    /// Whether the watched containers run and were made from the image that `rendered`'s tag stands for on this box.
    pub fn runs(&self, rendered: &Rendered) -> Result<bool> {
        let mut containers = self.containers()?;
        containers.retain(|container| container.service == self.service);
        if containers.is_empty() {
            return Ok(false);
        }
        let image = self.image_present(rendered.image())?;
        Ok(containers
            .iter()
            .all(|container| container.state == ContainerState::Running && Some(&container.image) == image.as_ref()))
    }

    /// What can be told of the container that failed, or else of the watched one. Nothing of a previous one, which still
    /// runs where the new one could not even be made.
    pub fn evidence(&self, rendered: &Rendered) -> Result<Evidence> {
        let image = self.image_present(rendered.image())?;
        let mut containers = self.containers()?;
        containers.retain(|container| container.service != self.service || Some(&container.image) == image.as_ref());
        let container = judge::worst(&containers, &self.service)
            .with_context(|| format!("no container was made from {}", rendered.image()))?;
        let logs = self.logs(&container.id).unwrap_or_else(|e| format!("{e:#}"));
        Ok(Evidence::of(container, &logs, &rendered.mask()))
    }

    /// Begins to watch the engine, and the project's containers. An error for an engine that cannot be watched: then
    /// nobody may be blamed.
    pub fn watch_engine(&self) -> Result<EngineWatch> {
        self.engine.watch(&self.name)
    }

    /// The project's containers: one for each service and number.
    fn containers(&self) -> Result<Vec<Container>> {
        self.containers_of(&self.name)
    }

    fn containers_of(&self, project: &str) -> Result<Vec<Container>> {
        let context = || format!("cannot look at the containers of the project {project}: see that Docker answers");
        self.engine.containers(project).with_context(context)
    }

    fn logs(&self, container: &str) -> Result<String> {
        let context = || format!("cannot read the logs of the service {}", self.service);
        self.engine.logs(container).with_context(context)
    }

    fn compose(&self) -> commands::Compose<'_> {
        commands::Compose { program: &self.program, project: &self.name, file: &self.file, timeout: self.timeout }
    }
}

/// The project's containers that `up` removes, for their service is not in `rendered`. What was kept before services were
/// counted does not tell.
fn orphans<'a>(containers: &'a [Container], rendered: &'a Rendered) -> impl Iterator<Item = &'a Container> {
    let counts = rendered.counts();
    containers.iter().filter(|container| !counts.is_empty() && !counts.contains_key(&container.service))
}

/// One after the other, as dependent services do.
fn time_to_stop(containers: &[Container]) -> Duration {
    let running = containers.iter().filter(|container| container.state == ContainerState::Running);
    running.map(|container| container.stops_within).sum()
}

/// Compose's warnings of variables that became blank: the release may start, and do something else. Its other warnings are
/// of style.
fn unset_variables(stderr: &str) -> Vec<&str> {
    let mut lines: Vec<&str> =
        stderr.lines().map(str::trim).filter(|line| line.contains("variable is not set")).collect();
    lines.dedup();
    lines
}

/// What both versions of compose take for a project without changing it.
fn is_project(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(roles: &str) -> String {
        let config = Config::parse(&format!(r#"{{"compose": ["docker-compose"], "roles": {{{roles}}}}}"#)).unwrap();
        format!("{:#}", Project::new(&config, &"app".parse().unwrap()).unwrap_err())
    }

    #[test]
    fn a_project_is_one_role_s_own() {
        let shared = error(r#""app": {"load_balancers": [], "project": "web"}, "web": {"load_balancers": []}"#);
        assert!(shared.contains("roles.app.project and roles.web.project are both web"), "{shared}");
        let bad = error(r#""app": {"load_balancers": [], "project": "App"}"#);
        assert!(bad.contains("roles.app.project") && bad.contains("\"App\""), "{bad}");
        assert!(error("").contains("the role app has no configuration"));
    }

    #[test]
    fn a_container_of_another_file_is_named_before_it_goes() {
        let text = "services:\n  app: {image: 'x:v42'}\n".to_owned();
        let rendered = Rendered::parse(vars::example(), text, "app", &[]).unwrap();
        let containers = ["app", "stray"].map(|service| inspect::example(service, ContainerState::Running));
        let names: Vec<&str> = orphans(&containers, &rendered).map(|container| container.name.as_str()).collect();
        assert_eq!(names, ["app_stray_1"]);
    }

    #[test]
    fn a_variable_that_became_blank_is_told() {
        let one = "WARNING: The HOME_PAGE variable is not set. Defaulting to a blank string.";
        let two = r#"time="2026-11-27T19:00:00Z" level=warning msg="The \"HOME_PAGE\" variable is not set. Defaulting to a blank string.""#;
        let style = r#"level=warning msg="the attribute `version` is obsolete""#;
        assert_eq!(unset_variables(&format!("{one}\n{two}\n{style}\n")), [one, two]);
        assert!(unset_variables("").is_empty());
    }

    #[test]
    fn a_missing_file_is_named() {
        let config =
            r#"{"compose": ["docker-compose"], "compose_dir": "/nowhere", "roles": {"app": {"load_balancers": []}}}"#;
        let project = Project::new(&Config::parse(config).unwrap(), &"app".parse().unwrap()).unwrap();
        let error = project.render(&vars::example(), &process::never).unwrap_err().to_string();
        assert!(error.contains("/nowhere/app.yml") && error.contains("compose_file"), "{error}");
    }
}
