//! Real programs, and a folder of files as the load balancer.

use std::{fs, path::Path, sync::Mutex};

use tempfile::tempdir;

use super::*;
use crate::{
    config,
    load_balancer::{Auto, LoadBalancers, Waiting},
};

fn sh(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).into()
}

fn no_auto(auto: Auto) -> Result<String> {
    panic!("{auto:?} is not needed")
}

fn resolve(entries: Vec<CommandLb>) -> Result<LoadBalancers> {
    let entries: Vec<_> = entries.into_iter().map(config::LoadBalancer::Command).collect();
    let variables = [("DEPLOY_TAG".to_owned(), "v2".to_owned())];
    let setting = Setting { auto: &no_auto, variables: &variables, command_timeout: Duration::from_secs(20) };
    LoadBalancers::resolve(&entries, &setting, &process::never)
}

/// Registers by a file with the tag in it; answers yes from the second question on.
fn folder(dir: &Path, name: &str) -> CommandLb {
    let file = dir.join(name).display().to_string();
    CommandLb {
        register: sh(&format!("printf $DEPLOY_TAG >{file}")),
        deregister: sh(&format!("rm -f {file} {file}.asked")),
        in_service: sh(&format!(
            "test -e {file} || exit 1; test -e {file}.asked || {{ touch {file}.asked; echo warming up; exit 1; }}"
        )),
    }
}

#[test]
fn several_are_left_and_joined_at_once() {
    let dir = tempdir().unwrap();
    let dir = dir.path();
    let balancers = resolve(vec![folder(dir, "a"), folder(dir, "b")]).unwrap();
    let said = Mutex::new(Vec::new());
    let progress = |words: &str| said.lock().unwrap().push(words.to_owned());
    let waiting = Waiting { locks: 1, interrupted: &process::never, progress: &progress, looks: None };
    assert!(!balancers.in_service(&Waiting::quietly(&process::never, None)).unwrap());
    let started = Instant::now();
    balancers.register(started + Duration::from_secs(20), &waiting).unwrap();
    assert!(started.elapsed() < Duration::from_secs(6), "one wait for both: {:?}", started.elapsed());
    assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "v2");
    assert!(balancers.in_service(&Waiting::quietly(&process::never, None)).unwrap());
    assert!(said.lock().unwrap()[0].ends_with("it says no: warming up"), "{said:?}");
    assert!(balancers.survey(&waiting).unwrap().is_empty(), "it cannot count");
    fs::remove_file(dir.join("b")).unwrap();
    assert!(!balancers.in_service(&Waiting::quietly(&process::never, None)).unwrap(), "in service means all");
    balancers.deregister(&waiting).unwrap();
    assert!(!dir.join("a").exists());
}

#[test]
fn failures_are_told_from_answers() {
    let dir = tempdir().unwrap();
    let dir = dir.path();
    let waiting = Waiting { locks: 1, interrupted: &process::never, progress: &|_| {}, looks: None };
    let soon = || Instant::now() + Duration::from_secs(1);
    let never_ready = CommandLb { in_service: sh("echo no backend; exit 1"), ..folder(dir, "a") };
    let error = resolve(vec![never_ready]).unwrap().register(soon(), &waiting).unwrap_err().to_string();
    assert!(error.contains("not in service") && error.contains("it says no: no backend"), "{error}");
    let broken = CommandLb { in_service: sh("echo no such host >&2; exit 7"), ..folder(dir, "a") };
    let error =
        resolve(vec![broken]).unwrap().in_service(&Waiting::quietly(&process::never, None)).unwrap_err().to_string();
    assert!(error.contains("exit with 0 or 1") && error.contains("no such host"), "{error}");
    let refuses = CommandLb { register: sh("echo pool is full >&2; exit 1"), ..folder(dir, "a") };
    let both = vec![refuses.clone(), folder(dir, "b")];
    let error = resolve(both).unwrap().register(soon(), &waiting).unwrap_err().to_string();
    assert!(error.contains("command.register failed") && error.contains("pool is full"), "{error}");
    assert!(dir.join("b").exists(), "one that fails does not stop the other");
    let empty = CommandLb { deregister: Vec::new(), ..folder(dir, "a") };
    let error = resolve(vec![empty]).unwrap_err().to_string();
    assert!(error.contains("command.deregister is empty"), "{error}");
}

#[test]
fn an_interruption_ends_the_wait() {
    let dir = tempdir().unwrap();
    let dir = dir.path();
    let never_ready = CommandLb { in_service: sh("exit 1"), ..folder(dir, "a") };
    let started = Instant::now();
    let interrupted = || started.elapsed() > Duration::from_secs(1);
    let waiting = Waiting { locks: 1, interrupted: &interrupted, progress: &|_| {}, looks: None };
    let error = resolve(vec![never_ready]).unwrap().register(started + Duration::from_secs(60), &waiting).unwrap_err();
    assert_eq!(error.to_string(), "interrupted");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn none_is_always_in_service() {
    let none = resolve(Vec::new()).unwrap();
    assert!(none.is_empty() && none.in_service(&Waiting::quietly(&process::never, None)).unwrap());
    let waiting = Waiting { locks: 1, interrupted: &process::never, progress: &|_| {}, looks: None };
    none.deregister(&waiting).unwrap();
    none.register(Instant::now(), &waiting).unwrap();
}
