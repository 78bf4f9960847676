//! The wait for a container that works.

use std::{path::PathBuf, time::Duration};

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

#[test]
fn a_url_with_a_certificate_of_one_s_own_is_asked_by_ca_file() {
    require!("docker", "dockerd", "docker-compose", "docker-registry", "busybox", "openssl");
    let lab = Lab::new();
    let (key, certificate) = (lab.scope.dir().join("key.pem"), lab.scope.dir().join("ca.pem"));
    let made = lab
        .scope
        .command("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
        .args([
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=box",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
        ])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let port = free_port();
    let mut serve = lab.scope.command("openssl");
    serve.args(["s_server", "-www", "-quiet", "-accept"]).arg(format!("127.0.0.1:{port}"));
    serve.arg("-key").arg(&key).arg("-cert").arg(&certificate);
    let mut server = lab.scope.start("tls", &mut serve);
    server.wait_ready(Duration::from_secs(20), || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());

    lab.file("");
    let project = lab.project(Version::One);
    lab.push("v1", Behaviour::Good);
    let rendered = deploy(&project, "v1").unwrap();
    let with = |ca_file: Option<PathBuf>| {
        let health = Health { url: Some(format!("https://127.0.0.1:{port}/")), ca_file, ..health() };
        project.is_healthy_now(&rendered, &health).unwrap()
    };
    assert!(with(Some(certificate)), "{}", server.log());
    assert!(!with(None), "a certificate that nobody vouches for was taken");
}

#[test]
fn a_health_check_s_start_period_is_honoured() {
    require!("docker", "dockerd", "docker-compose", "docker-registry", "busybox");
    let lab = Lab::new();
    // It fails for longer than the time-out, as its author says it may.
    let works_from = jiff::Timestamp::now().as_second() + 15;
    lab.file(&format!(
        "    healthcheck:\n      test: [CMD, /bin/busybox, sh, -c, \"test $$(/bin/busybox date +%s) -ge {works_from}\"]\n      \
         interval: 1s\n      retries: 1\n      start_period: 60s\n"
    ));
    let project = lab.project(Version::One);
    lab.push("v1", Behaviour::Good);
    let rendered = project.render(&vars("v1"), &never).unwrap();
    project.pull(&rendered, Duration::from_secs(30), &never).unwrap();
    let before = project.up(&rendered, false, &never).unwrap();
    let health = Health { timeout: Duration::from_secs(3), ..health() };
    project.wait_healthy(&rendered, &project.with_patience(&health), &before, None, &never).unwrap();
}
