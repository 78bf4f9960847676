//! What is done on one machine: a box, the service's host, or where a token is made.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use crate::{
    config::{Scope, duration},
    names::{Environment, Role, Tag},
};

/// `handle`
#[derive(Debug, Args)]
pub struct HandleArgs {
    /// Run the worker here and now, and exit with its code
    #[arg(long)]
    pub foreground: bool,
}

/// `run`
#[derive(Debug, Args)]
pub struct RunArgs {
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
pub struct OutArgs {
    /// The role
    #[arg(short, long)]
    pub role: Role,
    /// Why, for everybody who wonders
    #[arg(long)]
    pub reason: String,
}

/// `in`
#[derive(Debug, Args)]
pub struct InArgs {
    /// The role
    #[arg(short, long)]
    pub role: Role,
    /// Why, for the log
    #[arg(long)]
    pub reason: Option<String>,
}

/// `with-lock`
#[derive(Debug, Args)]
pub struct WithLockArgs {
    /// A role; again, or with commas, for more [default: every role of this box]
    #[arg(short, long, value_delimiter = ',')]
    pub role: Vec<Role>,
    /// Why, for everybody who wonders
    #[arg(long)]
    pub reason: String,
    /// How long the command may take before it is ended
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "1h")]
    pub timeout: Duration,
    /// Reboot afterwards; `sync` brings the box back after the boot
    #[arg(long)]
    pub reboot: bool,
    /// What runs while the box is out; it has nothing to read
    #[arg(last = true, value_name = "COMMAND", required_unless_present = "reboot")]
    pub command: Vec<String>,
}

/// `init`
#[derive(Debug, Subcommand)]
pub enum Init {
    /// A box: its roles, and where the service is
    Box(InitBoxArgs),
    /// The service's host: roles, environments and a token for each kind of caller
    Service(InitServiceArgs),
}

/// `init box`: what is missing is asked on a terminal.
#[derive(Debug, Args)]
pub struct InitBoxArgs {
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
pub struct InitServiceArgs {
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
    New(TokenNewArgs),
}

/// `token new`
#[derive(Debug, Args)]
pub struct TokenNewArgs {
    /// Whose it is: stands in the audit log
    #[arg(long)]
    pub name: String,
    /// What it may do: read, publish, start, approve, cancel, unlock, box, reboot; `start:staging` narrows one
    #[arg(long, value_name = "SCOPE", value_delimiter = ',', required = true)]
    pub can: Vec<Scope>,
    /// Keep the token in a new file of mode 0600 instead of printing it
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// `worker`
#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// The role
    #[arg(short, long)]
    pub role: Role,
    /// Leave the session of the Serf agent first
    #[arg(long)]
    pub new_session: bool,
}
