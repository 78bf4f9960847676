//! The Serf agent.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{Scope, SerfAgent, require, run, wait_for, wait_until};

const SOON: Duration = Duration::from_secs(15);

/// A handler that appends lines to a journal.
struct Journal {
    file: PathBuf,
}

impl Journal {
    fn new(scope: &Scope) -> Self {
        Self { file: scope.file("journal", "") }
    }

    fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.file).unwrap().lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn wait_line(&self, line: &str) {
        wait_for(SOON, &format!("a handler writes {line:?}"), || {
            let lines = self.lines();
            if lines.iter().any(|seen| seen == line) { Ok(()) } else { Err(format!("{lines:?}")) }
        });
    }

    fn position(&self, line: &str) -> usize {
        self.lines().iter().position(|seen| seen == line).unwrap_or_else(|| panic!("{line:?} in {:?}", self.lines()))
    }

    fn path(&self) -> &Path {
        &self.file
    }
}

#[test]
fn handlers_run_one_at_a_time_and_membership_events_wait_too() {
    require!("serf");
    let scope = Scope::new();
    let journal = Journal::new(&scope);
    let body = r#"event=${SERF_USER_EVENT:-$SERF_EVENT}
        echo "$event begins" >>JOURNAL; [ "$event" = slow ] && sleep 2; echo "$event ends" >>JOURNAL"#;
    let handler = scope.script("handler", &body.replace("JOURNAL", journal.path().to_str().unwrap()));
    let one = SerfAgent::builder(&scope, "one").handler(handler.to_str().unwrap()).start();
    journal.wait_line("member-join ends");
    fs::write(journal.path(), "").unwrap();

    one.event("slow", "");
    journal.wait_line("slow begins");
    one.event("quick", "");
    let _two = SerfAgent::builder(&scope, "two").join(&one).start();
    journal.wait_line("quick ends");
    journal.wait_line("member-join ends");
    assert!(journal.position("slow ends") < journal.position("quick begins"), "{:?}", journal.lines());
    assert!(journal.position("slow ends") < journal.position("member-join begins"), "{:?}", journal.lines());
}

