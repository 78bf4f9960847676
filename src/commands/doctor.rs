//! `deployctl doctor`: check everything that a deploy needs of this machine, one line each, and say how to mend it.
//!
//! A box needs everything. A machine without roles is a laptop or the service's host: it needs the service, and what else
//! its configuration names. Nothing is created, and nobody is waited for without end.

mod redis;
mod role;
mod serf;

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::fs::{Access, access, statvfs};

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
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);

/// The bytes that a box must be able to write: its journals hold whole compose files.
const ROOM: u64 = 1 << 20;

/// How long all load balancers together, or a compose file, may take to answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// Until when something may take.
struct Limit(Instant);

impl Limit {
    fn new() -> Self {
        Self(Instant::now() + CHECK_TIMEOUT)
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.0
    }

    /// What was interrupted at the limit is said to be slow, in words that name what to look at.
    fn explain(&self, finding: Finding, what: &str) -> Finding {
        if finding.is_err() && self.is_over() {
            bail!("no answer within {} s: {what}", CHECK_TIMEOUT.as_secs());
        }
        finding
    }
}

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

    /// Who may read the files that hold secrets.
    fn secrets(&mut self, config: &Config) -> io::Result<()> {
        config.secret_files().try_for_each(|(key, file)| self.line(&key, private(file)))
    }

    fn end(self, before: &str) -> Result<Exit> {
        if self.bad == 0 {
            return Ok(Exit::Done);
        }
        screen::print([format!("{} to mend {before}", self.bad)])?;
        Ok(Exit::Failed)
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
    let seen = serf::look(&config);
    if config.roles.is_empty() && !serf::names_roles(&seen) {
        return without_roles(&config, report);
    }
    let roles: Vec<&str> = config.roles.keys().map(AsRef::as_ref).collect();
    report.line(
        "configuration",
        if roles.is_empty() { Err(no_roles()) } else { Ok(format!("roles {}", roles.join(", "))) },
    )?;
    report.line("state_dir", writable(&config.state_dir))?;
    report.secrets(&config)?;
    for (name, finding) in redis::check(&config) {
        report.line(&name, finding)?;
    }
    report.line("service", service(&config))?;
    for (name, finding) in serf::check(&config, &seen) {
        report.line(&name, finding)?;
    }
    report.line("docker", docker())?;
    if config.roles.values().flat_map(|role| &role.load_balancers).any(|lb| !matches!(lb, LoadBalancer::Command(_))) {
        report.line("aws", aws())?;
    }
    let environment = serf::environment(&config, &seen);
    let limit = Limit::new();
    for role in config.roles.keys() {
        for (name, finding) in role::check(&config, role, environment.as_ref(), &limit) {
            report.line(&name, finding)?;
        }
    }
    report.line("worker", worker(&config))?;
    report.end("before this box can deploy")
}

/// A laptop, or the service's host.
fn without_roles(config: &Config, mut report: Report) -> Result<Exit> {
    let own = &config.service;
    let host = own.notify.targets().next().is_some() || !own.tokens.is_empty() || !own.roles.is_empty();
    let what = if host { "this is the service's host" } else { "no roles: this is no box, but a laptop or CI" };
    report.line("configuration", crate::service::check(config).map(|()| what.to_owned()))?;
    report.secrets(config)?;
    for (name, usable) in crate::service::check_targets(config) {
        let kind = usable.map(|kind| format!("by {kind}"));
        report.line(&format!("notify {name}"), kind)?;
    }
    if host || config.names_redis() {
        for (name, finding) in redis::check(config) {
            report.line(&name, finding)?;
        }
    }
    if host {
        let serf = serf::look(config).map(|_| format!("{} answers", config.serf_rpc_addr));
        report.line("serf", serf)?;
    } else {
        report.line("service", service(config))?;
    }
    report.end("before this machine can be used")
}

fn no_roles() -> anyhow::Error {
    anyhow!("no role is configured: write \"roles\" for what the Serf tag images names")
}

/// Looks only: a folder that is not there yet must be possible to make.
fn writable(folder: &Path) -> Finding {
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    access(there, Access::WRITE_OK | Access::EXEC_OK)
        .with_context(|| format!("cannot write into {}: run as root, or set state_dir", there.display()))?;
    let disk = statvfs(there).with_context(|| format!("cannot look at the disk of {}", there.display()))?;
    if disk.f_bfree.saturating_mul(disk.f_frsize) < ROOM {
        bail!("the disk of {} is full: make room, for example by `docker image prune`", there.display());
    }
    let yet = if there == folder { "can be written" } else { "can be made" };
    Ok(format!("{} {yet}", folder.display()))
}

/// The service's user may read by its group; nobody else has a reason to.
fn private(file: &Path) -> Finding {
    let shown = file.display();
    let mode = fs::metadata(file).with_context(|| format!("cannot look at {shown}: put the secret there"))?;
    let mode = mode.permissions().mode() & 0o777;
    if mode & 0o027 != 0 {
        bail!("{shown} has mode {mode:04o}, and holds a secret: chmod 600 {shown}");
    }
    Ok(format!("{shown} has mode {mode:04o}"))
}

fn service(config: &Config) -> Finding {
    let service = super::service(config)?;
    service.deploys(None, None, 1)?;
    let token = match (config.service_token()?, service.token()?) {
        (None, _) => "wants no token".to_owned(),
        (Some(_), None) => "takes our token".to_owned(),
        (Some(_), Some(token)) => match token.name {
            Some(name) => format!("takes our token {name}, which may {}", token.can.join(", ")),
            None => "wants no token".to_owned(),
        },
    };
    Ok(format!("{} answers, and {token}", service.url()))
}

fn docker() -> Finding {
    let program = Program::new(VERSION_TIMEOUT, ["docker", "version", "--format", "{{.Server.Version}}"]);
    let output = process::run(&program, &never)
        .context("the Docker engine does not answer: start it, or install docker, or set DOCKER_HOST")?;
    Ok(format!("engine {}", output.stdout.trim()))
}

fn aws() -> Finding {
    let output = process::run(&Program::new(VERSION_TIMEOUT, ["aws", "--version"]), &never)
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
        process::run(&Program::new(VERSION_TIMEOUT, ["systemctl", "cat", unit]), &never)
            .with_context(|| format!("systemd does not know {unit}: install the units from scripts/systemd"))?;
    }
    // Fails for a disabled one.
    process::run(
        &Program::new(VERSION_TIMEOUT, ["systemctl", "is-enabled", "--quiet", "deployctl-sync.timer"]),
        &never,
    )
    .context("deployctl-sync.timer is disabled: systemctl enable --now deployctl-sync.timer")?;
    Ok("systemd runs it as deployctl@ROLE.service".to_owned())
}
