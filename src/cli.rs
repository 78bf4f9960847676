//! The command line: types only, here the list of commands. What they mean is in [`crate::commands`].

mod fleet;
mod help;
mod machine;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use self::{
    fleet::{
        CancelArgs, CompleteArgs, CompleteKind, FreezeArgs, LocksArgs, PauseArgs, PromoteArgs, PublishArgs,
        ReleasesArgs, ResumeArgs, RollbackArgs, StartArgs, StatusArgs, UnfreezeArgs, UnlockArgs, Until, WhyArgs,
    },
    help::{command, parse},
    machine::{
        HandleArgs, InArgs, Init, InitBoxArgs, InitServiceArgs, OutArgs, RunArgs, TokenCommand, TokenNewArgs,
        WithLockArgs, WorkerArgs,
    },
};
use crate::names::{Environment, Role};

/// A fleet that deploys itself: rolling Docker deploys over Serf, under Redis locks.
#[derive(Debug, Parser)]
#[command(name = "deployctl", version, max_term_width = 100)]
pub struct Cli {
    /// The configuration [default: /etc/deployctl/config.json; `DEPLOYCTL_CONFIG` names another]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Log more, and of a deploy each box and phase; twice: every outside program with its arguments
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands; the help shows them in groups.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell the service of a new release: what CI does
    Publish(PublishArgs),
    /// What can be deployed, what cannot and why, and where each release runs
    Releases(ReleasesArgs),
    /// Start a deploy
    Start(StartArgs),
    /// Stop the deploy that is rolling
    Cancel(CancelArgs),
    /// Let no box begin in the deploy that is rolling
    Pause(PauseArgs),
    /// Let a paused deploy go on
    Resume(ResumeArgs),
    /// Deploy the last tag that was complete before this one
    Rollback(RollbackArgs),
    /// Start what one environment runs in the next one
    Promote(PromoteArgs),
    /// Let nothing new start in an environment
    Freeze(FreezeArgs),
    /// Let deploys start again
    Unfreeze(UnfreezeArgs),
    /// What runs where, what is rolling, and what each box waits for
    Status(StatusArgs),
    /// Why a deploy, or a box, is no further, and what can be done
    Why(WhyArgs),
    /// Who holds which lock, and which boxes are out of service
    Locks(LocksArgs),
    /// Free a box's lock and out-mark by force
    Unlock(UnlockArgs),
    /// The handler of Serf's user:deploy event, payload on stdin
    Handle(HandleArgs),
    /// Deploy here now, under the same locks as every deploy
    Run(RunArgs),
    /// Bring every role here to what it should run
    Sync,
    /// Take this box out of service by hand
    Out(OutArgs),
    /// Bring this box back after `out`
    In(InArgs),
    /// Run a command while this box is out of service, under locks as for a deploy
    WithLock(WithLockArgs),
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
    /// Names that a shell offers: what the completion scripts call
    #[command(hide = true)]
    Complete(CompleteArgs),
    /// The worker that an event wakes: what deployctl@ROLE.service runs
    #[command(hide = true)]
    Worker(WorkerArgs),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
            "promote -r app --from staging --force --reason why",
            "freeze -e production --reason why",
            "unfreeze -e production -r app --reason why",
            "status",
            "status -r app -e staging --json",
            "status --watch",
            "why -r app -e staging --box box-1 --json",
            "locks -r app -e staging",
            "unlock -r app -e staging --box box-1.internal --reason why --force",
            "unlock -r app -e staging -b box-1 --reason why",
            "rollback -r app -e staging -w",
            "handle --foreground",
            "run -r app -e staging -t v1",
            "sync --config /etc/x.json",
            "out -r app --reason why",
            "in -r app --reason why",
            "with-lock --reason why -- apt-get -y upgrade",
            "with-lock -r app,web -r api --reason why --timeout 30m --reboot",
            "doctor",
            "token new --name ci --can publish,start:staging --file token",
            "init box -r app,web --service-url http://x --no-load-balancer",
            "init service -r app -e staging,production --auto-promote",
            "service",
            "check-config --config /etc/x.json",
            "worker -r app --new-session",
            "complete tags deployctl start -r app -t",
        ] {
            Cli::try_parse_from(format!("deployctl {line}").split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn a_short_name_means_one_thing() {
        let mut meanings = BTreeMap::new();
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments() {
                let names = argument.get_short_and_visible_aliases().into_iter().flatten();
                for short in names {
                    let long = argument.get_long().unwrap_or_default();
                    let known = meanings.entry(short).or_insert_with(|| long.to_owned()).clone();
                    assert_eq!(known, long, "-{short} of {}", command.get_name());
                }
            }
        }
        assert_eq!((meanings[&'b'].as_str(), meanings[&'w'].as_str()), ("box", "wait"));
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
            "status -w",
            "out -r app",
            "with-lock --reason why",
            "with-lock --reason why --timeout soon -- true",
        ] {
            assert!(Cli::try_parse_from(format!("deployctl {line}").split(' ')).is_err(), "{line}");
        }
    }
}
