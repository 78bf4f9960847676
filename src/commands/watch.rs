//! Watching a deploy to its end: a table that is drawn again in place on a terminal, a line for each change elsewhere.

use std::{
    collections::BTreeMap,
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
    api::{Deploy, LockRow, Phase, Release, State},
    client::{Client, Error},
    exit::Exit,
    names::{BoxName, Place},
    pause::pause,
    process::never,
    retry::retrying,
    screen::{self, Live, Paint, Style},
};

/// How long the service may be away while somebody watches: a restart, a new host.
const PATIENCE: Duration = Duration::from_secs(300);

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

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
        pause(duration, &|| self.0.load(Ordering::Relaxed))
    }
}

/// Watches `deploy` to its end, and answers its outcome.
pub fn to_its_end(service: &Client, deploy: Deploy) -> Result<Exit> {
    let interrupt = Interrupt::listen()?;
    let place = Place { environment: deploy.environment.clone(), role: deploy.role.clone() };
    let mut view = View::new();
    let mut deploy = deploy;
    let mut away_since = None;
    while !deploy.state.is_ended() {
        if !interrupt.sleep(LOOK) {
            view.close()?;
            say_that_it_goes_on(&place)?;
            return Ok(Exit::Interrupted);
        }
        match service.deploy(&deploy.id).and_then(|deploy| Ok((deploy, service.locks(&place)?.locks))) {
            Ok((seen, locks)) => {
                away_since = None;
                deploy = seen;
                view.show(&deploy, &locks)?;
            }
            Err(error) if error.may_pass() => {
                let since = *away_since.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
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
    phases: BTreeMap<BoxName, Phase>,
    state: Option<State>,
    said: Vec<String>,
    lines: Vec<String>,
    remarked: bool,
}

impl View {
    fn new() -> Self {
        Self {
            style: Style::for_stdout(),
            live: screen::is_terminal().then(Live::default),
            phases: BTreeMap::new(),
            state: None,
            said: Vec::new(),
            lines: Vec::new(),
            remarked: false,
        }
    }

    fn show(&mut self, deploy: &Deploy, locks: &[LockRow]) -> io::Result<()> {
        self.remarked = false;
        let now = Timestamp::now();
        if let Some(live) = &mut self.live {
            self.lines = screen::outcome(self.style, deploy, now);
            let most = Live::size().0.saturating_sub(6);
            self.lines.extend(screen::boxes(self.style, deploy, locks, now, most));
            return live.draw(&self.lines);
        }
        let mut lines = changes(&self.phases, deploy, &mut self.said);
        if self.state.replace(deploy.state) != Some(deploy.state) && !deploy.state.is_ended() {
            lines.splice(0..0, screen::outcome(self.style, deploy, now));
        }
        self.phases = deploy.boxes.iter().map(|row| (row.name.clone(), row.phase)).collect();
        screen::print(lines)
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

    /// Takes the table away: what came of it is told instead. Answers the causes that were told already.
    fn end(mut self) -> io::Result<Vec<String>> {
        if let Some(live) = &mut self.live {
            live.clear()?;
        }
        Ok(self.said)
    }

    /// Leaves the last table where it stands.
    fn close(&mut self) -> io::Result<()> {
        match &mut self.live {
            Some(live) => live.draw(&self.lines),
            None => Ok(()),
        }
    }
}

/// One line for each box whose phase is not the one before: `04:30:01Z box-1 waiting → draining`. A cause has a line of
/// its own, once: what was `said` is not repeated.
fn changes(before: &BTreeMap<BoxName, Phase>, deploy: &Deploy, said: &mut Vec<String>) -> Vec<String> {
    let mut changed: Vec<_> = deploy.boxes.iter().filter(|row| before.get(&row.name) != Some(&row.phase)).collect();
    changed.sort_by(|a, b| a.since.cmp(&b.since));
    let mut lines = Vec::new();
    for row in changed {
        let from = before.get(&row.name).map(|phase| format!("{phase} → ")).unwrap_or_default();
        let clock = row.since.split(['T', '.', 'Z']).nth(1).unwrap_or(&row.since);
        lines.push(format!("{clock}Z {} {from}{}", row.name, row.phase));
        lines
            .extend(screen::news(deploy, row).and_then(|news| first_time(said, &news)).map(|news| format!("  {news}")));
    }
    lines.extend(
        screen::causes(deploy).iter().filter_map(|cause| first_time(said, cause)).map(|cause| format!("  {cause}")),
    );
    lines
}

/// `text`, unless it tells what was `said` before.
fn first_time(said: &mut Vec<String>, text: &str) -> Option<String> {
    let bare = text.strip_prefix("cause: ").unwrap_or(text);
    let new = !said.iter().any(|said| screen::is_told(said, bare));
    new.then(|| {
        said.push(bare.to_owned());
        text.to_owned()
    })
}

/// Prints how `deploy` ended, with the evidence where its release is broken, and answers the exit code that says so.
/// Causes that were `said` before are not repeated.
fn tell_the_end(service: &Client, deploy: &Deploy, mut said: Vec<String>) -> Result<Exit> {
    let style = Style::for_stdout();
    let mut lines = screen::outcome(style, deploy, Timestamp::now());
    let causes: Vec<String> = lines.drain(1..).collect();
    lines.extend(causes.into_iter().filter(|cause| first_time(&mut said, cause.trim_start()).is_some()));
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
        let (release, newest) = retrying(PATIENCE, &never, Error::may_pass, ask)?;
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_changes_are_told_in_their_order() {
        let deploy: Deploy = serde_json::from_value(json!({
            "id": "x", "role": "app", "environment": "staging", "tag": "v2", "kind": "deploy", "state": "rolling",
            "size": 3, "locks": 1, "remaining": 3, "by": "ci", "started_at": "2026-01-01T00:00:00Z", "boxes": [
                {"box": "a", "phase": "failed", "since": "2026-01-01T00:00:09.123Z", "detail": "no space\nleft"},
                {"box": "b", "phase": "waiting", "since": "2026-01-01T00:00:01Z"},
                {"box": "c", "phase": "draining", "since": "2026-01-01T00:00:05Z"},
            ],
        }))
        .unwrap();
        let before =
            [("a", Phase::Starting), ("b", Phase::Waiting)].map(|(name, phase)| (name.parse().unwrap(), phase));
        let (before, mut said) = (before.into(), Vec::new());
        let told = changes(&before, &deploy, &mut said);
        assert_eq!(told, ["00:00:05Z c draining", "00:00:09Z a starting → failed", "  no space left"]);
        let told = changes(&before, &deploy, &mut said);
        assert_eq!(told[1..], ["00:00:09Z a starting → failed"], "the detail is repeated");
    }
}
