//! Why nothing happens, asked of a real service.

use serde_json::json;

use crate::cli::setup::Setup;
use crate::support::require;

#[test]
fn why_tells_what_keeps_a_deploy_from_going_on() {
    require!("redis-server", "serf");
    let setup = Setup::start();
    let why = |line: &str| setup.deployctl(&format!("why -r app {line}")).ok();
    let said = why("-e staging");
    for words in ["nothing was ever deployed", "v2 is published", "`deployctl start -r app -e staging -t v2`"] {
        assert!(said.stdout.contains(words), "{words} is not in {said}");
    }
    setup.deployctl("freeze -e staging --reason sale").ok();
    let said = why("-e staging");
    assert!(said.stdout.contains("staging is frozen") && said.stdout.contains("deployctl unfreeze"), "{said}");
    setup.deployctl("unfreeze -e staging").ok();

    setup.deployctl("start -r app -e staging -t v1").ok();
    setup.deployctl("start -r app -e staging -t v2 --queue").ok();
    let said = why("-e staging --box box-1");
    assert!(said.stdout.contains("box-1 has not joined") && said.stdout.contains("deployctl doctor"), "{said}");
    let asked = why("-e staging --json").json();
    let kinds: Vec<&str> = asked["reasons"].as_array().unwrap().iter().map(|r| r["kind"].as_str().unwrap()).collect();
    assert_eq!((&asked["environment"], kinds), (&json!("staging"), vec!["expected", "queued"]), "{asked}");
    setup.deployctl("pause -r app -e staging --reason errors").ok();
    let said = why("-e staging");
    assert!(said.stdout.contains(": errors") && said.stdout.contains("deployctl resume -r app -e staging"), "{said}");
}

#[test]
fn why_tells_what_keeps_a_release_from_coming() {
    require!("redis-server", "serf");
    let setup = Setup::start();
    let why = |line: &str| setup.deployctl(&format!("why -r app {line}")).ok();
    let said = why("-e production");
    assert!(said.stdout.contains("nothing was completely deployed in staging yet"), "{said}");
    setup.deployctl("start -r app -e staging -t v2").ok();
    setup.deployctl("cancel -r app -e staging --broken --reason it-loses-orders").ok();
    let said = why("-e staging");
    assert!(said.stdout.contains("v2 broke") && said.stdout.contains("it-loses-orders"), "{said}");
    assert!(said.stdout.contains("publish a fix"), "{said}");
    setup.deployctl("why -r app -e prodction").expect(1).one_line(&["prodction", "did you mean production?"]);
}
