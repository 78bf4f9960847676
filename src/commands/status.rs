//! `deployctl status`: first what runs where, then what is rolling and how the last deploys ended.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    locks,
    watch::{self, Interrupt},
};
use crate::{
    api::{AuditEntry, ClosedPlace, Deploy, Freeze, Locks, PlaceLocks, Promotion, Release, Running, State},
    cli::{Filter, StatusArgs},
    client::{Client, Result as Answer},
    config::Config,
    exit::Exit,
    names::Place,
    screen::{self, Cell, Live, Paint, Style, age},
};

/// How many entries of the audit log are shown.
const ENTRIES_SHOWN: u32 = 100;
/// Between two looks.
const REFRESH: Duration = Duration::from_secs(1);

/// Runs the command.
pub fn run(config: &Config, args: &StatusArgs) -> Result<Exit> {
    let service = super::service(config)?;
    if args.history {
        screen::print(history(Style::for_stdout(), &service.audit(ENTRIES_SHOWN)?, &args.filter))?;
    } else if args.json {
        let seen = Seen::look(&service, &args.filter)?;
        screen::print([serde_json::to_string(&Json {
            deploys: &seen.deploys,
            running: &seen.running,
            promotions: &seen.promotions,
        })?])?;
    } else if args.watch {
        return watch(&service, &args.filter);
    } else {
        let seen = Seen::look(&service, &args.filter)?;
        screen::print(seen.lines(Style::for_stdout(), Timestamp::now(), usize::MAX))?;
    }
    Ok(Exit::Done)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Json<'a> {
    deploys: &'a [Deploy],
    running: &'a [Running],
    promotions: &'a [Promotion],
}

fn watch(service: &Client, filter: &Filter) -> Result<Exit> {
    let interrupt = Interrupt::listen()?;
    let mut live = screen::is_terminal().then(Live::default);
    let begun = Timestamp::now();
    let mut before = Vec::new();
    loop {
        // A terminal may have another width now.
        let style = Style::for_stdout();
        let (lines, facts) = match Seen::look(service, filter) {
            Ok(seen) => {
                let lines = seen.lines(style, Timestamp::now(), Live::size().0 / 2);
                (lines, seen.without_renewals().lines(style, begun, usize::MAX))
            }
            Err(error) if error.is_transient() => {
                let lines = vec![style.paint(Paint::Yellow, &error.to_string())];
                (lines.clone(), lines)
            }
            Err(error) => return Err(error.into()),
        };
        match &mut live {
            Some(live) => live.draw(&lines)?,
            // Where nothing can be drawn again, only what is new is worth a line; that time passes is not.
            None if facts != before => screen::print(&lines)?,
            None => {}
        }
        before = facts;
        if !interrupt.sleep(REFRESH) {
            return Ok(Exit::Done);
        }
    }
}

/// What the service says at one moment.
struct Seen {
    running: Vec<Running>,
    /// Newest first; those of the newest of each place, and those that go on, with their boxes.
    deploys: Vec<Deploy>,
    locks: BTreeMap<Place, Locks>,
    freezes: Vec<Freeze>,
    closed: Vec<ClosedPlace>,
    promotions: Vec<Promotion>,
    /// By the id of the deploy: why its release is broken.
    evidence: BTreeMap<String, Vec<String>>,
}

impl Seen {
    fn look(service: &Client, filter: &Filter) -> Answer<Self> {
        let answer = service.status(filter.role.as_ref(), filter.environment.as_ref())?;
        let locks = answer
            .places
            .into_iter()
            .map(|PlaceLocks { role, environment, locks }| (Place { environment, role }, locks))
            .collect();
        let mut seen = Self {
            running: answer.running,
            deploys: answer.deploys,
            locks,
            freezes: answer.freezes,
            closed: answer.closed,
            promotions: answer.promotions,
            evidence: BTreeMap::new(),
        };
        seen.evidence = seen
            .newest()
            .filter(|deploy| deploy.state == State::Broken)
            .filter_map(|deploy| {
                let blamed = |release: &&Release| release.role == deploy.role && release.tag == deploy.tag;
                let release = answer.broken.iter().find(blamed)?;
                Some((deploy.id.clone(), watch::evidence(release, deploy)))
            })
            .collect();
        Ok(seen)
    }

    /// The same, but for what changes while nothing happens.
    fn without_renewals(mut self) -> Self {
        for locks in self.locks.values_mut() {
            for lock in &mut locks.locks {
                (lock.renewed, lock.expires_in_ms) = (String::new(), 0);
            }
            for out in &mut locks.out {
                out.renewed = String::new();
            }
        }
        self
    }

    /// The newest deploy of each place, by place.
    fn newest(&self) -> impl Iterator<Item = &Deploy> {
        let mut newest = BTreeMap::new();
        for deploy in &self.deploys {
            newest.entry(place_of(deploy)).or_insert(deploy);
        }
        newest.into_values()
    }

