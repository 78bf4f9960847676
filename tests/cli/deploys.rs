//! Starting, watching and stopping a deploy, with a real service.

use std::time::Duration;

use rustix::process::Signal;

use crate::cli::setup::{DEPLOYCTL, Setup, exit_code, wait_said};
use crate::support::require;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_start_says_from_what_to_what_and_a_second_one_is_refused() {
    require!("redis-server", "serf");
    let setup = Setup::start();
    let output = setup.deployctl("start -r app -e staging -t v1 --dry-run").ok();
    assert!(output.stdout.contains("v1") && output.stdout.contains("1 box, 1 at a time"), "{output}");
    assert!(setup.deployctl("status --json").ok().json()["deploys"].as_array().unwrap().is_empty());

    let output = setup.deployctl("start -r app -e staging -t v1").ok();
    assert!(output.stdout.contains("1 box, 1 at a time"), "{output}");
    setup.deployctl("start -r app -e staging -t v2").expect(6).one_line(&["rolling", "--supersede"]);
    let output = setup.deployctl("start -r app -e staging -t v2 --queue").ok();
    assert!(output.stdout.contains("queued"), "{output}");
    setup.deployctl("start -r app -e staging -t v2 --supersede").ok();
}

#[test]
fn what_cannot_start_is_told_in_one_line() {
    require!("redis-server", "serf");
    let setup = Setup::start();
    setup.deployctl("start -r app -e staging -t v9").expect(1).one_line(&["v9"]);
    setup.deployctl("start -r app -e production -t v1").expect(1).one_line(&["app", "production"]);
    setup.deployctl("rollback -r app -e staging").expect(1).one_line(&["app"]);
    setup.deployctl("freeze -e staging --reason holiday").ok();
    setup.deployctl("start -r app -e staging -t v1").expect(6).one_line(&["frozen", "holiday"]);
    let output = setup.deployctl("status").ok();
    assert!(output.stdout.contains("staging is frozen") && output.stdout.contains("holiday"), "{output}");
    setup.deployctl("unfreeze -e staging --reason over").ok();
    setup.deployctl("start -r app -e staging -t v1").ok();
    let history = setup.deployctl("status --history").ok();
    for word in ["publish", "freeze", "holiday", "unfreeze", "over", "start", "kirt@"] {
        assert!(history.stdout.contains(word), "{word} is not in {history}");
    }
}

#[test]
fn watching_ends_with_ctrl_c_and_the_deploy_goes_on() {
    require!("redis-server", "serf");
    let setup = Setup::start();
    let mut watch = setup.background("watch", "start -r app -e staging -t v1 --wait --verbose");
    wait_said(&watch, "box-1 expected");
    watch.signal(Signal::INT);
    assert_eq!(exit_code(&mut watch, SOON), Some(130), "{}", watch.log());
    assert!(watch.log().contains("the deploy goes on"), "{}", watch.log());
    assert!(!watch.log().contains('\u{1b}'), "colour without a terminal: {}", watch.log());
    assert_eq!(setup.deployctl("status --json").ok().json()["deploys"][0]["state"], "rolling");
}

#[test]
fn watching_outlives_the_service_and_exits_with_the_outcome() {
    require!("redis-server", "serf");
    let mut setup = Setup::start();
    let mut watch = setup.background("watch", "start -r app -e staging -t v1 --wait");
    wait_said(&watch, "0 of 1 box finished");
    assert!(!watch.log().contains("box-1 expected"), "a line for each box: {}", watch.log());
    setup.kill_service();
    wait_said(&watch, "does not answer");
    setup.start_service();
    let output = setup.deployctl("cancel -r app -e staging --reason changed-my-mind").ok();
    assert!(output.stdout.contains("cancelled") && output.stdout.contains("deployctl rollback"), "{output}");
    assert_eq!(exit_code(&mut watch, SOON), Some(3), "{}", watch.log());
    assert!(watch.log().contains("changed-my-mind"), "{}", watch.log());
    let output = setup.deployctl("cancel -r app -e staging").ok();
    assert!(output.stdout.contains("nothing rolls"), "{output}");
}

