//! The command line: types only. What they mean is in [`crate::commands`].

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;

use crate::{
    config::{Scope, duration},
    names::{BoxName, Environment, Role, Tag},
};

/// A fleet that deploys itself: rolling Docker deploys over Serf, under Redis locks.
#[derive(Debug, Parser)]
#[command(name = "deployctl", version, max_term_width = 100)]
pub struct Cli {
    /// The configuration [default: /etc/deployctl/config.json; `DEPLOYCTL_CONFIG` names another]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Log more; twice: every outside program with its arguments
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands, in the order in which a deploy meets them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// CI: tell the service of a new release
    Publish(Publish),
    /// What can be deployed, what cannot and why, and where each release runs
    Releases(Releases),
    /// Start a deploy
    Start(Start),
    /// Stop the deploy that is rolling
    Cancel(Cancel),
    /// Let no box begin in the deploy that is rolling
    Pause(Pause),
    /// Let a paused deploy go on
    Resume(Resume),
    /// Deploy the last tag that was complete before this one
    Rollback(Rollback),
    /// Start what one environment runs in the next one
    Promote(Promote),
    /// Let nothing new start in an environment
    Freeze(Freeze),
    /// Let deploys start again
    Unfreeze(Unfreeze),
    /// What runs where, what is rolling, and what each box waits for
    Status(Status),
    /// Who holds which lock, and which boxes are out of service
    Locks(LocksArgs),
    /// Free a box's lock and out-mark by force
    Unlock(Unlock),
    /// Box: the handler of Serf's user:deploy event, payload on stdin
    Handle(Handle),
    /// Box: deploy here now, under the same locks as every deploy
    Run(Run),
    /// Box: bring every role here to what it should run
    Sync,
    /// Box: take this box out of service by hand
    Out(Out),
    /// Box: bring this box back after `out`
    In(In),
    /// Write the first configuration of a box, or of the service's host
    #[command(subcommand)]
    Init(Init),
    /// Make a token
    #[command(subcommand)]
    Token(TokenCommand),
    /// Check everything that this box, host or laptop needs, and say how to mend it
    Doctor,
    /// Run the deployment service
    Service,
    /// Read the configuration, and say what is wrong with it: for scripts that install one
    #[command(hide = true)]
    CheckConfig,
    /// The worker that an event wakes: what deployctl@ROLE.service runs
    #[command(hide = true)]
    Worker(Worker),
}

/// A role and an environment, as most commands need them.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// The role
    #[arg(short, long)]
    pub role: Role,
    /// The environment [default: the configuration's, or `DEPLOYCTL_ENVIRONMENT`]
    #[arg(short, long)]
    pub environment: Option<Environment>,
}

/// A role and an environment that narrow a list.
#[derive(Debug, Args)]
pub struct Filter {
    /// Only this role
    #[arg(short, long)]
    pub role: Option<Role>,
    /// Only this environment
    #[arg(short, long)]
    pub environment: Option<Environment>,
}

/// `publish`
#[derive(Debug, Args)]
pub struct Publish {
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
}

