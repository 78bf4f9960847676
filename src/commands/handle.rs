//! `deployctl handle`: the handler of Serf's `user:deploy` event. Serf runs handlers one at a time in its event loop, so
//! this one only looks, leaves a mark, wakes the worker and is gone.
//!
//! An event for other boxes needs neither configuration nor network. Why an event cannot be followed, a bad payload above
//! all, stands on stderr, which Serf shows at its debug level only, and therefore also in the log: the journal under
//! systemd, else `handle.log` where detached workers log, if `log_dir` is written or workers have logged there. Nothing
//! else is touched.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixDatagram,
};

use anyhow::{Context as _, Result, anyhow};

use super::{configuration, variable};
use crate::{
    agent::{wake, worker},
    cli::{Cli, HandleArgs},
    config::Config,
    event::{Event, LONGEST_PAYLOAD},
    exit::Exit,
    names::Place,
};

/// Runs the command.
pub fn run(cli: &Cli, args: &HandleArgs) -> Result<Exit> {
    let woken = read_event().and_then(|event| match event {
        Event::Foreign => Ok(None),
        Event::Bad(reason) => Err(Exit::Usage.because(anyhow!(reason))),
        Event::Ours(place) => wake(cli, args, place).map(Some),
    });
    match woken {
        Ok(Some((config, place))) if args.foreground => worker::woken(&config, &place.role),
        Ok(_) => Ok(Exit::Done),
        Err(error) => {
            if let Err(failure) = tell_log(cli, &format!("cannot follow an event: {error:#}")) {
                log::debug!("{failure:#}");
            }
            Err(error)
        }
    }
}

fn read_event() -> Result<Event> {
    let mut payload = Vec::new();
    // Two bytes more than the longest payload: one for the agent's newline, one to see that it is too long.
    let most = LONGEST_PAYLOAD as u64 + 2;
    io::stdin().take(most).read_to_end(&mut payload).context("cannot read the event's payload from stdin")?;
    Ok(Event::read(&variable, &payload))
}

/// Leaves the mark, and starts the worker unless it is to run here.
fn wake(cli: &Cli, args: &HandleArgs, place: Place) -> Result<(Config, Place)> {
    let config = configuration(cli)?;
    if let Err(error) = config.role(&place.role) {
        // A worker tells the deploy: this handler has no time to.
        if let Err(failure) = wake::start_worker(&config, cli.config.as_deref(), &place.role) {
            log::warn!("{failure:#}; the deploy does not hear of this box");
        }
        return Err(Exit::Usage.because(error));
    }
    wake::leave_mark(&config.state_dir, &place.role)?;
    if !args.foreground {
        wake::start_worker(&config, cli.config.as_deref(), &place.role)?;
    }
    Ok((config, place))
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
