//! Releases: where they come from, and what can be done with them.

use serde_json::json;

use crate::cli::setup::Setup;
use crate::support::{Http, require, run};

#[test]
fn publish_takes_from_ci_what_it_is_not_told() {
    require!("redis-server", "serf");
    let setup = Setup::start();
    let gitlab = |line: &str, commit: &str| {
        run(setup.command(line).envs([
            ("GITLAB_CI", "true"),
            ("CI_COMMIT_SHA", commit),
            ("CI_COMMIT_AUTHOR", "Ann <ann@example.org>"),
            ("CI_COMMIT_MESSAGE", "Add tea\n\nWith milk."),
            ("CI_PIPELINE_URL", "https://gitlab.example.org/7"),
            ("CI_COMMIT_TIMESTAMP", "2026-01-01T00:00:00Z"),
        ]))
    };
    let commit = "c0ffee00c0ffee00";
    gitlab("publish -r app -t v3 --author Bob", commit).ok();
    gitlab("publish -r app -t v3", commit).ok();
    let refused = gitlab("publish -r app -t v3", "beef0000beef0000").expect(1);
    refused.one_line(&["app:v3", commit, "beef0000beef0000", "another tag"]);
    let (_, release) = Http::new(&setup.url).get("/v1/releases/app/v3");
    let told = ["commit", "author", "message", "link", "committed_at"].map(|name| release[name].as_str().unwrap());
    let expected = [commit, "Bob", "Add tea\n\nWith milk.", "https://gitlab.example.org/7", "2026-01-01T00:00:00Z"];
    assert_eq!(told, expected);
    let list = setup.deployctl("releases -r app").ok();
    for word in ["v1", "v3", "available", "c0ffee00c0", "Bob", "Add tea"] {
        assert!(list.stdout.contains(word), "{word} is not in {list}");
    }
    let list = setup.deployctl("releases -r app --json -n 1").ok().json();
    assert_eq!((&list["releases"][0]["tag"], &list["releases"][0]["runs"]), (&json!("v3"), &json!({})));
}

#[test]
fn a_reason_stands_in_the_audit_log() {
    require!("redis-server", "serf");
    let setup = Setup::start();
    let mut start = setup.command("start -r app -e staging -t v1");
    run(start.args(["--reason", "the tea fix"])).ok();
    let mut back = setup.command("rollback -r app -e staging -t v2");
    run(back.args(["--reason", "tea is cold"])).ok();
    let history = setup.deployctl("status --history").ok();
    for words in ["the tea fix", "back from v1: tea is cold"] {
        assert!(history.stdout.contains(words), "{words} is not in {history}");
    }
}
