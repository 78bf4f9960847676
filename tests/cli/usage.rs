//! Whoever gets something wrong is told so in one line, and nothing has changed.

use std::process::Command;

use crate::support::{Output, Scope, run};

const DEPLOYCTL: &str = env!("CARGO_BIN_EXE_deployctl");

/// A port on which nobody listens: that of `tcpmux`.
const NOBODY: &str = "http://127.0.0.1:1";

fn deployctl(scope: &Scope, line: &str) -> Output {
    run(&mut command(scope, line))
}

fn command(scope: &Scope, line: &str) -> Command {
    let mut command = scope.command(DEPLOYCTL);
    command.args(line.split_whitespace()).env("DEPLOYCTL_SERVICE_URL", NOBODY);
    command
}

#[test]
fn a_usage_error_is_one_line_that_names_the_thing() {
    let scope = Scope::new();
    for (line, parts) in [
        ("strat", ["strat", "--help"]),
        ("strat", ["similar subcommand", "'start'"]),
        ("start -r app --supercede", ["--supercede", "a similar argument exists: '--supersede'"]),
        ("start", ["--role", "--help"]),
        ("start -r app --bogus", ["--bogus", "--help"]),
        ("start -r ../x -e staging", ["../x", "not a role"]),
        ("start -r app -e .*", [".*", "not an environment"]),
        ("publish -r app -t v1:2", ["v1:2", "not a Docker tag"]),
        ("start -r app -e staging --queue --supersede", ["--queue", "--supersede"]),
        ("unlock -r app -e staging --box a/b --reason x", ["a/b", "not a box"]),
        ("start -r app", ["-e ENVIRONMENT", "DEPLOYCTL_ENVIRONMENT"]),
        ("doctor --config", ["--config", "--help"]),
        ("status --config /nowhere/x.json", ["/nowhere/x.json", "--config"]),
    ] {
        let output = deployctl(&scope, line).expect(2);
        assert_eq!(output.stdout, "", "stdout of {output}");
        let first = output.stderr.lines().next().unwrap_or_default();
        assert!(first.starts_with("deployctl: "), "{output}");
        for part in parts {
            assert!(first.contains(part), "{part:?} is not in the first line of {output}");
        }
        // Causes may follow, indented.
        assert!(output.stderr.lines().skip(1).all(|line| line.starts_with("  ")), "{output}");
    }
}

#[test]
fn help_and_version_are_for_stdout() {
    let scope = Scope::new();
    let help = deployctl(&scope, "--help").ok();
    for word in ["publish", "start", "cancel", "rollback", "status", "handle", "doctor", "service"] {
        assert!(help.stdout.contains(word), "{word} is not in {help}");
    }
    assert!(!help.stdout.contains("worker") && !help.stdout.contains('\u{1b}'), "{help}");
    let at = |heading: &str| help.stdout.find(heading).unwrap_or_else(|| panic!("{heading} is not in {help}"));
    assert!(at("Every day:") < at("When it goes wrong:") && at("When it goes wrong:") < at("On a box:"), "{help}");
    let start = deployctl(&scope, "start --help").ok();
    assert!(start.stdout.contains("Example:\n  deployctl start -r app"), "{start}");
    let bare = run(&mut scope.command(DEPLOYCTL)).expect(2);
    assert_eq!(bare.stdout, help.stdout, "no command at all");
    bare.one_line(&["name a command"]);
    assert!(deployctl(&scope, "--version").ok().stdout.starts_with("deployctl "));
}

#[test]
fn a_service_that_is_away_is_named_with_the_next_act() {
    let scope = Scope::new();
    for line in [
        "publish -r app -t v1",
        "start -r app -e staging",
        "start -r app -e staging --wait",
        "rollback -r app -e staging",
        "promote -r app --from staging",
        "freeze -e staging --reason x",
        "unfreeze -e staging",
        "status",
        "status --json",
        "status --history",
        "locks",
        "why -r app -e staging",
        "unlock -r app -e staging --box b --reason x",
    ] {
        deployctl(&scope, line).expect(1).one_line(&[NOBODY, "DEPLOYCTL_SERVICE_URL"]);
    }
    let output = deployctl(&scope, "cancel -r app -e staging").expect(1);
    assert!(output.stderr.contains("DEPLOYCTL_REDIS_URL"), "{output}");
}

#[test]
fn a_token_appears_nowhere() {
    let scope = Scope::new();
    let secret = "hunter2-hunter2";
    let output = run(command(&scope, "status -vvv").env("DEPLOYCTL_TOKEN", secret)).expect(1);
    assert!(!output.stderr.contains(secret), "{output}");
    let output = run(command(&scope, "status").env("DEPLOYCTL_TOKEN", "hunter2\nx")).expect(2);
    assert!(output.stderr.contains("DEPLOYCTL_TOKEN") && !output.stderr.contains("hunter2"), "{output}");
    let redis = "redis://:hunter2@127.0.0.1:1/0";
    let output = run(command(&scope, "cancel -r app -e staging").env("DEPLOYCTL_REDIS_URL", redis)).expect(1);
    assert!(output.stderr.contains("127.0.0.1:1/0") && !output.stderr.contains("hunter2"), "{output}");
}

#[test]
fn an_address_that_is_no_service_is_told_apart_from_one_that_is_away() {
    let scope = Scope::new();
    let output = run(command(&scope, "status").env("DEPLOYCTL_SERVICE_URL", "deploys.internal")).expect(2);
    assert!(output.stderr.contains("deploys.internal") && output.stderr.contains("http://HOST"), "{output}");
}
