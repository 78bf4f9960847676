//! Watching a deploy to its end: a table that is drawn again in place on a terminal, a line a wave elsewhere.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{
    api::{Deploy, Locks, Phase, Release, State},
    client::{Client, Error},
    exit::Exit,
    names::Place,
    process::never,
    retry::retrying,
    screen::{self, DeployLog, Live, Paint, Style},
    sleep::sleep,
};

/// How long the service may be away while somebody watches: a restart, a new host.
const SERVICE_AWAY: Duration = Duration::from_secs(300);

/// Between two looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Whether somebody pressed Ctrl-C; the second time ends the program at once.
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on.
    pub fn listen() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register_conditional_shutdown(
                signal,
                Exit::Interrupted.code().into(),
                Arc::clone(&flag),
            )
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
            .context("cannot listen to Ctrl-C")?;
        }
        Ok(Self(flag))
    }

    /// Sleeps; false as soon as it was pressed.
    pub fn sleep(&self, duration: Duration) -> bool {
        sleep(duration, &|| self.0.load(Ordering::Relaxed))
    }
}

/// Watches `deploy` to its end, and answers its outcome. `verbose`: a log has a line for each box and phase.
pub fn to_its_end(service: &Client, deploy: Deploy, verbose: bool) -> Result<Exit> {
    let interrupt = Interrupt::listen()?;
    let place = Place { environment: deploy.environment.clone(), role: deploy.role.clone() };
    let mut view = View::new(verbose);
    let mut deploy = deploy;
    let mut away_since = None;
    while !deploy.state.is_ended() {
        if !interrupt.sleep(WATCH_INTERVAL) {
            view.close()?;
            say_that_it_goes_on(&place)?;
            return Ok(Exit::Interrupted);
        }
        match service.deploy(&deploy.id).and_then(|deploy| Ok((deploy, service.locks(&place)?))) {
            Ok((seen, locks)) => {
                away_since = None;
                deploy = seen;
                view.show(&deploy, &locks)?;
            }
            Err(error) if error.is_transient() => {
                let since = *away_since.get_or_insert_with(Instant::now);
                if since.elapsed() > SERVICE_AWAY {
                    view.close()?;
                    say_that_it_goes_on(&place)?;
                    return Err(error.into());
                }
                view.remark(&error)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    tell_the_end(service, &deploy, view.end()?)
}

fn say_that_it_goes_on(place: &Place) -> io::Result<()> {
    let (role, environment) = (&place.role, &place.environment);
    screen::print([
        format!("the deploy goes on without being watched: see `deployctl status -r {role} -e {environment}`,"),
        format!("stop it with `deployctl cancel -r {role} -e {environment}`"),
    ])
}

/// What is shown while a deploy rolls.
struct View {
    style: Style,
    live: Option<Live>,
    log: DeployLog,
    lines: Vec<String>,
    remarked: bool,
}

impl View {
    fn new(verbose: bool) -> Self {
        Self {
            style: Style::for_stdout(),
            live: screen::is_terminal().then(Live::default),
            log: DeployLog::new(verbose),
            lines: Vec::new(),
            remarked: false,
        }
    }

    fn show(&mut self, deploy: &Deploy, locks: &Locks) -> io::Result<()> {
        self.remarked = false;
        let (out, now) = (locks.out.len(), Timestamp::now());
        let Some(live) = &mut self.live else { return screen::print(self.log.lines(deploy, out, now)) };
        // A terminal may have another width now.
        self.style = Style::for_stdout();
        self.lines = screen::outcome(self.style, deploy, now);
        self.lines.extend(screen::progress(self.style, deploy, out, now));
        let most = Live::size().0.saturating_sub(self.lines.len() + 4);
        self.lines.extend(screen::boxes(self.style, deploy, &locks.locks, now, most));
        live.draw(&self.lines)
    }

    /// Says, once, why there is nothing new.
    fn remark(&mut self, error: &Error) -> io::Result<()> {
        let text = format!("{error}; asking again");
        if let Some(live) = &mut self.live {
            let mut lines = self.lines.clone();
            lines.push(self.style.paint(Paint::Yellow, &text));
            live.draw(&lines)?;
        } else if !self.remarked {
            screen::print([&text])?;
        }
        self.remarked = true;
        Ok(())
    }

    /// Takes the table away: what came of it is told instead. Answers what was told already.
    fn end(mut self) -> io::Result<DeployLog> {
        if let Some(live) = &mut self.live {
            live.clear()?;
        }
        Ok(self.log)
    }

    /// Leaves the last table where it stands.
    fn close(&mut self) -> io::Result<()> {
        match &mut self.live {
            Some(live) => live.draw(&self.lines),
            None => Ok(()),
        }
    }
}

/// Prints how `deploy` ended, with the evidence where its release is broken, and answers the exit code that says so.
/// Causes that were `told` before are not repeated.
fn tell_the_end(service: &Client, deploy: &Deploy, mut told: DeployLog) -> Result<Exit> {
    let style = Style::for_stdout();
    let mut lines = screen::outcome(style, deploy, Timestamp::now());
    let causes: Vec<String> = lines.drain(1..).collect();
    lines.extend(causes.into_iter().filter_map(|cause| told.first_time(cause)));
    if deploy.state != State::Deployed {
        lines.push(format!("boxes: {}", screen::counts(&deploy.boxes)));
        let bad =
            deploy.boxes.iter().filter(|row| matches!(row.phase, Phase::Failed | Phase::Lost | Phase::RolledBack));
        lines.extend(bad.map(|row| {
            let detail = screen::news(deploy, row).map(|detail| format!(": {detail}")).unwrap_or_default();
            style.fit(&format!("  {} {}{detail}", row.name, row.phase))
        }));
    }
    if deploy.state == State::Broken {
        let ask = || {
            let newest = service.deploys(Some(&deploy.role), Some(&deploy.environment), 1)?;
            Ok((service.release(&deploy.role, &deploy.tag)?, newest))
        };
        let (release, newest) = retrying(SERVICE_AWAY, &never, Error::is_transient, ask)?;
        lines.extend(release.iter().flat_map(|release| evidence(release, deploy)));
        if let Some(next) = newest.iter().find(|next| next.id != deploy.id && !next.state.is_ended()) {
            lines.push(format!("now rolling: {} ({}), by {}", next.tag, next.kind, next.by));
        }
    }
    screen::print(lines)?;
    Ok(match deploy.state {
        State::Deployed => Exit::Done,
        State::Broken => Exit::Broken,
        State::Cancelled => Exit::Cancelled,
        State::Failed | State::Queued | State::Rolling => Exit::Failed,
    })
}

/// What a broken release left behind: the cause, where the deploy does not give the same one, and its container's last
/// words, indented and whole, but once where each restart repeats them.
pub fn evidence(release: &Release, deploy: &Deploy) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(reason) = release.reason.as_ref().filter(|reason| deploy.reason.as_ref() != Some(reason)) {
        lines.push(reason.clone());
    }
    if let Some(logs) = release.logs.as_ref().filter(|logs| !logs.trim().is_empty()) {
        lines.push("the evidence:".to_owned());
        lines.extend(screen::once(logs).iter().map(|line| format!("  {line}")));
    }
    lines
}
