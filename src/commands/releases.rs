//! `deployctl releases`: what can be deployed, what cannot and why, and where each release runs.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    api::{Release, ReleaseStatus, Running},
    cli::ReleasesArgs,
    config::Config,
    exit::Exit,
    names::{Environment, Tag},
    screen::{self, Cell, Paint, Style, age, one_line},
};

/// How much of a message a table has room for, in characters.
const MESSAGE: usize = 60;

/// Boxes by environment.
type Places = BTreeMap<Environment, u32>;

/// One release, and on how many boxes of each environment it runs.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    release: &'a Release,
    runs: Places,
}

/// Runs the command.
pub fn run(config: &Config, args: &ReleasesArgs) -> Result<Exit> {
    let service = super::service(config)?;
    let releases = service.releases(&args.role, args.limit)?;
    let rows = rows(&releases, &service.running(Some(&args.role), None)?);
    if args.json {
        screen::print([serde_json::to_string(&serde_json::json!({ "releases": rows }))?])?;
    } else if rows.is_empty() {
        screen::print([format!(
            "no release of {role} is published: deployctl publish -r {role} -t TAG",
            role = args.role
        )])?;
    } else {
        screen::print(lines(Style::for_stdout(), &rows, Timestamp::now()))?;
    }
    Ok(Exit::Done)
}

fn rows<'a>(releases: &'a [Release], running: &[Running]) -> Vec<Row<'a>> {
    let mut places = BTreeMap::<&Tag, Places>::new();
    for row in running {
        *places.entry(&row.tag).or_default().entry(row.environment.clone()).or_default() += 1;
    }
    let row = |release: &'a Release| Row { release, runs: places.remove(&release.tag).unwrap_or_default() };
    releases.iter().map(row).collect()
}

fn lines(style: Style, rows: &[Row], now: Timestamp) -> Vec<String> {
    let mut table = vec![Cell::headings(&["TAG", "STATUS", "RUNS", "AGE", "COMMIT", "AUTHOR", ""])];
    table.extend(rows.iter().map(|Row { release, runs }| {
        let paint = match release.status {
            ReleaseStatus::Available => Paint::Green,
            ReleaseStatus::Broken => Paint::Red,
            ReleaseStatus::Withheld => Paint::Yellow,
        };
        let runs: Vec<String> = runs.iter().map(|(environment, boxes)| format!("{environment} ({boxes})")).collect();
        let short = |text: &Option<String>, most: usize| -> String {
            one_line(text.as_deref().unwrap_or_default()).chars().take(most).collect()
        };
        // Of one that cannot be deployed people want to know why, before what it does.
        let said = release.reason.as_ref().or(release.message.as_ref()).cloned();
        let first = said.as_deref().and_then(|text| text.lines().next()).map(str::to_owned);
        vec![
            Cell::new(Paint::Bold, &release.tag),
            Cell::new(paint, &release.status),
            Cell::plain(&runs.join(", ")),
            Cell::new(Paint::Dim, &age(now, &release.published_at)),
            Cell::plain(&short(&release.commit, 10)),
            Cell::plain(&short(&release.author, 24)),
            Cell::plain(&short(&first, MESSAGE)),
        ]
    }));
    style.table(&table)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_release_shows_where_it_runs_and_why_it_cannot_be_deployed() {
        let release = |tag: &str, status: &str, more: serde_json::Value| -> Release {
            let mut value =
                json!({"role": "app", "tag": tag, "published_at": "2026-01-01T00:00:00Z", "status": status});
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(value).unwrap()
        };
        let releases = [
            release("v3", "broken", json!({"reason": "box-1: exit code 1\nmore", "message": "Add tea"})),
            release(
                "v2",
                "available",
                json!({"commit": "c0ffee0123456789", "author": "Ann", "message": "Fix\n\nlong"}),
            ),
        ];
        let running = ["a", "b"].map(|name| Running {
            role: "app".parse().unwrap(),
            environment: "staging".parse().unwrap(),
            name: name.parse().unwrap(),
            tag: "v2".parse().unwrap(),
        });
        let lines = lines(Style::plain(), &rows(&releases, &running), "2026-01-01T00:02:00Z".parse().unwrap());
        assert_eq!(
            lines,
            [
                "TAG  STATUS     RUNS         AGE    COMMIT      AUTHOR",
                "v3   broken                  2m 0s                      box-1: exit code 1",
                "v2   available  staging (2)  2m 0s  c0ffee0123  Ann     Fix",
            ]
        );
    }
}
