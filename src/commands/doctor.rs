//! `deployctl doctor`: check everything that a deploy on this box needs, one line each, and say how to mend it.

mod redis;
mod role;
mod serf;

use std::{fs, io, path::Path, time::Duration};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    agent::wake,
    cli::Cli,
    config::{Config, LoadBalancer},
    exit::Exit,
    process::{self, Program, never},
    screen::{self, Paint, Style},
};

/// What a check found: a sentence, or why a deploy would fail and what to do.
type Finding = Result<String>;

/// How long a program may take to say its version.
const VERSION: Duration = Duration::from_secs(20);

/// Prints findings as they come.
struct Report {
    style: Style,
    bad: u32,
}

impl Report {
    fn line(&mut self, name: &str, finding: Finding) -> io::Result<()> {
        let (mark, text) = match finding {
            Ok(text) => (self.style.paint(Paint::Green, "✓"), text),
            Err(error) => {
                self.bad += 1;
                (self.style.paint(Paint::Red, "✗"), format!("{error:#}"))
            }
        };
        screen::print([format!("{mark} {name}: {}", screen::one_line(&text))])
    }
}

/// Runs the command.
pub fn run(cli: &Cli) -> Result<Exit> {
    let mut report = Report { style: Style::for_stdout(), bad: 0 };
    let config = match Config::load(cli.config.as_deref(), &super::variable) {
        Ok(config) => config,
        Err(error) => {
            report.line("configuration", Err(error))?;
            return Ok(Exit::Failed);
        }
    };
    let roles: Vec<&str> = config.roles.keys().map(AsRef::as_ref).collect();
    report.line(
        "configuration",
        if roles.is_empty() { Err(no_roles()) } else { Ok(format!("roles {}", roles.join(", "))) },
    )?;
    report.line("state_dir", writable(&config.state_dir))?;
    for (name, finding) in redis::check(&config) {
        report.line(&name, finding)?;
    }
    report.line("service", service(&config))?;
    let seen = serf::look(&config);
    for (name, finding) in serf::check(&config, &seen) {
        report.line(&name, finding)?;
    }
    report.line("docker", docker())?;
    if config.roles.values().flat_map(|role| &role.load_balancers).any(|lb| !matches!(lb, LoadBalancer::Command(_))) {
        report.line("aws", aws())?;
    }
    let environment = serf::environment(&config, &seen);
    for role in config.roles.keys() {
        for (name, finding) in role::check(&config, role, environment.as_ref()) {
            report.line(&name, finding)?;
        }
    }
    report.line("worker", worker(&config))?;
    if report.bad == 0 {
        return Ok(Exit::Done);
    }
    screen::print([format!("{} to mend before this box can deploy", report.bad)])?;
    Ok(Exit::Failed)
}

fn no_roles() -> anyhow::Error {
    anyhow!("no role is configured: write \"roles\" for what the Serf tag images names")
}

fn writable(folder: &Path) -> Finding {
    let probe = folder.join(".doctor");
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&probe, "x"))
        .and_then(|()| fs::remove_file(&probe))
        .with_context(|| format!("cannot write into {}: run as root, or set state_dir", folder.display()))?;
    Ok(format!("{} can be written", folder.display()))
}

fn service(config: &Config) -> Finding {
    let service = super::service(config)?;
    service.deploys(None, None, 1)?;
    let token = if config.service_token()?.is_some() { "takes our token" } else { "wants no token" };
    Ok(format!("{} answers, and {token}", service.url()))
}

fn docker() -> Finding {
    let program = Program::new(VERSION, ["docker", "version", "--format", "{{.Server.Version}}"]);
    let output = process::run(&program, &never)
        .context("the Docker engine does not answer: start it, or install docker, or set DOCKER_HOST")?;
    Ok(format!("engine {}", output.stdout.trim()))
}

fn aws() -> Finding {
    let output = process::run(&Program::new(VERSION, ["aws", "--version"]), &never)
        .context("install the AWS CLI: a role has an AWS load balancer")?;
    // Version 1 says it on stderr.
    let said = if output.stdout.trim().is_empty() { output.stderr } else { output.stdout };
    Ok(said.split_whitespace().next().unwrap_or("unknown version").to_owned())
}

fn worker(config: &Config) -> Finding {
    if !wake::by_systemd(config) {
        let folder = wake::log_dir(config);
        return Ok(format!("detached, logs into {}; run `deployctl sync` at boot and by a timer", folder.display()));
    }
    for unit in ["deployctl@.service", "deployctl-sync.timer"] {
        process::run(&Program::new(VERSION, ["systemctl", "cat", unit]), &never)
            .with_context(|| format!("systemd does not know {unit}: install the units from scripts/systemd"))?;
    }
    // Fails for a disabled one.
    process::run(&Program::new(VERSION, ["systemctl", "is-enabled", "--quiet", "deployctl-sync.timer"]), &never)
        .context("deployctl-sync.timer is disabled: systemctl enable --now deployctl-sync.timer")?;
    Ok("systemd runs it as deployctl@ROLE.service".to_owned())
}