#[test]
fn a_cancel_needs_no_service_where_redis_is_known() {
    require!("redis-server", "serf");
    let mut setup = Setup::start();
    setup.deployctl("start -r app -e staging -t v1").ok();
    setup.kill_service();
    let output = setup.deployctl("cancel -r app -e staging").expect(1);
    assert!(output.stderr.contains("DEPLOYCTL_REDIS_URL"), "{output}");
    let cancel = |setup: &Setup| {
        let mut command = setup.command("cancel -r app -e staging --reason emergency");
        crate::support::run(command.env("DEPLOYCTL_REDIS_URL", setup.redis.url())).ok()
    };
    assert!(cancel(&setup).stdout.contains("cancelled"));
    setup.start_service();
    let mut watch = setup.background("watch", "status --watch");
    wait_said(&watch, "emergency");
    watch.signal(Signal::INT);
    assert_eq!(exit_code(&mut watch, SOON), Some(0), "{}", watch.log());
    assert!(cancel(&setup).stdout.contains("nothing rolls"));
}

#[test]
fn a_broken_release_is_refused_with_its_reason() {
    require!("redis-server", "serf");
    let setup = Setup::start();
    let mut watch = setup.background("watch", "start -r app -e staging -t v1 --wait");
    wait_said(&watch, "0 of 1 box finished");
    setup.deployctl("cancel -r app -e staging --broken --reason it-loses-orders").ok();
    assert_eq!(exit_code(&mut watch, SOON), Some(4), "{}", watch.log());
    assert_eq!(watch.log().matches("it-loses-orders").count(), 1, "{}", watch.log());
    assert!(watch.log().lines().any(|line| line == "  cause: it-loses-orders"), "{}", watch.log());
    let status = setup.deployctl("status").ok();
    assert_eq!(status.stdout.matches("it-loses-orders").count(), 1, "{status}");
    setup.deployctl("start -r app -e staging -t v1").expect(1).one_line(&["v1", "broken", "it-loses-orders"]);
    setup.deployctl("start -r app -e staging -t v1 --wait").expect(4);
    setup.deployctl("start -r app -e staging -t v1 --force").ok();
}

#[test]
fn on_a_terminal_a_table_is_drawn_again_in_place() {
    require!("redis-server", "serf", "script");
    let setup = Setup::start();
    // script(1) gives its program a terminal, and passes its exit code on.
    let mut command = setup.scope.command("script");
    let line = format!("{DEPLOYCTL} start -r app -e staging -t v1 --wait");
    command.args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"]);
    command.env("DEPLOYCTL_SERVICE_URL", &setup.url).env("TERM", "xterm").env_remove("NO_COLOR");
    let mut watch = setup.scope.start("terminal", &mut command);
    let up_and_clear = "A\r\u{1b}[J";
    wait_said(&watch, up_and_clear);
    wait_said(&watch, "box-1  \u{1b}[2mexpected");
    wait_said(&watch, "░░░░ 0 of 1");
    let reason = "enough-".repeat(40);
    setup.deployctl(&format!("cancel -r app -e staging --reason {reason}")).ok();
    assert_eq!(exit_code(&mut watch, SOON), Some(3), "{}", watch.log());
    let log = watch.log();
    let end: Vec<&str> = log.rsplit("\u{1b}[J").next().unwrap_or_default().lines().collect();
    let cause = end.iter().find(|line| line.contains("cause: enough-")).unwrap_or_else(|| panic!("{log}"));
    assert!(cause.contains('…') && cause.len() < 110, "a line of the terminal's width: {cause}");
    assert!(end.iter().all(|line| !line.contains("enough-") || line == cause), "{end:?}");
}

#[test]
fn a_terminal_shows_times_in_its_zone_and_a_log_in_utc() {
    require!("redis-server", "serf", "script");
    let setup = Setup::start();
    setup.deployctl("freeze -e staging --until 2030-01-01T00:00:00Z --reason sale").ok();
    let status = setup.deployctl("status").ok();
    assert!(status.stdout.contains("until 2030-01-01 00:00:00 UTC"), "{status}");
    let mut command = setup.scope.command("script");
    command.args(["--quiet", "--return", "--command", &format!("{DEPLOYCTL} status"), "/dev/null"]);
    command.env("DEPLOYCTL_SERVICE_URL", &setup.url).env("TERM", "xterm").env("TZ", "IST-5:30");
    let status = crate::support::run(&mut command).ok();
    assert!(status.stdout.contains("until 2030-01-01 05:30:00 IST"), "{status}");
}
