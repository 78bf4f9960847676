//! Fetching images, and removing old ones.

use std::{
    thread,
    time::{Duration, Instant},
};

use deployctl::{compose::PullFailure, process::never};

use super::{Lab, Version, deploy, vars};
use crate::support::{Behaviour, require, run};

#[test]
fn a_tag_that_the_registry_does_not_know_is_told_from_a_registry_that_is_away() {
    require!("docker", "dockerd", "docker-compose", "docker-registry", "busybox");
    let mut lab = Lab::new();
    lab.push("v1", Behaviour::Good);
    lab.file("");
    let project = lab.project(Version::One);
    let unknown = project.render(&vars("v9"), &never).unwrap();
    let failure = project.pull(&unknown, Duration::from_secs(30), &never).unwrap_err();
    assert!(matches!(&failure, PullFailure::UnknownTag(reason) if reason.contains("app:v9")), "{failure}");

    let known = project.render(&vars("v1"), &never).unwrap();
    assert_eq!(project.image_present(known.image()).unwrap(), None);
    lab.registry.stop();
    let failure = project.pull(&known, Duration::from_secs(3), &never).unwrap_err();
    assert!(matches!(&failure, PullFailure::Other(e) if format!("{e:#}").contains("refused")), "{failure}");

    // Away for a while only.
    thread::scope(|scope| {
        let pull = scope.spawn(|| project.pull(&known, Duration::from_secs(30), &never));
        lab.registry.resume();
        pull.join().unwrap().unwrap();
    });
    assert!(project.image_present(known.image()).unwrap().is_some());
    let stopped = project.pull(&unknown, Duration::from_secs(30), &|| true).unwrap_err();
    assert!(matches!(stopped, PullFailure::Other(_)), "{stopped}");
}

#[test]
fn an_image_for_other_platforms_is_told_at_once() {
    require!("docker", "dockerd", "docker-compose", "docker-registry", "busybox");
    let lab = Lab::new();
    lab.push("v1", Behaviour::Good);
    let (list, image) = (format!("{}:v2", lab.image()), format!("{}:v1", lab.image()));
    let home = lab.scope.subdir("docker-home");
    for args in [
        &["create", "--insecure", &list, &image][..],
        &["annotate", "--os", "linux", "--arch", "s390x", &list, &image],
        &["push", "--insecure", &list],
    ] {
        run(lab.engine.command(&[&["manifest"], args].concat()).env("DOCKER_CONFIG", &home)).ok();
    }
    lab.file("");
    let project = lab.project(Version::One);
    let rendered = project.render(&vars("v2"), &never).unwrap();
    let begun = Instant::now();
    let failure = project.pull(&rendered, Duration::from_secs(60), &never).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(20), "{failure} after {:?}", begun.elapsed());
    let text = failure.to_string();
    assert!(text.contains("has no image for linux/") && text.contains("has: linux/s390x"), "{text}");
}

#[test]
fn old_images_go_but_not_the_ones_in_use() {
    require!("docker", "dockerd", "docker-compose", "docker-registry", "busybox");
    let lab = Lab::new();
    lab.file("");
    let project = lab.project(Version::One);
    for tag in ["v1", "v2", "v3", "v4"] {
        lab.push(tag, Behaviour::Good);
        let rendered = project.render(&vars(tag), &never).unwrap();
        project.pull(&rendered, Duration::from_secs(30), &never).unwrap();
    }
    let first = deploy(&project, "v1").unwrap();
    let second = project.render(&vars("v2"), &never).unwrap();
    let previous = project.image_present(second.image()).unwrap().unwrap();
    project.prune(&first, 1, &[previous]).unwrap();
    let left = lab.engine.docker(&["images", "--format", "{{.Tag}}", &lab.image()]);
    let mut left: Vec<&str> = left.lines().collect();
    left.sort_unstable();
    // The two newest may be of the same second.
    assert!(left.len() == 3 && left.starts_with(&["v1", "v2"]), "{left:?}");
}

#[test]
fn going_back_needs_no_registry() {
    require!("docker", "dockerd", "docker-compose", "docker compose", "docker-registry", "busybox");
    for version in [Version::One, Version::Two] {
        let mut lab = Lab::new();
        // Version 1 does not know it, and pulls nothing that is here.
        lab.file(if matches!(version, Version::Two) { "    pull_policy: always\n" } else { "" });
        let project = lab.project(version);
        lab.push("v1", Behaviour::Good);
        lab.push("v2", Behaviour::Good);
        let first = deploy(&project, "v1").unwrap();
        deploy(&project, "v2").unwrap();
        lab.registry.stop();
        project.up(&first, false, &never).unwrap();
        assert!(project.runs(&first).unwrap(), "{version:?}");
    }
}
