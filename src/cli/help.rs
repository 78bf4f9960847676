//! The help: the commands by when they are needed, and an example of each.

use std::{ffi::OsString, fmt::Write as _};

use clap::{Command, CommandFactory as _, FromArgMatches as _, builder::Styles};

use super::Cli;

/// Each group's heading, and its commands with an example, in the order in which they are met.
const GROUPS: &[(&str, &[(&str, &str)])] = &[
    (
        "Every day",
        &[
            ("publish", "deployctl publish -r app -t v42"),
            ("releases", "deployctl releases -r app"),
            ("start", "deployctl start -r app -e staging --wait"),
            ("status", "deployctl status -r app --watch"),
            ("promote", "deployctl promote -r app --from staging --wait"),
            ("freeze", "deployctl freeze -e production --until 2h --reason \"the sale\""),
            ("unfreeze", "deployctl unfreeze -e production"),
        ],
    ),
    (
        "When it goes wrong",
        &[
            ("why", "deployctl why -r app -e staging --box box-3"),
            ("cancel", "deployctl cancel -r app -e staging --reason \"wrong branch\""),
            ("pause", "deployctl pause -r app -e production --reason \"errors?\""),
            ("resume", "deployctl resume -r app -e production"),
            ("rollback", "deployctl rollback -r app -e production --wait"),
            ("locks", "deployctl locks -e production"),
            ("unlock", "deployctl unlock -r app -e production --box box-3 --reason \"disk died\""),
            ("doctor", "deployctl doctor"),
        ],
    ),
    (
        "On a box",
        &[
            ("run", "deployctl run -r app"),
            ("sync", "deployctl sync"),
            ("out", "deployctl out -r app --reason \"looking at the disk\""),
            ("in", "deployctl in -r app"),
            ("with-lock", "deployctl with-lock --reason \"kernel\" -- apt-get -y upgrade"),
            ("handle", "deployctl handle --foreground"),
        ],
    ),
    (
        "The service, and first steps",
        &[
            ("service", "deployctl service --config service.json"),
            ("token", "deployctl token new --name ci --can publish,start:staging"),
            ("init", "deployctl init service -r app -e staging,production"),
        ],
    ),
];

/// The definition of the command line with the help that people see.
#[must_use]
pub fn command() -> Command {
    let mut command = Cli::command();
    let header = *Styles::styled().get_header();
    let mut groups = String::new();
    for (heading, commands) in GROUPS {
        // Writing to a string does not fail.
        let _ = writeln!(groups, "{header}{heading}:{header:#}");
        for (name, example) in *commands {
            let example = format!("{header}Example:{header:#}\n  {example}");
            command = command.mut_subcommand(name, |command| command.after_help(example));
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let _ = writeln!(groups, "  {name:<9} {}", about.map(ToString::to_string).unwrap_or_default());
        }
        groups.push('\n');
    }
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}{header}Options:{header:#}\n{{options}}"
    ))
}

/// Reads a command line.
///
/// # Errors
/// When it asks for the help or the version, or is none of ours.
pub fn parse(line: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(line)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser as _;

    use super::*;

    /// The words of a line that quotes hold together.
    fn words(line: &str) -> Vec<String> {
        let parts = line.split('"').enumerate();
        parts
            .flat_map(|(at, part)| match at % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect(),
                _ => vec![part.to_owned()],
            })
            .collect()
    }

    #[test]
    fn each_command_stands_in_one_group_with_an_example_that_parses() {
        let grouped: Vec<&str> =
            GROUPS.iter().flat_map(|(_, commands)| commands.iter().map(|(name, _)| *name)).collect();
        let all: BTreeSet<String> =
            Cli::command().get_subcommands().filter(|c| !c.is_hide_set()).map(|c| c.get_name().to_owned()).collect();
        assert_eq!(grouped.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), all);
        assert_eq!(grouped.len(), all.len(), "one stands there twice");
        for (name, example) in GROUPS.iter().flat_map(|(_, commands)| *commands) {
            assert!(example.starts_with(&format!("deployctl {name}")), "{example}");
            Cli::try_parse_from(words(example)).unwrap_or_else(|error| panic!("{example}: {error}"));
        }
    }

    #[test]
    fn the_help_shows_the_groups_and_each_example() {
        let mut command = command();
        let help = command.render_help().to_string();
        for words in ["Every day:\n", "On a box:\n", "  start     Start a deploy\n", "--config <FILE>"] {
            assert!(help.contains(words), "{words} is not in {help}");
        }
        let start = command.find_subcommand_mut("start").unwrap().render_help().to_string();
        assert!(start.contains("Example:\n  deployctl start -r app -e staging --wait"), "{start}");
    }
}
