//! Man pages and completions, as `examples/manual.rs` writes them.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use clap::CommandFactory as _;
use deployctl::cli::Cli;

use crate::cli::setup::{DEPLOYCTL, Setup};
use crate::support::{Scope, require, run};

/// Writes them into the scope's folder `manual`.
fn write(scope: &Scope) {
    let manual = Path::new(DEPLOYCTL).with_file_name("examples/manual");
    assert!(manual.exists(), "{} is not there: cargo build --examples", manual.display());
    run(scope.command(manual.to_str().unwrap()).arg("manual")).ok();
}

/// `start`, `init-box`: every command that is shown.
fn commands(command: &clap::Command, before: &str) -> Vec<String> {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    let names = shown.flat_map(|command| {
        let name = format!("{before}{}", command.get_name());
        let deeper = commands(command, &format!("{name}-"));
        std::iter::once(name).chain(deeper)
    });
    names.collect()
}

/// What bash offers at the end of a line.
fn offers(command: &mut Command, line: &str) -> BTreeSet<String> {
    let script = r#"source manual/completions/deployctl.bash
        IFS='|' read -ra COMP_WORDS <<<"$1"
        [[ $1 != *'|' ]] || COMP_WORDS+=('')
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        read -ra how < <(complete -p deployctl)
        "${how[-2]}" deployctl "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let said = run(command.args(["-uc", script, "-", &line.replace(' ', "|")])).ok();
    said.stdout.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn every_command_has_a_man_page() {
    let scope = Scope::new();
    write(&scope);
    let pages = fs::read_dir(scope.dir().join("manual/man")).unwrap().flatten();
    let pages: BTreeSet<String> = pages.map(|page| page.file_name().into_string().unwrap()).collect();
    let mut expected: BTreeSet<String> =
        commands(&Cli::command(), "").iter().map(|name| format!("deployctl-{name}.1")).collect();
    expected.insert("deployctl.1".to_owned());
    assert_eq!(pages, expected);
    let completions = scope.dir().join("manual/completions");
    for (name, asks) in
        [("_deployctl", ":TAG: _deployctl_names tags'"), ("deployctl.fish", "-a '(deployctl complete tags ")]
    {
        let script = fs::read_to_string(completions.join(name)).unwrap();
        assert!(script.contains(asks) && !script.contains("check-config"), "{name}:\n{script}");
    }
}

#[test]
fn bash_completes_commands_flags_and_the_names_that_the_service_knows() {
    require!("bash", "redis-server", "serf");
    let mut setup = Setup::start();
    setup.deployctl("start -r app -e staging -t v1").ok();
    write(&setup.scope);
    let path = format!("{}:{}", Path::new(DEPLOYCTL).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let offered = |setup: &Setup, line: &str| {
        let mut bash = setup.scope.command("bash");
        offers(bash.env("PATH", &path).env("DEPLOYCTL_SERVICE_URL", &setup.url), line)
    };
    for (line, expected) in [
        ("deployctl st", "start status"),
        ("deployctl start --w", "--wait"),
        ("deployctl start -r ", "app"),
        ("deployctl start -r app -t ", "v1 v2"),
        ("deployctl start -r app -e s", "staging"),
        ("deployctl promote -r app --from ", "staging"),
        ("deployctl start -t ", ""),
    ] {
        let expected: BTreeSet<String> = expected.split_whitespace().map(str::to_owned).collect();
        assert_eq!(offered(&setup, line), expected, "{line}");
    }
    setup.kill_service();
    let nobody = setup.deployctl("complete roles").expect(1);
    assert!(nobody.stdout.is_empty() && nobody.took < Duration::from_secs(5), "{nobody}");
    assert_eq!(offered(&setup, "deployctl start -r "), BTreeSet::new());
}
