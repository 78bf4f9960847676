//! Every command that the documents show can be given.

use std::{collections::BTreeSet, iter, path::Path};

use clap::{CommandFactory as _, Parser as _};
use deployctl::cli::Cli;

use crate::documents::document::{blocks, documents, file, inline, pages};

/// Every command line of the documents, from its blocks (after a prompt) and from its text.
fn command_lines() -> Vec<String> {
    let text = documents();
    let shown = blocks(&text).into_iter().filter(|block| matches!(block.kind.as_str(), "console" | "sh"));
    let shown = shown.flat_map(|block| {
        let prompt = if block.kind == "sh" { "" } else { "$ " };
        let joined = block.text.replace("\\\n", " ");
        joined.lines().filter_map(|line| line.strip_prefix(prompt)).map(str::to_owned).collect::<Vec<_>>()
    });
    let said = inline(&text).into_iter().filter(|code| code.contains(' '));
    shown.chain(said).collect()
}

/// A command line's words, as a shell takes it apart: quotes, and no more.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (c, quote) {
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            (' ', None) => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The part of a command line that is `deployctl` and its arguments, wherever it stands.
fn deployctl(line: &str) -> Option<Vec<String>> {
    let words = words(line);
    let at = words.iter().position(|word| word == "deployctl" || word.ends_with("/deployctl"))?;
    // `user:deploy=…/deployctl handle`, `systemctl … deployctl@app`: only where it is the program.
    let starts = at == 0 || words[..at].iter().all(|word| word.contains('=') || word == "sudo");
    let on_a_box = words.first().is_some_and(|word| word == "scripts/demo.sh");
    (starts || on_a_box).then(|| {
        let own = words[at..].iter().take_while(|word| !matches!(word.as_str(), "|" | "&&" | ";" | "||"));
        own.cloned().collect()
    })
}

#[test]
fn every_command_parses() {
    let mut seen = BTreeSet::new();
    for line in command_lines() {
        let Some(words) = deployctl(&line) else { continue };
        if words.len() == 1 {
            continue;
        }
        Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{line}\n{error}"));
        seen.insert(words[1].clone());
    }
    let all: BTreeSet<String> =
        Cli::command().get_subcommands().filter(|c| !c.is_hide_set()).map(|c| c.get_name().to_owned()).collect();
    assert_eq!(seen, all, "the commands that the documents show, and those that there are");
}

#[test]
fn every_flag_exists() {
    let cli = Cli::command();
    let mut known: BTreeSet<String> = cli
        .get_subcommands()
        .flat_map(|command| iter::once(command).chain(command.get_subcommands()))
        .flat_map(clap::Command::get_arguments)
        .chain(cli.get_arguments())
        .flat_map(|argument| argument.get_long_and_visible_aliases().unwrap_or_default())
        .map(str::to_owned)
        .collect();
    known.insert("help".to_owned());
    // Other programs' flags, where the documents name those.
    let scripts = file("scripts/provision.sh");
    let other_programs = ["dpkg", "rpm"];
    for code in inline(&documents()) {
        if other_programs.iter().any(|program| code.split(' ').next() == Some(program)) {
            continue;
        }
        for word in code.split(' ').filter_map(|word| word.strip_prefix("--")).filter(|word| !word.is_empty()) {
            let flag = word.split('=').next().unwrap().trim_end_matches([',', ')']);
            assert!(known.contains(flag) || scripts.contains(&format!("--{flag}")), "--{flag} in `{code}`");
        }
    }
}

#[test]
fn every_make_target_and_script_exists() {
    let makefile = file("Makefile");
    for line in command_lines() {
        match words(&line).as_slice() {
            [make, target, ..] if make == "make" => {
                assert!(makefile.contains(&format!("\n{target}:")), "{line}");
            }
            [script, ..] if script.starts_with("scripts/") => {
                assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(script).is_file(), "{line}");
            }
            _ => {}
        }
    }
}

#[test]
fn every_path_into_the_project_exists() {
    for code in inline(&documents()) {
        let inside = ["src/", "scripts/", "serf/", "compose/", "tests/", "benches/", "docs/"]
            .iter()
            .any(|top| code.starts_with(top));
        if inside && !code.contains([' ', '*']) {
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(&code).exists(), "{code}");
        }
    }
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    for (page, text) in pages() {
        let folder = Path::new(&page).parent().unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.contains("://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let path = if path.is_empty() { page.clone() } else { folder.join(path).display().to_string() };
            let there = file(&path);
            let headings = there.lines().filter(|line| line.starts_with('#'));
            let mut anchors = headings.map(|line| line.trim_start_matches(['#', ' ']).to_lowercase().replace(' ', "-"));
            assert!(heading.is_empty() || anchors.any(|anchor| anchor == heading), "{page}: {link}");
        }
    }
}
