//! Compose projects on a real engine, by both versions of compose, with images from a real registry.

mod engine;
mod health;
mod images;
mod versions;

use std::{path::PathBuf, time::Duration};

use deployctl::{
    api::Kind,
    compose::{DeployVars, HealthFailure, Project, Rendered},
    config::{Config, Health},
    process::never,
};

use crate::support::{Behaviour, Engine, Images, Registry, Scope, docker_config};

/// A box's part of these tests: a registry, a compose file, and a project that is unique on the machine.
struct Lab {
    // In the order in which they must end.
    registry: Registry,
    images: Images,
    engine: Engine,
    scope: Scope,
}

impl Lab {
    fn new() -> Self {
        let scope = Scope::new();
        let engine = Engine::shared();
        let images = Images::new(&engine, &scope);
        Self { registry: Registry::start(&scope), images, engine, scope }
    }

    fn image(&self) -> String {
        format!("{}/app", self.registry.host())
    }

    fn push(&self, tag: &str, behaviour: Behaviour) {
        self.images.push(&self.engine, &format!("{}:{tag}", self.image()), behaviour);
    }

    /// A compose file whose service `app` has these lines besides its image.
    fn file(&self, lines: &str) {
        self.write(&format!(
            "version: \"3.8\"\nservices:\n  app:\n    image: {}:${{DEPLOY_TAG:?}}\n{lines}",
            self.image()
        ));
    }

    fn write(&self, text: &str) {
        self.scope.file("compose/app.yml", text);
    }

    fn project(&self, version: Version) -> Project {
        self.project_within(version, "60s")
    }

    /// With this `command_timeout`.
    fn project_within(&self, version: Version, command_timeout: &str) -> Project {
        let config = serde_json::json!({
            "compose": version.program(&self.scope),
            "compose_dir": self.scope.dir().join("compose"),
            "state_dir": self.scope.dir().join("state"),
            "command_timeout": command_timeout,
            "roles": {"app": {"load_balancers": [], "project": self.scope.name()}}
        });
        Project::new(&Config::parse(&config.to_string()).unwrap(), &"app".parse().unwrap()).unwrap()
    }
}

/// Renders, fetches, starts and waits, as a deploy does.
fn deploy(project: &Project, tag: &str) -> Result<Rendered, HealthFailure> {
    let rendered = project.render(&vars(tag), &never).unwrap();
    project.pull(&rendered, Duration::from_secs(30), &never).unwrap();
    let before = project.up(&rendered, false, &never).unwrap();
    project.wait_healthy(&rendered, &health(), &before, None, &never).map(|()| rendered)
}

#[derive(Debug, Clone, Copy)]
enum Version {
    One,
    Two,
}

impl Version {
    /// Version 2 is a plugin of `docker`, in the tools folder on machines whose own `docker` has none.
    fn program(self, scope: &Scope) -> Vec<PathBuf> {
        match self {
            Self::One => vec!["docker-compose".into()],
            Self::Two => {
                let line = format!("DOCKER_CONFIG={} exec docker compose \"$@\"", docker_config().display());
                vec![scope.script("compose-2", &line)]
            }
        }
    }
}

fn vars(tag: &str) -> DeployVars {
    DeployVars {
        tag: tag.parse().unwrap(),
        role: "app".parse().unwrap(),
        environment: "production".parse().unwrap(),
        id: format!("app.production.of-{tag}"),
        kind: Kind::Deploy,
    }
}

fn health() -> Health {
    Health { timeout: Duration::from_secs(15), stable_for: Duration::from_secs(1), ..Health::default() }
}
