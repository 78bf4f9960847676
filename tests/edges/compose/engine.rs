//! What a box finds installed: the compose program, and an engine that may stop under it.

use std::{fs, thread, time::Duration};

use deployctl::{
    compose::{EngineWatch, Project},
    config::Config,
};

use super::{Lab, Version};
use crate::support::{Engine, Images, Scope, require, wait_until};

#[test]
fn the_installed_program_is_chosen_once() {
    require!("docker-compose");
    let scope = Scope::new();
    // A worker has the folder; `doctor`, which has not, creates nothing.
    scope.subdir("state");
    let config = serde_json::json!({"state_dir": scope.dir().join("state"), "roles": {"app": {"load_balancers": []}}});
    let config = Config::parse(&config.to_string()).unwrap();
    Project::new(&config, &"app".parse().unwrap()).unwrap();
    let kept = scope.dir().join("state/compose");
    assert_eq!(fs::read_to_string(&kept).unwrap(), "docker-compose\n");
    let made = fs::metadata(&kept).unwrap().modified().unwrap();
    Project::new(&config, &"app".parse().unwrap()).unwrap();
    assert_eq!(fs::metadata(&kept).unwrap().modified().unwrap(), made);
}

#[test]
fn an_engine_that_stops_or_restarts_is_noticed() {
    require!("docker", "dockerd", "ip");
    let scope = Scope::new();
    let mut engine = Engine::private(&scope);
    let host = engine.host().unwrap().to_owned();
    let watch = EngineWatch::at(&host, "app").unwrap();
    assert!(!watch.was_interrupted());
    engine.stop();
    assert!(watch.was_interrupted());
    assert!(EngineWatch::at(&host, "app").is_err());
    engine.resume(&scope);
    assert!(watch.was_interrupted());
    let watch = EngineWatch::at(&host, "app").unwrap();
    assert!(!watch.was_interrupted());
    engine.kill();
    engine.resume(&scope);
    assert!(watch.was_interrupted());
}

#[test]
fn an_engine_that_is_stopping_is_noticed_when_its_containers_have_ended() {
    require!("docker", "dockerd", "ip", "busybox");
    let scope = Scope::new();
    let mut engine = Engine::private(&scope);
    let _base = Images::new(&engine, &scope);
    // As a first process it takes no notice of TERM: the engine waits for it while it stops.
    let id = engine.docker(&["run", "--detach", "--stop-timeout", "2", "deployctl-test-base", "sleep", "1000"]);
    let watch = EngineWatch::at(engine.host().unwrap(), "app").unwrap();
    let mut look = engine.command(&["inspect", "--format", "{{.State.Running}}", &id]);
    thread::scope(|scope| {
        let stop = scope.spawn(|| engine.stop());
        wait_until(Duration::from_secs(20), "the container ends", || {
            !look.output().is_ok_and(|output| output.stdout.starts_with(b"true"))
        });
        assert!(watch.was_interrupted());
        stop.join().unwrap();
    });
}

#[test]
fn the_machine_s_own_engine_is_watched_without_being_told_where_it_is() {
    require!("docker", "dockerd");
    let lab = Lab::new();
    assert!(!lab.project(Version::One).watch_engine().unwrap().was_interrupted());
}
