//! `deployctl locks`: who holds which lock, and which boxes are out of service.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use jiff::Timestamp;
use serde_json::json;

use crate::{
    api::Locks,
    cli::{Filter, LocksArgs},
    client::{Client, Result as Answer},
    config::{Config, duration},
    exit::Exit,
    names::Place,
    screen::{self, Cell, Paint, Style, age, drop_empty_column},
};

/// Runs the command.
pub fn run(config: &Config, args: &LocksArgs) -> Result<Exit> {
    let service = super::service(config)?;
    let mut found = Vec::new();
    for place in places(&service, &args.filter)? {
        found.push((service.locks(&place)?, place));
    }
    if args.json {
        let places: Vec<_> = found.iter().map(|(locks, place)| json!({"role": place.role, "environment": place.environment, "locks": locks.locks, "out": locks.out})).collect();
        screen::print([json!({ "places": places })])?;
        return Ok(Exit::Done);
    }
    found.retain(|(locks, _)| *locks != Locks::default());
    if found.is_empty() {
        screen::print(["no lock is held, and no box is out"])?;
    }
    let (style, now) = (Style::for_stdout(), Timestamp::now());
    screen::print(found.iter().flat_map(|(locks, place)| lines(style, place, locks, now)))?;
    Ok(Exit::Done)
}

/// The places that a filter means: the one it names, else those where something was deployed or a box is.
pub fn places(service: &Client, filter: &Filter) -> Answer<BTreeSet<Place>> {
    if let (Some(role), Some(environment)) = (&filter.role, &filter.environment) {
        return Ok([Place { environment: environment.clone(), role: role.clone() }].into());
    }
    let status = service.status(filter.role.as_ref(), filter.environment.as_ref())?;
    Ok(status.places.into_iter().map(|place| Place { environment: place.environment, role: place.role }).collect())
}

/// The locks of one place, and the boxes that are out there.
pub fn lines(style: Style, place: &Place, locks: &Locks, now: Timestamp) -> Vec<String> {
    let mut lines = vec![style.paint(Paint::Bold, &place.to_string())];
    if !locks.locks.is_empty() {
        let mut table = vec![Cell::headings(&["  LOCK", "BOX", "ZONE", "HELD FOR", "RENEWED", "EXPIRES IN", "DEPLOY"])];
        table.extend(locks.locks.iter().map(|lock| {
            vec![
                Cell::plain(&format!("  {}", lock.suffix)),
                Cell::plain(&lock.name),
                Cell::plain(lock.zone.as_ref().map_or("", |zone| zone.as_str())),
                Cell::plain(&age(now, &lock.since)),
                Cell::plain(&format!("{} ago", age(now, &lock.renewed))),
                Cell::plain(&duration::display(Duration::from_millis(lock.expires_in_ms))),
                Cell::plain(&lock.deploy),
            ]
        }));
        drop_empty_column(&mut table, 2);
        lines.extend(style.table(&table));
    }
    if !locks.out.is_empty() {
        let mut table = vec![Cell::headings(&["  OUT", "ZONE", "FOR", "RENEWED", "BY", "REASON"])];
        table.extend(locks.out.iter().map(|out| {
            vec![
                Cell::plain(&format!("  {}", out.name)),
                Cell::plain(out.zone.as_ref().map_or("", |zone| zone.as_str())),
                Cell::plain(&age(now, &out.since)),
                Cell::plain(&format!("{} ago", age(now, &out.renewed))),
                Cell::plain(&out.deploy),
                Cell::plain(out.reason.as_deref().or(out.purpose.as_deref()).unwrap_or_default()),
            ]
        }));
        drop_empty_column(&mut table, 1);
        lines.extend(style.table(&table));
    }
    lines
}
