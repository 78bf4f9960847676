//! Writes the man pages and the completions of bash, zsh and fish, from the command line's definition, into a folder:
//! `cargo run --example manual -- DIR`. They go into the packages (`scripts/packages.sh`).
//!
//! An example, so that the program itself carries no generator. Clap's scripts complete commands and flags; what is put into
//! them here completes the names that the service knows, by the hidden command `deployctl complete`.

use std::{collections::BTreeSet, env, fs, path::Path};

use anyhow::{Context as _, Result};
use clap::{Arg, Command, CommandFactory as _};
use clap_complete::Shell;
use deployctl::cli::Cli;

/// What an argument is a name of: its placeholder in the help, and what `deployctl complete` calls it.
const KINDS: [(&str, &str); 4] =
    [("ROLE", "roles"), ("ENVIRONMENT", "environments"), ("TAG", "tags"), ("BOX", "boxes")];

fn main() -> Result<()> {
    let dir = env::args_os().nth(1).context("name a folder: manual DIR")?;
    let (man, completions) = (Path::new(&dir).join("man"), Path::new(&dir).join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let cli = without_hidden(&Cli::command());
    clap_mangen::generate_to(cli.clone(), man)?;
    let flags = KINDS.map(|(placeholder, kind)| (kind, flags(&cli, placeholder)));
    fs::write(completions.join("deployctl.bash"), bash(&generated(Shell::Bash, &cli)?, &flags))?;
    fs::write(completions.join("_deployctl"), zsh(&generated(Shell::Zsh, &cli)?))?;
    fs::write(completions.join("deployctl.fish"), fish(&generated(Shell::Fish, &cli)?, &flags))?;
    Ok(())
}

/// The flags whose value is a name of one kind.
type Flags<'a> = [(&'a str, BTreeSet<String>)];

/// The command line without what only programs call.
fn without_hidden(cli: &Command) -> Command {
    let shown = Command::new("deployctl").version(env!("CARGO_PKG_VERSION")).args(cli.get_arguments().cloned());
    let shown = shown.about(cli.get_about().cloned().unwrap_or_default()).subcommand_required(true);
    shown.subcommands(cli.get_subcommands().filter(|command| !command.is_hide_set()).cloned())
}

fn generated(shell: Shell, cli: &Command) -> Result<String> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli.clone(), "deployctl", &mut script);
    Ok(String::from_utf8(script)?)
}

/// `-r`, `--role`: every flag, of any command, whose value has this placeholder.
fn flags(command: &Command, placeholder: &str) -> BTreeSet<String> {
    let named = |arg: &&Arg| arg.get_value_names().is_some_and(|names| names.iter().any(|name| name == placeholder));
    let own = command.get_arguments().filter(named).flat_map(|arg| {
        let shorts = arg.get_short_and_visible_aliases().unwrap_or_default().into_iter().chain(arg.get_short());
        let longs = arg.get_long_and_visible_aliases().unwrap_or_default();
        shorts.map(|short| format!("-{short}")).chain(longs.into_iter().map(|long| format!("--{long}")))
    });
    let deeper = command.get_subcommands().flat_map(|command| flags(command, placeholder));
    own.chain(deeper).collect()
}

/// Clap's function is called for all but the names.
fn bash(script: &str, flags: &Flags) -> String {
    let join = |flags: &BTreeSet<String>| flags.iter().cloned().collect::<Vec<_>>().join("|");
    let cases = flags.iter().map(|(kind, flags)| format!("        {}) kind={kind} ;;", join(flags)));
    let cases = cases.collect::<Vec<_>>().join("\n");
    format!(
        r#"{script}
_deployctl_names() {{
    local kind
    case "${{COMP_WORDS[COMP_CWORD - 1]}}" in
{cases}
        *) _deployctl "$@"; return ;;
    esac
    COMPREPLY=($(compgen -W "$(deployctl complete "$kind" "${{COMP_WORDS[@]}}" 2>/dev/null)" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o bashdefault -o default -F _deployctl_names deployctl
"#
    )
}

/// Every value has an action of its own there.
fn zsh(script: &str) -> String {
    let script = KINDS.iter().fold(script.to_owned(), |script, (placeholder, kind)| {
        script.replace(&format!(":{placeholder}:_default'"), &format!(":{placeholder}: _deployctl_names {kind}'"))
    });
    // Behind the first line, which tells zsh what the file completes.
    script.replacen(
        '\n',
        "\n\n_deployctl_names() {\n    compadd -- ${(f)\"$(deployctl complete $1 $words 2>/dev/null)\"}\n}\n",
        1,
    )
}

/// Each flag of each command has a line of its own there.
fn fish(script: &str, flags: &Flags) -> String {
    let kind = |line: &str| {
        let has = |flag: &String| flag.strip_prefix("--").is_some_and(|long| line.contains(&format!(" -l {long} ")));
        flags.iter().find(|(_, flags)| line.ends_with(" -r") && flags.iter().any(has)).map(|(kind, _)| *kind)
    };
    let line = |line: &str| match kind(line) {
        Some(kind) => format!("{line} -f -a '(deployctl complete {kind} (commandline -opc) 2>/dev/null)'\n"),
        None => format!("{line}\n"),
    };
    script.lines().map(line).collect()
}
