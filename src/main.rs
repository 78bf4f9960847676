//! Parse, set the logger up, dispatch, print the error chain, exit with the documented code.

use std::{env, io, process::ExitCode};

use anyhow::anyhow;
use clap::error::ErrorKind;
use deployctl::{cli, commands, exit::Exit, screen};

fn main() -> ExitCode {
    let exit = match cli::parse(env::args_os()) {
        Ok(cli) => {
            start_logger(commands::log_level(&cli));
            commands::run(&cli).unwrap_or_else(|error| end(&error))
        }
        Err(asked) if matches!(asked.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // A closed pipe is no error of ours (`deployctl --help | head`).
            let _ = asked.print();
            Exit::Done
        }
        Err(asked) if asked.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Whoever gives no command wants to know which there are; a script that forgot one still sees an error.
            let _ = cli::command().print_help();
            end(&Exit::Usage.because(anyhow!(usage(&asked))))
        }
        Err(error) => end(&Exit::Usage.because(anyhow!(usage(&error)))),
    };
    ExitCode::from(exit.code())
}

/// Prints the error. A closed pipe is none: the reader wanted no more (`deployctl status | head`).
fn end(error: &anyhow::Error) -> Exit {
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return Exit::Done;
    }
    screen::print_error(error);
    Exit::of(error)
}

/// Clap's usage error in one line: what is wrong, what may have been meant, and where the help is.
fn usage(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "name a command; deployctl --help lists them".to_owned();
    }
    let text = error.to_string();
    let problem = text.split("\n\n").next().unwrap_or_default();
    let problem = problem.strip_prefix("error: ").unwrap_or(problem);
    let problem = problem.split_whitespace().collect::<Vec<_>>().join(" ");
    let tips = text.lines().filter_map(|line| line.trim_start().strip_prefix("tip: "));
    let meant = tips.filter(|tip| tip.contains("similar"));
    let help = "deployctl COMMAND --help says how it is used";
    [problem.as_str()].into_iter().chain(meant).chain([help]).collect::<Vec<_>>().join("; ")
}

fn start_logger(level: log::LevelFilter) {
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        .filter_module("deployctl", level)
        .parse_env("DEPLOYCTL_LOG")
        .format_target(false)
        .init();
}
