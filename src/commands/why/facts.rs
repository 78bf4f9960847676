//! What the service says of one place, sorted; and the words that reasons are made of.

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    api::{BoxRow, ClosedPlace, Deploy, Freeze, Locks, NextRelease, OutRow, Promotion, State, StatusAnswer},
    names::{BoxName, Environment, Place, Role, Tag},
    screen::age,
};

/// Why something is no further.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// For machines: `paused`, `frozen`, `waiting`, …
    pub kind: &'static str,
    /// For people.
    pub text: String,
    /// What can be done about it; absent where nothing is to be done.
    pub next: Option<String>,
}

impl Reason {
    pub fn new(kind: &'static str, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), next: None }
    }

    pub fn next(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }
}

/// One place.
pub struct Facts<'a> {
    pub place: &'a Place,
    /// Newest first.
    pub deploys: Vec<&'a Deploy>,
    pub locks: Locks,
    /// Which tag each box runs.
    pub running: Vec<(&'a BoxName, &'a Tag)>,
    pub freeze: Option<&'a Freeze>,
    /// No window is open.
    pub closed: Option<&'a ClosedPlace>,
    pub upcoming: Option<&'a NextRelease>,
    /// What is to come here from the environment before.
    pub promotion: Option<&'a Promotion>,
    pub now: Timestamp,
}

impl<'a> Facts<'a> {
    /// What `answer` says of `place` at the time `now`.
    pub fn of(answer: &'a StatusAnswer, place: &'a Place, now: Timestamp) -> Self {
        let here = |role: &Role, environment: &Environment| *role == place.role && *environment == place.environment;
        let locks = answer.places.iter().find(|at| here(&at.role, &at.environment)).map(|at| at.locks.clone());
        Self {
            place,
            deploys: answer.deploys.iter().filter(|deploy| here(&deploy.role, &deploy.environment)).collect(),
            locks: locks.unwrap_or_default(),
            running: answer
                .running
                .iter()
                .filter(|row| here(&row.role, &row.environment))
                .map(|row| (&row.name, &row.tag))
                .collect(),
            freeze: answer.freezes.iter().find(|freeze| {
                freeze.environment == place.environment && freeze.role.as_ref().is_none_or(|role| *role == place.role)
            }),
            closed: answer.closed.iter().find(|closed| here(&closed.role, &closed.environment)),
            upcoming: answer.next.iter().find(|next| here(&next.role, &next.environment)),
            promotion: answer.promotions.iter().find(|promotion| here(&promotion.role, &promotion.environment)),
            now,
        }
    }

    pub fn rolling(&self) -> Option<&'a Deploy> {
        self.deploys.iter().find(|deploy| deploy.state == State::Rolling).copied()
    }

    pub fn queued(&self) -> Option<&'a Deploy> {
        self.deploys.iter().find(|deploy| deploy.state == State::Queued).copied()
    }

    /// What rolls, else the newest deploy that did.
    pub fn newest(&self) -> Option<&'a Deploy> {
        self.rolling().or_else(|| self.deploys.iter().find(|deploy| deploy.state != State::Queued).copied())
    }

    /// For how long something has been so.
    pub fn age(&self, since: &str) -> String {
        age(self.now, since)
    }

    /// `deployctl VERB -r ROLE -e ENVIRONMENT`, in backticks, with what else is said.
    pub fn command(&self, verb: &str, more: &str) -> String {
        let Place { environment, role } = self.place;
        format!("`deployctl {verb} -r {role} -e {environment}{}{more}`", if more.is_empty() { "" } else { " " })
    }

    /// How a box that is beyond help gives back what it holds.
    pub fn unlock(&self, name: &BoxName) -> String {
        self.command("unlock", &format!("--box {name} --reason TEXT"))
    }

    pub fn out(&self, name: &BoxName) -> Option<&OutRow> {
        self.locks.out.iter().find(|out| out.name == *name)
    }
}

/// `box-1, box-2, box-3 and 9 more`.
pub fn names(rows: &[&BoxRow]) -> String {
    let mut shown: Vec<&str> = rows.iter().take(3).map(|row| row.name.as_str()).collect();
    let more = format!("{} more", rows.len().saturating_sub(shown.len()));
    if rows.len() <= 3 {
        return shown.join(", ");
    }
    let last = shown.pop().unwrap_or_default();
    format!("{}, {last} and {more}", shown.join(", "))
}

/// `1 box waits`, `12 boxes wait`: the verb of one, and of many.
pub fn boxes(rows: &[&BoxRow], one: &str, many: &str) -> String {
    match rows {
        [row] => format!("{} {one}", row.name),
        _ => format!("{} boxes {many}", rows.len()),
    }
}
