//! `deployctl why`: why a deploy, or a box in it, is no further, and what can be done. From one answer of the service,
//! whose facts are those that decide.

mod boxes;
mod facts;
mod place;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::json;

use self::facts::{Facts, Reason};
use crate::{
    api::StatusAnswer,
    cli::WhyArgs,
    config::Config,
    exit::Exit,
    names::{BoxName, Place},
    screen::{self, Paint, Style},
};

/// Runs the command.
pub fn run(config: &Config, args: &WhyArgs) -> Result<Exit> {
    let place = super::place(config, &args.place)?;
    let answer = super::service(config)?.status(Some(&place.role), Some(&place.environment))?;
    let (name, now) = (args.name.as_ref(), Timestamp::now());
    let reasons = reasons(&answer, &place, name, now);
    if args.json {
        let Place { role, environment } = &place;
        let said = json!({ "role": role, "environment": environment, "box": name, "reasons": reasons });
        screen::print([said])?;
    } else {
        screen::print(lines(Style::for_stdout(), &answer, &place, &reasons, now))?;
    }
    Ok(Exit::Done)
}

/// Why the place, or the box `name` there, is no further: what matters most first.
fn reasons(answer: &StatusAnswer, place: &Place, name: Option<&BoxName>, now: Timestamp) -> Vec<Reason> {
    let facts = Facts::of(answer, place, now);
    match name {
        Some(name) => boxes::one(&facts, name),
        None => place::whole(&facts),
    }
}

/// Where the place stands; then each reason, and below it the next act.
fn lines(style: Style, answer: &StatusAnswer, place: &Place, reasons: &[Reason], now: Timestamp) -> Vec<String> {
    let mut lines: Vec<String> = match Facts::of(answer, place, now).newest() {
        Some(deploy) => screen::outcome(style, deploy, now).into_iter().take(1).collect(),
        None => vec![format!("{place}: nothing was ever deployed")],
    };
    for Reason { text, next, .. } in reasons {
        lines.push(format!("- {text}"));
        lines.extend(next.iter().map(|next| style.paint(Paint::Dim, &format!("  next: {next}"))));
    }
    lines
}

#[cfg(test)]
mod tests;
