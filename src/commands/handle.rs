//! `deployctl handle`: the handler of Serf's `user:deploy` event. Serf runs handlers one at a time in its event loop, so
//! this one only looks, leaves a mark, wakes the worker and is gone.
//!
//! An event for other boxes needs neither configuration nor network. A bad payload is refused with its reason on
//! stderr, which Serf shows at its debug level only, and therefore also in the log: the journal under systemd, else
//! `handle.log` where detached workers log, if `log_dir` is written or workers have logged there: nothing else is touched.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixDatagram,
};

use anyhow::{Context as _, Result, anyhow};

use super::{configuration, variable};
use crate::{
    cli::{Cli, Handle},
    config::Config,
    event::{Event, LONGEST},
    exit::Exit,
    names::Place,
    wake, worker,
};

/// Runs the command.
pub fn run(cli: &Cli, args: &Handle) -> Result<Exit> {
    let mut payload = Vec::new();
    // Two bytes more than the longest payload: one for the agent's newline, one to see that it is too long.
    let most = LONGEST as u64 + 2;
    io::stdin().take(most).read_to_end(&mut payload).context("cannot read the event's payload from stdin")?;
    match Event::read(&variable, &payload) {
        Event::Foreign => Ok(Exit::Done),
        Event::Bad(reason) => Err(refuse(cli, anyhow!(reason))),
        Event::Ours(place) => wake(cli, args, &place),
    }
}

fn wake(cli: &Cli, args: &Handle, place: &Place) -> Result<Exit> {
    let config = configuration(cli)?;
    if let Err(error) = config.role(&place.role) {
        return Err(refuse(cli, error));
    }
    wake::leave_mark(&config.state_dir, &place.role)?;
    if args.foreground {
        return worker::woken(&config, &place.role);
    }
    wake::start_worker(&config, cli.config.as_deref(), &place.role)?;
    Ok(Exit::Done)
}

/// Makes `error` a usage error, and tells the log, for Serf hides what a handler prints.
fn refuse(cli: &Cli, error: anyhow::Error) -> anyhow::Error {
    let line = format!("refused an event: {error:#}");
    if let Err(failure) = tell_log(cli, &line) {
        log::debug!("{failure:#}");
    }
    Exit::Usage.because(error)
}

fn tell_log(cli: &Cli, line: &str) -> Result<()> {
    let config = Config::load(cli.config.as_deref(), &variable);
    if wake::by_systemd(config.as_ref().unwrap_or(&Config::default())) {
        // The syslog protocol (RFC 3164), facility daemon, severity error: the journal listens.
        let message = format!("<27>deployctl[{}]: {line}", std::process::id());
        return UnixDatagram::unbound()
            .and_then(|socket| socket.send_to(message.as_bytes(), "/dev/log"))
            .map(drop)
            .context("cannot write to /dev/log");
    }
    let config = config?;
    let folder = wake::log_dir(&config);
    if config.log_dir.is_none() && !folder.is_dir() {
        return Ok(());
    }
    let mut log = wake::log_file(&folder, "handle")?;
    let now = jiff::Timestamp::now();
    writeln!(log, "{now:.0} {line}").context("cannot write handle.log")
}