/// `releases`
#[derive(Debug, Args)]
pub struct Releases {
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
pub struct Start {
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
    /// Insist on a broken release, or on a frozen environment
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
pub struct Cancel {
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
pub struct Pause {
    /// Where.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Why, for everybody who wonders
    #[arg(long)]
    pub reason: String,
}

/// `resume`
#[derive(Debug, Args)]
pub struct Resume {
    /// Where.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Why, for the audit log
    #[arg(long)]
    pub reason: Option<String>,
}

/// `rollback`
#[derive(Debug, Args)]
pub struct Rollback {
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
pub struct Promote {
    /// The role
    #[arg(short, long)]
    pub role: Role,
    /// The environment whose tag goes on to the next one
    #[arg(long, visible_alias = "environment", short_alias = 'e', value_name = "ENVIRONMENT")]
    pub from: Environment,
    /// Watch it to its end, and exit with its outcome
    #[arg(short, long)]
    pub wait: bool,
    /// Why, for the audit log and for everybody who watches
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `freeze`
#[derive(Debug, Args)]
pub struct Freeze {
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
pub struct Unfreeze {
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
pub struct Status {
    /// Which.
    #[command(flatten)]
    pub filter: Filter,
    /// Again and again, until Ctrl-C
    #[arg(short, long, conflicts_with_all = ["json", "history"])]
    pub watch: bool,
    /// Who did what, when
    #[arg(long)]
    pub history: bool,
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
pub struct Unlock {
    /// Where.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The box, by its Serf node name
    #[arg(short, long = "box", value_name = "BOX")]
    pub name: BoxName,
    /// Why, for the audit log
    #[arg(long)]
    pub reason: String,
    /// Even while its holder renews it
    #[arg(long)]
    pub force: bool,
}

/// `handle`
#[derive(Debug, Args)]
pub struct Handle {
    /// Run the worker here and now, and exit with its code
    #[arg(long)]
    pub foreground: bool,
}

/// `run`
#[derive(Debug, Args)]
pub struct Run {
    /// The role
    #[arg(short, long)]
    pub role: Role,
    /// The environment: this box's own, any other is refused
    #[arg(short, long)]
    pub environment: Option<Environment>,
    /// The tag [default: what the service says]
    #[arg(short, long)]
    pub tag: Option<Tag>,
}

/// `out`
#[derive(Debug, Args)]
pub struct Out {
    /// The role
    #[arg(short, long)]
    pub role: Role,
    /// Why, for everybody who wonders
    #[arg(long)]
    pub reason: String,
}

/// `in`
#[derive(Debug, Args)]
pub struct In {
    /// The role
    #[arg(short, long)]
    pub role: Role,
    /// Why, for the log
    #[arg(long)]
    pub reason: Option<String>,
}

/// `init`
#[derive(Debug, Subcommand)]
pub enum Init {
    /// A box: its roles, and where the service is
    Box(InitBox),
    /// The service's host: roles, environments and a token for each kind of caller
    Service(InitService),
}

/// `init box`: what is missing is asked on a terminal.
#[derive(Debug, Args)]
pub struct InitBox {
    /// A role; again, or with commas, for more
    #[arg(short, long, value_delimiter = ',')]
    pub role: Vec<Role>,
    /// Where the deployment service is
    #[arg(long, value_name = "URL")]
    pub service_url: Option<String>,
    /// The target group that sends requests; with ROLE= in front that of one role
    #[arg(long, value_name = "[ROLE=]ARN", conflicts_with = "no_load_balancer")]
    pub target_group: Vec<String>,
    /// Nothing sends requests to these roles
    #[arg(long)]
    pub no_load_balancer: bool,
    /// A URL that answers with 2xx when the container works; with ROLE= in front that of one role
    #[arg(long, value_name = "[ROLE=]URL")]
    pub health_url: Vec<String>,
    /// The file that will hold the URL of Redis
    #[arg(long, value_name = "FILE", default_value = "redis-url")]
    pub redis_url_file: PathBuf,
    /// The file that will hold the box's token
    #[arg(long, value_name = "FILE", default_value = "token")]
    pub token_file: PathBuf,
}

/// `init service`: what is missing is asked on a terminal.
#[derive(Debug, Args)]
pub struct InitService {
    /// A role; again, or with commas, for more
    #[arg(short, long, value_delimiter = ',')]
    pub role: Vec<Role>,
    /// An environment; again, or with commas, for more, in the order of promotion
    #[arg(short, long, value_delimiter = ',')]
    pub environment: Vec<Environment>,
    /// Where the service listens
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8700")]
    pub listen: SocketAddr,
    /// A complete deploy starts the next environment's by itself
    #[arg(long)]
    pub auto_promote: bool,
    /// The file that will hold the URL of Redis
    #[arg(long, value_name = "FILE", default_value = "redis-url")]
    pub redis_url_file: PathBuf,
}

/// `token`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Prints a new token, and below it the line for `service.tokens`
    New(TokenNew),
}

/// `token new`
#[derive(Debug, Args)]
pub struct TokenNew {
    /// Whose it is: stands in the audit log
    #[arg(long)]
    pub name: String,
    /// What it may do: read, publish, start, cancel, unlock, box; `start:staging` narrows one
    #[arg(long, value_name = "SCOPE", value_delimiter = ',', required = true)]
    pub can: Vec<Scope>,
    /// Keep the token in a new file of mode 0600 instead of printing it
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// `worker`
#[derive(Debug, Args)]
pub struct Worker {
    /// The role
    #[arg(short, long)]
    pub role: Role,
    /// Leave the session of the Serf agent first
    #[arg(long)]
    pub new_session: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_parses_with_short_and_long_names() {
        for line in [
            "publish -r app -t v1 --commit abc --author me -m text --link https://ci/1 --committed-at 2026-01-01T00:00:00Z",
            "releases -r app -n 5 --json",
            "start -r app -e staging -t v1 --wait --supersede --recreate --force --all-at-once --dry-run",
            "start --role app --environment staging --tag v1 --queue",
            "start -r app",
            "cancel -r app -e staging --reason why --broken",
            "pause -r app -e staging --reason why",
            "resume -r app -e staging",
            "rollback -r app -e staging -t v1",
            "promote -r app --from staging",
            "freeze -e production --reason why",
            "unfreeze -e production -r app --reason why",
            "status",
            "status -r app -e staging --json",
            "status --watch",
            "locks -r app -e staging",
            "unlock -r app -e staging --box box-1.internal --reason why --force",
            "handle --foreground",
            "run -r app -e staging -t v1",
            "sync --config /etc/x.json",
            "out -r app --reason why",
            "in -r app --reason why",
            "doctor",
            "token new --name ci --can publish,start:staging --file token",
            "init box -r app,web --service-url http://x --no-load-balancer",
            "init service -r app -e staging,production --auto-promote",
            "service",
            "check-config --config /etc/x.json",
            "worker -r app --new-session",
        ] {
            Cli::try_parse_from(format!("deployctl {line}").split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn hostile_names_and_contradictions_are_refused() {
        for line in [
            "start -r ../x -e staging",
            "start -r app -e Staging",
            "start -r app -e staging -t .x",
            "start -r app -e staging --supersede --queue",
            "unlock -r app -e staging --box -x --reason why",
            "status --watch --json",
            "out -r app",
        ] {
            assert!(Cli::try_parse_from(format!("deployctl {line}").split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn a_freeze_ends_at_a_time_or_after_a_while() {
        let now: Timestamp = "2026-12-24T08:00:00Z".parse().unwrap();
        let ends = |text: &str| text.parse::<Until>().map(|until| until.from(now).unwrap().to_string());
        assert_eq!(ends("2h").unwrap(), "2026-12-24T10:00:00Z");
        assert_eq!(ends("2026-12-24T10:00:00+01:00").unwrap(), "2026-12-24T09:00:00Z");
        assert!(ends("tomorrow").unwrap_err().contains("neither a duration"));
    }
}
