//! What people and CI do to the fleet, from anywhere.

use std::{str::FromStr, time::Duration};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::{Filter, PlaceArgs};
use crate::{
    config::duration,
    names::{BoxName, Environment, Role, Tag},
};

/// `publish`
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The role: the name of the Docker image
    #[arg(short, long)]
    pub role: Role,
    /// The tag that CI has pushed
    #[arg(short, long)]
    pub tag: Tag,
    /// The commit it was built from [default: what GitHub, GitLab, Jenkins, Buildkite or Circle CI say]
    #[arg(long)]
    pub commit: Option<String>,
    /// Who wrote it [default: as for --commit]
    #[arg(long)]
    pub author: Option<String>,
    /// What it does [default: as for --commit]
    #[arg(short, long)]
    pub message: Option<String>,
    /// The page of the CI run [default: as for --commit]
    #[arg(long, value_name = "URL")]
    pub link: Option<String>,
    /// When the commit was made, RFC 3339 [default: as for --commit]
    #[arg(long, value_name = "TIME")]
    pub committed_at: Option<String>,
    /// It is the first release of a new role, though another one is named nearly like it
    #[arg(long)]
    pub new: bool,
}

/// `releases`
#[derive(Debug, Args)]
pub struct ReleasesArgs {
    /// The role
    #[arg(short, long)]
    pub role: Role,
    /// How many, newest first
    #[arg(short = 'n', long, default_value_t = 20)]
    pub limit: u32,
    /// For a script
    #[arg(long)]
    pub json: bool,
}

/// `start`
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct StartArgs {
    /// Where.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The tag [default: the newest release that may be deployed; in a later environment what the one before it runs]
    #[arg(short, long)]
    pub tag: Option<Tag>,
    /// Watch it to its end, and exit with its outcome
    #[arg(short, long)]
    pub wait: bool,
    /// Cancel what is rolling there
    #[arg(long, conflicts_with = "queue")]
    pub supersede: bool,
    /// Wait for what is rolling there
    #[arg(long)]
    pub queue: bool,
    /// Recreate the containers of boxes that run the tag already, too
    #[arg(long)]
    pub recreate: bool,
    /// Insist on a broken release, on a frozen environment, or on a time outside its window
    #[arg(long)]
    pub force: bool,
    /// Skip the role's steps, this once
    #[arg(long)]
    pub all_at_once: bool,
    /// Say what would happen
    #[arg(long)]
    pub dry_run: bool,
    /// Why, for the audit log and for everybody who watches
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `cancel`
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// Where.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Why, for everybody who is affected
    #[arg(long)]
    pub reason: Option<String>,
    /// The release is broken: unfinished boxes go back, and nobody deploys it again
    #[arg(long)]
    pub broken: bool,
}

/// `pause`
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// Where.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Why, for everybody who wonders
    #[arg(long)]
    pub reason: String,
}

/// `resume`
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// Where.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Why, for the audit log
    #[arg(long)]
    pub reason: Option<String>,
}

/// `rollback`
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Where.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The tag to go back to [default: the last complete other one]
    #[arg(short, long)]
    pub tag: Option<Tag>,
    /// Watch it to its end, and exit with its outcome
    #[arg(short, long)]
    pub wait: bool,
    /// Why, for the audit log and for everybody who watches
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `promote`
#[derive(Debug, Args)]
pub struct PromoteArgs {
    /// The role
    #[arg(short, long)]
    pub role: Role,
    /// The environment whose tag goes on to the next one
    #[arg(long, visible_alias = "environment", short_alias = 'e', value_name = "ENVIRONMENT")]
    pub from: Environment,
    /// Watch it to its end, and exit with its outcome
    #[arg(short, long)]
    pub wait: bool,
    /// Insist, whatever gates, a freeze, a window or a mark say
    #[arg(long)]
    pub force: bool,
    /// Why, for the audit log and for everybody who watches
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `freeze`
#[derive(Debug, Args)]
pub struct FreezeArgs {
    /// Only this role
    #[arg(short, long)]
    pub role: Option<Role>,
    /// The environment
    #[arg(short, long)]
    pub environment: Environment,
    /// Why, for everybody who is stopped by it
    #[arg(long)]
    pub reason: String,
    /// When it ends by itself: 2h, or a time like 2026-12-24T08:00:00+01:00
    #[arg(long, value_name = "TIME")]
    pub until: Option<Until>,
}

/// A time, or how long from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Then.
    At(Timestamp),
    /// After this long.
    In(Duration),
}

impl Until {
    /// The time that is meant at the time `now`.
    ///
    /// # Errors
    /// When it is too far away to be a time.
    pub fn from(self, now: Timestamp) -> anyhow::Result<Timestamp> {
        match self {
            Self::At(time) => Ok(time),
            Self::In(duration) => now.checked_add(duration).context("--until: too far away"),
        }
    }
}

impl FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = text.parse().map(Self::At).ok();
        let duration = || duration::parse(text).map(Self::In).ok();
        let help =
            || format!("{text:?} is neither a duration (2h) nor a time with its zone (2026-12-24T08:00:00+01:00)");
        time.or_else(duration).ok_or_else(help)
    }
}

/// `unfreeze`
#[derive(Debug, Args)]
pub struct UnfreezeArgs {
    /// Only this role
    #[arg(short, long)]
    pub role: Option<Role>,
    /// The environment
    #[arg(short, long)]
    pub environment: Environment,
    /// Why, for the audit log
    #[arg(long)]
    pub reason: Option<String>,
}

/// `status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Which.
    #[command(flatten)]
    pub filter: Filter,
    /// Again and again, until Ctrl-C
    #[arg(long, conflicts_with_all = ["json", "history"])]
    pub watch: bool,
    /// Who did what, when
    #[arg(long)]
    pub history: bool,
    /// For a script
    #[arg(long)]
    pub json: bool,
}

/// `why`
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Where.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Only this box
    #[arg(short = 'b', long = "box", value_name = "BOX")]
    pub name: Option<BoxName>,
    /// For a script
    #[arg(long)]
    pub json: bool,
}

/// `locks`
#[derive(Debug, Args)]
pub struct LocksArgs {
    /// Which.
    #[command(flatten)]
    pub filter: Filter,
    /// For a script
    #[arg(long)]
    pub json: bool,
}

/// `unlock`
#[derive(Debug, Args)]
pub struct UnlockArgs {
    /// Where.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The box, by its Serf node name
    #[arg(short = 'b', long = "box", value_name = "BOX")]
    pub name: BoxName,
    /// Why, for the audit log
    #[arg(long)]
    pub reason: String,
    /// Even while its holder renews it
    #[arg(long)]
    pub force: bool,
}

/// `complete`
#[derive(Debug, Args)]
pub struct CompleteArgs {
    /// Which names
    pub kind: CompleteKind,
    /// The words of the line that is being typed: its role and environment narrow the names
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub line: Vec<String>,
}

/// Names that the service knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum CompleteKind {
    Roles,
    Environments,
    Tags,
    Boxes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freeze_ends_at_a_time_or_after_a_while() {
        let now: Timestamp = "2026-12-24T08:00:00Z".parse().unwrap();
        let ends = |text: &str| text.parse::<Until>().map(|until| until.from(now).unwrap().to_string());
        assert_eq!(ends("2h").unwrap(), "2026-12-24T10:00:00Z");
        assert_eq!(ends("2026-12-24T10:00:00+01:00").unwrap(), "2026-12-24T09:00:00Z");
        assert!(ends("tomorrow").unwrap_err().contains("neither a duration"));
    }
}