#[test]
fn a_child_that_keeps_the_handlers_output_open_holds_the_agent() {
    require!("serf");
    let scope = Scope::new();
    let journal = Journal::new(&scope);
    // The handler itself exits at once. Its child writes when it is done, and so tells when the agent may go on.
    let leave_child = |name: &str, redirect: &str| {
        let journal = journal.path().display();
        scope.script(name, &format!(r#"{{ sleep 2; echo "{name}'s child ends" >>{journal}; }} {redirect} &"#))
    };
    let (holding, detached) = (leave_child("holding", ""), leave_child("detached", ">/dev/null 2>&1"));
    let after = scope.script("after", &format!("echo \"$SERF_USER_EVENT\" >>{}", journal.path().display()));
    let agent = SerfAgent::builder(&scope, "one")
        .handler(&format!("user:holding={}", holding.display()))
        .handler(&format!("user:detached={}", detached.display()))
        .handler(&format!("user:after-holding,user:after-detached={}", after.display()))
        .start();

    agent.event("holding", "");
    agent.event("after-holding", "");
    journal.wait_line("after-holding");
    assert_eq!(journal.lines(), ["holding's child ends", "after-holding"]);

    agent.event("detached", "");
    agent.event("after-detached", "");
    journal.wait_line("detached's child ends");
    assert_eq!(journal.lines()[2..], ["after-detached", "detached's child ends"]);
}

#[test]
fn a_handler_that_writes_to_its_output_dies_with_the_agent() {
    require!("serf");
    let scope = Scope::new();
    let journal = Journal::new(&scope);
    // Both tell their pid; then one writes to the agent, the other keeps silent.
    let handler = |name: &str, word: &str| {
        let journal = journal.path().display();
        let body = format!("echo \"$$ {name}\" >>{journal}; for _ in $(seq 300); do {word}; sleep 0.1; done");
        scope.script(name, &body).display().to_string()
    };
    let (writer, silent) = (handler("writer", "echo working"), handler("silent", "true"));
    let mut agents: Vec<_> = [writer, silent]
        .iter()
        .enumerate()
        .map(|(i, handler)| {
            SerfAgent::builder(&scope, &format!("agent-{i}")).handler(&format!("user:go={handler}")).start()
        })
        .collect();
    for agent in &agents {
        agent.event("go", "");
    }
    let lines = wait_for(SOON, "both handlers run", || {
        let lines = journal.lines();
        if lines.len() == 2 { Ok(lines) } else { Err(format!("{lines:?}")) }
    });
    let alive = |name: &str| {
        let pid = lines.iter().find_map(|line| line.strip_suffix(name)).unwrap().trim().to_owned();
        scope.processes().iter().any(|running| running.pid.to_string() == pid)
    };
    assert!(alive("writer") && alive("silent"));

    for agent in &mut agents {
        agent.kill();
    }
    wait_until(SOON, "the handler that writes is gone", || !alive("writer"));
    assert!(alive("silent"), "a handler that does not write survives the agent");
}

#[test]
fn sigint_makes_the_agent_leave_and_sigkill_does_not() {
    require!("serf");
    let scope = Scope::new();
    let seed = SerfAgent::builder(&scope, "seed").start();
    // One after the other: three agents, of which one is gone, take 18 s to agree that a second is dead.
    let mut killed = SerfAgent::builder(&scope, "killed").join(&seed).start();
    killed.kill();
    seed.wait_member(SOON, "killed", "failed");
    let mut polite = SerfAgent::builder(&scope, "polite").join(&seed).start();
    polite.leave();
    seed.wait_member(SOON, "polite", "left");
}

/// Sends three events of one name in quick succession and gives the payloads that arrived.
fn three_quick_events(flag: &[&str]) -> Vec<String> {
    let scope = Scope::new();
    let journal = Journal::new(&scope);
    let handler = scope.script("handler", &format!("cat >>{0}", journal.path().display()));
    let agent =
        SerfAgent::builder(&scope, "one").handler(&format!("user:deploy,user:last={}", handler.display())).start();
    for payload in ["app", "web", "worker"] {
        run(&mut agent.command(&[&["event"], flag, &["deploy", payload]].concat())).ok();
    }
    agent.event("last", "last");
    // Those that are coalesced arrive when Serf's quiescent period (1 s) or coalesce period (3 s) is over.
    wait_for(SOON, "the events arrive", || {
        let lines = journal.lines();
        if lines.iter().any(|line| line == "last") && lines.iter().any(|line| line == "worker") {
            Ok(())
        } else {
            Err(format!("{lines:?}"))
        }
    });
    journal.lines().into_iter().filter(|line| line != "last").collect()
}

#[test]
fn events_of_one_name_coalesce_unless_told_otherwise() {
    require!("serf");
    assert_eq!(three_quick_events(&[]), ["worker"], "only the last of three arrives");
    assert_eq!(three_quick_events(&["-coalesce=false"]), ["app", "web", "worker"]);
}

/// Two events while `two` is down; gives what its handler got once it is back and has handled a third.
fn missed_events(settings: &[(&str, Value)]) -> Vec<String> {
    let scope = Scope::new();
    let journal = Journal::new(&scope);
    let handler = scope.script("handler", &format!("cat >>{0}", journal.path().display()));
    let one = SerfAgent::builder(&scope, "one").start();
    let two = SerfAgent::builder(&scope, "two").join(&one).handler(&format!("user:deploy={}", handler.display()));
    let mut two = settings
        .iter()
        .fold(two, |two, (key, value)| match *key {
            "snapshot" => two.snapshot(),
            _ => two.config(key, value.clone()),
        })
        .start();
    // A snapshot begins with the first event that was seen.
    one.event("deploy", "before");
    journal.wait_line("before");
    two.leave();
    one.wait_member(SOON, "two", "left");
    one.event("deploy", "missed-1");
    one.event("deploy", "missed-2");
    two.resume();
    one.wait_alive(SOON, 2);
    one.event("deploy", "after");
    journal.wait_line("after");
    journal.lines().into_iter().filter(|line| line.starts_with("missed")).collect()
}

#[test]
fn missed_events_are_replayed_with_a_snapshot_and_replay_on_join_only() {
    require!("serf");
    let mut replayed = missed_events(&[("snapshot", Value::Null), ("replay_on_join", json!(true))]);
    replayed.sort();
    assert_eq!(replayed, ["missed-1", "missed-2"], "with both");
    assert!(missed_events(&[("snapshot", Value::Null)]).is_empty(), "with a snapshot alone");
    assert!(missed_events(&[]).is_empty(), "with neither");
}

#[test]
fn members_filters_by_an_anchored_expression_and_says_null_for_nobody() {
    require!("serf");
    let scope = Scope::new();
    let agent = SerfAgent::builder(&scope, "one").tag("images", "api,web").start();
    let members = |expression: &str| {
        let filter = format!("images={expression}");
        run(&mut agent.command(&["members", "-format=json", "-tag", &filter])).ok().json()
    };
    assert_eq!(members("web"), json!({ "members": null }), "an expression must match the whole value");
    assert_eq!(members(".*web")["members"][0]["name"], "one");
    assert_eq!(members("api,web")["members"][0]["tags"]["images"], "api,web");
}
