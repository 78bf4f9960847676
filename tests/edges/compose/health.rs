//! The wait for a container that works.

use std::time::Duration;

use deployctl::{compose::HealthFailure, config::Health, process::never};

use super::{Lab, Version, deploy, health, vars};
use crate::support::{Behaviour, free_port, require};

#[test]
fn a_container_that_dies_later_is_not_stable() {
    require!("docker", "dockerd", "docker-compose", "docker-registry", "busybox");
    let lab = Lab::new();
    lab.push("v1", Behaviour::Dies);
    lab.file("");
    let project = lab.project(Version::One);
    let rendered = project.render(&vars("v1"), &never).unwrap();
    project.pull(&rendered, Duration::from_secs(30), &never).unwrap();
    let before = project.up(&rendered, false, &never).unwrap();
    let patient = Health { stable_for: Duration::from_secs(20), ..health() };
    let failure = project.wait_healthy(&rendered, &patient, &before, None, &never).unwrap_err();
    let HealthFailure::Unhealthy(reason) = failure else { panic!("{failure}") };
    assert!(reason.contains("exited with code 4") && reason.contains("fatal: out of patience"), "{reason}");
}

#[test]
fn a_container_that_never_becomes_healthy_is_at_fault_when_time_is_up() {
    require!("docker", "dockerd", "docker-compose", "docker-registry", "busybox");
    let lab = Lab::new();
    lab.push("v1", Behaviour::Unhealthy);
    lab.file("");
    let project = lab.project(Version::One);
    let rendered = project.render(&vars("v1"), &never).unwrap();
    project.pull(&rendered, Duration::from_secs(30), &never).unwrap();
    let before = project.up(&rendered, false, &never).unwrap();
    let brief = Health { timeout: Duration::from_secs(5), ..health() };
    let failure = project.wait_healthy(&rendered, &brief, &before, None, &never).unwrap_err();
    let HealthFailure::Unhealthy(reason) = failure else { panic!("{failure}") };
    assert!(reason.contains("its health check says: wget: server returned error: HTTP/1.1 404"), "{reason}");
    assert!(!project.is_healthy_now(&rendered, &brief).unwrap());
    assert!(project.evidence(&rendered).unwrap().health.contains("404"));
}

#[test]
fn a_url_must_answer_too() {
    require!("docker", "dockerd", "docker-compose", "docker-registry", "busybox");
    let lab = Lab::new();
    lab.push("v1", Behaviour::Good);
    let port = free_port();
    lab.file(&format!("    ports: [\"127.0.0.1:{port}:8080\"]\n"));
    let project = lab.project(Version::One);
    let rendered = deploy(&project, "v1").unwrap();
    let asking = |path: &str| Health {
        url: Some(format!("http://127.0.0.1:{port}/{path}")),
        timeout: Duration::from_secs(2),
        ..health()
    };
    let before = project.up(&rendered, false, &never).unwrap();
    project.wait_healthy(&rendered, &asking("health"), &before, None, &never).unwrap();
    let failure = project.wait_healthy(&rendered, &asking("nothing"), &before, None, &never).unwrap_err();
    assert!(failure.to_string().contains("answered 404 Not Found after 2."), "{failure}");
}

#[test]
fn without_readable_logs_a_container_has_no_last_words() {
    require!("docker", "dockerd", "docker-compose", "docker-registry", "busybox");
    let lab = Lab::new();
    lab.push("v1", Behaviour::Exits);
    lab.file("    logging: {driver: none}\n");
    let project = lab.project(Version::One);
    assert!(deploy(&project, "v1").is_err());
    let evidence = project.evidence(&project.render(&vars("v1"), &never).unwrap()).unwrap();
    assert_eq!((evidence.exit_code, evidence.logs.as_str()), (Some(3), ""), "{evidence}");
}