    fn lines(&self, style: Style, now: Timestamp, most_boxes: usize) -> Vec<String> {
        let mut lines = what_runs(style, &self.running);
        for freeze in &self.freezes {
            let what = freeze.role.as_ref().map(|role| format!("{role} in ")).unwrap_or_default();
            let reason = freeze.reason.as_deref().unwrap_or("no reason given");
            let since = age(now, &freeze.at);
            let until = freeze.until.map(|until| format!(" until {}", screen::time(until))).unwrap_or_default();
            let text =
                format!("{what}{} is frozen for {since} now{until}, by {}: {reason}", freeze.environment, freeze.by);
            lines.push(style.paint(Paint::Yellow, &text));
        }
        for ClosedPlace { role, environment, opens } in &self.closed {
            let until = opens.map(|opens| format!(" until {}", screen::time(opens))).unwrap_or_default();
            let text = format!("{role} in {environment} is outside its window{until}: nothing new starts");
            lines.push(style.paint(Paint::Yellow, &text));
        }
        lines.extend(self.promotions.iter().map(|promotion| screen::promotion(style, promotion, now)));
        for (place, locks) in &self.locks {
            let at_place = || self.deploys.iter().filter(|deploy| place_of(deploy) == *place);
            let shown: Vec<&Deploy> = match at_place().filter(|deploy| !deploy.state.is_ended()).collect::<Vec<_>>() {
                going_on if going_on.is_empty() => at_place().take(1).collect(),
                going_on => going_on,
            };
            lines.push(String::new());
            for deploy in shown {
                lines.extend(self::deploy(style, deploy, locks, now, most_boxes));
                lines.extend(self.evidence.get(&deploy.id).into_iter().flatten().map(|line| format!("  {line}")));
            }
            if !locks.locks.is_empty() || !locks.out.is_empty() {
                lines.extend(locks::lines(style, place, locks, now).into_iter().skip(1));
            }
        }
        lines
    }
}

fn place_of(deploy: &Deploy) -> Place {
    Place { environment: deploy.environment.clone(), role: deploy.role.clone() }
}

/// Role × environment × tag × number of boxes.
fn what_runs(style: Style, running: &[Running]) -> Vec<String> {
    let mut boxes = BTreeMap::<_, u32>::new();
    for row in running {
        *boxes.entry((&row.role, &row.environment, &row.tag)).or_default() += 1;
    }
    if boxes.is_empty() {
        return vec!["no box has said what it runs yet".to_owned()];
    }
    let mut table = vec![Cell::headings(&["ROLE", "ENVIRONMENT", "TAG", "BOXES"])];
    table.extend(boxes.into_iter().map(|((role, environment, tag), boxes)| {
        vec![Cell::plain(role), Cell::plain(environment), Cell::new(Paint::Bold, tag), Cell::plain(&boxes)]
    }));
    style.table(&table)
}

/// One deploy: its line, and the boxes of one that goes on or did not end well.
fn deploy(style: Style, deploy: &Deploy, locks: &Locks, now: Timestamp, most_boxes: usize) -> Vec<String> {
    let when = deploy.ended_at.as_deref().map(|at| format!(", {} ago", age(now, at))).unwrap_or_default();
    let mut lines = screen::outcome(style, deploy, now);
    if style.is_for_terminal() {
        lines.extend(screen::progress(style, deploy, locks.out.len(), now).map(|line| format!("  {line}")));
    }
    lines.push(style.paint(Paint::Dim, &format!("  {} {} by {}{when}", deploy.kind, deploy.id, deploy.by)));
    lines.extend(deploy.compare.iter().map(|compare| style.paint(Paint::Dim, &format!("  what changes: {compare}"))));
    if deploy.state != State::Deployed && !deploy.boxes.is_empty() {
        let table = screen::boxes(style, deploy, &locks.locks, now, most_boxes);
        lines.extend(table.iter().map(|line| style.fit(&format!("  {line}"))));
    }
    lines
}

/// Who did what, newest first.
fn history(style: Style, entries: &[AuditEntry], filter: &Filter) -> Vec<String> {
    let shown = entries.iter().filter(|entry| {
        filter.role.as_ref().is_none_or(|role| entry.role.as_ref() == Some(role))
            && filter.environment.as_ref().is_none_or(|environment| entry.environment.as_ref() == Some(environment))
    });
    let mut table = vec![Cell::headings(&["AT", "BY", "ACTION", "ROLE", "ENVIRONMENT", "TAG", ""])];
    table.extend(shown.map(|entry| {
        let text = |value: Option<&str>| Cell::plain(value.unwrap_or_default());
        vec![
            Cell::new(Paint::Dim, &screen::time_of(&entry.at)),
            Cell::plain(&entry.by),
            Cell::new(Paint::Bold, &entry.action),
            text(entry.role.as_ref().map(AsRef::as_ref)),
            text(entry.environment.as_ref().map(AsRef::as_ref)),
            text(entry.tag.as_ref().map(AsRef::as_ref)),
            text(entry.detail.as_deref()),
        ]
    }));
    style.table(&table)
}
